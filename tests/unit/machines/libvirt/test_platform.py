"""What saved RAM depends on: an upgrade of QEMU is no obstacle, what it cannot load is named."""

from __future__ import annotations

from dataclasses import dataclass, field

import libvirt
import libvirt_qemu
import pytest

from lab.machines.libvirt import platform

# Written by hand in the form of libvirt 11.3 and QEMU 10.0: a definition, the same while it runs, the monitor's answer.
INACTIVE = """<domain type='kvm'><os><type arch='x86_64' machine='pc-q35-10.0'>hvm</type></os>
<cpu mode='host-model' check='partial'/></domain>"""
LIVE = """<domain type='kvm'><os><type arch='x86_64' machine='pc-q35-10.0'>hvm</type></os>
<cpu mode='custom' match='exact' check='full'><model fallback='forbid'>EPYC-Rome</model><vendor>AMD</vendor>
<feature policy='require' name='x2apic'/><feature policy='disable' name='svm'/></cpu></domain>"""
TOLD = '{"return":{"qemu":{"micro":2,"minor":0,"major":10},"package":"Debian 1:10.0.2+ds-2"},"id":"libvirt-9"}'
SAVED = {"QEMU": "10.0.2", "virtualization": "kvm", "machine type": "pc-q35-10.0", "CPU model": "host-model"}
# Transcribed from libvirt 11.3: src/cpu/cpu_x86.c (x86Compute), src/qemu/qemu_capabilities.c.
LACKS = "the CPU is incompatible with host CPU: Host CPU does not provide required features: "
FEATURES = f"{LACKS}avx2, rdseed"
NO_MACHINE = "invalid argument: the machine 'pc-q35-3.1' is not supported by emulator '/usr/bin/qemu-system-x86_64'"
NO_KVM = "invalid argument: KVM is not supported by '/usr/bin/qemu-system-x86_64' on this host"


def refusal(code: int, text: str) -> libvirt.libvirtError:
    error = libvirt.libvirtError(text)
    error.err = (code, libvirt.VIR_FROM_CPU, text, 2, text, None, None, -1, -1)
    return error


@dataclass
class Connection:
    """A libvirt whose QEMU is of that version; `cpu` is the code and text of its refusal of a CPU.

    `lacks` are features that it says its host has not.
    """

    version: int = 10_000_013
    machines: tuple[str | None, ...] = ("pc-q35-10.0", None)
    kinds: tuple[str, ...] = ("kvm", "qemu")
    models: tuple[str, ...] = ("Haswell-noTSX", "qemu64")
    cpu: tuple[int, str] | None = None
    lacks: tuple[str, ...] = ()
    compared: list[str] = field(default_factory=list)

    def getVersion(self) -> int:  # noqa: N802 - libvirt's name
        return self.version

    def getDomainCapabilities(self, *, arch: str, machine: str | None, virttype: str) -> str:  # noqa: N802
        assert arch == "x86_64"
        if machine not in self.machines:
            raise refusal(libvirt.VIR_ERR_INVALID_ARG, NO_MACHINE)
        if virttype not in self.kinds:
            raise refusal(libvirt.VIR_ERR_INVALID_ARG, NO_KVM)
        models = "".join(f"<model usable='yes'>{model}</model>" for model in self.models)
        return (
            f"<domainCapabilities><cpu><mode name='custom' supported='yes'>{models}</mode></cpu></domainCapabilities>"
        )

    def compareHypervisorCPU(  # noqa: N802
        self, emulator: str | None, arch: str, machine: str, kind: str, cpu: str, flags: int
    ) -> int:
        assert (emulator, arch, kind) == (None, "x86_64", "kvm")
        assert flags == libvirt.VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE
        self.compared.append(cpu)
        lacking = [name for name in self.lacks if f'policy="disable" name="{name}"' not in cpu]
        if lacking:
            raise refusal(libvirt.VIR_ERR_CPU_INCOMPATIBLE, f"{LACKS}{', '.join(lacking)}")
        if self.cpu:
            raise refusal(*self.cpu)
        return libvirt.VIR_CPU_COMPARE_SUPERSET


@dataclass
class Domain:
    active: bool = True

    def name(self) -> str:
        return "klab-demo_cp1"

    def isActive(self) -> bool:  # noqa: N802
        return self.active

    def XMLDesc(self, flags: int = 0) -> str:  # noqa: N802
        return INACTIVE if flags or not self.active else LIVE


def problems(connection: Connection, **changes: str) -> list[str]:
    return platform.problems(connection, "w1", SAVED | changes)


