"""What one lab has in libvirt: its machines, networks and disks. Found by mark, made, switched and removed here."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lab.errors import Conflict, HostError, MachineError
from lab.machines.libvirt import definitions
from lab.machines.libvirt.connection import absent, library, translate_errors
from lab.machines.libvirt.ownership import XML_NAMESPACE, XML_PREFIX, Owner, owner_in_description, owner_in_metadata
from lab.machines.protocol import NodeState
from lab.plan.model import Networks, Node, Plan
from lab.plan.names import domain_name
from lab.waiting import Deadline, poll

if TYPE_CHECKING:
    import libvirt

DEFAULT_POOL = "default"
DEFAULT_POOL_PATH = "/var/lib/libvirt/images"
JOB_POLL_SECONDS = 0.05
JOB_END_SECONDS = 120.0


class Inventory:
    """One lab's things in one libvirt."""

    def __init__(self, connection: libvirt.virConnect, owner: Owner) -> None:
        self.connection = connection
        self.owner = owner

    # --- machines -------------------------------------------------------------------------------

    def domains(self) -> list[libvirt.virDomain]:
        """Every domain that carries this lab's mark."""
        with translate_errors("the machines cannot be listed"):
            return [domain for domain in self.connection.listAllDomains() if self.owns(domain)]

    def domain(self, uuid: str) -> libvirt.virDomain | None:
        """This lab's domain of that UUID; None where there is none, or only somebody else's."""
        with translate_errors("a machine cannot be looked up"):
            try:
                domain = self.connection.lookupByUUIDString(uuid)
            except library().libvirtError as error:
                if absent(error):
                    return None
                raise
            return domain if self.owns(domain) else None

    def owns(self, domain: libvirt.virDomain) -> bool:
        """Whether a domain carries this lab's mark."""
        return _marked(domain) == self.owner.lab_id

    def refuse_foreign(self, plan: Plan) -> None:
        """Make sure that nobody else's domain or network holds a name or UUID of this lab's.

        Raises:
            Conflict: one does.
        """
        names = {domain_name(plan, node.name): node.name for node in plan.nodes}
        uuids = {node.uuid: node.name for node in plan.nodes}
        with translate_errors("the machines cannot be listed"):
            for domain in self.connection.listAllDomains():
                node = names.get(domain.name()) or uuids.get(domain.UUIDString())
                if node is None or self.owns(domain):
                    continue
                whose = _marked(domain)
                raise Conflict(
                    f"a machine called {domain.name()!r}, which is not this lab's, stands where {node} belongs",
                    details=[
                        f"UUID {domain.UUIDString()}",
                        f"it belongs to klab lab {whose}" if whose else "klab did not make it",
                    ],
                    hint="give this lab another name with --name, or remove that machine: virsh undefine",
                )
            for network in self.connection.listAllNetworks():
                kind = {plan.networks.name: "lab", plan.networks.management_name: "management"}.get(network.name())
                if kind and network.UUIDString() != self.owner.network_uuid(kind):
                    raise Conflict(
                        f"a libvirt network called {network.name()!r} exists and is not this lab's",
                        details=[f"UUID {network.UUIDString()}"],
                        hint=f"give this lab another name with --name, or: virsh net-undefine {network.name()}",
                    )

    def stamp(self) -> None:
        """Write the full mark into each of the lab's domains, live and lasting."""
        library_ = library()
        with translate_errors("a machine cannot be marked"):
            for domain in self.domains():
                if _metadata(domain) == self.owner.lab_id:
                    continue
                flags = library_.VIR_DOMAIN_AFFECT_CONFIG
                if domain.isActive():
                    flags |= library_.VIR_DOMAIN_AFFECT_LIVE
                element = library_.VIR_DOMAIN_METADATA_ELEMENT
                domain.setMetadata(element, self.owner.metadata, XML_PREFIX, XML_NAMESPACE, flags)

    def remove_domain(self, domain: libvirt.virDomain) -> None:
        """Power a domain off and forget it; its disks stay."""
        library_ = library()
        flags = (
            library_.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | library_.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | library_.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | library_.VIR_DOMAIN_UNDEFINE_NVRAM
        )
        with translate_errors("a machine cannot be removed"):
            ignore_missing(domain.destroy)
            ignore_missing(lambda: domain.undefineFlags(flags))

    # --- networks -------------------------------------------------------------------------------

    def networks(self) -> list[libvirt.virNetwork]:
        """The lab's networks that exist."""
        wanted = {self.owner.network_uuid("lab"), self.owner.network_uuid("management")}
        with translate_errors("the networks cannot be listed"):
            return [network for network in self.connection.listAllNetworks() if network.UUIDString() in wanted]

    def ensure_networks(self, plan: Plan) -> None:
        """Define and start both networks; one that was made for other nodes learns those of the plan.

        Raises:
            Conflict: another network holds the addresses.
        """
        there = {network.UUIDString(): network for network in self.networks()}
        wanted = (
            ("lab", plan.networks.name, definitions.lab_network(plan.networks, self.owner)),
            (
                "management",
                plan.networks.management_name,
                definitions.management_network(plan.networks, plan.nodes, self.owner),
            ),
        )
        for kind, name, xml in wanted:
            with translate_errors(f"the network {name} cannot be made"):
                network = there.get(self.owner.network_uuid(kind)) or self.connection.networkDefineXML(xml)
                if not network.isActive():
                    start_if_inactive(network)
        self.ensure_hosts(plan.networks, plan.nodes)

    def ensure_hosts(self, networks: Networks, nodes: Sequence[Node]) -> None:
        """Let the management network have an entry for each of these nodes and for no other.

        It runs on meanwhile, and entries that are right are not touched. Does nothing without that network.
        """
        library_ = library()
        with translate_errors(f"the network {networks.management_name} cannot be told of its nodes"):
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
        with translate_errors("a network cannot be looked at"):
            entries = [entry for network in self._management() for entry in definitions.dhcp_hosts(network.XMLDesc())]
        return any(entry.mac == mac for entry in entries)

    def _management(self) -> list[libvirt.virNetwork]:
        uuid = self.owner.network_uuid("management")
        return [network for network in self.networks() if network.UUIDString() == uuid]

    def remove_networks(self) -> None:
        for network in self.networks():
            with translate_errors(f"the network {network.name()} cannot be removed"):
                if network.isActive():
                    network.destroy()
                network.undefine()

    # --- disks ----------------------------------------------------------------------------------

    def box_pool(self, name: str) -> libvirt.virStoragePool:
        """The storage pool that holds boxes; libvirt's usual one is made where it is missing.

        Raises:
            HostError: there is no pool of that name, or it is not a folder.
        """
        with translate_errors(f"the storage pool {name} cannot be used"):
            pool = self._pool_by_name(name)
            if pool is None and name == DEFAULT_POOL:
                pool = self.connection.storagePoolDefineXML(
                    definitions.directory_pool(DEFAULT_POOL, None, DEFAULT_POOL_PATH)
                )
                pool.build()
                pool.setAutostart(1)
            if pool is None:
                names = ", ".join(p.name() for p in self.connection.listAllStoragePools()) or "none"
                raise HostError(
                    f"libvirt has no storage pool called {name!r}",
                    details=[f"it has: {names}"],
                    hint="set provider.libvirt.pool in the scenario to one of those, or leave it out",
                )
            if definitions.pool_type(pool.XMLDesc()) != "dir":
                raise HostError(
                    f"the storage pool {name!r} is not a folder",
                    hint="set provider.libvirt.pool in the scenario to a pool of type dir",
                )
            _activate(pool)
            return pool

    def ensure_pool(self, parent: libvirt.virStoragePool) -> libvirt.virStoragePool:
        """The lab's own storage pool, a folder inside the one that holds its box."""
        with translate_errors("the lab's storage pool cannot be made"):
            pool = self.pool()
            if pool is None:
                path = f"{definitions.pool_path(parent.XMLDesc())}/{self.owner.pool_name}"
                xml = definitions.directory_pool(self.owner.pool_name, self.owner.pool_uuid, path)
                pool = self.connection.storagePoolDefineXML(xml)
                pool.setAutostart(1)
            if not pool.isActive():
                pool.build()
            _activate(pool)
            return pool

    def pool(self) -> libvirt.virStoragePool | None:
        """The lab's storage pool, if there is one."""
        with translate_errors("the lab's storage pool cannot be looked up"):
            try:
                return self.connection.storagePoolLookupByUUIDString(self.owner.pool_uuid)
            except library().libvirtError as error:
                if absent(error):
                    return None
                raise

    def volumes(self) -> dict[str, libvirt.virStorageVol]:
        """Everything in the lab's storage pool, by name."""
        pool = self.pool()
        if pool is None:
            return {}
        with translate_errors("the lab's disks cannot be listed"):
            _activate(pool)
            return {volume.name(): volume for volume in pool.listAllVolumes()}

    def remove_volume(self, name: str) -> None:
        volume = self.volumes().get(name)
        if volume is not None:
            with translate_errors(f"the volume {name} cannot be removed"):
                volume.delete()

    def remove_pool(self) -> None:
        """Delete the lab's disks, and the pool and folder they lie in."""
        pool = self.pool()
        if pool is None:
            return
        with translate_errors("the lab's disks cannot be removed"):
            if not pool.isActive():
                # A folder that is gone already keeps a pool from starting; then there is nothing to delete.
                with contextlib.suppress(library().libvirtError):
                    pool.create()
            if pool.isActive():
                pool.refresh()
                for volume in pool.listAllVolumes():
                    volume.delete()
                pool.destroy()
                pool.delete()
            pool.undefine()

    def _pool_by_name(self, name: str) -> libvirt.virStoragePool | None:
        try:
            return self.connection.storagePoolLookupByName(name)
        except library().libvirtError as error:
            if absent(error):
                return None
            raise

    # --- everything -----------------------------------------------------------------------------

    def remove_all(self) -> None:
        """Remove everything that carries the lab's mark. What fails does not keep the rest."""
        problems: list[MachineError | Conflict | HostError] = []
        steps = [lambda d=domain: self.remove_domain(d) for domain in self.domains()]
        for step in (*steps, self.remove_networks, self.remove_pool):
            try:
                step()
            except (MachineError, Conflict, HostError) as error:
                problems.append(error)
        if problems:
            raise problems[0]

    def leftovers(self) -> list[str]:
        """What there still is, one line each."""
        pool = self.pool()
        return [
            *(f"machine {domain.name()}" for domain in self.domains()),
            *(f"network {network.name()}" for network in self.networks()),
            *(f"volume {name}" for name in self.volumes()),
            *([f"storage pool {pool.name()}"] if pool else []),
        ]


