"""Whether VirtualBox can run machines on this host: its kernel modules, its Vagrant, and KVM beside it.

Sources: Vagrant's plugins/providers/virtualbox/driver/meta.rb, which names the versions that each Vagrant knows; the
issues 81, 141, 188 and 711 of VirtualBox/virtualbox and Linux' virt/kvm/kvm_main.c about KVM: from Linux 6.12 on it
takes the processor's extensions when its module is loaded, unless enable_virt_at_load is off, and keeps them. From
7.2.10 on VirtualBox shares them through KVM, and then that parameter must be on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lab import process
from lab.errors import HostError
from lab.machines.virtualbox.manage import manage

MODULES = Path("/sys/module")
VAGRANT_SECONDS = 60.0
# The first Vagrant that knows a VirtualBox.
FIRST_VAGRANT = {(7, 0): (2, 3, 2), (7, 1): (2, 4, 2), (7, 2): (2, 4, 9)}
OLDEST = (7, 0)
SHARES_WITH_KVM = (7, 2, 10)
HARDWARE = "Processor supports HW virtualization: "
_VERSION = re.compile(r"(?P<major>\d{1,4})\.(?P<minor>\d{1,4})\.(?P<patch>\d{1,4})")

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Kvm:
    """What Linux' KVM is doing: its module for this processor, empty where none is loaded, and whether it has the
    processor's extensions from then on; None on a kernel that takes them for each machine."""

    module: str
    at_load: bool | None


def parse_version(text: str) -> Version | None:
    """The first version number in a text, such as `VBoxManage --version` prints it: 7.0.20r163906."""
    found = _VERSION.search(text)
    return (int(found["major"]), int(found["minor"]), int(found["patch"])) if found else None


def kvm_now(modules: Path = MODULES) -> Kvm:
    """What KVM is doing on this host."""
    module = next((name for name in ("kvm_intel", "kvm_amd") if (modules / name).is_dir()), "")
    try:
        told = (modules / "kvm" / "parameters" / "enable_virt_at_load").read_text().strip()
    except OSError:
        return Kvm(module, None)
    return Kvm(module, told in {"Y", "1"})


def check() -> str:
    """Make sure that VirtualBox can run machines here, as far as can be seen without starting one.

    Returns:
        Its version.

    Raises:
        HostError: it cannot; `hint` repairs it.
    """
    told = manage("--version").stdout.strip()
    version = parse_version(told.rpartition("\n")[2])
    if "WARNING" in told or version is None:
        raise HostError(
            "VirtualBox's kernel modules are not loaded",
            details=told.splitlines(),
            hint="install the headers of the running kernel, then sudo /sbin/vboxconfig; "
            "with a distribution's packages: sudo dpkg-reconfigure virtualbox-dkms",
        )
    refuse_vagrant(version, parse_version(process.run(["vagrant", "--version"], timeout=VAGRANT_SECONDS).stdout))
    if f"{HARDWARE}no" in manage("list", "hostinfo").stdout:
        raise HostError(
            "VirtualBox finds no hardware virtualization, which machines of 64 bits need",
            hint="switch on VT-x or AMD-V in the BIOS, or nested virtualization in the hypervisor above",
        )
    refuse_kvm(version, kvm_now())
    return ".".join(map(str, version))


def refuse_vagrant(virtualbox: Version, vagrant: Version | None) -> None:
    """Make sure that this Vagrant knows this VirtualBox; one that is newer than any klab knows is left to Vagrant.

    Raises:
        HostError: it does not.
    """
    shown = ".".join(map(str, virtualbox))
    if virtualbox[:2] < OLDEST:
        raise HostError(f"VirtualBox {shown} is too old", hint="install 7.0 or newer from virtualbox.org")
    first = FIRST_VAGRANT.get(virtualbox[:2])
    if first is not None and vagrant is not None and vagrant < first:
        raise HostError(
            f"VirtualBox {shown} needs Vagrant {'.'.join(map(str, first))}; this is {'.'.join(map(str, vagrant))}",
            hint="install Vagrant from developer.hashicorp.com/vagrant/install, or VirtualBox "
            + next(f"{a}.{b}" for (a, b), least in reversed(FIRST_VAGRANT.items()) if least <= max(vagrant, (2, 3, 2))),
        )


def refuse_kvm(virtualbox: Version, kvm: Kvm) -> None:
    """Make sure that KVM leaves VirtualBox the processor's extensions.

    Raises:
        HostError: it does not.
    """
    if not kvm.module or kvm.at_load is None or kvm.at_load == (virtualbox >= SHARES_WITH_KVM):
        return
    if kvm.at_load:
        why = "from Linux 6.12 on it takes the processor's virtualization when it is loaded, and keeps it"
        for_good = "echo options kvm enable_virt_at_load=0 | sudo tee /etc/modprobe.d/klab-virtualbox.conf"
    else:
        why = "from 7.2.10 on VirtualBox shares virtualization with KVM, which enable_virt_at_load=0 keeps from it"
        for_good = "removing enable_virt_at_load=0 from /etc/modprobe.d and the kernel's command line"
    raise HostError(
        f"the kernel module {kvm.module} keeps VirtualBox from running machines",
        details=[why],
        hint=f"sudo modprobe -r {kvm.module} kvm (no machine of libvirt's may run); for good: {for_good}",
    )
