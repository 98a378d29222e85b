"""What klab calls a lab's things in libvirt, VirtualBox and the guests. Pure: each name follows from the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.plan.model import Plan

# The user of every guest, which ssh logs in as.
USER = "vagrant"


def domain_prefix(plan: Plan) -> str:
    """What the names of the lab's machines begin with; "_" occurs in no lab's name, so two labs never share one."""
    return f"klab-{plan.name}_"


def domain_name(plan: Plan, node: str) -> str:
    """The name of a node's machine, as virt-manager or VirtualBox shows it."""
    return domain_prefix(plan) + node


def domain_title(plan: Plan, node: str) -> str:
    """The title of a node's machine, for people."""
    return f"{plan.name} {node}"


def seed_volume(node: str) -> str:
    """The name of a node's seed in the lab's storage pool."""
    return f"{node}-seed.iso"


def console_file(node: str) -> str:
    """The name of the file, in the lab's log folder, that holds a node's serial console."""
    return f"console-{node}.log"


def network_name(lab: str) -> str:
    """The name of a lab's network, of its nodes and the host."""
    return f"klab-{lab}"


def management_network_name(lab: str) -> str:
    """The name of the network that Vagrant reaches a lab's machines by."""
    return f"klab-{lab}-mgmt"
