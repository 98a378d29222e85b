"""The disks of a lab's machines on libvirt, on their way to another host or from one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lab.disks import deltas, images
from lab.errors import MachineError
from lab.machines.disk_transfer import Incoming
from lab.machines.libvirt import definitions
from lab.machines.libvirt.capture_index import CaptureIndex
from lab.machines.libvirt.connection import library, translate_errors
from lab.machines.libvirt.inventory import Inventory, existing_domains
from lab.machines.libvirt.volumes import LayerStore
from lab.machines.ssh import Ssh
from lab.plan.model import Plan

Import = Callable[[Mapping[str, Incoming], Callable[[str], None]], None]


class LibvirtDiskTransfer:
    """See `lab.machines.disk_transfer.DiskTransfer`.

    Args:
        plan: the lab's.
        book: which files hold which capture.
        ssh: what knows the nodes' host keys.
        inventory: the lab's things in libvirt.
        check: makes sure that `import_disks` has nothing in its way.
        make: makes machines from disks.
    """

    def __init__(
        self,
        plan: Plan,
        book: CaptureIndex,
        ssh: Ssh,
        inventory: Callable[[], Inventory],
        check: Callable[[], None],
        make: Import,
    ) -> None:
        self._plan = plan
        self._book = book
        self._ssh = ssh
        self._inventory = inventory
        self._check = check
        self._make = make

    def check_import(self) -> None:
        self._check()

    def import_disks(self, disks: Mapping[str, Incoming], on_made: Callable[[str], None]) -> None:
        self._make(disks, on_made)

    def export(self, node: str, box: Path, target: Path, key: str | None = None) -> None:
        store = LayerStore(self._inventory())
        top, _ = self._exported(node, key)
        layers = [Path(store.path(name)) for name in store.chain(top)]
        base = store.base(layers[-1].name)
        copies = [target.with_name(f"{target.name}.{number}") for number in range(len(layers))]
        try:
            # A member of libvirt's group may not read what QEMU's user writes.
            if not all(os.access(file, os.R_OK) for file in (*layers, base)):
                base, layers = box.absolute(), _fetched(store, layers, box, copies)
            deltas.write(layers[0], base, target)
        except OSError as error:
            why = [f"{error.strerror}: {error.filename}"]
            raise MachineError(
                f"the disk of {node} cannot be copied",
                details=why,
                hint="make room there; -o FILE puts it on another disk",
            ) from error
        finally:
            for file in copies:
                file.unlink(missing_ok=True)

    def host_key(self, node: str, key: str | None = None) -> str:
        return self._ssh.bare_host_keys(self._exported(node, key)[1])

    def size_estimate(self, node: str, key: str | None = None) -> int:
        store = LayerStore(self._inventory())
        return sum(store.size(name) for name in store.chain(self._exported(node, key)[0]))

    def _exported(self, node: str, key: str | None) -> tuple[str, str]:
        """The layer that holds a disk, by file name, and by which lines ssh knows its host keys."""
        if key is not None:
            saved = self._book.entry(key).nodes.get(node)
            if saved is None:
                raise MachineError(f"capture {key} does not hold {node}")
            return saved.disk, saved.host_key
        domain = existing_domains(self._inventory(), self._plan.select([node]))[node]
        with translate_errors(f"the disk of {node} cannot be looked at"):
            if domain.isActive():
                raise MachineError(f"{node} is not off", hint=f"klab stop {self._plan.name}")
            disk = definitions.disk(domain.XMLDesc(library().VIR_DOMAIN_XML_INACTIVE))
        if disk is None:
            raise MachineError(f"{node} has no disk")
        return Path(disk.path).name, self._ssh.host_keys(node)


def _fetched(store: LayerStore, layers: Sequence[Path], box: Path, copies: Sequence[Path]) -> list[Path]:
    """Copies of layers through libvirtd, the uppermost first; the lowest lies on klab's own copy of the box."""
    for layer, copy, below in zip(reversed(layers), reversed(copies), (box, *reversed(copies)), strict=False):
        images.write(store.download(layer.name), copy)
        images.lay_on(copy, below.absolute())
    return list(copies)
