"""What a lab's machines on libvirt are, described once for the two ways of making them.

`up` has vagrant-libvirt make them from the Vagrantfile (`lab.render.vagrantfile`), `import_disks` defines them itself
(`lab.machines.libvirt.domain_xml`). Both read every value here, so that a setting is added in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lab.plan.model import Node, Plan
from lab.plan.names import console_file, domain_prefix, domain_title
from lab.render.emulation import EMULATED_CPU, SlowClock


@dataclass(frozen=True, slots=True)
class LibvirtFacts:
    """What is known of a lab on libvirt beyond the plan.

    `description` marks each domain as this lab's. `slow_clock` makes QEMU's clocks slower, None in real time.
    `seed_folder` is where the storage pool keeps the seeds, `console_folder` where it keeps the consoles.
    """

    box: str
    box_version: str
    description: str
    box_pool: str
    lab_pool: str
    seed_folder: str
    console_folder: str
    machine_type: str
    accelerated: bool
    slow_clock: SlowClock | None = None


@dataclass(frozen=True, slots=True)
class Hardware:
    """What all machines of a lab have alike, in libvirt's words (libvirt.org/formatdomain.html).

    `cpu_model` is None for the host's. `environment` is what QEMU is started with; empty in real time.
    """

    name_prefix: str
    description: str
    virtualization: str
    machine_type: str
    cpu_mode: str
    cpu_model: str | None
    environment: Mapping[str, str]
    management_network: str
    lab_network: str
    arch: str = "x86_64"
    disk_bus: str = "virtio"
    # What a guest has synced to its disk is there after a power failure, the host's included.
    disk_cache: str = "writeback"
    disk_discard: str = "unmap"
    nic_model: str = "virtio"
    cdrom_bus: str = "sata"
    cdrom_device: str = "sda"
    usb_model: str = "none"
    random_model: str = "random"
    channel: str = "org.qemu.guest_agent.0"


@dataclass(frozen=True, slots=True)
class DomainSpec:
    """A node's machine. `memory` is in MiB; `console` is the file that its serial port appends to.

    Its first network interface is in the management network, the second in the lab's.
    """

    node: str
    title: str
    uuid: str
    cpus: int
    memory: int
    management_mac: str
    lab_mac: str
    console: str
    hardware: Hardware = field(repr=False)

    @property
    def name(self) -> str:
        return self.hardware.name_prefix + self.node


def hardware(plan: Plan, facts: LibvirtFacts) -> Hardware:
    """What all machines of a lab have alike."""
    model = plan.cpu_model or (None if facts.accelerated else EMULATED_CPU)
    clock = facts.slow_clock
    return Hardware(
        name_prefix=domain_prefix(plan),
        description=facts.description,
        virtualization="kvm" if facts.accelerated else "qemu",
        machine_type=facts.machine_type,
        cpu_mode="custom" if model else "host-model",
        cpu_model=model,
        environment=clock.environment if clock else {},
        management_network=plan.networks.management_name,
        lab_network=plan.networks.name,
    )


def domain_spec(plan: Plan, node: Node, facts: LibvirtFacts) -> DomainSpec:
    """The machine of a node of the plan."""
    return DomainSpec(
        node=node.name,
        title=domain_title(plan, node.name),
        uuid=node.uuid,
        cpus=node.cpus,
        memory=node.memory,
        management_mac=node.management_mac,
        lab_mac=node.mac,
        console=f"{facts.console_folder}/{console_file(node.name)}",
        hardware=hardware(plan, facts),
    )
