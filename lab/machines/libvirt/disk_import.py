"""Machines made from disks that come from elsewhere, on libvirt.

The disk goes into the lab's storage pool under another name first; a file of its final name is
whole, and a machine is defined only then. So a machine that exists has its disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.disks import deltas, images
from lab.errors import MachineError
from lab.machines.disk_transfer import Incoming
from lab.machines.libvirt import transfer
from lab.machines.libvirt.domain_xml import new_domain
from lab.machines.libvirt.ownership import Owner
from lab.machines.libvirt.volumes import LAYER, LayerStore
from lab.plan.model import Node, Plan
from lab.plan.names import domain_name
from lab.render.vagrantfile import LibvirtFacts

DRAFT = ".draft"


@dataclass(frozen=True, slots=True)
class DiskImport:
    """What machines are made with.

    `store` are the lab's disks, `facts` what its Vagrantfile says. `box` is the box's disk, a file
    that libvirt has. `scratch` is a folder of klab's own, `console` says where a node's console is.
    """

    plan: Plan
    store: LayerStore
    facts: LibvirtFacts
    owner: Owner
    box: Path
    scratch: Path
    console: Callable[[Node], Path]

    def make(self, node: Node, disk: Incoming) -> None:
        """Make the machine of a node that has none.

        Raises:
            MachineError, ProgramError: the disk is not one that klab wrote, or cannot be put there.
        """
        name = f"{domain_name(self.plan, node.name)}{LAYER}"
        draft = Path(self.store.path(name)).with_suffix(DRAFT) if self.store.direct else self.scratch / f"{name}{DRAFT}"
        try:
            disk.write(draft)
            deltas.refuse_strange(draft)
            images.lay_on(draft, self.box)
            self._place(name, draft)
        except OSError as error:
            raise MachineError(
                f"the disk of {node.name} cannot be written",
                details=[f"{error.strerror}: {draft}"],
                hint="make room there; the same command goes on then, and klab destroy removes what there is",
            ) from error
        finally:
            draft.unlink(missing_ok=True)
        xml = new_domain(
            self.plan, node, self.facts, self.owner, self.store.path(name), str(self.console(node).absolute())
        )
        self.store.define(xml)

    def _place(self, name: str, draft: Path) -> None:
        pool = self.store.inventory.pool()
        if pool is None:
            raise MachineError("the lab's storage pool is gone", hint="the same command again makes it")
        if not self.store.direct:
            transfer.upload(pool, name, draft)
            return
        draft.chmod(0o600)
        images.to_disk(draft)
        draft.replace(self.store.path(name))
        self.store.refresh()
