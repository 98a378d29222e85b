"""The disks of a lab's machines on libvirt, on their way to another host or from one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lab.disks import deltas, images
from lab.errors import MachineError, Remedy
from lab.machines.disk_transfer import Incoming
from lab.machines.libvirt import definitions, own_files
from lab.machines.libvirt.connection import library, translate_errors
from lab.machines.libvirt.disk_import import DiskImport
from lab.machines.libvirt.pools import base_volume
from lab.machines.libvirt.provision import Provision
from lab.machines.libvirt.volumes import LayerStore
from lab.machines.vagrant.provider import end_orphans
from lab.machines.vagrant.vagrant_home import box_name
from lab.render.domain import domain_spec


class LibvirtDiskTransfer:
    """See `lab.machines.disk_transfer.DiskTransfer`; `provision` is what machines need."""

    def __init__(self, provision: Provision) -> None:
        self._provision = provision
        self._plan = provision.plan
        self._index = provision.index
        self._ssh = provision.ssh
        self._resources = provision.session.resources

    def import_disks(self, disks: Mapping[str, Incoming], on_made: Callable[[str], None]) -> None:
        plan, provision, resources = self._plan, self._provision, self._resources()
        wanted = plan.select(list(disks))
        end_orphans(provision.folder.path)
        resources.refuse_foreign(plan)
        box_pool, lab_pool = provision.prepare_host(resources)
        box = provision.prepare_box(box_pool)
        facts = provision.write_vagrantfile(lab_pool, plan)
        made = DiskImport(LayerStore(resources), provision.session.owner, box, provision.folder.path)
        for node in wanted:
            if resources.domains.find(node.uuid) is None:
                with translate_errors(f"the machine of {node.name} cannot be made"):
                    made.make(domain_spec(plan, node, facts), disks[node.name])
            self._ssh.know_by(node.name, disks[node.name].host_key)
            on_made(node.name)
        # Vagrant learns of them.
        provision.mend(resources, wanted)

    def export(self, node: str, box: Path, target: Path, key: str | None = None) -> None:
        store = LayerStore(self._resources())
        top, _ = self._exported(node, key)
        layers = [Path(store.path(name)) for name in store.chain(top)]
        base, box = store.base(layers[-1].name), box.absolute()
        own = self._copy_of(base) or box
        copies = [target.with_name(f"{target.name}.{number}") for number in range(len(layers))]
        try:
            if not all(own_files.readable(file) for file in (*layers, base)):
                base, layers = own, _fetched(store, layers, own, copies)
            # A node that joined after an upgrade lies on another box; what differs goes into the delta.
            deltas.write(layers[0], base if own == box else box, target)
        except OSError as error:
            # A write that finds the disk full names no file.
            raise MachineError(
                f"the disk of {node} cannot be copied",
                details=[f"{error.strerror}: {error.filename or target.parent}"],
                hint="free space there; -o FILE puts it on another disk",
            ) from error
        finally:
            for file in copies:
                file.unlink(missing_ok=True)

    def _copy_of(self, base: Path) -> Path | None:
        """klab's own copy of the box that libvirt has as this file, where it is not the lab's first one."""
        for folder in self._provision.record.more_boxes:
            if base.name == base_volume(box_name(folder)):
                return (self._provision.home.boxes / folder / "disk.qcow2").absolute()
        return None

    def host_key(self, node: str, key: str | None = None) -> str:
        return self._ssh.bare_host_keys(self._exported(node, key)[1])

    def size_estimate(self, node: str, key: str | None = None) -> int:
        store = LayerStore(self._resources())
        return sum(store.size(name) for name in store.chain(self._exported(node, key)[0]))

    def _exported(self, node: str, key: str | None) -> tuple[str, str]:
        """The layer that holds a disk, by file name, and by which lines ssh knows its host keys."""
        if key is not None:
            saved = self._index.entry(key).nodes.get(node)
            if saved is None:
                raise MachineError(
                    f"capture {key} does not hold {node}", hint=(Remedy("snapshots"), " lists the others")
                )
            return saved.disk, saved.host_key
        domain = self._resources().domains.needed(self._plan.select([node]))[node]
        with translate_errors(f"the disk of {node} cannot be inspected"):
            if domain.isActive():
                raise MachineError(f"{node} is not off", hint=Remedy("stop", lab=self._plan.name))
            disk = definitions.disk(domain.XMLDesc(library().VIR_DOMAIN_XML_INACTIVE))
        if disk is None:
            raise MachineError(f"{node} has no disk", hint=(Remedy("node replace", node=node), " recreates it"))
        return Path(disk.path).name, self._ssh.host_keys(node)


def _fetched(store: LayerStore, layers: Sequence[Path], box: Path, copies: Sequence[Path]) -> list[Path]:
    """Copies of layers that klab may not all read, the uppermost first; the lowest lies on klab's copy of the box."""
    for layer, copy, below in zip(reversed(layers), reversed(copies), (box, *reversed(copies)), strict=False):
        images.write(store.content(layer.name), copy)
        images.lay_on(copy, below.absolute())
    return list(copies)
