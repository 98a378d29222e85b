"""Keeps a lab's disk layers and RAM images tidy: unneeded ones are removed, layers are merged, names become free.

What may be done is decided by `lab.disks.layers`; a merge is written down before it begins, so that
it is finished after a kill.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.disks import images
from lab.disks.layers import Merge, Tidying, chain, closure, tidying
from lab.errors import MachineError, Remedy
from lab.machines.captures import Rewrite
from lab.machines.libvirt import block_commit, definitions
from lab.machines.libvirt.capture_index import CaptureIndex, Entry
from lab.machines.libvirt.connection import library, translate_errors
from lab.machines.libvirt.domains import end_job, state_of
from lab.machines.libvirt.resources import Resources
from lab.machines.libvirt.volumes import LAYER, MEMORY, LayerStore
from lab.machines.protocol import NodeState
from lab.plan.model import Node, Plan
from lab.plan.names import domain_name

if TYPE_CHECKING:
    import libvirt


# libvirt opens no disk of more than 200 files (src/storage_file/storage_source.c); a restore adds one.
MOST_LAYERS = 190


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
        if not self._index.readable()[1]:
            return []
        store = self._store()
        merges = self._merges(store, tidying(store.backing, self._needed(without=keys)))
        held = self._captured(store, without=keys)
        return [Rewrite(merge.into, merge.gone) for merge in merges if merge.top in held]

    def refuse_deep(self) -> None:
        """Make sure that another layer can lie on the disks of the lab.

        Raises:
            MachineError: a disk has as many layers as libvirt opens.
        """
        store = self._store()
        for user in self._users():
            if len(chain(store.backing, next(iter(user.live), user.next))) >= MOST_LAYERS:
                raise MachineError(
                    f"the disk of {user.domain.name()} consists of {MOST_LAYERS} layers; libvirt opens few more",
                    hint=(
                        Remedy("snapshot prune", options=("--keep", "20")),
                        " removes old snapshots and their layers",
                    ),
                )

    def unmerged(self) -> list[str]:
        """See `Captures.unmerged`."""
        if not self._index.readable()[1]:
            return ["disk layers cannot become one while the metadata of a snapshot is damaged"]
        store, users = self._store(), self._users()
        return [
            f"{node.name}: {len(merge.gone) + 1} disk layers can become one{_why_not(store, merge, users)}"
            for merge in tidying(store.backing, self._needed()).merge
            for node in self._plan.nodes
            if self._is_of(merge.into, node)
        ]

    def delete(self, keys: Sequence[str], *, merge: bool = False) -> None:
        """See `Captures.delete`; what cannot be merged now is merged another time."""
        self._index.remove(keys)
        for user in self._users():
            end_job(user.domain)
        if not self._index.readable()[1]:
            return  # what the damaged entry needs is unknown
        store = self._store()
        store.remove(self._idle_memory(store))
        finished = self._finish_merge(store)
        plan = tidying(store.backing, self._needed())
        store.remove(plan.drop)
        held = self._captured(store)
        for each in self._merges(store, plan) if finished else []:
            if merge or each.top not in held:
                self._index.note_merging(each)
                self._finish_merge(store)

    def clear(self, node: Node) -> None:
        """Delete the layers of a node without a machine, but for what captures hold."""
        store = self._store()
        whole = self._index.readable()[1]
        mine = [name for name in store.backing if self._is_of(name, node)]
        if whole:
            plan = tidying(store.backing, self._needed())
            store.remove([name for name in plan.drop if name in mine])

    def holds_first(self, node: Node) -> bool:
        """Whether the name that Vagrant gives to the disk of a new machine is taken: a capture holds that layer."""
        return f"{domain_name(self._plan, node.name)}{LAYER}" in self._store().backing

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

    def _merges(self, store: LayerStore, plan: Tidying) -> list[Merge]:
        """What can be merged now."""
        users = self._users()
        return [merge for merge in plan.merge if not _why_not(store, merge, users)]

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

    def _finish_merge(self, store: LayerStore) -> bool:
        """Finish the merge that was written down, wherever a kill has left it.

        Returns:
            Whether none is left to finish. One that cannot be finished now is another time.
        """
        merge = self._index.merging
        if merge is None:
            return True
        users = self._users()
        if _why_not(store, merge, users):
            return False
        writer = next((user for user in users if merge.into in user.tops), None)
        # Once a machine writes to the lower layer, what the upper one holds is old.
        if writer is None and merge.into in store.backing and merge.top in store.backing:
            self._commit(store, merge, users)
        for user in self._users():
            if user.next == merge.top:
                store.define(definitions.with_disk(user.definition, store.path(merge.into)))
        store.refresh()
        live = {name for user in self._users() for name in user.live}
        for child in _above(store, merge):
            # What a machine has open, its emulator has told already.
            if child not in live:
                images.lay_on(Path(store.path(child)), Path(store.path(merge.into)))
        self._index.move(merge.top, merge.into)
        store.remove(tuple(reversed(merge.gone)))
        self._index.note_merging(None)
        return True

    def _commit(self, store: LayerStore, merge: Merge, users: Sequence[_User]) -> None:
        """Bring the content of the layers that go into the one that stays."""
        into, top = store.path(merge.into), store.path(merge.top)
        user = next((user for user in users if merge.top in user.live), None)
        if user is not None:
            block_commit.commit(user.domain, into, top)
        elif _own(store, merge):
            images.commit(Path(into), Path(top))
        else:
            resources = self._resources()
            # Once for each layer above: its header has the name of the one below, and only an emulator may write it.
            for layer in _above(store, merge) or [merge.top]:
                with block_commit.opened(resources.connection, resources.owner, store.path(layer)) as domain:
                    block_commit.commit(domain, into, top)


def _above(store: LayerStore, merge: Merge) -> list[str]:
    """The layers that lie on the uppermost of those that become one."""
    return sorted(child for child, below in store.backing.items() if below == merge.top)


def _own(store: LayerStore, merge: Merge) -> bool:
    """Whether klab itself may change these layers and those that lie on them."""
    layers = _above(store, merge) or [merge.top]
    # After a kill the uppermost may be gone already.
    return store.direct and all(store.owns(layer) for layer in layers if layer in store.backing)


def _why_not(store: LayerStore, merge: Merge, users: Sequence[_User]) -> str:
    """What has to be for layers to become one that cannot now, as a clause; empty where they can."""
    holders = [user for user in users if {merge.into, *merge.gone} & {*user.live}]
    if any(user.stands_still for user in holders):
        return ", once its machine is resumed"  # one that has just been restored opens its disk when it is resumed
    open_ = {name for user in holders for name in user.live}
    if holders and not _own(store, merge) and not {*_above(store, merge)} <= open_:
        return ", once its machine is off: snapshots that it is not based on need them, too"
    return ""


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
