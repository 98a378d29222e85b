"""The machines of a lab on libvirt: made and removed through Vagrant, watched and checked through libvirt.

Vagrant does the work that people see; klab prepares what Vagrant is weak at (`provision`: networks,
storage, seeds), mends what a kill left half-done, and verifies the result itself.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.errors import MachineError, Remedy
from lab.machines import ssh_clock
from lab.machines.libvirt import adoption, guest_agent, guest_clock
from lab.machines.libvirt.captures import LibvirtCaptures
from lab.machines.libvirt.connection import ignore_missing, library, translate_errors
from lab.machines.libvirt.consoles import ConsoleFiles
from lab.machines.libvirt.disk_transfer import LibvirtDiskTransfer
from lab.machines.libvirt.domains import disk_problem, eject, state_of, switch_on
from lab.machines.libvirt.layer_gc import new_layer
from lab.machines.libvirt.pools import DEFAULT_POOL
from lab.machines.libvirt.provision import Provision
from lab.machines.libvirt.resources import Resources
from lab.machines.libvirt.session import Session
from lab.machines.libvirt.slow_clocks import SlowClocks
from lab.machines.libvirt.volumes import LayerStore
from lab.machines.ownership import Owner
from lab.machines.protocol import NodeState
from lab.machines.vagrant import failures
from lab.machines.vagrant.command import Vagrant
from lab.machines.vagrant.provider import (
    AGAIN,
    VagrantProvider,
    end_orphans,
    forget_in_vagrant,
    press_until_off,
    refuse_absent,
)
from lab.plan.model import Node, Plan
from lab.plan.names import seed_volume
from lab.process import Completed
from lab.scenario.sizes import human
from lab.store import Home, LabFolder, Record
from lab.waiting import Deadline, map_parallel, poll

if TYPE_CHECKING:
    import libvirt

_log = logging.getLogger("klab.libvirt")
SSH_TRY_SECONDS = 60.0
SSH_POLL_SECONDS = 1.0


class LibvirtMachines(VagrantProvider):
    """The machines of one lab on libvirt; see `lab.machines.protocol.Machines`."""

    def __init__(self, home: Home, folder: LabFolder, plan: Plan, record: Record, box: Path | None) -> None:
        super().__init__(folder, plan)
        self._session = Session(home, Owner(record.id, record.seat, record.epoch))
        self._provision = Provision(
            home, folder, plan, record, box, self._session, self._ssh, vagrant=lambda: self._commands()
        )
        self._vagrant: Vagrant | None = None
        self._cancelled = False

    def _resources(self) -> Resources:
        return self._session.resources()

    def _commands(self) -> Vagrant:
        if self._vagrant is None:
            self._vagrant = Vagrant(self._folder.path)
        return self._vagrant

    # --- up -------------------------------------------------------------------------------------

    def check_new(self) -> None:
        resources = self._resources()
        resources.refuse_foreign(self._plan)
        self._provision.refuse_unknown_cpu()
        # libvirt's usual one is made where it is missing; another, of the scenario's, may be that of another host.
        if self._plan.pool != DEFAULT_POOL:
            resources.pool.box_pool(self._plan.pool)

    def up(self, deadline: Deadline, on_line: Callable[[str], None], nodes: Sequence[str] | None = None) -> None:
        wanted = self._plan.select(nodes)
        end_orphans(self._folder.path)
        self.check_new()
        resources = self._resources()
        vagrant = self._commands()
        box_pool, lab_pool = self._provision.prepare_host(resources)
        self._provision.mend(resources, wanted)
        missing = [node for node in wanted if resources.domains.find(node.uuid) is None]
        for node in missing:
            self._ssh.forget_host_key(node.name)
        box = self._provision.prepare_box(box_pool) if missing else None
        self._provision.upload_seeds(resources, lab_pool, wanted)
        facts = self._provision.write_vagrantfile(lab_pool, self._plan)
        if box is not None:
            self._provision.define_beside_captures(resources, missing, facts, box)
        self._power_on(vagrant, resources, deadline, on_line, wanted)
        resources.domains.stamp()
        self._adopt_disks(resources, wanted)
        self._wait_for_ssh(deadline, wanted)
        self._provision.slow_clocks().check(self._existing(wanted))

    def _adopt_disks(self, resources: Resources, nodes: Sequence[Node]) -> None:
        """Without it snapshots and exports are slower, as what klab may not read goes through libvirt: no failure."""
        domains = {} if not LayerStore(resources).direct else resources.domains.of(nodes)
        free = {
            name: domain for name, domain in domains.items() if not self._provision.layers.held(self._plan.known(name))
        }

        def adopt(name: str) -> None:
            try:
                adoption.adopt(LayerStore(resources), free[name], new_layer(self._plan, name))
            except MachineError as error:
                _log.warning("%s: %s", error.message, "; ".join(error.details))

        map_parallel(adopt, list(free))

    def cancel(self) -> None:
        self._cancelled = True
        if self._vagrant is not None:
            self._vagrant.cancel()

    def _power_on(
        self,
        vagrant: Vagrant,
        resources: Resources,
        deadline: Deadline,
        on_line: Callable[[str], None],
        nodes: Sequence[Node],
    ) -> None:
        """`vagrant up`; a paused machine is resumed before, since Vagrant would wait for its address first."""
        for name, domain in self._existing(nodes).items():
            if state_of(domain) == NodeState.PAUSED:
                switch_on(name, domain)
        states = self.states()
        off = [node for node in nodes if states[node.name] != NodeState.RUNNING]
        if not off:
            return
        self._provision.renew_consoles(off)
        self._provision.slow_clocks().fit(resources.connection, self._existing(nodes))
        failures.vagrant_up(
            vagrant,
            "libvirt",
            deadline,
            on_line,
            names=[node.name for node in nodes],
            cancelled=lambda: self._cancelled,
            states=self.states,
            # A Vagrant that was killed may have asked libvirt for a domain which appears only now.
            mend=lambda: self._provision.mend(resources, nodes),
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
                hint=(Remedy("logs", node=silent[0]), " shows its console; ", Remedy("create"), " continues"),
            )

    # --- power ----------------------------------------------------------------------------------
    # Through libvirt itself: Vagrant takes 15 seconds to begin, and goes from machine to machine.

    def start(self, nodes: Sequence[str]) -> None:
        wanted = self._plan.select(nodes)
        domains = self._existing(wanted)
        refuse_absent([node.name for node in wanted], domains)
        self._provision.prepare_host(self._resources())
        clocks = self._provision.slow_clocks()
        self._provision.renew_consoles([node for node in wanted if not state_of(domains[node.name]).on])
        clocks.fit(self._resources().connection, domains)
        for name, domain in domains.items():
            switch_on(name, domain)
        clocks.check(domains)

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
        return {} if self._session.over else self._resources().domains.of(nodes)

    # --- looking --------------------------------------------------------------------------------

    def states(self) -> dict[str, NodeState]:
        found = {node.name: NodeState.ABSENT for node in self._plan.nodes}
        return found | {name: state_of(domain) for name, domain in self._existing(self._plan.nodes).items()}

    def halted(self) -> dict[str, str]:
        resources, found = self._resources(), dict[str, str]()
        for name, domain in self._existing(self._plan.nodes).items():
            if (why := disk_problem(domain)) is not None:
                store = LayerStore(resources)
                found[name] = f"{why}: {human(store.free >> 20)} are free in {store.folder}"
        return found

    # --- seeds ----------------------------------------------------------------------------------

    def drop_seeds(self) -> None:
        resources = self._resources()
        for domain in resources.domains.all():
            eject(domain)
        for node in self._plan.nodes:
            resources.pool.remove_volume(seed_volume(node.name))
        shutil.rmtree(self._folder.seeds, ignore_errors=True)

    # --- remove and destroy ---------------------------------------------------------------------

    def remove(self, node: str, on_line: Callable[[str], None]) -> None:
        (gone,) = self._plan.select([node])
        if self._session.over:
            return
        end_orphans(self._folder.path)
        resources = self._resources()
        self._clear_books([node], on_line)
        domain = resources.domains.find(gone.uuid)
        if domain is not None:
            resources.domains.remove(domain)
        self._provision.layers.clear(gone)
        resources.pool.remove_volume(seed_volume(node))
        if (consoles := self._provision.consoles()) is not None:
            consoles.remove(node)
        others = tuple(other for other in self._plan.nodes if other != gone)
        resources.networks.ensure_hosts(self._plan.networks, others)
        pool = resources.pool.find()
        if others and pool is not None:  # `vagrant up` shall not make it again
            self._provision.write_vagrantfile(pool, replace(self._plan, nodes=others))
        self._drop_files(node)
        left = self._left_of(gone)
        if left:
            raise MachineError(f"some parts of {node} could not be removed", details=left, hint=AGAIN)

    def _clear_books(self, names: Sequence[str], on_line: Callable[[str], None]) -> None:
        """Let Vagrant forget machines, off by then: of one that boots it asks the address, for seconds each time."""
        with contextlib.suppress(MachineError):  # what does not go off is met again when it is removed
            self.power_off(names)
        forget_in_vagrant(self._folder.path, self._commands, on_line, names)

    def _left_of(self, node: Node) -> list[str]:
        resources, layers = self._resources(), self._provision.layers
        domain, held = resources.domains.find(node.uuid), layers.held(node)
        files = [name for name in layers.files(node) if name not in held]
        return [
            *([] if domain is None else [f"machine {domain.name()}"]),
            *(f"volume {name}" for name in (*files, seed_volume(node.name)) if name in resources.pool.volumes()),
            *([f"DHCP entry of {node.management_mac}"] if resources.networks.knows_host(node.management_mac) else []),
        ]

    def destroy(self, on_line: Callable[[str], None]) -> None:
        if self._session.over:
            return
        end_orphans(self._folder.path)
        resources = self._resources()
        self._clear_books([node.name for node in self._plan.nodes], on_line)
        resources.remove_all()
        self._provision.forget_box_out_of_store()
        shutil.rmtree(self._folder.seeds, ignore_errors=True)
        for folder in (self._folder.vagrant_state, self._folder.captures):
            shutil.rmtree(folder, ignore_errors=True)
        left = self.leftovers()
        if left:
            raise MachineError(f"some parts of lab {self._plan.name!r} could not be removed", details=left, hint=AGAIN)
        self._session.end_if_empty()

    def leftovers(self) -> list[str]:
        seeds = [f"seed {file}" for file in sorted(self._folder.seeds.glob("*.iso"))]
        return seeds if self._session.over else [*self._resources().leftovers(), *seeds]

    # --- captures and clocks --------------------------------------------------------------------

    def captures(self) -> LibvirtCaptures:
        provision = self._provision

        def prepare() -> tuple[ConsoleFiles, SlowClocks]:
            provision.prepare_host(self._resources())
            return provision.needed_consoles(), provision.slow_clocks()

        return LibvirtCaptures(self._plan, provision.index, self._ssh, self._resources, prepare)

    def disk_transfer(self) -> LibvirtDiskTransfer:
        return LibvirtDiskTransfer(self._provision)

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
        return ssh_clock.set_clock(lambda words: self._ssh.run(node, words, timeout), clock)
