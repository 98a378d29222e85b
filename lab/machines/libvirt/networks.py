"""A lab's two networks in libvirt: made, told of nodes, and removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lab.errors import Conflict
from lab.machines.libvirt import definitions
from lab.machines.libvirt.connection import library, start_if_inactive, translate_errors
from lab.machines.ownership import Owner
from lab.plan.model import Networks, Node, Plan

if TYPE_CHECKING:
    import libvirt


class LabNetworks:
    """One lab's networks in one libvirt."""

    def __init__(self, connection: libvirt.virConnect, owner: Owner) -> None:
        self._connection = connection
        self._owner = owner

    def all(self) -> list[libvirt.virNetwork]:
        """The lab's networks that exist."""
        wanted = {self._owner.network_uuid("lab"), self._owner.network_uuid("management")}
        with translate_errors("the networks cannot be listed"):
            return [network for network in self._connection.listAllNetworks() if network.UUIDString() in wanted]

    def refuse_foreign(self, networks: Networks) -> None:
        """Make sure that no foreign network holds a name of this lab's.

        Raises:
            Conflict: one does.
        """
        kinds = {networks.name: "lab", networks.management_name: "management"}
        with translate_errors("the networks cannot be listed"):
            for network in self._connection.listAllNetworks():
                kind = kinds.get(network.name())
                if kind and network.UUIDString() != self._owner.network_uuid(kind):
                    raise Conflict(
                        f"a libvirt network named {network.name()!r} already exists and does not belong to this lab",
                        details=[f"UUID {network.UUIDString()}"],
                        hint=f"give this lab another name with --name, or: virsh net-undefine {network.name()}",
                    )

    def ensure(self, plan: Plan) -> None:
        """Define and start both networks; one that was made for other nodes learns those of the plan.

        Raises:
            Conflict: another network holds the addresses.
        """
        there = {network.UUIDString(): network for network in self.all()}
        wanted = (
            ("lab", plan.networks.name, definitions.lab_network(plan.networks, self._owner)),
            (
                "management",
                plan.networks.management_name,
                definitions.management_network(plan.networks, plan.nodes, self._owner),
            ),
        )
        for kind, name, xml in wanted:
            with translate_errors(f"the network {name} cannot be made"):
                network = there.get(self._owner.network_uuid(kind)) or self._connection.networkDefineXML(xml)
                if not network.isActive():
                    start_if_inactive(network)
        self.ensure_hosts(plan.networks, plan.nodes)

    def ensure_hosts(self, networks: Networks, nodes: Sequence[Node]) -> None:
        """Let the management network have an entry for each of these nodes and for no other.

        It runs on meanwhile, and entries that are right are not touched. Does nothing without that network.
        """
        library_ = library()
        with translate_errors(f"the network {networks.management_name} cannot be given the addresses of its nodes"):
            for network in self._management():
                flags = library_.VIR_NETWORK_UPDATE_AFFECT_CONFIG
                if network.isActive():
                    flags |= library_.VIR_NETWORK_UPDATE_AFFECT_LIVE
                there = definitions.dhcp_hosts(network.XMLDesc())
                wanted = definitions.management_hosts(networks, nodes, there)
                # What goes goes first: two entries may not have the same address.
                for command, hosts in (
                    (library_.VIR_NETWORK_UPDATE_COMMAND_DELETE, [host for host in there if host not in wanted]),
                    (library_.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, [host for host in wanted if host not in there]),
                ):
                    for host in hosts:
                        network.update(command, library_.VIR_NETWORK_SECTION_IP_DHCP_HOST, -1, host.xml, flags)

    def knows_host(self, mac: str) -> bool:
        """Whether the management network has an entry for that MAC address."""
        with translate_errors("a network cannot be inspected"):
            entries = [entry for network in self._management() for entry in definitions.dhcp_hosts(network.XMLDesc())]
        return any(entry.mac == mac for entry in entries)

    def _management(self) -> list[libvirt.virNetwork]:
        uuid = self._owner.network_uuid("management")
        return [network for network in self.all() if network.UUIDString() == uuid]

    def remove(self) -> None:
        """Stop and undefine both. Idempotent."""
        for network in self.all():
            with translate_errors(f"the network {network.name()} cannot be removed"):
                if network.isActive():
                    network.destroy()
                network.undefine()
