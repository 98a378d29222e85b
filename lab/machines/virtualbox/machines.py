"""The machines of a lab on VirtualBox: made and removed through Vagrant, watched and checked through VBoxManage.

Source: VirtualBox 7.0 user manual, chapter 8 (VBoxManage), and src/VBox/Frontends/VBoxManage
for the exact output of `list vms` and `showvminfo --machinereadable`. No machine of klab's
makers could start VirtualBox: see docs/how-to/providers.md for what has been proven how.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lab import process
from lab.errors import Conflict, MachineError, ProgramError, Remedy
from lab.files import write_atomic
from lab.machines import ssh_clock
from lab.machines.ownership import Owner, owner_in_description
from lab.machines.protocol import NodeState
from lab.machines.vagrant import failures, vagrant_home
from lab.machines.vagrant.command import Vagrant
from lab.machines.vagrant.provider import (
    AGAIN,
    VagrantProvider,
    forget_in_vagrant,
    press_until_off,
    refuse_absent,
)
from lab.machines.vagrant.vagrant_home import box_name, sized_box
from lab.machines.virtualbox.captures import VirtualBoxCaptures
from lab.machines.virtualbox.manage import manage
from lab.machines.virtualbox.output import (
    dvd_slots,
    parse_disks,
    parse_info,
    parse_machines,
    parse_medium,
    state_of,
)
from lab.plan.model import Plan
from lab.plan.names import domain_name
from lab.render.vagrantfile import VirtualBoxFacts, render_virtualbox
from lab.store import Home, LabFolder, Record
from lab.waiting import Deadline

# Neither running nor off: there is a process, or a saved state, to get rid of.
_HALFWAY = {"paused", "saved", "aborted-saved", "gurumeditation"}


class VirtualBoxMachines(VagrantProvider):
    """The machines of one lab on VirtualBox; see `lab.machines.protocol.Machines`."""

    def __init__(self, _home: Home, folder: LabFolder, plan: Plan, record: Record, box: Path | None) -> None:
        super().__init__(folder, plan)
        self._box = box
        folder_of_box = box.parent.name if box else record.box
        self._boxes = {disk: box_name(folder_of_box, sized_box(disk)) for disk in {node.disk for node in plan.nodes}}
        self._owner = Owner(record.id, record.seat, record.epoch)
        self._vagrant = Vagrant(folder.path)
        self._cancelled = False

    def up(self, deadline: Deadline, on_line: Callable[[str], None], nodes: Sequence[str] | None = None) -> None:
        wanted = [node.name for node in self._plan.select(nodes)]
        self.check_new()
        for name, state in self.states().items():
            if name in wanted and state == NodeState.ABSENT:
                self._ssh.forget_host_key(name)
        self._add_boxes(self._box, deadline)
        self._folder.logs.mkdir(parents=True, exist_ok=True)
        self._write_vagrantfile(self._plan)
        if wanted:
            failures.vagrant_up(
                self._vagrant,
                "virtualbox",
                deadline,
                on_line,
                names=wanted,
                cancelled=lambda: self._cancelled,
                states=self.states,
            )

            self._check_disks(wanted)

    def _add_boxes(self, box: Path | None, deadline: Deadline) -> None:
        """Give Vagrant the box with a disk of each size, where it does not have it yet."""
        if box is None:
            return
        # Of two Vagrants that add the same box at the same time one fails.
        with vagrant_home.locked():
            there = self._vagrant.boxes()
            for disk, name in self._boxes.items():
                if name not in there:
                    file = str(box.parent / sized_box(disk))
                    self._vagrant.run(["box", "add", "--name", name, file], timeout=deadline.left)

    def _check_disks(self, nodes: Sequence[str]) -> None:
        """Make sure that each of these nodes has a disk of the size that its plan has.

        Raises:
            MachineError: one has another.
        """
        infos = self._infos()
        for node in self._plan.select(nodes):
            for disk in parse_disks(infos.get(node.name, {})).values():
                mib = parse_medium(manage("showmediuminfo", "disk", disk).stdout).mib
                if mib != node.disk << 10:
                    raise MachineError(
                        f"the disk of {node.name} has {mib} MiB, not {node.disk} GiB",
                        details=[f"box {self._boxes[node.disk]}, disk {disk}"],
                        hint=(Remedy("destroy"), " and ", Remedy("box rm"), " remove both; then build the box again"),
                    )

    def _write_vagrantfile(self, plan: Plan) -> None:
        facts = VirtualBoxFacts(boxes=self._boxes, description=self._owner.description)
        write_atomic(self._folder.vagrantfile, render_virtualbox(plan, facts))

    def cancel(self) -> None:
        self._cancelled = True
        self._vagrant.cancel()

    def start(self, nodes: Sequence[str]) -> None:
        wanted, infos = [node.name for node in self._plan.select(nodes)], self._infos()
        refuse_absent(wanted, infos)
        for name in wanted:
            self._switch_on(name, infos[name])

    def stop(self, nodes: Sequence[str], deadline: Deadline) -> list[str]:
        wanted, infos = [node.name for node in self._plan.select(nodes)], self._infos()
        for name in wanted:
            if name in infos and state_of(infos[name]) == NodeState.PAUSED:
                self._switch_on(name, infos[name])

        def on() -> list[str]:
            states = self.states()
            return [name for name in wanted if states[name].on]

        def press(name: str) -> None:
            # What it answers does not matter: whether the machine is off is looked up.
            manage("controlvm", domain_name(self._plan, name), "acpipowerbutton", check=False)

        return press_until_off(on, press, deadline)

    def power_off(self, nodes: Sequence[str]) -> None:
        infos = self._infos()
        for node in self._plan.select(nodes):
            if node.name in infos:
                self._switch_off(node.name, infos[node.name])

    def _switch_on(self, node: str, info: dict[str, str]) -> None:
        """Let a machine run, whatever it does; one that runs is left alone."""
        name = domain_name(self._plan, node)
        if state_of(info) == NodeState.RUNNING:
            return
        if info.get("VMState") == "gurumeditation":  # its process is still there
            self._switch_off(node, info)
        try:
            if info.get("VMState") == "paused":
                manage("controlvm", name, "resume")
            else:
                manage("startvm", name, "--type", "headless")
        except ProgramError as error:
            raise failures.recognized("\n".join(error.details), error.details) or MachineError(
                f"{node} cannot be started",
                details=error.details,
                hint=(Remedy("create"), " again continues through Vagrant, which makes the host-only network again"),
            ) from error

    def _switch_off(self, node: str, info: dict[str, str]) -> None:
        """Cut a machine's power; for one whose state was saved: forget that state."""
        name, word = domain_name(self._plan, node), info.get("VMState", "")
        if word not in _HALFWAY and state_of(info) != NodeState.RUNNING:
            return
        done = manage(*(["discardstate", name] if "saved" in word else ["controlvm", name, "poweroff"]), check=False)
        # It may have gone off by itself in that moment.
        if done.code != 0 and self.states()[node].on:
            raise process.failed(done)

    def states(self) -> dict[str, NodeState]:
        infos = self._infos()
        return {n.name: state_of(infos[n.name]) if n.name in infos else NodeState.ABSENT for n in self._plan.nodes}

    def halted(self) -> dict[str, str]:
        return {}  # VirtualBox tells it in its log alone

    def drop_seeds(self) -> None:
        for node, info in self._infos().items():
            for controller, port, device in dvd_slots(info, f"{node}.iso"):
                where = ["--storagectl", controller, "--port", port, "--device", device]
                # A drive stays: one that is gone cannot be put back into a running machine.
                manage(
                    "storageattach", domain_name(self._plan, node), *where, "--medium", "emptydrive", "--forceunmount"
                )
        shutil.rmtree(self._folder.seeds, ignore_errors=True)

    def remove(self, node: str, on_line: Callable[[str], None]) -> None:
        names = [found.name for found in self._plan.select([node])]
        forget_in_vagrant(self._folder.path, lambda: self._vagrant, on_line, names)
        try:
            self._unregister(names)
        except ProgramError as error:
            raise MachineError(
                f"some parts of {node} could not be removed", details=error.details, hint=AGAIN
            ) from error
        others = tuple(other for other in self._plan.nodes if other.name != node)
        if others:  # `vagrant up` shall not make it again
            self._write_vagrantfile(replace(self._plan, nodes=others))
        self._drop_files(node)
        if node in self._infos():
            raise MachineError(
                f"some parts of {node} could not be removed",
                details=[f"machine {domain_name(self._plan, node)}"],
                hint=AGAIN,
            )

    def destroy(self, on_line: Callable[[str], None]) -> None:
        names = [node.name for node in self._plan.nodes]
        forget_in_vagrant(self._folder.path, lambda: self._vagrant, on_line, names)
        self._unregister(names)
        shutil.rmtree(self._folder.seeds, ignore_errors=True)
        shutil.rmtree(self._folder.vagrant_state, ignore_errors=True)
        if left := self.leftovers():
            raise MachineError(f"some parts of lab {self._plan.name!r} could not be removed", details=left, hint=AGAIN)

    def _unregister(self, nodes: Sequence[str]) -> None:
        """Remove what is there of these machines, their disks included."""
        for node, info in self._infos().items():
            if node in nodes:
                self._switch_off(node, info)
                manage("unregistervm", domain_name(self._plan, node), "--delete")

    def leftovers(self) -> list[str]:
        machines = [f"machine {domain_name(self._plan, node)}" for node in self._infos()]
        return [*machines, *(f"seed {file}" for file in sorted(self._folder.seeds.glob("*.iso")))]

    def set_clock(self, node: str, clock: Callable[[], float], timeout: float) -> float:
        return ssh_clock.set_clock(lambda words: self._ssh.run(node, words, timeout), clock)

    def captures(self) -> VirtualBoxCaptures:
        return VirtualBoxCaptures(self._plan, manage, self._infos)

    def disk_transfer(self) -> None:
        """There is none: klab does not move VirtualBox's disks yet."""

    def _infos(self) -> dict[str, dict[str, str]]:
        """What VBoxManage reports of each machine that carries this lab's mark, by node."""
        there = parse_machines(manage("list", "vms").stdout)
        found = {}
        for node in self._plan.nodes:
            name = domain_name(self._plan, node.name)
            if name in there:
                info = parse_info(manage("showvminfo", there[name], "--machinereadable").stdout)
                if owner_in_description(info.get("description", "")) == self._owner.lab_id:
                    found[node.name] = info
        return found

    def check_new(self) -> None:
        there, own = parse_machines(manage("list", "vms").stdout), self._infos()
        for node in self._plan.nodes:
            name = domain_name(self._plan, node.name)
            if name in there and node.name not in own:
                raise Conflict(
                    f"a machine named {name!r} already exists and does not belong to this lab (needed for {node.name})",
                    details=[f"UUID {there[name]}"],
                    hint="give this lab another name with --name, or remove it: VBoxManage unregistervm --delete",
                )
