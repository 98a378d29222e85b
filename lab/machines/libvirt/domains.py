"""A lab's machines in libvirt: found by mark, switched and removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lab.errors import Conflict, MachineError, Remedy
from lab.machines.libvirt import definitions
from lab.machines.libvirt.connection import absent, ignore_missing, library, start_if_inactive, translate_errors
from lab.machines.ownership import XML_NAMESPACE, XML_PREFIX, Owner, owner_in_description, owner_in_metadata
from lab.machines.protocol import NodeState
from lab.plan.model import Node, Plan
from lab.plan.names import domain_name
from lab.waiting import Deadline, poll

if TYPE_CHECKING:
    import libvirt

JOB_POLL_SECONDS = 0.05
JOB_END_SECONDS = 120.0


class Domains:
    """One lab's domains in one libvirt."""

    def __init__(self, connection: libvirt.virConnect, owner: Owner) -> None:
        self._connection = connection
        self._owner = owner

    def all(self) -> list[libvirt.virDomain]:
        """Every domain that carries this lab's mark."""
        with translate_errors("the machines cannot be listed"):
            return [domain for domain in self._connection.listAllDomains() if self.owns(domain)]

    def find(self, uuid: str) -> libvirt.virDomain | None:
        """This lab's domain of that UUID; None where there is none, or a foreign one."""
        with translate_errors("a machine cannot be looked up"):
            try:
                domain = self._connection.lookupByUUIDString(uuid)
            except library().libvirtError as error:
                if absent(error):
                    return None
                raise
            return domain if self.owns(domain) else None

    def of(self, nodes: Sequence[Node]) -> dict[str, libvirt.virDomain]:
        """The domains of these nodes by node, without those that have none."""
        found = {node.name: self.find(node.uuid) for node in nodes}
        return {name: domain for name, domain in found.items() if domain is not None}

    def needed(self, nodes: Sequence[Node]) -> dict[str, libvirt.virDomain]:
        """The domains of these nodes, by node.

        Raises:
            MachineError: a node has none.
        """
        found = self.of(nodes)
        for node in nodes:
            if node.name not in found:
                raise MachineError(
                    f"there is no machine of {node.name}",
                    hint=(Remedy("node replace", node=node.name), " recreates the machine"),
                )
        return found

    def owns(self, domain: libvirt.virDomain) -> bool:
        """Whether a domain carries this lab's mark."""
        return _marked(domain) == self._owner.lab_id

    def refuse_foreign(self, plan: Plan) -> None:
        """Make sure that no foreign domain holds a name or UUID of this lab's.

        Raises:
            Conflict: one does.
        """
        names = {domain_name(plan, node.name): node.name for node in plan.nodes}
        uuids = {node.uuid: node.name for node in plan.nodes}
        with translate_errors("the machines cannot be listed"):
            for domain in self._connection.listAllDomains():
                node = names.get(domain.name()) or uuids.get(domain.UUIDString())
                if node is None or self.owns(domain):
                    continue
                whose = _marked(domain)
                raise Conflict(
                    f"a domain named {domain.name()!r} already exists and does not belong to this lab "
                    f"(needed for {node})",
                    details=[
                        f"UUID {domain.UUIDString()}",
                        f"it belongs to klab lab {whose}" if whose else "klab did not make it",
                    ],
                    hint="give this lab another name with --name, or remove that machine: virsh undefine",
                )

    def stamp(self) -> None:
        """Write the full mark into each of the lab's domains, live and lasting."""
        library_ = library()
        with translate_errors("a machine cannot be marked"):
            for domain in self.all():
                if _metadata(domain) == self._owner.lab_id:
                    continue
                flags = library_.VIR_DOMAIN_AFFECT_CONFIG
                if domain.isActive():
                    flags |= library_.VIR_DOMAIN_AFFECT_LIVE
                element = library_.VIR_DOMAIN_METADATA_ELEMENT
                domain.setMetadata(element, self._owner.metadata, XML_PREFIX, XML_NAMESPACE, flags)

    def remove(self, domain: libvirt.virDomain) -> None:
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


def disk_problem(domain: libvirt.virDomain) -> str | None:
    """Why libvirt has paused a machine whose disk could not be written; None where it has not.

    Source: libvirt.org/html/libvirt-libvirt-domain.html (VIR_DOMAIN_PAUSED_IOERROR, virDomainGetDiskErrors).
    """
    library_ = library()
    with translate_errors("a machine's disk cannot be inspected"):
        if domain.state() != [library_.VIR_DOMAIN_PAUSED, library_.VIR_DOMAIN_PAUSED_IOERROR]:
            return None
        full = library_.VIR_DOMAIN_DISK_ERROR_NO_SPACE in domain.diskErrors().values()
    return "this machine's disk is full" if full else "this machine's disk has errors"


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


def eject(domain: libvirt.virDomain) -> None:
    """Take the media out of a domain's cdroms, now and for its next start."""
    library_ = library()
    with translate_errors(f"the seed cannot be taken out of {domain.name()}"):
        for flag, xml_flag, applies in (
            (library_.VIR_DOMAIN_AFFECT_LIVE, 0, domain.isActive()),
            (library_.VIR_DOMAIN_AFFECT_CONFIG, library_.VIR_DOMAIN_XML_INACTIVE, True),
        ):
            if not applies:
                continue
            for drive in definitions.cdroms(domain.XMLDesc(xml_flag)):
                if drive.source is not None:
                    # FORCE: a guest that has locked the tray does not keep its secrets on the host.
                    domain.updateDeviceFlags(drive.ejected, flag | library_.VIR_DOMAIN_DEVICE_MODIFY_FORCE)


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
