"""The Vagrantfiles of every shipped scenario: golden files for the reviewer, Vagrant itself as the judge.

KLAB_GOLDEN=1 pytest tests/integration/test_vagrantfile.py rewrites the golden files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lab import resources
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.render.domain import LibvirtFacts
from lab.render.emulation import SlowClock
from lab.render.vagrantfile import VirtualBoxFacts, render_libvirt, render_virtualbox, ruby_literal
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario

GOLDEN = Path(__file__).parents[1] / "golden" / "vagrantfile"
# One for each rendering, and one of another topology.
GOLDEN_FILES = ("1m2w.libvirt-kvm", "1m2w.libvirt-emulated", "1m2w.virtualbox", "ha-3m2w.libvirt-kvm")
DESCRIPTION = "klab lab 00000000-0000-4000-8000-000000000000 seat 0 epoch 1.5"
KVM = LibvirtFacts(
    box="klab/debian-13-k8s-1.35.4-0123456789ab",
    box_version="1.0.0",
    description=DESCRIPTION,
    box_pool="default",
    lab_pool="klab-00000000-0000-4000-8000-000000000000",
    seed_folder="/var/lib/libvirt/images/klab-00000000-0000-4000-8000-000000000000",
    console_folder="/var/lib/libvirt/images/klab-00000000-0000-4000-8000-000000000000/consoles",
    machine_type="pc-q35-10.0",
    accelerated=True,
)
EMULATED = replace(KVM, accelerated=False, slow_clock=SlowClock("/usr/lib/klab/slow_clock.so", epoch="1.5", rate="0.3"))
VIRTUALBOX = VirtualBoxFacts(boxes={20: "klab/debian-13-virtualbox-20g"}, description=DESCRIPTION)
RENDERINGS = {
    "libvirt-kvm": lambda plan: render_libvirt(plan, KVM),
    "libvirt-emulated": lambda plan: render_libvirt(plan, EMULATED),
    "virtualbox": lambda plan: render_virtualbox(plan, VIRTUALBOX),
}


def test_each_rendering_has_a_golden_file() -> None:
    assert {name.partition(".")[2] for name in GOLDEN_FILES} == RENDERINGS.keys()
    assert {file.stem for file in GOLDEN.iterdir()} == set(GOLDEN_FILES)


def plan_of(name: str) -> Plan:
    catalog = load_catalog()
    text = (resources.path("scenarios") / f"{name}.yaml").read_text()
    return decide(parse_scenario(text, catalog), catalog)


@pytest.mark.parametrize("name", GOLDEN_FILES)
def test_golden(name: str) -> None:
    scenario, _, kind = name.partition(".")
    text = RENDERINGS[kind](plan_of(scenario))
    file = GOLDEN / f"{name}.rb"
    if os.environ.get("KLAB_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.skipif(shutil.which("vagrant") is None, reason="needs vagrant")
@pytest.mark.parametrize("kind", RENDERINGS)
def test_vagrant_accepts_it(kind: str, tmp_path: Path) -> None:
    """The provider's own block is judged, too, except VirtualBox's: without VBoxManage Vagrant cannot load it."""
    (tmp_path / "Vagrantfile").write_text(RENDERINGS[kind](plan_of("ha-3m2w")))
    (tmp_path / "ssh").mkdir()
    (tmp_path / "ssh" / "id_ed25519").touch()
    ignore = ["--ignore-provider"] if kind == "virtualbox" else []
    environment = {**os.environ, "VAGRANT_CWD": str(tmp_path), "VAGRANT_HOME": str(tmp_path / "home")}
    environment["VAGRANT_CHECKPOINT_DISABLE"] = "1"
    provider = "libvirt" if kind != "virtualbox" else "virtualbox"
    environment["VAGRANT_DEFAULT_PROVIDER"] = provider
    done = subprocess.run(
        ["/usr/bin/vagrant", "validate", *ignore], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("ruby") is None, reason="needs ruby")
def test_ruby_reads_literals_back() -> None:
    values = ["plain", "it's", "back\\slash", "#{`id`}", "#$0", "new\nline", "\\'", "ü", 0, -3, True, False, None]
    program = "print [" + ",".join(ruby_literal(value) for value in values) + "].inspect"
    done = subprocess.run(["/usr/bin/ruby", "-e", program], capture_output=True, text=True, check=True)
    shown = subprocess.run(
        ["/usr/bin/ruby", "-rjson", "-e", "print JSON.parse(STDIN.read).inspect"],
        input=json.dumps(values),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == shown.stdout


def test_a_name_cannot_leave_its_literal() -> None:
    with pytest.raises(TypeError):
        ruby_literal(1.5)  # type: ignore[arg-type]


def test_the_header_says_where_the_file_comes_from() -> None:
    text = render_libvirt(plan_of("1m2w"), KVM)
    assert "klab made this file from scenario.yaml" in text.split("Vagrant.configure")[0]


def test_real_time_hosts_get_no_environment() -> None:
    text = render_libvirt(plan_of("1m2w"), KVM)
    assert "qemuenv" not in text
    assert "host-model" in text
