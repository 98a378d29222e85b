from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.errors import HostError
from lab.machines import emulator
from lab.store import Home


@pytest.fixture
def wrapper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wrapper around a QEMU that prints what it was given."""
    qemu = tmp_path / "qemu"
    qemu.write_text('#!/bin/sh\necho "FAKETIME=$FAKETIME PRELOAD=${LD_PRELOAD:+set} $@"\n')
    qemu.chmod(0o755)
    monkeypatch.setattr(emulator.process, "find", lambda _program: str(qemu))
    monkeypatch.setattr(emulator, "find_library", lambda: Path("/dev/null"))
    return emulator.write_wrapper(Home(tmp_path))


def run(wrapper: Path, **variables: str) -> str:
    return subprocess.run(
        [wrapper, "-version"], env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True, text=True, check=True
    ).stdout


def test_without_a_rate_it_is_plain_qemu(wrapper: Path) -> None:
    assert run(wrapper) == "FAKETIME= PRELOAD= -version\n"


def test_the_offset_puts_every_start_on_one_timeline(wrapper: Path) -> None:
    out = run(wrapper, KLAB_EPOCH="1000000000.5", KLAB_RATE="0.25")
    offset, rate = out.split("FAKETIME=")[1].split(" PRELOAD")[0].split()
    assert rate == "x0.25"
    now = float(subprocess.run(["/usr/bin/date", "+%s.%N"], capture_output=True, text=True).stdout)
    assert now + float(offset) == pytest.approx(emulator.dilated_time(now, 1000000000.5, 0.25), abs=30)
    assert "PRELOAD=set" in out


def test_an_epoch_in_the_future_gives_an_offset_with_a_sign(wrapper: Path) -> None:
    assert "FAKETIME=+" in run(wrapper, KLAB_EPOCH="99999999999", KLAB_RATE="0.5")


def test_time_never_runs_backwards() -> None:
    times = [emulator.dilated_time(now, 100.0, 0.3) for now in (100.0, 101.0, 500.0)]
    assert times == sorted(times)
    assert times[0] == 100.0


def test_an_unchanged_wrapper_is_not_written_again(wrapper: Path, tmp_path: Path) -> None:
    before = wrapper.stat().st_mtime_ns
    emulator.write_wrapper(Home(tmp_path))
    assert wrapper.stat().st_mtime_ns == before


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "fast", ""])
def test_a_rate_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAB_DILATION", text)
    with pytest.raises(HostError, match="KLAB_DILATION"):
        emulator.wanted_rate(0.3)


def test_the_environment_sets_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAB_DILATION", "0.5")
    assert emulator.wanted_rate(0.3) == 0.5
    monkeypatch.delenv("KLAB_DILATION")
    assert emulator.wanted_rate(0.3) == 0.3


def test_a_closed_folder_on_the_way_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    with pytest.raises(HostError) as caught:
        emulator.check_reachable(closed / "wrapper")
    assert f"closed to others: {closed}" in caught.value.details
