from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab import process
from lab.disks.seed_iso import write_iso

FILES = {"user-data": "#cloud-config\n", "meta-data": "instance-id: x\n", "network-config": "version: 2\n"}

pytestmark = pytest.mark.skipif(not process.have("xorriso"), reason="needs xorriso")


def test_the_same_files_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_iso(FILES, tmp_path / "a.iso")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    os.utime(tmp_path, (1, 1))
    write_iso(dict(reversed(FILES.items())), tmp_path / "b.iso")
    assert (tmp_path / "a.iso").read_bytes() == (tmp_path / "b.iso").read_bytes()


def test_only_its_owner_reads_it(tmp_path: Path) -> None:
    write_iso(FILES, tmp_path / "seeds" / "a.iso")
    assert (tmp_path / "seeds" / "a.iso").stat().st_mode & 0o777 == 0o600


def test_names_and_label_are_what_cloud_init_looks_for(tmp_path: Path) -> None:
    write_iso(FILES, tmp_path / "a.iso")
    argv = [process.find("xorriso"), "-indev", str(tmp_path / "a.iso"), "-toc", "-find", "/", "-type", "f"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert "cidata" in done.stdout + done.stderr
    for name in FILES:
        assert f"'/{name}'" in done.stdout
