"""Whether VirtualBox can run machines here. VBoxManage's answers are the stand-in's, see `support.vboxmanage`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.vboxmanage import VirtualBox

from lab import process
from lab.errors import HostError
from lab.machines.virtualbox import host
from lab.machines.virtualbox.host import Kvm
from lab.process import Completed

DEBIAN_13 = (2, 3, 7)
NO_KVM = Kvm("", None)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What the check says of a host with that VirtualBox, Vagrant and KVM."""

    def ask(version: str = "7.0.20r163906", vagrant: str = "2.3.7", kvm: Kvm = NO_KVM, **options: object) -> str:
        virtualbox = VirtualBox.make(tmp_path / version, version, **options)

        def run(argv: Sequence[str], **_options: object) -> Completed:
            if argv[0] == "vagrant":
                return Completed(tuple(argv), 0, f"Vagrant {vagrant}\n", "")
            return Completed(tuple(argv), *virtualbox.run(argv[1:]))

        monkeypatch.setattr(process, "run", run)
        monkeypatch.setattr(host, "kvm_now", lambda: kvm)
        return host.check()

    return ask


@pytest.mark.parametrize(
    ("virtualbox", "vagrant"),
    [
        ("7.0.20r163906", "2.3.4"),
        ("7.0.20_Debianr163906", "2.3.7"),
        ("7.1.12r169651", "2.4.2"),
        ("7.2.4r170995", "2.4.9"),
        ("7.2.4r170995", "2.4.10.dev"),
        ("7.3.0r180000", "2.4.9"),
    ],
)
def test_a_vagrant_that_knows_it(asked: Callable[..., str], virtualbox: str, vagrant: str) -> None:
    assert asked(virtualbox, vagrant) == virtualbox.partition("r")[0].partition("_")[0]


@pytest.mark.parametrize(
    ("virtualbox", "vagrant", "needed", "other"),
    [
        ("7.1.12r169651", "2.3.4", "2.4.2", "7.0"),
        ("7.2.4r170995", "2.3.7", "2.4.9", "7.0"),
        ("7.2.4r170995", "2.4.5", "2.4.9", "7.1"),
    ],
)
def test_a_vagrant_that_does_not(
    asked: Callable[..., str], virtualbox: str, vagrant: str, needed: str, other: str
) -> None:
    with pytest.raises(HostError, match=f"needs Vagrant {needed}; this is {vagrant}") as caught:
        asked(virtualbox, vagrant)
    assert caught.value.hint.endswith(f"or VirtualBox {other}")


def test_an_old_one(asked: Callable[..., str]) -> None:
    with pytest.raises(HostError, match=r"6\.1\.50 is too old"):
        asked("6.1.50r161033")


def test_without_its_kernel_modules(asked: Callable[..., str]) -> None:
    with pytest.raises(HostError, match="kernel modules are not loaded") as caught:
        asked(kernel=False)
    assert "vboxdrv" in caught.value.details[0]
    assert "vboxconfig" in caught.value.hint


def test_without_hardware_virtualization(asked: Callable[..., str]) -> None:
    with pytest.raises(HostError, match="no hardware virtualization") as caught:
        asked(hardware=False)
    assert "BIOS" in caught.value.hint


@pytest.mark.parametrize(
    ("virtualbox", "kvm"),
    [
        ("7.0.20r163906", NO_KVM),
        ("7.0.20r163906", Kvm("kvm_intel", None)),  # before Linux 6.12
        ("7.0.20r163906", Kvm("kvm_intel", at_load=False)),
        ("7.2.10r173000", Kvm("kvm_amd", at_load=True)),
    ],
)
def test_kvm_that_is_in_nobodys_way(asked: Callable[..., str], virtualbox: str, kvm: Kvm) -> None:
    assert asked(virtualbox, "2.4.9", kvm)


@pytest.mark.parametrize(
    ("virtualbox", "kvm", "for_good"),
    [
        ("7.0.20r163906", Kvm("kvm_intel", at_load=True), "options kvm enable_virt_at_load=0"),
        ("7.2.8r172000", Kvm("kvm_amd", at_load=True), "options kvm enable_virt_at_load=0"),
        ("7.2.10r173000", Kvm("kvm_amd", at_load=False), "removing enable_virt_at_load=0"),
    ],
)
def test_kvm_that_is_in_the_way(asked: Callable[..., str], virtualbox: str, kvm: Kvm, for_good: str) -> None:
    with pytest.raises(HostError, match=f"the kernel module {kvm.module} keeps VirtualBox") as caught:
        asked(virtualbox, "2.4.9", kvm)
    assert caught.value.hint.startswith(f"sudo modprobe -r {kvm.module} kvm ")
    assert for_good in caught.value.hint


def test_what_kvm_does_is_read_from_the_kernel(tmp_path: Path) -> None:
    assert host.kvm_now(tmp_path) == NO_KVM
    (tmp_path / "kvm_amd").mkdir()
    assert host.kvm_now(tmp_path) == Kvm("kvm_amd", None)
    parameters = tmp_path / "kvm" / "parameters"
    parameters.mkdir(parents=True)
    for text, at_load in (("Y\n", True), ("N\n", False)):
        (parameters / "enable_virt_at_load").write_text(text)
        assert host.kvm_now(tmp_path) == Kvm("kvm_amd", at_load)


def test_what_is_no_version() -> None:
    assert host.parse_version("") is None
    assert host.parse_version("Vagrant") is None
