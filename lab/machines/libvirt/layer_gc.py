"""Keeps a lab's disk layers and RAM images tidy: unneeded ones are removed, layers are merged, names become free.

What may be done is decided by `lab.disks.layers`; a merge is written down before it begins, so that
it is finished after a kill.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.disks import images
from lab.disks.layers import Merge, Tidying, closure, tidying
from lab.errors import Conflict, MachineError, Remedy
from lab.machines.captures import Rewrite
from lab.machines.libvirt import definitions
from lab.machines.libvirt.capture_index import CaptureIndex, Entry
from lab.machines.libvirt.connection import library, translate_errors
from lab.machines.libvirt.domains import JOB_POLL_SECONDS, end_job, state_of
from lab.machines.libvirt.resources import Resources
from lab.machines.libvirt.volumes import LAYER, MEMORY, LayerStore
from lab.machines.protocol import NodeState
from lab.plan.model import Node, Plan
from lab.plan.names import domain_name
from lab.waiting import Deadline, poll

if TYPE_CHECKING:
    import libvirt


def new_layer(plan: Plan, node: str) -> str:
    """A name that no layer of a node has had."""
    return f"{domain_name(plan, node)}.{secrets.token_hex(4)}{LAYER}"


class LayerCollector:
    """The layers and RAM images of one lab.

    Args:
        plan: the lab's.
        index: which files hold which capture.
        resources: the lab's things in libvirt.
    """

    def __init__(self, plan: Plan, index: CaptureIndex, resources: Callable[[], Resources]) -> None:
        self._plan = plan
        self._index = index
        self._resources = resources

    def _store(self) -> LayerStore:
        return LayerStore(self._resources())

    def rewrites(self, keys: Sequence[str]) -> list[Rewrite]:
        """See `Captures.rewrites`."""
        store = self._store()
        if not store.direct or not self._index.readable()[1]:
            return []
        merges = self._merges(tidying(store.backing, self._needed(without=keys)))
        held = self._captured(store, without=keys)
        return [Rewrite(merge.into, merge.gone) for merge in merges if merge.top in held]

    def delete(self, keys: Sequence[str], *, merge: bool = False) -> None:
        """See `Captures.delete`; what cannot be merged now is merged another time."""
        self._index.remove(keys)
        for user in self._users():
            end_job(user.domain)
        if not self._index.readable()[1]:
            return  # what the damaged entry needs is unknown
        store = self._store()
        store.remove(self._idle_memory(store))
        if self._index.merging is not None:
            self._finish_merge(store)
        plan = tidying(store.backing, self._needed())
        store.remove(plan.drop)
        if store.direct:
            held = self._captured(store)
            for each in self._merges(plan):
                if merge or each.top not in held:
                    self._merge(store, each)

    def clear(self, node: Node) -> None:
        """Delete the layers of a node without a machine, but for what captures hold; its first layer's name is free.

        Raises:
            Conflict: a capture holds that layer, and klab has no right to give the file another name.
        """
        store = self._store()
        whole = self._index.readable()[1]
        mine = [name for name in store.backing if self._is_of(name, node)]
        if whole:
            plan = tidying(store.backing, self._needed())
            store.remove([name for name in plan.drop if name in mine])
        first = f"{domain_name(self._plan, node.name)}{LAYER}"
        if first in store.backing:
            self._rename(store, first, new_layer(self._plan, node.name))

    def held(self, node: Node) -> set[str]:
        """The files of a node that captures hold."""
        store = self._store()
        entries, whole = self._index.readable()
        if not whole:
            return {name for name in store.names if self._is_of(name, node)}
        kept = [entry.nodes[node.name] for entry in entries if node.name in entry.nodes]
        return closure(store.backing, {saved.disk for saved in kept}) | {file for s in kept for file in s.memories}

    def files(self, node: Node) -> list[str]:
        """All disk layers and RAM images of a node."""
        return [name for name in self._store().names if self._is_of(name, node)]

    def _is_of(self, name: str, node: Node) -> bool:
        return name.startswith(f"{domain_name(self._plan, node.name)}.")

    def _entries(self, without: Sequence[str] = ()) -> list[Entry]:
        return [entry for entry in self._index.readable()[0] if entry.key not in without]

    def _needed(self, without: Sequence[str] = ()) -> set[str]:
        """The layers that captures have frozen, and those that machines write to now or will at their next start."""
        found = {saved.disk for entry in self._entries(without) for saved in entry.nodes.values()}
        return found | {layer for user in self._users() for layer in user.tops}

    def _captured(self, store: LayerStore, without: Sequence[str] = ()) -> set[str]:
        """The layers that captures consist of."""
        disks = {saved.disk for entry in self._entries(without) for saved in entry.nodes.values()}
        return closure(store.backing, disks)

    def _merges(self, plan: Tidying) -> list[Merge]:
        """What can be merged now. A machine that has just been restored opens its disk when it is resumed."""
        closed = {name for user in self._users() if user.stands_still for name in user.live}
        return [merge for merge in plan.merge if not closed & {merge.into, *merge.gone}]

    def _idle_memory(self, store: LayerStore) -> list[str]:
        """RAM images that no capture needs."""
        used = {file for entry in self._entries() for saved in entry.nodes.values() for file in saved.memories}
        return [name for name in store.names if name.endswith(MEMORY) and name not in used]

    def _users(self) -> list[_User]:
        library_ = library()
        found = []
        with translate_errors("the machines' disks cannot be inspected"):
            for domain in self._resources().domains.all():
                definition = domain.XMLDesc(library_.VIR_DOMAIN_XML_INACTIVE | library_.VIR_DOMAIN_XML_SECURE)
                live = definitions.live_chain(domain.XMLDesc()) if domain.isActive() else []
                still = state_of(domain) == NodeState.PAUSED
                found.append(_User(domain, definition, tuple(Path(path).name for path in live), still))
        return found

    # --- merging ----------------------------------------------------------------------------------

    def _merge(self, store: LayerStore, merge: Merge) -> None:
        self._index.note_merging(merge)
        self._finish_merge(store)

    def _finish_merge(self, store: LayerStore) -> None:
        """Finish the merge that was written down, wherever a kill has left it."""
        merge = self._index.merging
        if merge is None:
            return
        users = self._users()
        writer = next((user for user in users if merge.into in user.tops), None)
        # Once a machine writes to the lower layer, what the upper one holds is old.
        if writer is None and merge.into in store.backing and merge.top in store.backing:
            user = next((user for user in users if merge.top in user.live), None)
            if user is not None:
                _commit_live(user, store.path(merge.into), store.path(merge.top))
            else:
                images.commit(Path(store.path(merge.into)), Path(store.path(merge.top)))
        for user in self._users():
            if user.next == merge.top:
                store.define(definitions.with_disk(user.definition, store.path(merge.into)))
        store.refresh()
        live = {name for user in self._users() for name in user.live}
        for child, below in store.backing.items():
            # What a machine has open, its emulator has told already.
            if below == merge.top and child not in live and child not in merge.gone:
                images.lay_on(Path(store.path(child)), Path(store.path(merge.into)))
        self._index.move(merge.top, merge.into)
        store.remove(tuple(reversed(merge.gone)))
        self._index.note_merging(None)

    def _rename(self, store: LayerStore, old: str, new: str) -> None:
        """Give a layer another name. It has both until all that lies on it knows the new one."""
        if not store.direct:
            keys = [e.key for e in self._entries() if old in {n for s in e.nodes.values() for n in store.chain(s.disk)}]
            raise Conflict(
                f"snapshots hold the disk {old}, which is in the way",
                details=keys,
                hint=("remove them first (", Remedy("snapshot rm"), "), or run klab as root"),
            )
        os.link(store.path(old), store.path(new))
        for child, below in store.backing.items():
            if below == old:
                images.lay_on(Path(store.path(child)), Path(store.path(new)))
        self._index.move(old, new)
        store.remove([old])


@dataclass(frozen=True, slots=True)
class _User:
    """A machine, its definition, and the files it has open, the one that it writes to first."""

    domain: libvirt.virDomain
    definition: str
    live: tuple[str, ...]
    stands_still: bool

    @property
    def tops(self) -> set[str]:
        """The layers that it writes to, now and after its next start."""
        return {self.next, *self.live[:1]}

    @property
    def next(self) -> str:
        """The layer that it writes to after its next start; empty without a disk."""
        disk = definitions.disk(self.definition)
        return "" if disk is None else Path(disk.path).name


def _commit_live(user: _User, into: str, top: str) -> None:
    """Let a running machine's emulator merge layers that it has open.

    Raises:
        MachineError: it does not come to an end.
    """
    library_ = library()
    domain, name = user.domain, user.domain.name()
    disk = definitions.disk(domain.XMLDesc())
    device, active = ("", False) if disk is None else (disk.device, disk.path == top)
    with translate_errors(f"the disk layers of {name} cannot be merged"):
        if not domain.blockJobInfo(device):  # else an earlier klab has begun it
            flags = library_.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE if active else 0
            domain.blockCommit(device, into, None if active else top, 0, flags)

        def done() -> bool:
            told = domain.blockJobInfo(device)
            if active and told and told["cur"] == told["end"]:
                try:
                    domain.blockJobAbort(device, library_.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
                except library_.libvirtError as error:
                    if error.get_error_code() not in {
                        library_.VIR_ERR_BLOCK_COPY_ACTIVE,
                        library_.VIR_ERR_OPERATION_INVALID,
                    }:
                        raise
            return not told

        poll(done, Deadline.after(images.MERGE_SECONDS), every=JOB_POLL_SECONDS)
        if top in definitions.live_chain(domain.XMLDesc()):
            raise MachineError(
                f"the disk layers of {name} could not be merged",
                details=[f"{top} into {into}"],
                hint="the next command on the lab tries it again",
            )
