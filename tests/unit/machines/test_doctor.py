from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab import packages
from lab.cli.commands.doctor import command
from lab.errors import HostError
from lab.host.capacity import DiskRoom, HostFacts
from lab.host.kvm_probe import Acceleration
from lab.host.profile import Obstacle
from lab.machines import doctor
from lab.machines.doctor import Finding
from lab.store import Home

MISSING = Finding("vagrant", ok=False, seen="vagrant is not installed", hint="sudo apt-get install vagrant")
NOTE = Finding("boxes", ok=False, seen="no box has been built yet", hint="klab box build", fatal=False)
FINE = Finding("disk", ok=True, seen="50.0 GiB free")


def run(monkeypatch: pytest.MonkeyPatch, findings: list[Finding], *words: str) -> tuple[int, str]:
    monkeypatch.setattr(doctor, "examine", lambda _home: iter(findings))
    result = CliRunner().invoke(command, list(words))
    return result.exit_code, result.output


def test_something_needed_that_is_missing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(monkeypatch, [FINE, MISSING])
    assert code == HostError.exit_code
    assert "MISSING" in output
    assert "sudo apt-get install vagrant" in output


def test_a_note_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(monkeypatch, [FINE, NOTE])
    assert code == 0
    assert "MISSING" not in output
    assert "klab box build" in output


def test_one_line_installs_all_that_is_missing_and_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = {
        "vagrant": "vagrant vagrant-libvirt",
        "plugin vagrant-libvirt": "vagrant-libvirt",
        "ssh": "openssh-client",
    }
    missing = [
        Finding(name, ok=False, seen=f"{name} is not installed", hint=f"sudo apt-get install {packages}")
        for name, packages in programs.items()
    ]
    advice = "sudo apt-get install libvirt-daemon-system; then log in again"
    daemon = Finding("libvirtd", ok=False, seen="no system libvirtd answers", hint=advice)
    _, output = run(monkeypatch, [NOTE, *missing, daemon, FINE])
    assert output.partition("\n\n")[2].splitlines() == [
        "vagrant, plugin vagrant-libvirt, ssh: sudo apt-get install vagrant vagrant-libvirt openssh-client",
        "",
        f"libvirtd: {advice}",
        "",
        "boxes: klab box build",
        "",
        "no lab can run on this machine yet; it lacks: vagrant, plugin vagrant-libvirt, ssh, libvirtd",
    ]


def test_a_machine_that_lacks_nothing_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, [FINE])[1].splitlines()[-1] == "this machine can run labs"
    assert run(monkeypatch, [FINE, NOTE])[1].splitlines()[-1] == "this machine can run labs"


def test_json_holds_every_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(monkeypatch, [FINE, MISSING], "--json")
    assert code == HostError.exit_code
    assert [(f["name"], f["ok"]) for f in json.loads(output)] == [("disk", True), ("vagrant", False)]


ROOM = HostFacts(memory=8192, cpus=4, disks=DiskRoom(Path("/"), 50 << 30, "KLAB_HOME moves it"), routes=())
NOTHING_MISSING: dict[str, Any] = {
    "libvirt_here": lambda: True,
    "virtualbox": None,
    "find": lambda program: f"/usr/bin/{program}",
    "plugins": lambda: {"vagrant-libvirt"},
    "libvirt_python": lambda: "11003000",
    "system_libvirtd": lambda: False,
    "user": lambda: 0,
    "firewalls": lambda: "",
    "acceleration": lambda _home: Acceleration(None, 1.0),
    "facts": lambda _home: ROOM,
    "machine_disks": lambda _home: replace(ROOM.disks, elsewhere="a pool moves them"),
}


def found(home: Path, **host: Any) -> dict[str, Finding]:
    """What is found on a host where nothing is missing but what is said here."""
    return {each.name: each for each in doctor.examine(doctor.Probes(Home(home), **(NOTHING_MISSING | host)))}


def test_a_host_where_nothing_is_missing(tmp_path: Path) -> None:
    findings = found(tmp_path)
    assert [name for name, finding in findings.items() if not finding.ok] == ["boxes"]
    assert findings["vagrant"].seen == "/usr/bin/vagrant"
    assert findings["memory"].seen == "8.0 GiB free"


@pytest.mark.parametrize("missing", [*doctor.PROGRAMS, "libvirtd", "dnsmasq"])
def test_a_missing_program_is_found_with_its_package(missing: str, tmp_path: Path) -> None:
    def find(program: str) -> str:
        if program == missing:
            raise HostError(f"{program} is not installed", hint=f"sudo apt-get install {program}")
        return program

    findings = found(tmp_path, find=find)
    name = missing if missing in findings else "libvirtd"
    assert [each.name for each in findings.values() if not each.ok and each.fatal] == [name]
    assert findings[name].hint == f"sudo apt-get install {missing}"


