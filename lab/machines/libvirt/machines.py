"""The machines of a lab on libvirt: made and removed through Vagrant, watched and checked through libvirt.

Vagrant does the work that people see; klab prepares what Vagrant is weak at (networks,
storage, seeds), mends what a kill left half-done, and verifies the end itself.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.disks import qcow2
from lab.errors import BoxError, MachineError, UsageError
from lab.host.emulation import emulator
from lab.host.private_libvirt import PrivateLibvirt
from lab.machines.disk_transfer import Incoming
from lab.machines.libvirt import definitions, guest_agent, guest_clock, transfer
from lab.machines.libvirt.capture_index import CaptureIndex
from lab.machines.libvirt.captures import LibvirtCaptures
from lab.machines.libvirt.connection import connect, library, translate_errors
from lab.machines.libvirt.disk_import import DiskImport
from lab.machines.libvirt.disk_transfer import LibvirtDiskTransfer
from lab.machines.libvirt.inventory import DEFAULT_POOL, Inventory, ignore_missing, state_of, switch_on
from lab.machines.libvirt.layer_gc import LayerCollector
from lab.machines.libvirt.ownership import Owner
from lab.machines.libvirt.volumes import LayerStore
from lab.machines.protocol import NodeState
from lab.machines.vagrant import failures
from lab.machines.vagrant.command import BOX_VERSION, Vagrant
from lab.machines.vagrant.provider import (
    AGAIN,
    VagrantProvider,
    end_orphans,
    forget_in_vagrant,
    machine_folder,
    press_until_off,
    refuse_absent,
)
from lab.machines.vagrant.vagrant_home import box_name
from lab.plan.model import Node, Plan
from lab.plan.names import seed_volume
from lab.process import Completed
from lab.render.vagrantfile import LibvirtFacts, render_libvirt
from lab.scenario.schema import did_you_mean
from lab.store import Home, LabFolder, Record, write_atomic
from lab.waiting import Deadline, map_parallel, poll

if TYPE_CHECKING:
    import libvirt

SSH_TRY_SECONDS = 60.0
SSH_POLL_SECONDS = 1.0


class LibvirtMachines(VagrantProvider):
    """The machines of one lab on libvirt; see `lab.machines.protocol.Machines`."""

    def __init__(self, home: Home, folder: LabFolder, plan: Plan, record: Record, box: Path | None) -> None:
        super().__init__(folder, plan)
        self._home = home
        self._record = record
        self._box = box
        self._owner = Owner(record.id, record.seat, record.epoch)
        self._realm = PrivateLibvirt(home)
        self._connection: libvirt.virConnect | None = None
        self._vagrant: Vagrant | None = None
        self._cancelled = False
        self._over = False  # the private libvirt ended with this lab: nothing is left to ask

    # --- up -------------------------------------------------------------------------------------

    def up(self, deadline: Deadline, on_line: Callable[[str], None], nodes: Sequence[str] | None = None) -> None:
        wanted = self._plan.select(nodes)
        end_orphans(self._folder.path)
        inventory = self._inventory()
        inventory.refuse_foreign(self._plan)
        self._refuse_unknown_cpu()
        vagrant = self._commands()
        box_pool, lab_pool = self._prepare_host(inventory, wanted)
        self._mend(inventory, wanted)
        missing = [node for node in wanted if inventory.domain(node.uuid) is None]
        for node in missing:
            self._ssh.forget_host_key(node.name)
        if missing:
            self._prepare_box(vagrant, box_pool)
        self._upload_seeds(inventory, lab_pool, wanted)
        self._write_vagrantfile(lab_pool, self._plan)
        self._power_on(vagrant, inventory, deadline, on_line, wanted)
        inventory.stamp()
        self._wait_for_ssh(deadline, wanted)

    def cancel(self) -> None:
        self._cancelled = True
        if self._vagrant is not None:
            self._vagrant.cancel()

    def _prepare_host(
        self, inventory: Inventory, nodes: Sequence[Node]
    ) -> tuple[libvirt.virStoragePool, libvirt.virStoragePool]:
        """Bring about what machines need of their host, whatever a restart of it has left.

        Returns:
            The storage pool of the box, and the lab's own.
        """
        inventory.ensure_networks(self._plan)
        box_pool = inventory.box_pool(self._plan.pool)
        lab_pool = inventory.ensure_pool(box_pool)
        self._prepare_consoles(nodes)
        return box_pool, lab_pool

    def _mend(self, inventory: Inventory, nodes: Sequence[Node]) -> bool:
        """Bring what a kill left half-made to where `vagrant up` can go on.

        A domain that lacks a network interface was never started: it goes, and its disk. A
        disk without a domain goes as well, since vagrant-libvirt refuses to make it again.
        A domain that is whole but unknown to Vagrant is made known to it.

        Returns:
            Whether there was a domain to mend.
        """
        mended = False
        for node in nodes:
            domain = inventory.domain(node.uuid)
            if domain is not None:
                with translate_errors(f"{node.name} cannot be looked at"):
                    macs = definitions.mac_addresses(domain.XMLDesc())
                if not {node.mac, node.management_mac} <= macs:
                    inventory.remove_domain(domain)
                    domain, mended = None, True
            identity = machine_folder(self._folder.path, node.name) / "libvirt" / "id"
            if domain is None:
                self._layers().clear(node)
                shutil.rmtree(identity.parent, ignore_errors=True)
            elif not identity.is_file() or identity.read_text() != node.uuid:
                write_atomic(identity, node.uuid)
                mended = True
        return mended

    def _prepare_box(self, vagrant: Vagrant, pool: libvirt.virStoragePool) -> Path:
        """Give Vagrant the box, and libvirt its disk, without copying either where that can be helped.

        Returns:
            Where libvirt has the disk.
        """
        disk = self._box_disk()
        if why := qcow2.strangeness(disk):
            raise BoxError(
                f"the disk of the box {disk.parent.name} is not a plain qcow2 image",
                details=[f"{disk}: {why}"],
                hint="klab box rm removes the box, klab box build builds one",
            )
        size = -(-qcow2.virtual_size(disk) // 1024**3)
        metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": size}
        files: list[tuple[str, bytes | Path]] = [
            ("metadata.json", json.dumps(metadata).encode()),
            ("Vagrantfile", b'Vagrant.configure("2") {}\n'),
            ("box.img", disk),
        ]
        vagrant.add_box(self._box_name, "libvirt", files, self._home.cache)
        # The name that vagrant-libvirt 0.11 looks for (action/handle_box_image.rb).
        volume = f"{self._box_name.replace('/', '-VAGRANTSLASH-')}_vagrant_box_image_{BOX_VERSION}_box.img"
        with translate_errors("libvirt cannot say where the box lies"):
            folder = Path(definitions.pool_path(pool.XMLDesc()))
        # A link does not reach from one mount to another, be it of the same file system (link(2)).
        beside = self._realm.uncovered(folder) if self._realm.inside else None
        transfer.ensure_base(self._home, pool, volume, disk, folder=beside)
        return folder / volume

    def _box_disk(self) -> Path:
        if self._box is None:
            raise MachineError(
                "a machine is to be made, but klab was not told from which box", hint="klab create makes machines"
            )
        # A real path: Vagrant keeps a link to it that must outlive a link on the way.
        return (self._box.parent / "disk.qcow2").resolve()

    @property
    def _box_name(self) -> str:
        """The box's name for Vagrant. A box's folder carries its digest, so a name is one content for good."""
        return box_name(self._box.parent.name if self._box else self._record.box, "libvirt")

    def _upload_seeds(self, inventory: Inventory, pool: libvirt.virStoragePool, nodes: Sequence[Node]) -> None:
        for node in nodes:
            seed = self._folder.seeds / f"{node.name}.iso"
            domain = inventory.domain(node.uuid)
            if seed.is_file() and (domain is None or not domain.isActive()):
                transfer.upload(pool, seed_volume(node.name), seed)
            elif domain is None:
                raise MachineError(
                    f"the machine of {node.name} is gone, and so is the seed to make it from",
                    hint=f"klab destroy {self._plan.name}, then klab create it anew",
                )

    def _prepare_consoles(self, nodes: Sequence[Node]) -> None:
        """Make the console files ours before QEMU or virtlogd, which are root, make them theirs."""
        self._folder.logs.mkdir(parents=True, exist_ok=True)
        for node in nodes:
            self.consoles()[node.name].touch()

    def _wrapper(self) -> Path | None:
        """The emulator with a slower clock, where the lab's machines have one; written if need be."""
        if self._record.dilation == 1.0:
            return None
        wrapper = emulator.write_wrapper(self._home)
        if not self._realm.inside:
            emulator.check_reachable(wrapper, self._home)
        return wrapper

    def _write_vagrantfile(self, pool: libvirt.virStoragePool, plan: Plan) -> LibvirtFacts:
        """Write the Vagrantfile; returns what it says beyond the plan."""
        record, wrapper = self._record, self._wrapper()
        with translate_errors("libvirt cannot say which machine types it has"):
            capabilities = self._capabilities()
            facts = LibvirtFacts(
                box=self._box_name,
                box_version=BOX_VERSION,
                description=self._owner.description,
                box_pool=self._plan.pool,
                lab_pool=self._owner.pool_name,
                seed_folder=definitions.pool_path(pool.XMLDesc()),
                machine_type=definitions.machine_type(capabilities),
                accelerated=record.accelerated,
                emulator=str(wrapper) if wrapper else None,
                epoch=repr(record.epoch),
                rate=repr(record.dilation),
            )
        write_atomic(self._folder.vagrantfile, render_libvirt(plan, facts))
        return facts

    def _capabilities(self) -> str:
        kind = "kvm" if self._record.accelerated else "qemu"
        xml: str = self._connect().getDomainCapabilities(arch="x86_64", machine="q35", virttype=kind)
        return xml

    def _refuse_unknown_cpu(self) -> None:
        """Make sure that the scenario's CPU model is one that this host's machines can have.

        Raises:
            UsageError: it is not.
        """
        model = self._plan.cpu_model
        if model is None:
            return
        with translate_errors("libvirt cannot say which CPU models it has"):
            known = sorted(definitions.cpu_models(self._capabilities()))
        if model not in known:
            raise UsageError(
                f"libvirt knows no CPU model {model} on this machine{did_you_mean(model, known)}",
                details=[f"it knows {', '.join(known)}"],
                hint=f"change provider.libvirt.cpu_model or leave it out; klab destroy {self._plan.name} removes "
                "what there is of the lab",
            )

    def _power_on(
        self,
        vagrant: Vagrant,
        inventory: Inventory,
        deadline: Deadline,
        on_line: Callable[[str], None],
        nodes: Sequence[Node],
    ) -> None:
        """`vagrant up`; a paused machine is resumed before, since Vagrant would wait for its address first."""
        for name, domain in self._existing(nodes).items():
            if state_of(domain) == NodeState.PAUSED:
                switch_on(name, domain)
        states = self.states()
        if all(states[node.name] == NodeState.RUNNING for node in nodes):
            return
        failures.vagrant_up(
            vagrant,
            "libvirt",
            deadline,
            on_line,
            names=[node.name for node in nodes],
            cancelled=lambda: self._cancelled,
            states=self.states,
            # A Vagrant that was killed may have asked libvirt for a domain which appears only now.
            mend=lambda: self._mend(inventory, nodes),
        )

    def _wait_for_ssh(self, deadline: Deadline, nodes: Sequence[Node]) -> None:
        """Vagrant waits for the machines that it starts; one that was started by a killed `up` is waited for here."""

        def answers(node: Node) -> bool:
            found = poll(
                lambda: self._cancelled or self._ssh.answers(node.name, deadline.at_most(SSH_TRY_SECONDS)),
                deadline,
                every=SSH_POLL_SECONDS,
            )
            return bool(found) and not self._cancelled

        silent = [node.name for node, ok in map_parallel(answers, nodes).items() if not ok]
        if silent:
            raise MachineError(
                f"{', '.join(silent)} did not answer ssh in time",
                hint=f"klab logs {silent[0]} shows its console; klab create again goes on",
            )

    # --- adopt ----------------------------------------------------------------------------------

    def _check_import(self) -> None:
        inventory = self._inventory()
        inventory.refuse_foreign(self._plan)
        self._refuse_unknown_cpu()
        # libvirt's usual one is made where it is missing; another, of the scenario's, may be that of another host.
        if self._plan.pool != DEFAULT_POOL:
            inventory.box_pool(self._plan.pool)

    def _import_disks(self, disks: Mapping[str, Incoming], on_made: Callable[[str], None]) -> None:
        wanted = self._plan.select(list(disks))
        end_orphans(self._folder.path)
        inventory = self._inventory()
        inventory.refuse_foreign(self._plan)
        box_pool, lab_pool = self._prepare_host(inventory, self._plan.nodes)
        box = self._prepare_box(self._commands(), box_pool)
        facts = self._write_vagrantfile(lab_pool, self._plan)
        adoption = DiskImport(
            plan=self._plan,
            store=LayerStore(inventory),
            facts=facts,
            owner=self._owner,
            box=box,
            scratch=self._folder.path,
            console=lambda node: self.consoles()[node.name],
        )
        for node in wanted:
            if inventory.domain(node.uuid) is None:
                with translate_errors(f"the machine of {node.name} cannot be made"):
                    adoption.make(node, disks[node.name])
            self._ssh.know_by(node.name, disks[node.name].host_key)
            on_made(node.name)
        # Vagrant learns of them.
        self._mend(inventory, wanted)

    # --- power ----------------------------------------------------------------------------------
    # Through libvirt itself: Vagrant takes 15 seconds to begin, and goes from machine to machine.

    def start(self, nodes: Sequence[str]) -> None:
        wanted = self._plan.select(nodes)
        domains = self._existing(wanted)
        refuse_absent([node.name for node in wanted], domains)
        self._prepare_host(self._inventory(), wanted)
        self._wrapper()
        for name, domain in domains.items():
            switch_on(name, domain)

    def stop(self, nodes: Sequence[str], deadline: Deadline) -> list[str]:
        domains = self._existing(self._plan.select(nodes))
        for name, domain in domains.items():
            if state_of(domain) == NodeState.PAUSED:
                switch_on(name, domain)

        def on() -> list[str]:
            states = self.states()
            return [name for name in domains if states[name].on]

        def press(name: str) -> None:
            button = library().VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
            with translate_errors(f"{name} cannot be shut down"):
                ignore_missing(lambda: domains[name].shutdownFlags(button))

        return press_until_off(on, press, deadline)

    def power_off(self, nodes: Sequence[str]) -> None:
        for name, domain in self._existing(self._plan.select(nodes)).items():
            with translate_errors(f"{name} cannot be switched off"):
                ignore_missing(domain.destroy)

    def _existing(self, nodes: Sequence[Node]) -> dict[str, libvirt.virDomain]:
        """The domains of these nodes by node, without those that have none."""
        if self._over:
            return {}
        inventory = self._inventory()
        found = {node.name: inventory.domain(node.uuid) for node in nodes}
        return {name: domain for name, domain in found.items() if domain is not None}

    # --- looking --------------------------------------------------------------------------------

    def states(self) -> dict[str, NodeState]:
        found = {node.name: NodeState.ABSENT for node in self._plan.nodes}
        return found | {name: state_of(domain) for name, domain in self._existing(self._plan.nodes).items()}

    # --- seeds ----------------------------------------------------------------------------------

    def drop_seeds(self) -> None:
        inventory = self._inventory()
        for domain in inventory.domains():
            _eject(domain)
        for node in self._plan.nodes:
            inventory.remove_volume(seed_volume(node.name))
        shutil.rmtree(self._folder.seeds, ignore_errors=True)

    # --- remove and destroy ---------------------------------------------------------------------

    def remove(self, node: str, on_line: Callable[[str], None]) -> None:
        (gone,) = self._plan.select([node])
        if self._over:
            return
        end_orphans(self._folder.path)
        inventory = self._inventory()
        self._clear_books([node], on_line)
        domain = inventory.domain(gone.uuid)
        if domain is not None:
            inventory.remove_domain(domain)
        self._layers().clear(gone)
        inventory.remove_volume(seed_volume(node))
        others = tuple(other for other in self._plan.nodes if other != gone)
        inventory.ensure_hosts(self._plan.networks, others)
        pool = inventory.pool()
        if others and pool is not None:  # `vagrant up` shall not make it again
            self._write_vagrantfile(pool, replace(self._plan, nodes=others))
        self._drop_files(node)
        left = self._left_of(gone)
        if left:
            raise MachineError(f"something of {node} could not be removed", details=left, hint=AGAIN)

    def _clear_books(self, names: Sequence[str], on_line: Callable[[str], None]) -> None:
        """Let Vagrant forget machines, off by then: of one that boots it asks the address, for seconds each time."""
        with contextlib.suppress(MachineError):  # what does not go off is met again when it is removed
            self.power_off(names)
        forget_in_vagrant(self._folder.path, self._commands, on_line, names)

    def _left_of(self, node: Node) -> list[str]:
        inventory, layers = self._inventory(), self._layers()
        domain, held = inventory.domain(node.uuid), layers.held(node)
        files = [name for name in layers.files(node) if name not in held]
        return [
            *([] if domain is None else [f"machine {domain.name()}"]),
            *(f"volume {name}" for name in (*files, seed_volume(node.name)) if name in inventory.volumes()),
            *([f"DHCP entry of {node.management_mac}"] if inventory.knows_host(node.management_mac) else []),
        ]

    def destroy(self, on_line: Callable[[str], None]) -> None:
        if self._over:
            return
        end_orphans(self._folder.path)
        inventory = self._inventory()
        self._clear_books([node.name for node in self._plan.nodes], on_line)
        inventory.remove_all()
        shutil.rmtree(self._folder.seeds, ignore_errors=True)
        for folder in (self._folder.vagrant_state, self._folder.captures):
            shutil.rmtree(folder, ignore_errors=True)
        left = self.leftovers()
        if left:
            raise MachineError(f"something of lab {self._plan.name!r} could not be removed", details=left, hint=AGAIN)
        self._stop_empty_realm()

    def leftovers(self) -> list[str]:
        seeds = [f"seed {file}" for file in sorted(self._folder.seeds.glob("*.iso"))]
        return seeds if self._over else [*self._inventory().leftovers(), *seeds]

    def _stop_empty_realm(self) -> None:
        """End the private libvirt with its last lab."""
        if not self._realm.inside:
            return
        with translate_errors("the private libvirt cannot be asked for its labs"):
            connection = self._connect()
            if connection.listAllDomains() or connection.listAllNetworks():
                return
            with contextlib.suppress(library().libvirtError):
                connection.close()
        self._connection = None
        self._over = self._realm.stop()

    # --- captures and clocks --------------------------------------------------------------------

    def captures(self) -> LibvirtCaptures:
        def prepare(nodes: Sequence[Node]) -> None:
            inventory = self._inventory()
            steps: dict[str, Callable[[], object]] = {
                "host": lambda: self._prepare_host(inventory, nodes),
                "emulator": self._wrapper,
            }
            map_parallel(lambda step: steps[step](), list(steps))

        return LibvirtCaptures(self._plan, CaptureIndex(self._folder.captures), self._ssh, self._inventory, prepare)

    def disk_transfer(self) -> LibvirtDiskTransfer:
        book = CaptureIndex(self._folder.captures)
        return LibvirtDiskTransfer(self._plan, book, self._ssh, self._inventory, self._check_import, self._import_disks)

    def _layers(self) -> LayerCollector:
        return LayerCollector(self._plan, CaptureIndex(self._folder.captures), self._inventory)

    def run(self, node: str, command: Sequence[str], timeout: float) -> Completed:
        for domain in self._existing(self._plan.select([node])).values():
            done = guest_agent.run(domain, command, timeout)
            if done is not None:
                return done
        return super().run(node, command, timeout)

    def set_clock(self, node: str, clock: Callable[[], float], timeout: float) -> float:
        for domain in self._existing(self._plan.select([node])).values():
            moved = guest_clock.through_agent(domain, clock)
            if moved is not None:
                return moved
        return guest_clock.over_ssh(lambda words: self._ssh.run(node, words, timeout), clock)

    # --- connections ----------------------------------------------------------------------------

    def _connect(self) -> libvirt.virConnect:
        connection = self._connection
        if connection is not None and connection.isAlive():
            return connection
        if self._realm.inside:
            self._realm.start()  # a libvirtd that was killed comes back; the machines ran on
        self._connection = connect()
        return self._connection

    def _inventory(self) -> Inventory:
        return Inventory(self._connect(), self._owner)

    def _commands(self) -> Vagrant:
        if self._vagrant is None:
            self._vagrant = Vagrant(self._folder.path)
        return self._vagrant


def _eject(domain: libvirt.virDomain) -> None:
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
