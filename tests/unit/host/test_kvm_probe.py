from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.errors import HostError, MachineError, ProgramTimeout
from lab.host import kvm_probe, probe_guest
from lab.host.emulation import pace
from lab.host.kvm_probe import HARDWARE_HINT, Acceleration, OwnQemu, acceleration, probe_host, refused
from lab.host.profile import REAL_TIME, Obstacle
from lab.store import Home

OVERDUE = Obstacle("it did not end", HARDWARE_HINT, overdue=True)
RIGHTS = Obstacle("it may not be opened", "join the group")
# What QEMU 10.0 says while VirtualBox runs a machine (accel/kvm/kvm-all.c; transcribed).
BUSY = refused("failed to initialize kvm: Device or resource busy")


@dataclass
class Host:
    """A host: what keeps KVM from running a guest, how long emulation takes, and how often each was asked."""

    obstacle: Obstacle | None = None
    emulation: float = 1.5
    qemu: str = "QEMU emulator version 10"
    asked: list[str] = field(default_factory=list)

    def version(self) -> str:
        return self.qemu

    def find_obstacle(self) -> Obstacle | None:
        self.asked.append("kvm")
        return self.obstacle

    def run_guest(self, accelerator: str, rounds: int, _limit: float) -> float:
        self.asked.append(accelerator)
        return self.emulation if rounds > 1 else self.emulation - 1.0


@dataclass
class Kvm:
    host: Host

    def version(self) -> str:
        return self.host.version()

    def obstacle(self) -> Obstacle | None:
        return self.host.find_obstacle()


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Acceleration]:
    """Asks one host after another, as commands in one home do."""
    monkeypatch.setattr(pace, "run_here", lambda _rounds: 0.1)

    def asking(host: Host, *, again: bool = False) -> Acceleration:
        host.asked.clear()
        monkeypatch.setattr(pace, "run_guest", host.run_guest)
        return acceleration(Home(tmp_path), Kvm(host), again=again)

    return asking


def kept(tmp_path: Path, **changes: object) -> None:
    file = tmp_path / "host.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_kvm_that_runs_a_guest_is_real_time(ask: Callable[..., Acceleration], tmp_path: Path) -> None:
    host = Host()
    assert ask(host) == Acceleration(None, 1.0)
    assert probe_host(Home(tmp_path), Kvm(host)) == REAL_TIME


