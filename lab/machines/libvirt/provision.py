"""What has to be there before machines can be made or started on libvirt, and what a kill has left half-made of it.

`up` and `import_disks` need all of it: networks, storage, the box, seeds, consoles, and the Vagrantfile.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab.disks import qcow2
from lab.errors import BoxError, MachineError, Remedy, UsageError
from lab.files import write_atomic
from lab.host.emulation.slow_clock import ensure_library
from lab.machines.libvirt import consoles, definitions, transfer
from lab.machines.libvirt.capture_index import CaptureIndex
from lab.machines.libvirt.connection import library, translate_errors
from lab.machines.libvirt.consoles import ConsoleFiles
from lab.machines.libvirt.domain_xml import new_domain
from lab.machines.libvirt.layer_gc import LayerCollector, new_layer
from lab.machines.libvirt.pools import base_volume, find_box_pool, forget_box
from lab.machines.libvirt.resources import Resources
from lab.machines.libvirt.session import Session
from lab.machines.libvirt.slow_clocks import SlowClocks
from lab.machines.libvirt.volumes import LayerStore
from lab.machines.ssh import Ssh
from lab.machines.vagrant.command import BOX_VERSION, Vagrant
from lab.machines.vagrant.provider import machine_folder
from lab.machines.vagrant.vagrant_home import box_name
from lab.plan.model import Node, Plan
from lab.plan.names import seed_volume
from lab.render.domain import LibvirtFacts, domain_spec
from lab.render.emulation import SlowClock
from lab.render.vagrantfile import render_libvirt
from lab.scenario.schema import did_you_mean
from lab.store import Home, LabFolder, Record

if TYPE_CHECKING:
    import libvirt


@dataclass(frozen=True, slots=True)
class Provision:
    """What one lab's machines need. `box` is the box's .box file, where machines may be made."""

    home: Home
    folder: LabFolder
    plan: Plan
    record: Record
    box: Path | None
    session: Session
    ssh: Ssh
    vagrant: Callable[[], Vagrant] = field(repr=False)

    @property
    def index(self) -> CaptureIndex:
        """Which files hold which capture."""
        return CaptureIndex(self.folder.captures)

    @property
    def layers(self) -> LayerCollector:
        """The lab's disk layers and RAM images."""
        return LayerCollector(self.plan, self.index, self.session.resources)

    def prepare_host(self, resources: Resources) -> tuple[libvirt.virStoragePool, libvirt.virStoragePool]:
        """Make what machines need of their host, whatever a restart of it has left.

        Returns:
            The storage pool of the box, and the lab's own.
        """
        resources.networks.ensure(self.plan)
        box_pool = resources.pool.box_pool(self.plan.pool)
        lab_pool = resources.pool.ensure(box_pool)
        self._consoles(lab_pool).ensure()
        return box_pool, lab_pool

    def mend(self, resources: Resources, nodes: Sequence[Node]) -> bool:
        """Bring what a kill left half-made to a state that `vagrant up` can continue from.

        A domain that lacks a network interface was never started: it goes, and its disk. A
        disk without a domain goes as well, since vagrant-libvirt refuses to make it again.
        A domain that is whole but unknown to Vagrant is made known to it.

        Returns:
            Whether there was a domain to mend.
        """
        mended = False
        for node in nodes:
            domain = resources.domains.find(node.uuid)
            if domain is not None:
                with translate_errors(f"{node.name} cannot be inspected"):
                    macs = definitions.mac_addresses(domain.XMLDesc())
                if not {node.mac, node.management_mac} <= macs:
                    resources.domains.remove(domain)
                    domain, mended = None, True
            identity = machine_folder(self.folder.path, node.name) / "libvirt" / "id"
            if domain is None:
                self.layers.clear(node)
                shutil.rmtree(identity.parent, ignore_errors=True)
            elif not identity.is_file() or identity.read_text() != node.uuid:
                write_atomic(identity, node.uuid)
                mended = True
        return mended

    def prepare_box(self, pool: libvirt.virStoragePool) -> Path:
        """Give Vagrant the box, and libvirt its disk, without copying either where that can be helped.

        Returns:
            Where libvirt has the disk.
        """
        disk = self._box_disk()
        if why := qcow2.strangeness(disk):
            raise BoxError(
                f"the disk of the box {disk.parent.name} is not a plain qcow2 image",
                details=[f"{disk}: {why}"],
                hint=(Remedy("box rm"), " removes the box, ", Remedy("box build"), " builds one"),
            )
        size = -(-qcow2.virtual_size(disk) // 1024**3)
        metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": size}
        files: list[tuple[str, bytes | Path]] = [
            ("metadata.json", json.dumps(metadata).encode()),
            ("Vagrantfile", b'Vagrant.configure("2") {}\n'),
            ("box.img", disk),
        ]
        self.vagrant().add_box(self._box_name, "libvirt", files, self.home.cache)
        volume = base_volume(self._box_name)
        with translate_errors("libvirt cannot report where the box is"):
            folder = Path(definitions.pool_path(pool.XMLDesc()))
        # A link does not reach from one mount to another, be it of the same file system (link(2)).
        beside = self.session.private_libvirt.uncovered(folder) if self.session.private_libvirt.inside else None
        transfer.ensure_base(self.home, pool, volume, disk, folder=beside)
        return folder / volume

    def forget_box_out_of_store(self) -> None:
        """Delete libvirt's copy of the lab's box, unless the box is in the store, and the copy is the next lab's."""
        if not (self.home.boxes / self.record.box).is_dir():
            forget_box(self.session.resources().connection, self._box_name)

    def _box_disk(self) -> Path:
        if self.box is None:
            raise MachineError(
                "a machine must be created, but no box was given", hint=(Remedy("create"), " makes machines")
            )
        # A real path: Vagrant keeps a link to it that must outlive a link on the way.
        return (self.box.parent / "disk.qcow2").resolve()

    @property
    def _box_name(self) -> str:
        """The box's name for Vagrant. A box's folder carries its digest, so a name is one content for good."""
        return box_name(self.box.parent.name if self.box else self.record.box)

    def upload_seeds(self, resources: Resources, pool: libvirt.virStoragePool, nodes: Sequence[Node]) -> None:
        for node in nodes:
            seed = self.folder.seeds / f"{node.name}.iso"
            domain = resources.domains.find(node.uuid)
            if seed.is_file() and (domain is None or not domain.isActive()):
                transfer.upload(pool, seed_volume(node.name), seed)
            elif domain is None:
                raise MachineError(
                    f"the machine of {node.name} is missing, and so is the seed to create it from",
                    hint=(Remedy("destroy", lab=self.plan.name), ", then ", Remedy("create"), " recreates it"),
                )

    def consoles(self) -> ConsoleFiles | None:
        """The console files of the lab's machines; None where the lab has no storage pool."""
        pool = self.session.resources().pool.find()
        return None if pool is None else self._consoles(pool)

    def needed_consoles(self) -> ConsoleFiles:
        """The same, where machines are about to be started.

        Raises:
            MachineError: the lab has no storage pool.
        """
        found = self.consoles()
        if found is None:
            raise MachineError("the lab's storage pool is gone", hint="run the same command again: it creates the pool")
        return found

    def _consoles(self, pool: libvirt.virStoragePool) -> ConsoleFiles:
        with translate_errors("libvirt cannot report where the consoles are"):
            folder = Path(definitions.pool_path(pool.XMLDesc())) / consoles.FOLDER
        outside = self.session.private_libvirt.uncovered(folder) if self.session.private_libvirt.inside else None
        return ConsoleFiles(pool, folder, outside or folder, self.folder.logs)

    def renew_consoles(self, nodes: Sequence[Node]) -> None:
        """Begin the consoles of machines that are off afresh; a machine that exists appends to them from now on."""
        files, domains = self.needed_consoles(), self.session.resources().domains.of(nodes)
        for node in nodes:
            files.renew(node.name)
            domain = domains.get(node.name)
            if domain is None:
                continue
            with translate_errors(f"the console of {node.name} cannot be set"):
                flags = library().VIR_DOMAIN_XML_INACTIVE | library().VIR_DOMAIN_XML_SECURE
                before = domain.XMLDesc(flags)
                after = definitions.with_console(before, str(files.path(node.name)))
                if after != before:
                    domain.connect().defineXML(after)

    def slow_clocks(self) -> SlowClocks:
        """The slower clocks of the lab's machines, where they have them; made ready if need be.

        Raises:
            HostError: as `ensure_library`.
        """
        dilated = self.record.dilation != 1.0
        return SlowClocks(ensure_library(self.home) if dilated else None, self.record.guest_clock)

    def write_vagrantfile(self, pool: libvirt.virStoragePool, plan: Plan) -> LibvirtFacts:
        """Write the Vagrantfile; returns what it holds beyond the plan."""
        record, library = self.record, self.slow_clocks().library
        with translate_errors("libvirt cannot list its machine types"):
            capabilities = self._capabilities()
            box_pool = find_box_pool(self.session.resources().connection, self.plan.pool)
            facts = LibvirtFacts(
                box=self._box_name,
                box_version=BOX_VERSION,
                description=self.session.owner.description,
                box_pool=self.plan.pool if box_pool is None else box_pool.name(),
                lab_pool=self.session.owner.pool_name,
                seed_folder=definitions.pool_path(pool.XMLDesc()),
                console_folder=str(self._consoles(pool).folder),
                machine_type=definitions.machine_type(capabilities),
                accelerated=record.accelerated,
                slow_clock=SlowClock(str(library), repr(record.epoch), repr(record.dilation)) if library else None,
            )
        write_atomic(self.folder.vagrantfile, render_libvirt(plan, facts))
        return facts

    def define_beside_captures(
        self, resources: Resources, nodes: Sequence[Node], facts: LibvirtFacts, box: Path
    ) -> None:
        """Make those machines whose disk Vagrant cannot make: a capture of an earlier machine holds its name.

        Args:
            resources: the lab's things in libvirt.
            nodes: nodes without a machine, whose seeds are in the lab's pool.
            facts: what the Vagrantfile holds beyond the plan.
            box: the box's disk, a file that libvirt has.
        """
        taken = [node for node in nodes if self.layers.holds_first(node)]
        store = LayerStore(resources)
        for node in taken:
            layer = new_layer(self.plan, node.name)
            store.add_first_layer(layer, node.disk << 30, box)
            seed, owner = store.path(seed_volume(node.name)), self.session.owner
            store.define(new_domain(domain_spec(self.plan, node, facts), owner, store.path(layer), seed))
        self.mend(resources, taken)  # Vagrant learns of them

    def _capabilities(self) -> str:
        kind, connection = "kvm" if self.record.accelerated else "qemu", self.session.resources().connection
        xml: str = connection.getDomainCapabilities(arch="x86_64", machine="q35", virttype=kind)
        return xml

    def refuse_unknown_cpu(self) -> None:
        """Make sure that the scenario's CPU model is one that this host's machines can have.

        Raises:
            UsageError: it is not.
        """
        model = self.plan.cpu_model
        if model is None:
            return
        with translate_errors("libvirt cannot list its CPU models"):
            known = sorted(definitions.cpu_models(self._capabilities()))
        if model not in known:
            raise UsageError(
                f"libvirt has no CPU model {model} on this machine{did_you_mean(model, known)}",
                details=[f"it has {', '.join(known)}"],
                hint=(
                    "change provider.libvirt.cpu_model or leave it out; ",
                    Remedy("destroy", lab=self.plan.name),
                    " removes what there is of the lab",
                ),
            )
