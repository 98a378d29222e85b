"""The machines of a lab on VirtualBox: made and removed through Vagrant, watched and checked through VBoxManage.

Source: VirtualBox 7.0 user manual, chapter 8 (VBoxManage), and src/VBox/Frontends/VBoxManage
for the exact output of `list vms` and `showvminfo --machinereadable`. No machine of klab's
makers could start VirtualBox: see docs/how-to/providers.md for what has been proven how.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from lab import process
from lab.errors import Conflict, LabError, MachineError, ProgramTimeout
from lab.machines import up_failure
from lab.machines.ownership import Owner, owner_in_description
from lab.machines.protocol import NodeState
from lab.machines.ssh import Ssh
from lab.machines.vagrant import Vagrant
from lab.plan import Plan
from lab.process import Completed
from lab.render.vagrantfile import VirtualBoxFacts, domain_name, render_virtualbox
from lab.store import Home, LabFolder, Record, write_atomic
from lab.waiting import Deadline

QUICK_SECONDS = 60.0
DESTROY_SECONDS = 300.0
_VM = re.compile(r'^"(?P<name>.*)" \{(?P<uuid>[0-9a-f-]{36})\}$')
_PAIR = re.compile(r'^(?:"(?P<quoted>[^"]*)"|(?P<key>[^=]+))=(?:"(?P<text>.*)"|(?P<bare>.*))$')
_STATES = {
    "running": NodeState.RUNNING,
    "starting": NodeState.RUNNING,
    "stopping": NodeState.RUNNING,
    "paused": NodeState.PAUSED,
    "saved": NodeState.PAUSED,
    "aborted": NodeState.CRASHED,
    "aborted-saved": NodeState.CRASHED,
    "gurumeditation": NodeState.CRASHED,
}


def parse_machines(text: str) -> dict[str, str]:
    """UUID by name, from `VBoxManage list vms`."""
    found = (_VM.match(line) for line in text.splitlines())
    return {match["name"]: match["uuid"] for match in found if match}


def parse_info(text: str) -> dict[str, str]:
    """Keys and values of `VBoxManage showvminfo --machinereadable`; a value may span lines (the description)."""
    info: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        match = _PAIR.match(line)
        if match:
            key = match["quoted"] or match["key"]
            info[key] = match["text"] if match["text"] is not None else match["bare"]
        elif key:
            info[key] += f"\n{line}"
    # The quotes of a value over several lines stand on different lines.
    return {key: value.strip('"') for key, value in info.items()}


def state_of(info: dict[str, str]) -> NodeState:
    """What `VMState` says."""
    return _STATES.get(info.get("VMState", ""), NodeState.STOPPED)


def dvd_slots(info: dict[str, str], image: str) -> list[tuple[str, str, str]]:
    """Controller, port and device of each drive that holds an image of that file name."""
    return [
        (match[1], match[2], match[3])
        for key, value in info.items()
        if Path(value).name == image and (match := re.fullmatch(r"(.+)-(\d+)-(\d+)", key))
    ]


class VirtualBoxMachines:
    """The machines of one lab on VirtualBox; see `lab.machines.protocol.Machines`."""

    def __init__(self, home: Home, folder: LabFolder, plan: Plan, record: Record, box: Path | None) -> None:
        self._home = home
        self._folder = folder
        self._plan = plan
        self._box = box
        self._box_name = f"klab/{(box.parent.name if box else record.box).replace('@', '-')}-virtualbox"
        self._owner = Owner(record.id, record.seat, record.epoch)
        self._ssh = Ssh(folder, plan)
        self._vagrant = Vagrant(folder.path)
        self._cancelled = False

    def up(self, deadline: Deadline, on_line: Callable[[str], None]) -> None:
        self._refuse_foreign()
        if self._box is not None and self._box_name not in self._vagrant.boxes():
            self._vagrant.run(["box", "add", "--name", self._box_name, str(self._box)], timeout=deadline.left)
        self._folder.logs.mkdir(parents=True, exist_ok=True)
        # A box that is added as a file has no version.
        facts = VirtualBoxFacts(box=self._box_name, box_version="", description=self._owner.description)
        write_atomic(self._folder.path / "Vagrantfile", render_virtualbox(self._plan, facts))
        try:
            done = self._vagrant.up("virtualbox", max(deadline.left, 1.0), on_line)
        except ProgramTimeout as error:
            raise MachineError("the machines did not answer ssh in time", details=error.details) from error
        if done.code != 0:
            raise up_failure.explain(done, self._cancelled)

    def cancel(self) -> None:
        self._cancelled = True
        self._vagrant.cancel()

    def states(self) -> dict[str, NodeState]:
        infos = self._infos()
        return {n.name: state_of(infos[n.name]) if n.name in infos else NodeState.ABSENT for n in self._plan.nodes}

    def consoles(self) -> dict[str, Path]:
        return {node.name: self._folder.logs / f"console-{node.name}.log" for node in self._plan.nodes}

    def ssh(
        self, node: str, command: Sequence[str], timeout: float, check: bool = True, stdin: str | None = None
    ) -> Completed:
        return self._ssh.run(node, command, timeout, check, stdin)

    def ssh_argv(self, node: str, command: Sequence[str] = ()) -> list[str]:
        return self._ssh.argv(node, command)

    def drop_seeds(self) -> None:
        for node, info in self._infos().items():
            for controller, port, device in dvd_slots(info, f"{node}.iso"):
                where = ["--storagectl", controller, "--port", port, "--device", device]
                # A drive stays: one that is gone cannot be put back into a running machine.
                _manage(
                    "storageattach", domain_name(self._plan, node), *where, "--medium", "emptydrive", "--forceunmount"
                )
        shutil.rmtree(self._folder.seeds, ignore_errors=True)

    def destroy(self, on_line: Callable[[str], None]) -> None:
        if (self._folder.path / "Vagrantfile").is_file():
            try:
                self._vagrant.destroy(DESTROY_SECONDS, on_line)
            except LabError as error:
                on_line(f"{error.message}; klab removes the rest itself")
        for node, info in self._infos().items():
            name = domain_name(self._plan, node)
            if state_of(info) in {NodeState.RUNNING, NodeState.PAUSED}:
                _manage("controlvm", name, "poweroff", check=False)
            _manage("unregistervm", name, "--delete")
        shutil.rmtree(self._folder.seeds, ignore_errors=True)
        shutil.rmtree(self._folder.path / ".vagrant", ignore_errors=True)
        if left := self.leftovers():
            raise MachineError(f"something of lab {self._plan.name!r} could not be removed", details=left)

    def leftovers(self) -> list[str]:
        machines = [f"machine {domain_name(self._plan, node)}" for node in self._infos()]
        return [*machines, *(f"seed {file}" for file in sorted(self._folder.seeds.glob("*.iso")))]

    def _infos(self) -> dict[str, dict[str, str]]:
        """What VBoxManage says of each machine that carries this lab's mark, by node."""
        there = parse_machines(_manage("list", "vms").stdout)
        found = {}
        for node in self._plan.nodes:
            name = domain_name(self._plan, node.name)
            if name in there:
                info = parse_info(_manage("showvminfo", there[name], "--machinereadable").stdout)
                if owner_in_description(info.get("description", "")) == self._owner.lab_id:
                    found[node.name] = info
        return found

    def _refuse_foreign(self) -> None:
        there, own = parse_machines(_manage("list", "vms").stdout), self._infos()
        for node in self._plan.nodes:
            name = domain_name(self._plan, node.name)
            if name in there and node.name not in own:
                raise Conflict(
                    f"a machine called {name!r}, which is not this lab's, stands where {node.name} belongs",
                    details=[f"UUID {there[name]}"],
                    hint="give this lab another name with --name, or remove it: VBoxManage unregistervm --delete",
                )


def _manage(*words: str, check: bool = True) -> Completed:
    return process.run(["VBoxManage", *words], timeout=QUICK_SECONDS, check=check)
