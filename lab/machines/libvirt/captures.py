"""Captures on libvirt: RAM and disks of machines at one moment, kept as files in the lab's storage pool.

libvirt freezes a disk and saves the RAM in one step (an external snapshot), but klab keeps the
index of them: libvirt's own would keep a machine from being removed, and has no tree. To go
back is to start a machine from its RAM image over a fresh layer on the frozen one.

    klab-demo_cp1.img            the layer Vagrant made, over the box
    klab-demo_cp1.3f9a20c1.img   a layer over it, made when the one below was frozen
    klab-demo_cp1.KEY.ram        the RAM of capture KEY

Source: libvirt.org/formatsnapshot.html, kbase/domainstatecapture.html.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.disks import images
from lab.errors import LabError, MachineError, Remedy
from lab.machines.captures import READ_HINT, Part, PartKind, Rewrite, Room
from lab.machines.libvirt import definitions, platform, ram_images
from lab.machines.libvirt.capture_index import CaptureIndex, Entry, Saved
from lab.machines.libvirt.connection import ignore_missing, library, translate_errors
from lab.machines.libvirt.consoles import ConsoleFiles
from lab.machines.libvirt.domains import end_job, state_of
from lab.machines.libvirt.layer_gc import LayerCollector, new_layer
from lab.machines.libvirt.resources import Resources
from lab.machines.libvirt.slow_clocks import SlowClocks
from lab.machines.libvirt.volumes import MEMORY, LayerStore
from lab.machines.protocol import NodeState
from lab.machines.ssh import Ssh
from lab.plan.model import Node, Plan
from lab.plan.names import domain_name
from lab.scenario.sizes import human
from lab.waiting import map_parallel

if TYPE_CHECKING:
    import libvirt

# From which version on libvirt reads the beginning of a saved image alone before it reads all of it.
HEAD_FIRST = 11_002_000


class LibvirtCaptures:
    """The captures of one lab on libvirt; see `lab.machines.captures.Captures`.

    Args:
        plan: the lab's.
        index: which files hold which capture.
        ssh: what knows the nodes' host keys.
        resources: the lab's things in libvirt.
        prepare: makes what machines need of their host; returns their console files and their slower clocks.
    """

    def __init__(
        self,
        plan: Plan,
        index: CaptureIndex,
        ssh: Ssh,
        resources: Callable[[], Resources],
        prepare: Callable[[], tuple[ConsoleFiles, SlowClocks]],
    ) -> None:
        self._plan = plan
        self._index = index
        self._ssh = ssh
        self._resources = resources
        self._prepare = prepare
        self._keeper = LayerCollector(plan, index, resources)

    # --- suspend and resume -----------------------------------------------------------------------

    def suspend(self, nodes: Sequence[str]) -> dict[str, float]:
        domains = self._domains(self._plan.select(nodes))
        for name, domain in domains.items():
            if not state_of(domain).on:
                raise MachineError(f"{name} is not running", hint=Remedy("start", lab=self._plan.name, node=name))
        return map_parallel(lambda name: _suspend(name, domains[name]), list(domains))

    def resume(self, nodes: Sequence[str]) -> dict[str, float]:
        domains = self._domains(self._plan.select(nodes))
        return map_parallel(lambda name: _resume(name, domains[name]), list(domains))

    def room(self, nodes: Sequence[str]) -> Room:
        self._keeper.refuse_deep()
        store = LayerStore(self._resources())
        domains = self._domains(self._plan.select(nodes))
        with translate_errors("the machines' memory cannot be inspected"):
            needed = {name: _used_memory(domain) for name, domain in domains.items() if domain.isActive()}
            return Room(Path(store.folder), store.free, needed)

    def platform(self) -> dict[str, dict[str, str]]:
        connection = self._resources().connection
        with translate_errors("libvirt cannot report how the machines are defined"):
            domains = self._domains(self._plan.nodes)
            return {name: platform.describe(connection, domain) for name, domain in domains.items()}

    def unfit(self, saved: Mapping[str, Mapping[str, str]]) -> list[str]:
        connection = self._resources().connection
        with translate_errors("libvirt cannot report what it can run"):
            return [line for name, told in saved.items() for line in platform.problems(connection, name, told)]

    # --- capture ----------------------------------------------------------------------------------

    def capture(self, key: str, nodes: Sequence[str], on_saved: Callable[[str], None]) -> None:
        store = LayerStore(self._resources())
        domains = self._domains(self._plan.select(nodes))

        def save(name: str) -> Saved:
            memory = f"{domain_name(self._plan, name)}.{key}{MEMORY}"
            saved = self._freeze(store, name, domains[name], memory)
            on_saved(name)
            return saved

        def stop() -> None:
            map_parallel(lambda name: end_job(domains[name]), list(domains))

        try:
            # After Ctrl-C no one wants to wait until gigabytes are written.
            saved = map_parallel(save, list(domains), stop=stop)
        except BaseException as error:
            short = self._make_room(store, key, domains)
            if short and isinstance(error, MachineError):
                error.details = (*error.details, short)
                error.advise((Remedy("snapshot prune", options=("--keep", "3")), " removes old snapshots"))
            raise
        # Not durable yet: behind gigabytes on their way to the disk that would take long, and the machines are paused.
        self._index.write(Entry(key, time.time(), saved), durable=False)

    def _make_room(self, store: LayerStore, key: str, domains: Mapping[str, libvirt.virDomain]) -> str:
        """Delete the RAM images of a capture that failed: over a full disk no machine would run for long.

        Returns:
            That the disk is too small, with numbers; empty where it is not.
        """
        try:
            store.refresh()
            store.remove([name for name in store.names if name.endswith(f".{key}{MEMORY}")])
            needed = sum(_used_memory(domain) for domain in domains.values() if domain.isActive())
            free = store.free
        except (LabError, library().libvirtError):
            return ""  # what went wrong before is what matters
        if free >= needed:
            return ""
        told = f"{human(free >> 20)} are free without it in {store.folder}"
        return f"the RAM of {', '.join(domains)} may take {human(needed >> 20)}, {told}"

    def _freeze(self, store: LayerStore, name: str, domain: libvirt.virDomain, memory: str) -> Saved:
        library_ = library()
        definition_flags = library_.VIR_DOMAIN_XML_INACTIVE | library_.VIR_DOMAIN_XML_SECURE
        with translate_errors(f"{name} cannot be saved"):
            definition = domain.XMLDesc(definition_flags)
            active = bool(domain.isActive())
            if active and state_of(domain) != NodeState.PAUSED:
                raise MachineError(
                    f"{name} must be paused before it is saved, but it runs",
                    hint="run the same command again: it pauses the node first",
                )
            disk = definitions.disk(domain.XMLDesc() if active else definition)
            if disk is None:
                raise MachineError(
                    f"{name} has no disk that could be saved", hint=(Remedy("node replace", node=name), " recreates it")
                )
            overlay = new_layer(self._plan, name)
            if active:
                store.reserve(overlay, memory)
                flags = library_.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC | library_.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
                domain.snapshotCreateXML(definitions.capture(disk, store.path(overlay), store.path(memory)), flags)
            else:
                store.add_layer(overlay, Path(disk.path).name)
            # libvirt has changed its next start, too, where that was from the same disk.
            changed = definitions.disk(domain.XMLDesc(definition_flags))
            if changed is None or changed.path != store.path(overlay):
                store.define(definitions.with_disk(definition, store.path(overlay)))
        return Saved(Path(disk.path).name, memory if active else "", definition, self._ssh.host_keys(name))

    def finalize(self, key: str) -> None:
        entry, store = self._index.entry(key), LayerStore(self._resources())
        layers = {part.name for part in self.parts(key) if part.kind == PartKind.DISK}

        def bring_to_disk(name: str) -> Saved:
            saved = entry.nodes[name]
            if not saved.memory or saved.older or not store.readable(saved.memory):
                return saved
            older = self._index.whole_before(key, name)
            return ram_images.finalized(store, saved, older if store.direct and store.readable(older) else "")

        try:
            # What klab may not even read, libvirtd leaves to the kernel.
            for layer in layers:
                if store.readable(layer):
                    images.to_disk(Path(store.path(layer)))
            nodes = map_parallel(bring_to_disk, list(entry.nodes))
        except OSError as error:
            raise MachineError(
                f"capture {key} cannot be written to disk",
                details=[str(error)],
                hint=(Remedy("snapshot prune", options=("--keep", "3")), " removes old snapshots"),
            ) from error
        self._index.write(replace(entry, nodes=nodes))
        store.remove([s.memory for name, s in entry.nodes.items() if s.memory and s.memory != nodes[name].memory])

    # --- revert -----------------------------------------------------------------------------------

    def revert(self, key: str, nodes: Sequence[str], on_back: Callable[[str], None]) -> None:
        entry, wanted = self._index.entry(key), {node.name: node for node in self._plan.select(nodes)}
        missing = [name for name in wanted if name not in entry.nodes]
        if missing:
            raise MachineError(
                f"capture {key} does not hold {', '.join(missing)}",
                hint=(Remedy("snapshots"), " lists the others"),
            )
        consoles, clocks = self._prepare()
        resources = self._resources()
        store = LayerStore(resources)

        def ready(name: str) -> _Return:
            with translate_errors(f"{name} cannot be restored"):
                pipe = self._index.folder / f"{key}.{name}.pipe"
                return self._ready(resources, store, consoles, clocks, wanted[name], entry.nodes[name], pipe)

        def restore(name: str) -> None:
            with translate_errors(f"{name} cannot be restored"):
                returns[name].go()
            on_back(name)

        try:
            # First what may fail without harm, for all of them: a full disk, a file that is gone.
            returns = map_parallel(ready, list(wanted))
            map_parallel(restore, list(wanted))
        finally:
            for name in wanted:
                ram_images.drop_made(store, entry.nodes[name])
        running = [node for node in wanted.values() if entry.nodes[node.name].memory]
        clocks.check(resources.domains.of(running))
        for name in wanted:
            self._ssh.know(name, entry.nodes[name].host_key)

    def _ready(
        self,
        resources: Resources,
        store: LayerStore,
        consoles: ConsoleFiles,
        clocks: SlowClocks,
        node: Node,
        saved: Saved,
        pipe: Path,
    ) -> _Return:
        overlay, connection = new_layer(self._plan, node.name), resources.connection
        store.add_layer(overlay, saved.disk)

        def here(definition: str) -> str:
            on_layer = definitions.with_disk(definition, store.path(overlay))
            return clocks.fitted(definitions.with_console(on_layer, str(consoles.path(node.name))))

        image, xml = None, ""
        if saved.memory:
            image = ram_images.Image(store, saved, pipe, library().libvirtError)
            image.check()
            flag = library().VIR_DOMAIN_SAVE_IMAGE_XML_SECURE
            xml = here(image.read_head(lambda file: connection.saveImageGetXMLDesc(file, flag)))
        domain, definition = resources.domains.find(node.uuid), here(saved.definition)
        return _Return(connection, domain, definition, image, xml, lambda: consoles.renew(node.name))

    # --- what there is ----------------------------------------------------------------------------

    def keys(self) -> list[str]:
        return [entry.key for entry in self._index.readable()[0]]

    def parts(self, key: str) -> list[Part]:
        entry = self._index.entry(key)
        store = LayerStore(self._resources())
        found = []
        for node, saved in entry.nodes.items():
            if saved.older:
                store.size(saved.older)  # it must be there
            files = [(saved.memory, PartKind.MEMORY, saved.older)] if saved.memory else []
            files += [(name, PartKind.DISK, "") for name in store.chain(saved.disk)]
            found += [Part(node, kind, name, store.size(name), store.stamp(name), base) for name, kind, base in files]
        return found

    def content(self, part: Part) -> Iterator[tuple[int, bytes | memoryview]]:
        store = LayerStore(self._resources())
        older = self._index.older(part.name)
        try:
            if older:
                yield from ram_images.stretches(store, part.name, older)
            else:
                yield from store.content(part.name)
        except OSError as error:
            raise MachineError(f"{part.name} cannot be read", details=[str(error)], hint=READ_HINT) from error

    # --- tidying ----------------------------------------------------------------------------------

    def rewrites(self, keys: Sequence[str]) -> list[Rewrite]:
        return self._keeper.rewrites(keys)

    def unmerged(self) -> list[str]:
        return self._keeper.unmerged()

    def delete(self, keys: Sequence[str], *, merge: bool = False) -> None:
        self._keeper.delete(keys, merge=merge)

    def _domains(self, nodes: Sequence[Node]) -> dict[str, libvirt.virDomain]:
        return self._resources().domains.needed(nodes)


@dataclass(frozen=True, slots=True)
class _Return:
    """A machine that is being restored: its domain now, how it will start, and its RAM image with its definition.

    `image` is None for one that was off, and `image_xml` empty. `renew_console` begins its console afresh.
    """

    connection: libvirt.virConnect
    domain: libvirt.virDomain | None
    definition: str
    image: ram_images.Image | None
    image_xml: str
    renew_console: Callable[[], None]

    def go(self) -> None:
        """Put it back, whatever it does now."""
        if self.domain is not None:
            ignore_missing(self.domain.destroy)
        self.renew_console()
        self.connection.defineXML(self.definition)
        if self.image is not None:
            flag, heads = library().VIR_DOMAIN_SAVE_PAUSED, int(self.connection.getLibVersion() >= HEAD_FIRST)
            self.image.read(lambda file: self.connection.restoreFlags(file, self.image_xml, flag), heads=heads)


def _suspend(name: str, domain: libvirt.virDomain) -> float:
    now = time.time()
    with translate_errors(f"{name} cannot be suspended"):
        if state_of(domain) != NodeState.PAUSED:
            domain.suspend()
    return now


def _resume(name: str, domain: libvirt.virDomain) -> float:
    with translate_errors(f"{name} cannot be resumed"):
        end_job(domain)
        if state_of(domain) != NodeState.RUNNING:
            domain.resume()
    return time.time()


def _used_memory(domain: libvirt.virDomain) -> int:
    """At most so many bytes of a machine's RAM are in use: what its emulator has in memory."""
    told = domain.memoryStats()
    whole = int(told.get("actual", domain.info()[1]))
    return min(whole, int(told.get("rss", whole))) * 1024