def test_kvm_that_hangs_is_emulation_with_a_measured_factor(
    ask: Callable[..., Acceleration], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(OVERDUE)
    assert ask(host) == Acceleration(OVERDUE, 10.0)
    monkeypatch.delenv("KLAB_DILATION", raising=False)
    monkeypatch.setattr(pace, "ensure_library", lambda _home: tmp_path)
    profile = probe_host(Home(tmp_path), Kvm(host), 6)
    assert (profile.accelerated, profile.dilation) == (False, 0.3)
    assert profile.obstacle is not None
    assert profile.obstacle.why == OVERDUE.why


def test_what_was_seen_is_kept_until_the_host_or_qemu_changes(ask: Callable[..., Acceleration], tmp_path: Path) -> None:
    host = Host()
    ask(host)
    ask(host)
    assert host.asked == []
    ask(Host(qemu="QEMU emulator version 9"))
    for damage in ({"boot": "another"}, {"qemu": "another"}, {"factor": 0}, {"factor": "1"}):
        kept(tmp_path, **damage)
        ask(host)
        assert host.asked == ["kvm"], damage
    (tmp_path / "host.json").write_text("{")
    ask(host)
    assert host.asked == ["kvm"]


def test_a_kvm_that_was_seen_to_be_slower_than_emulation_is_not_tried_at_each_command(
    ask: Callable[..., Acceleration],
) -> None:
    host = Host(OVERDUE)
    ask(host)
    assert host.asked == ["kvm", "tcg", "tcg"]
    found = ask(host)
    assert host.asked == []
    assert found.obstacle is not None
    assert (found.obstacle.why, found.obstacle.hint, found.factor) == (OVERDUE.why, OVERDUE.hint, 10.0)


@pytest.mark.parametrize(
    "host",
    [Host(RIGHTS), Host(BUSY), Host(refused("Could not access KVM kernel module")), Host(OVERDUE, emulation=9.0)],
    ids=["rights", "busy", "module", "a host that was busy itself"],
)
def test_what_may_pass_is_asked_each_time_and_the_factor_kept(host: Host, ask: Callable[..., Acceleration]) -> None:
    ask(host)
    found = ask(host)
    assert host.asked[0] == "kvm"
    assert found.obstacle == host.obstacle
    assert ("tcg" in host.asked) == (host.obstacle == OVERDUE), "only to see whether the host is quicker now"
    assert ask(Host()) == Acceleration(None, 1.0)


def test_doctor_asks_again_whatever_is_known(ask: Callable[..., Acceleration]) -> None:
    host = Host(OVERDUE)
    ask(host)
    assert ask(Host(), again=True) == Acceleration(None, 1.0)
    assert ask(host).obstacle is None, "that is known now"
    assert ask(host, again=True).obstacle == OVERDUE


@pytest.mark.parametrize("accelerated", [True, False])
def test_what_an_older_klab_has_kept_is_read_but_not_its_refusals(
    accelerated: bool, ask: Callable[..., Acceleration], tmp_path: Path
) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    older = {"boot": boot, "qemu": Host().qemu, "accelerated": accelerated, "factor": 12.5, "why": "may not be used"}
    (tmp_path / "host.json").write_text(json.dumps(older))
    host = Host(None if accelerated else RIGHTS)
    assert ask(host) == Acceleration(host.obstacle, 1.0 if accelerated else 12.5)
    assert host.asked == ([] if accelerated else ["kvm"])


def test_a_lab_is_not_made_emulated_for_good_because_virtualbox_runs_a_machine(
    ask: Callable[..., Acceleration], tmp_path: Path
) -> None:
    host = Host(BUSY)
    ask(host)
    with pytest.raises(HostError, match="at the moment") as caught:
        probe_host(Home(tmp_path), Kvm(host))
    assert "VirtualBox" in caught.value.hint


def test_emulation_without_the_slower_clock_is_refused_unless_real_time_is_asked_for(
    ask: Callable[..., Acceleration], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(Host(OVERDUE))

    def missing(_home: Home) -> Path:
        raise HostError("it is not installed")

    monkeypatch.setattr(pace, "ensure_library", missing)
    monkeypatch.delenv("KLAB_DILATION", raising=False)
    with pytest.raises(HostError, match="it is not installed"):
        probe_host(Home(tmp_path), Kvm(Host(OVERDUE)))
    monkeypatch.setenv("KLAB_DILATION", "1")
    assert probe_host(Home(tmp_path), Kvm(Host(OVERDUE))).dilation == 1.0


# --- a QEMU of klab's own -----------------------------------------------------------------------------------


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kvm_probe, "KVM", tmp_path / "kvm")
    monkeypatch.setattr(kvm_probe, "run_guest", lambda *_: 0.5)
    return tmp_path / "kvm"


def test_no_device_is_told_by_what_the_processor_has(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus = tmp_path / "cpuinfo"
    monkeypatch.setattr(kvm_probe, "CPUS", cpus)
    cpus.write_text("processor : 0\nflags\t\t: fpu vmx sse\n")
    found = OwnQemu().obstacle()
    assert found is not None
    assert found.hint == "sudo modprobe kvm_intel"
    cpus.write_text("flags : fpu sse vmxoff\n")
    found = OwnQemu().obstacle()
    assert found is not None
    assert "BIOS" in found.hint


def test_each_way_in_which_the_guest_may_end(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device.touch()
    assert OwnQemu().obstacle() is None

    def ending(error: Exception) -> Obstacle | None:
        def run(*_: object) -> float:
            raise error

        monkeypatch.setattr(kvm_probe, "run_guest", run)
        return OwnQemu().obstacle()

    late, busy = ending(ProgramTimeout("did not end")), ending(MachineError("ended", details=[BUSY.why]))
    assert late is not None
    assert (late.overdue, late.taken) == (True, False)
    assert busy is not None
    assert (busy.overdue, busy.taken) == (False, True)


def test_a_device_that_this_user_may_not_open(device: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device.touch()
    monkeypatch.setattr(kvm_probe.os, "access", lambda *_: False)
    found = OwnQemu().obstacle()
    assert found is not None
    assert "usermod -aG kvm" in found.hint


# --- the guest and the clocks -------------------------------------------------------------------------------


def test_the_guest_is_one_sector_that_a_bios_boots() -> None:
    sector = probe_guest.boot_sector(probe_guest.ROUNDS)
    assert (len(sector), sector[-2:]) == (512, b"\x55\xaa")


def test_the_work_runs_natively() -> None:
    assert probe_guest.run_here(1000) > 0


def test_many_guests_on_few_cores_get_slower_clocks() -> None:
    assert pace.pace(6, 2) == 0.3
    assert pace.pace(8, 2) == 0.17
    assert pace.pace(10, 2) == 0.11
    assert pace.pace(10, 16) == 0.3
    assert pace.pace(0, 2) == 0.3