def test_a_missing_plugin_and_what_a_person_without_rights_can_do(tmp_path: Path) -> None:
    findings = found(tmp_path, plugins=set, user=lambda: 1000)
    assert findings["plugin vagrant-libvirt"].hint == packages.PLUGIN_HINT
    assert "usermod -aG libvirt" in findings["libvirtd"].hint


def test_a_host_without_hardware_virtualization_or_room(tmp_path: Path) -> None:
    small = replace(ROOM, memory=1024, disks=replace(ROOM.disks, free=5 << 30))
    findings = found(
        tmp_path,
        acceleration=lambda _home: Acceleration(Obstacle("no KVM", "switch it on"), 12.5),
        facts=lambda _home: small,
        machine_disks=lambda _home: DiskRoom(Path("/var/lib/libvirt/images"), 1 << 30, "a pool moves them"),
    )
    assert findings["hardware virtualization"].seen == "no KVM; guests are emulated, plain arithmetic 12.5 times slower"
    assert findings["hardware virtualization"].hint == "switch it on"
    for name in ("hardware virtualization", "memory", "disk for boxes", "disk for machines"):
        assert not findings[name].ok
        assert findings[name].hint
        assert not findings[name].fatal
    assert "KLAB_HOME" in findings["disk for boxes"].hint
    assert "a pool moves them" in findings["disk for machines"].hint
    assert "/var/lib/libvirt/images" in findings["disk for machines"].seen


def test_what_emulation_needs_is_a_matter_of_emulation_and_of_rights(tmp_path: Path) -> None:
    def missing(_home: Home) -> Path:
        raise HostError("it is not installed", hint="sudo install")

    name, slow = "slower clocks for emulation", Acceleration(Obstacle("no KVM", "switch it on"), 12.5)
    assert found(tmp_path, slow_clock=missing)[name].seen == "not needed"
    assert found(tmp_path, slow_clock=missing, acceleration=lambda _home: slow)[name].ok, "root installs it"
    theirs = found(tmp_path, slow_clock=missing, acceleration=lambda _home: slow, user=lambda: 1000)[name]
    assert (theirs.ok, theirs.hint) == (False, "sudo install")


def test_looking_starts_nothing(tmp_path: Path) -> None:
    assert "private one" in found(tmp_path)["libvirtd"].seen
    assert "system libvirtd answers" in found(tmp_path, system_libvirtd=lambda: True)["libvirtd"].seen
    assert not (tmp_path / "realm").exists()


def test_firewalls_that_overrule_libvirts_are_a_note_with_a_repair(tmp_path: Path) -> None:
    overruled = {"firewalls": lambda: "libvirt's firewall rules are nftables', which ufw overrules"}
    finding = found(tmp_path, system_libvirtd=lambda: True, **overruled)["firewall"]
    assert (finding.ok, finding.fatal) == (False, False)
    assert "guests get no address" in finding.seen
    assert 'firewall_backend = "iptables"' in finding.hint
    assert found(tmp_path, **overruled)["firewall"].ok, "the private libvirt is in a network of its own"


@pytest.mark.parametrize(("kind", "ok"), [("ext4", True), ("nfs4", False), ("fuse.sshfs", False)])
def test_a_home_where_root_may_be_nobody_is_a_note(tmp_path: Path, kind: str, ok: bool) -> None:
    finding = found(tmp_path, filesystem=lambda _path: kind)["klab's folder"]
    assert (finding.ok, finding.fatal) == (ok, False)
    assert kind in finding.seen
    assert ("KLAB_HOME" in finding.hint) is not ok


def virtualbox_with(error: str = "") -> Any:
    def check() -> str:
        if error:
            raise HostError(error, hint="sudo modprobe -r kvm_intel kvm")
        return "7.0.20"

    return check


def test_virtualbox_alone_needs_nothing_of_libvirt(tmp_path: Path) -> None:
    findings = found(tmp_path, virtualbox=virtualbox_with(), libvirt_here=lambda: False, plugins=set)
    assert findings["VirtualBox"] == Finding("VirtualBox", ok=True, seen="7.0.20")
    assert not {"qemu-system-x86_64", "plugin vagrant-libvirt", "libvirtd", "libvirt-python"} & findings.keys()
    findings = found(tmp_path, virtualbox=virtualbox_with("KVM has it"), libvirt_here=lambda: False)
    assert (findings["VirtualBox"].ok, findings["VirtualBox"].fatal) == (False, True)
    assert "modprobe" in findings["VirtualBox"].hint


def test_virtualbox_beside_libvirt_is_a_note(tmp_path: Path) -> None:
    findings = found(tmp_path, virtualbox=virtualbox_with("KVM has it"))
    assert (findings["VirtualBox"].ok, findings["VirtualBox"].fatal) == (False, False)
    assert findings["libvirtd"].ok


def test_without_either_libvirt_is_what_is_missing(tmp_path: Path) -> None:
    assert not found(tmp_path, libvirt_here=lambda: False, plugins=set)["plugin vagrant-libvirt"].ok