def existing_domains(inventory: Inventory, nodes: Sequence[Node]) -> dict[str, libvirt.virDomain]:
    """The domains of these nodes, by node.

    Raises:
        MachineError: a node has none.
    """
    found = {}
    for node in nodes:
        domain = inventory.domain(node.uuid)
        if domain is None:
            raise MachineError(
                f"there is no machine of {node.name}", hint=f"klab node replace {node.name} makes the machine again"
            )
        found[node.name] = domain
    return found


def state_of(domain: libvirt.virDomain) -> NodeState:
    """What a domain is doing; one that shuts down runs until it is off."""
    library_ = library()
    with translate_errors("a machine's state cannot be read"):
        state, reason = domain.state()
    # libvirt calls a domain crashed whose guest has; one whose QEMU has is off, for that reason.
    if (state, reason) == (library_.VIR_DOMAIN_SHUTOFF, library_.VIR_DOMAIN_SHUTOFF_CRASHED):
        return NodeState.CRASHED
    return {
        library_.VIR_DOMAIN_RUNNING: NodeState.RUNNING,
        library_.VIR_DOMAIN_BLOCKED: NodeState.RUNNING,
        library_.VIR_DOMAIN_SHUTDOWN: NodeState.RUNNING,
        library_.VIR_DOMAIN_PAUSED: NodeState.PAUSED,
        library_.VIR_DOMAIN_PMSUSPENDED: NodeState.PAUSED,
        library_.VIR_DOMAIN_CRASHED: NodeState.CRASHED,
    }.get(state, NodeState.STOPPED)


