"""What people install: the wheel, without libvirt's headers, used from another folder than the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIP = (sys.executable, "-m", "pip")


def run(*command: str | Path, cwd: Path) -> str:
    # The checkout must not be found by accident.
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "KLAB"))} | {"KLAB_HOME": str(cwd / "h")}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT, cwd=folder)
    return next(folder.glob("klab-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with klab in it."""
    venv = tmp_path_factory.mktemp("elsewhere") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", venv, cwd=venv.parent)
    # The versions of the lock, so that pip's cache has them since `make install`.
    pins = venv.parent / "pins.txt"
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    pins.write_text("\n".join(line.removesuffix(" \\") for line in lock if line[:1].isalnum()))
    run(*PIP, "--python", venv, "install", "-q", "--no-compile", "-c", pins, wheel, cwd=venv.parent)
    return venv / "bin"


def test_the_wheel_carries_what_klab_ships(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = [p for folder in ("boxes", "scenarios") for p in (ROOT / folder).rglob("*") if p.is_file()]
    for file in (*shipped, ROOT / "Vagrantfile.j2"):
        if "__pycache__" not in file.parts:
            assert f"lab/data/{file.relative_to(ROOT)}" in names


def test_the_wheel_carries_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lab"}


def test_installed_it_plans_from_another_folder(installed: Path, tmp_path: Path) -> None:
    found = json.loads(run(installed / "klab", "plan", "1m2w", "--json", cwd=tmp_path))
    assert [node["name"] for node in found["plan"]["nodes"]] == ["cp1", "w1", "w2"]


def test_installed_it_finds_its_scenarios_boxes_and_template(installed: Path, tmp_path: Path) -> None:
    scenarios = json.loads(run(installed / "klab", "scenarios", "--json", cwd=tmp_path))
    assert {s["name"] for s in scenarios} == {p.stem for p in (ROOT / "scenarios").glob("*.yaml")}
    for scenario in scenarios:
        assert Path(scenario["path"]).is_relative_to(installed.parent)
    code = "from lab import resources; print(resources.path('Vagrantfile.j2')); print(resources.path('boxes'))"
    for line in run(installed / "python", "-c", code, cwd=tmp_path).splitlines():
        assert Path(line).is_relative_to(installed.parent)


def test_it_installs_without_libvirt(installed: Path, tmp_path: Path) -> None:
    packages = run(*PIP, "--python", installed.parent, "list", "--format", "freeze", cwd=tmp_path)
    assert "urllib3==" in packages
    assert "libvirt-python" not in packages
    assert "klab" in run(installed / "klab", "--version", cwd=tmp_path)
