from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.errors import HostError, ProgramTimeout
from lab.host import kvm_probe, probe_guest
from lab.host.emulation import pace
from lab.process import Completed
from lab.store import Home


class Host:
    """Stands in for QEMU: which accelerator runs the guest, and how often each was asked."""

    def __init__(self, *, kvm: bool | None) -> None:
        self.kvm = kvm
        self.asked: list[str] = []

    def run_guest(self, accelerator: str, rounds: int, limit: float) -> float:
        self.asked.append(accelerator)
        if accelerator == "kvm" and not self.kvm:
            raise ProgramTimeout("did not end")
        return 0.5 if rounds == 1 else 1.5


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    def make(host: Host, *, device: bool = True) -> Home:
        kvm = tmp_path / "kvm"
        if device:
            kvm.touch()
        monkeypatch.setattr(kvm_probe, "KVM", kvm)
        for module in (kvm_probe, pace):
            monkeypatch.setattr(module, "run_guest", host.run_guest)
        monkeypatch.setattr(pace, "run_here", lambda _rounds: 0.1)
        monkeypatch.setattr(pace, "find_compiler", lambda: "gcc")
        monkeypatch.delenv("KLAB_DILATION", raising=False)
        version = Completed(("qemu",), 0, "QEMU emulator version 10\n", "")
        monkeypatch.setattr(kvm_probe.process, "run", lambda *_words, **_options: version)
        return Home(tmp_path)

    return make


def test_kvm_that_runs_a_guest_is_real_time(prepare) -> None:  # type: ignore[no-untyped-def]
    profile = kvm_probe.probe_host(prepare(Host(kvm=True)))
    assert (profile.accelerated, profile.factor, profile.dilation) == (True, 1.0, 1.0)


def test_kvm_that_hangs_is_emulation_with_a_measured_factor(prepare) -> None:  # type: ignore[no-untyped-def]
    home = prepare(Host(kvm=False))
    profile = kvm_probe.probe_host(home)
    assert (profile.accelerated, profile.factor, profile.dilation) == (False, 10.0, 0.3)
    assert "did not run" in kvm_probe.why_not_accelerated(home)


def test_no_device_is_not_tried(prepare) -> None:  # type: ignore[no-untyped-def]
    host = Host(kvm=None)
    assert not kvm_probe.probe_host(prepare(host, device=False)).accelerated
    assert "kvm" not in host.asked


def test_the_answer_is_kept_until_the_host_or_qemu_changes(prepare) -> None:  # type: ignore[no-untyped-def]
    host = Host(kvm=True)
    home = prepare(host)
    kvm_probe.probe_host(home)
    kvm_probe.probe_host(home)
    assert host.asked == ["kvm"]
    file = home.root / "host.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"qemu": "QEMU emulator version 9"}))
    kvm_probe.probe_host(home)
    assert host.asked == ["kvm", "kvm"]
    file.write_text("{")
    kvm_probe.probe_host(home)
    assert host.asked == ["kvm", "kvm", "kvm"]


def test_emulation_without_a_compiler_is_refused_unless_real_time_is_asked_for(
    prepare,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = prepare(Host(kvm=False))

    def missing() -> str:
        raise HostError("gcc is not installed")

    monkeypatch.setattr(pace, "find_compiler", missing)
    with pytest.raises(HostError, match="gcc"):
        kvm_probe.probe_host(home)
    monkeypatch.setenv("KLAB_DILATION", "1")
    assert kvm_probe.probe_host(home).dilation == 1.0


def test_the_work_runs_natively() -> None:
    assert probe_guest.run_here(1000) > 0


def test_many_guests_on_few_cores_get_slower_clocks() -> None:
    assert pace.pace(6, 2) == 0.3
    assert pace.pace(8, 2) == 0.17
    assert pace.pace(10, 2) == 0.11
    assert pace.pace(10, 16) == 0.3
    assert pace.pace(0, 2) == 0.3
