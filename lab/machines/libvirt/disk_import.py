"""Machines made from disks that come from elsewhere, on libvirt.

The disk goes into the lab's storage pool under another name first; a file of its final name is
whole, and a machine is defined only then. So a machine that exists has its disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.disks import deltas, images
from lab.errors import MachineError, Remedy
from lab.machines.disk_transfer import Incoming
from lab.machines.libvirt import own_files, transfer
from lab.machines.libvirt.domain_xml import new_domain
from lab.machines.libvirt.volumes import LAYER, LayerStore
from lab.machines.ownership import Owner
from lab.render.domain import DomainSpec

DRAFT = ".draft"


@dataclass(frozen=True, slots=True)
class DiskImport:
    """What machines are made with.

    `store` are the lab's disks, `box` is the box's disk, a file that libvirt has. `folder` is the lab's.
    """

    store: LayerStore
    owner: Owner
    box: Path
    folder: Path

    def make(self, spec: DomainSpec, disk: Incoming) -> None:
        """Make a machine that does not exist.

        Raises:
            MachineError, ProgramError: klab did not write the disk in that form, or it cannot be put there.
        """
        name = f"{spec.name}{LAYER}"
        draft = Path(self.store.path(name)).with_suffix(DRAFT) if self.store.direct else self.folder / f"{name}{DRAFT}"
        try:
            disk.write(draft)
            deltas.refuse_strange(draft)
            images.lay_on(draft, self.box)
            self._place(name, draft)
        except OSError as error:
            raise MachineError(
                f"the disk of {spec.node} cannot be written",
                details=[f"{error.strerror}: {draft}"],
                hint=(
                    "free space there and run the same command again to continue, or remove the lab with ",
                    Remedy("destroy"),
                ),
            ) from error
        finally:
            draft.unlink(missing_ok=True)
        self.store.define(new_domain(spec, self.owner, self.store.path(name)))

    def _place(self, name: str, draft: Path) -> None:
        pool = self.store.pool.find()
        if pool is None:
            raise MachineError("the lab's storage pool is gone", hint="run the same command again: it creates the pool")
        if not self.store.direct:
            transfer.upload(pool, name, draft)
            return
        draft.chmod(0o600)
        own_files.keep(draft)
        images.to_disk(draft)
        draft.replace(self.store.path(name))
        self.store.refresh()
