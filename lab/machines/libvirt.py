"""The machines of a lab on libvirt: made and removed through Vagrant, watched and checked through libvirt.

Vagrant does the work that people see; klab prepares what Vagrant is weak at (networks,
storage, seeds), mends what a kill left half-done, and verifies the end itself.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from lab import process
from lab.errors import LabError, MachineError, ProgramTimeout
from lab.machines import definitions, emulator, transfer, up_failure
from lab.machines.connection import URI, connect, explained, library
from lab.machines.inventory import Inventory
from lab.machines.ownership import Owner
from lab.machines.protocol import NodeState
from lab.machines.realm import Realm
from lab.machines.ssh import Ssh
from lab.machines.vagrant import BOX_VERSION, Vagrant, end_orphans
from lab.plan import Node, Plan
from lab.process import Completed
from lab.render.vagrantfile import LibvirtFacts, domain_name, render_libvirt, seed_volume
from lab.store import Home, LabFolder, Record, write_atomic
from lab.waiting import Deadline, poll

if TYPE_CHECKING:
    import libvirt

SSH_TRY_SECONDS = 60.0
DESTROY_SECONDS = 300.0
SSH_POLL_SECONDS = 1.0


class LibvirtMachines:
    """The machines of one lab on libvirt; see `lab.machines.protocol.Machines`."""

    def __init__(self, home: Home, folder: LabFolder, plan: Plan, record: Record, box: Path | None) -> None:
        self._home = home
        self._folder = folder
        self._plan = plan
        self._record = record
        self._box = box
        self._owner = Owner(record.id, record.seat, record.epoch)
        self._realm = Realm(home)
        self._ssh = Ssh(folder, plan)
        self._connection: libvirt.virConnect | None = None
        self._vagrant: Vagrant | None = None
        self._cancelled = False
        self._over = False  # the private libvirt ended with this lab: nothing is left to ask

    # --- up -------------------------------------------------------------------------------------

    def up(self, deadline: Deadline, on_line: Callable[[str], None]) -> None:
        end_orphans(self._folder.path)
        inventory = self._inventory()
        inventory.refuse_foreign(self._plan)
        vagrant = self._commands()
        inventory.ensure_networks(self._plan)
        box_pool = inventory.box_pool(self._plan.pool)
        lab_pool = inventory.ensure_pool(box_pool)
        self._mend(inventory)
        if any(inventory.domain(node.uuid) is None for node in self._plan.nodes):
            self._prepare_box(vagrant, box_pool)
        self._upload_seeds(inventory, lab_pool)
        self._prepare_consoles()
        self._write_vagrantfile(lab_pool)
        if any(state != NodeState.RUNNING for state in self.states().values()):
            self._power_on(vagrant, inventory, deadline, on_line)
        inventory.stamp()
        self._wait_for_ssh(deadline)

    def cancel(self) -> None:
        self._cancelled = True
        if self._vagrant is not None:
            self._vagrant.cancel()

    def _mend(self, inventory: Inventory) -> bool:
        """Bring what a kill left half-made to where `vagrant up` can go on.

        A domain that lacks a network interface was never started: it goes, and its disk. A
        disk without a domain goes as well, since vagrant-libvirt refuses to make it again.
        A domain that is whole but unknown to Vagrant is made known to it.

        Returns:
            Whether there was a domain to mend.
        """
        mended = False
        for node in self._plan.nodes:
            domain = inventory.domain(node.uuid)
            if domain is not None:
                with explained(f"{node.name} cannot be looked at"):
                    macs = definitions.mac_addresses(domain.XMLDesc())
                if not {node.mac, node.management_mac} <= macs:
                    inventory.remove_domain(domain)
                    domain, mended = None, True
            identity = self._folder.path / ".vagrant" / "machines" / node.name / "libvirt" / "id"
            if domain is None:
                inventory.remove_volume(f"{domain_name(self._plan, node.name)}.img")
                shutil.rmtree(identity.parent, ignore_errors=True)
            elif not identity.is_file() or identity.read_text() != node.uuid:
                write_atomic(identity, node.uuid)
                mended = True
        return mended

    def _prepare_box(self, vagrant: Vagrant, pool: libvirt.virStoragePool) -> None:
        """Give Vagrant the box, and libvirt its disk, without copying either where that can be helped."""
        disk = self._box_disk()
        info = json.loads(process.run(["qemu-img", "info", "--output=json", disk], timeout=60).stdout)
        metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": -(-info["virtual-size"] // 1024**3)}
        files: list[tuple[str, bytes | Path]] = [
            ("metadata.json", json.dumps(metadata).encode()),
            ("Vagrantfile", b'Vagrant.configure("2") {}\n'),
            ("box.img", disk),
        ]
        vagrant.add_box(self._box_name, "libvirt", files, self._home.cache)
        # The name that vagrant-libvirt 0.11 looks for (action/handle_box_image.rb).
        volume = f"{self._box_name.replace('/', '-VAGRANTSLASH-')}_vagrant_box_image_{BOX_VERSION}_box.img"
        transfer.ensure_base(self._home, pool, volume, disk, link=self._realm.inside)

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
        if self._box is not None:
            return f"klab/{self._box.parent.name.replace('@', '-')}"
        return f"klab/{self._record.box}"

    def _upload_seeds(self, inventory: Inventory, pool: libvirt.virStoragePool) -> None:
        for node in self._plan.nodes:
            seed = self._folder.seeds / f"{node.name}.iso"
            domain = inventory.domain(node.uuid)
            if seed.is_file() and (domain is None or not domain.isActive()):
                transfer.upload(pool, seed_volume(node.name), seed)
            elif domain is None:
                raise MachineError(
                    f"the machine of {node.name} is gone, and so is the seed to make it from",
                    hint=f"klab destroy {self._plan.name}, then klab create it anew",
                )

    def _prepare_consoles(self) -> None:
        """Make the console files ours before QEMU or virtlogd, which are root, make them theirs."""
        self._folder.logs.mkdir(parents=True, exist_ok=True)
        for file in self.consoles().values():
            file.touch()

    def _write_vagrantfile(self, pool: libvirt.virStoragePool) -> None:
        record, wrapper = self._record, None
        if record.dilation != 1.0:
            wrapper = emulator.write_wrapper(self._home)
            if not self._realm.inside:
                emulator.check_reachable(wrapper)
        kind = "kvm" if record.accelerated else "qemu"
        with explained("libvirt cannot say which machine types it has"):
            capabilities = self._connect().getDomainCapabilities(arch="x86_64", machine="q35", virttype=kind)
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
        write_atomic(self._folder.path / "Vagrantfile", render_libvirt(self._plan, facts))

    def _power_on(
        self, vagrant: Vagrant, inventory: Inventory, deadline: Deadline, on_line: Callable[[str], None]
    ) -> None:
        """`vagrant up`; a paused machine is resumed before, since Vagrant would wait for its address first."""
        for domain in inventory.domains():
            if _state(domain) == NodeState.PAUSED:
                with explained("a paused machine cannot be resumed"):
                    domain.resume()
        done = self._vagrant_up(vagrant, deadline, on_line)
        # A Vagrant that was killed may have asked libvirt for a domain which appears only now.
        if done.code != 0 and not self._cancelled and self._mend(inventory):
            done = self._vagrant_up(vagrant, deadline, on_line)
        if done.code != 0:
            raise up_failure.explain(done, self._cancelled)

    def _vagrant_up(self, vagrant: Vagrant, deadline: Deadline, on_line: Callable[[str], None]) -> Completed:
        try:
            return vagrant.up("libvirt", max(deadline.left, 1.0), on_line)
        except ProgramTimeout as error:
            raise MachineError(
                "the machines did not answer ssh in time",
                details=error.details,
                hint="klab create again goes on; klab logs NODE shows a machine's console",
            ) from error

    def _wait_for_ssh(self, deadline: Deadline) -> None:
        """Vagrant waits for the machines that it starts; one that was started by a killed `up` is waited for here."""

        def answers(node: Node) -> bool:
            found = poll(
                lambda: self._cancelled or self._ssh.answers(node.name, deadline.at_most(SSH_TRY_SECONDS)),
                deadline,
                every=SSH_POLL_SECONDS,
            )
            return bool(found) and not self._cancelled

        with ThreadPoolExecutor(max_workers=len(self._plan.nodes)) as pool:
            silent = [
                node.name
                for node, ok in zip(self._plan.nodes, pool.map(answers, self._plan.nodes), strict=True)
                if not ok
            ]
        if silent:
            raise MachineError(
                f"{', '.join(silent)} did not answer ssh in time",
                hint=f"klab logs {silent[0]} shows its console; klab create again goes on",
            )

    # --- looking --------------------------------------------------------------------------------

    def states(self) -> dict[str, NodeState]:
        if self._over:
            return {node.name: NodeState.ABSENT for node in self._plan.nodes}
        inventory = self._inventory()
        found = {}
        for node in self._plan.nodes:
            domain = inventory.domain(node.uuid)
            found[node.name] = NodeState.ABSENT if domain is None else _state(domain)
        return found

    def consoles(self) -> dict[str, Path]:
        return {node.name: self._folder.logs / f"console-{node.name}.log" for node in self._plan.nodes}

    def ssh(
        self, node: str, command: Sequence[str], timeout: float, check: bool = True, stdin: str | None = None
    ) -> Completed:
        return self._ssh.run(node, command, timeout, check, stdin)

    def ssh_argv(self, node: str, command: Sequence[str] = ()) -> list[str]:
        return self._ssh.argv(node, command)

    # --- seeds ----------------------------------------------------------------------------------

    def drop_seeds(self) -> None:
        inventory = self._inventory()
        for domain in inventory.domains():
            _eject(domain)
        for node in self._plan.nodes:
            inventory.remove_volume(seed_volume(node.name))
        shutil.rmtree(self._folder.seeds, ignore_errors=True)

    # --- destroy --------------------------------------------------------------------------------

    def destroy(self, on_line: Callable[[str], None]) -> None:
        if self._over:
            return
        end_orphans(self._folder.path)
        inventory = self._inventory()
        # Vagrant first: it clears its own books (machine index, .vagrant). It may fail on a lab
        # that is half-made or half-gone, and klab does not depend on it.
        if (self._folder.path / "Vagrantfile").is_file() and (self._folder.path / ".vagrant").is_dir():
            try:
                done = self._commands().destroy(DESTROY_SECONDS, on_line)
                if done.code != 0:
                    on_line(f"vagrant destroy ended with exit code {done.code}; klab removes the rest itself")
            except LabError as error:
                on_line(f"{error.message}; klab removes the rest itself")
        inventory.remove_all()
        shutil.rmtree(self._folder.seeds, ignore_errors=True)
        shutil.rmtree(self._folder.path / ".vagrant", ignore_errors=True)
        left = self.leftovers()
        if left:
            raise MachineError(f"something of lab {self._plan.name!r} could not be removed", details=left)
        self._stop_empty_realm()

    def leftovers(self) -> list[str]:
        seeds = [f"seed {file}" for file in sorted(self._folder.seeds.glob("*.iso"))]
        return seeds if self._over else [*self._inventory().leftovers(), *seeds]

    def _stop_empty_realm(self) -> None:
        """End the private libvirt with its last lab."""
        if not self._realm.inside:
            return
        with explained("the private libvirt cannot be asked for its labs"):
            connection = self._connect()
            if connection.listAllDomains() or connection.listAllNetworks():
                return
            with contextlib.suppress(library().libvirtError):
                connection.close()
        self._connection = None
        self._over = self._realm.stop()

    # --- connections ----------------------------------------------------------------------------

    def _connect(self) -> libvirt.virConnect:
        connection = self._connection
        if connection is not None and connection.isAlive():
            return connection
        if self._realm.inside:
            self._realm.start()  # a libvirtd that was killed comes back; the machines ran on
        self._connection = connect(URI)
        return self._connection

    def _inventory(self) -> Inventory:
        return Inventory(self._connect(), self._owner)

    def _commands(self) -> Vagrant:
        if self._vagrant is None:
            self._vagrant = Vagrant(self._folder.path)
        return self._vagrant


def _state(domain: libvirt.virDomain) -> NodeState:
    library_ = library()
    with explained("a machine's state cannot be read"):
        state = domain.state()[0]
    return {
        library_.VIR_DOMAIN_RUNNING: NodeState.RUNNING,
        library_.VIR_DOMAIN_BLOCKED: NodeState.RUNNING,
        library_.VIR_DOMAIN_SHUTDOWN: NodeState.RUNNING,
        library_.VIR_DOMAIN_PAUSED: NodeState.PAUSED,
        library_.VIR_DOMAIN_PMSUSPENDED: NodeState.PAUSED,
        library_.VIR_DOMAIN_CRASHED: NodeState.CRASHED,
    }.get(state, NodeState.STOPPED)


def _eject(domain: libvirt.virDomain) -> None:
    """Take the media out of a domain's cdroms, now and for its next start."""
    library_ = library()
    with explained(f"the seed cannot be taken out of {domain.name()}"):
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