@pytest.fixture
def monitor(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the monitor answers, one answer each time; it refuses when there is none."""
    answers = [TOLD]

    def ask(_domain: Domain, _command: str, _flags: int) -> str:
        if not answers:
            raise refusal(libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running")
        return answers.pop()

    monkeypatch.setattr(libvirt_qemu, "qemuMonitorCommand", ask)
    return answers


def test_a_running_machine_is_described_by_its_own_process(monitor: list[str]) -> None:
    """QEMU has been upgraded since the machine was started; its definition says no more than `host-model`."""
    told = platform.describe(Connection(), Domain())
    cpu = told.pop("CPU")
    assert told == SAVED
    assert '<model fallback="forbid">EPYC-Rome</model>' in cpu
    assert '<feature policy="require" name="x2apic" />' in cpu
    assert platform.problems(Connection(), "w1", {**told, "CPU": cpu}) == []


def test_what_kvm_adds_by_itself_is_no_obstacle(monitor: list[str]) -> None:
    """Recorded on KVM on an EPYC without topoext: of a machine that runs there libvirt says that its CPU cannot."""
    host = Connection(lacks=("topoext", "x2apic"))
    told = platform.describe(host, Domain())
    assert '<feature policy="require" name="x2apic" />' not in told["CPU"]
    assert '<feature policy="disable" name="svm" />' in told["CPU"]
    assert platform.problems(host, "w1", told) == []
    other = Connection(lacks=("topoext", "x2apic", "avx2"))
    assert platform.problems(other, "w1", told) == [
        f"the RAM of w1 was saved with a CPU that this host does not have: {LACKS}avx2"
    ]


def test_a_cpu_that_cannot_be_judged_is_not_noted(monitor: list[str]) -> None:
    odd = Connection(cpu=(libvirt.VIR_ERR_CPU_INCOMPATIBLE, "the CPU is incompatible with host CPU"))
    assert "CPU" not in platform.describe(odd, Domain())


def test_what_the_monitor_does_not_tell_is_that_of_the_installed_one(monitor: list[str]) -> None:
    for monitor[:] in ([], ["nothing"], ['{"return": {"qemu": {"major": "ten"}}}']):
        assert platform.describe(Connection(), Domain())["QEMU"] == "10.0.13"
    assert platform.describe(Connection(), Domain(active=False)) == {**SAVED, "QEMU": "10.0.13"}


@pytest.mark.parametrize(
    ("here", "older"),
    [
        (10_000_013, False),
        (10_000_002, False),
        (11_001_000, False),
        (10_000_001, True),
        (9_002_050, True),
        (7_002_000, True),
    ],
)
def test_only_an_older_qemu_is_refused(here: int, older: bool) -> None:
    lines = problems(Connection(version=here))
    assert bool(lines) == older
    if older:
        version = platform.installed(Connection(version=here))
        assert lines == [f"the RAM of w1 was saved with QEMU 10.0.2, here it is {version}, which is older"]


def test_a_machine_type_or_virtualization_that_is_not_offered_is_named() -> None:
    (line,) = problems(Connection(), **{"machine type": "pc-q35-3.1"})
    assert "machine type pc-q35-3.1, which are not offered here" in line
    assert NO_MACHINE in line
    (line,) = problems(Connection(kinds=("qemu",)))
    assert NO_KVM in line
    assert problems(Connection(kinds=("qemu",)), virtualization="qemu") == []


def test_missing_features_of_the_cpu_are_named() -> None:
    connection = Connection(cpu=(libvirt.VIR_ERR_CPU_INCOMPATIBLE, FEATURES))
    assert problems(connection, CPU="<cpu/>") == [
        f"the RAM of w1 was saved with a CPU that this host does not have: {FEATURES}"
    ]
    assert connection.compared == ["<cpu/>"]
    # A libvirt that cannot compare leaves it to the restore itself.
    assert problems(Connection(cpu=(libvirt.VIR_ERR_NO_SUPPORT, "this function is not supported")), CPU="<cpu/>") == []


def test_an_emulated_cpu_needs_its_model_and_no_processor() -> None:
    connection = Connection(cpu=(libvirt.VIR_ERR_CPU_INCOMPATIBLE, FEATURES))
    emulated = {"virtualization": "qemu", "CPU model": "Haswell-noTSX", "CPU": "<cpu/>"}
    assert problems(connection, **emulated) == []
    assert connection.compared == []
    assert problems(connection, **emulated | {"CPU model": "i486"}) == [
        "the RAM of w1 was saved with CPU model i486, which QEMU does not offer here"
    ]


def test_what_an_older_klab_noted_is_read() -> None:
    """Without the CPU itself; and one that noted nothing at all."""
    assert problems(Connection(cpu=(libvirt.VIR_ERR_CPU_INCOMPATIBLE, FEATURES))) == []
    assert platform.problems(Connection(), "w1", {}) == []