def switch_on(name: str, domain: libvirt.virDomain) -> None:
    """Let a machine run, whatever it does; one that runs is left alone."""
    library_ = library()
    state = state_of(domain)
    with translate_errors(f"{name} cannot be started"):
        if state == NodeState.PAUSED:
            suspended = domain.state()[0] == library_.VIR_DOMAIN_PMSUSPENDED  # the guest has put itself to sleep
            if suspended:
                domain.pMWakeup()
            else:
                domain.resume()
        elif state != NodeState.RUNNING:
            if state == NodeState.CRASHED and domain.isActive():  # libvirt was told to preserve it
                domain.destroy()
            start_if_inactive(domain)


def start_if_inactive(thing: libvirt.virDomain | libvirt.virNetwork | libvirt.virStoragePool) -> None:
    """Start a machine, a network or a pool; that it is active by now is as good as done.

    libvirtd finishes what a klab that was killed had asked of it, beside the klab that comes next.
    """
    try:
        thing.create()
    except library().libvirtError:
        if not thing.isActive():
            raise


def ignore_missing(step: Callable[[], object]) -> None:
    """Switch a machine off or remove it; that it is off or gone by now is as good as done."""
    library_ = library()
    try:
        step()
    except library_.libvirtError as error:
        if not absent(error) and error.get_error_code() != library_.VIR_ERR_OPERATION_INVALID:
            raise


def end_job(domain: libvirt.virDomain) -> None:
    """End what libvirt does with a machine, such as saving its RAM for a klab that was killed; there may be nothing."""
    library_ = library()

    def idle() -> bool:
        try:
            if domain.jobInfo()[0] == library_.VIR_DOMAIN_JOB_NONE:
                return True
            domain.abortJob()
        except library_.libvirtError as error:
            # It has just ended, or is of a kind that cannot be cut off; or the machine is off.
            return bool(absent(error)) or not domain.isActive()
        return False

    poll(idle, Deadline.after(JOB_END_SECONDS), every=JOB_POLL_SECONDS)


def _activate(pool: libvirt.virStoragePool) -> None:
    if not pool.isActive():
        start_if_inactive(pool)
    pool.refresh()


def _metadata(domain: libvirt.virDomain) -> str | None:
    library_ = library()
    try:
        return owner_in_metadata(domain.metadata(library_.VIR_DOMAIN_METADATA_ELEMENT, XML_NAMESPACE))
    except library_.libvirtError as error:
        if absent(error) or error.get_error_code() == library_.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise


def _marked(domain: libvirt.virDomain) -> str | None:
    """The id of the lab whose mark a domain carries."""
    found = _metadata(domain)
    if found is not None:
        return found
    try:
        return owner_in_description(definitions.description(domain.XMLDesc()))
    except library().libvirtError as error:
        if absent(error):
            return None  # it has gone in this very moment
        raise
