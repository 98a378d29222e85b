"""Captures on VirtualBox: its own snapshots, which keep RAM and disks of a paused machine and make a tree.

Source: VirtualBox 7.0 user manual, chapter 8, "VBoxManage snapshot" and "VBoxManage controlvm". None of it could be
run where klab is made: see docs/how-to/providers.md.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.disks import images
from lab.errors import MachineError, NotFound, ProgramError, Remedy
from lab.machines.captures import READ_HINT, Part, PartKind, Rewrite, Room, differences
from lab.machines.virtualbox.host import Version, parse_version
from lab.machines.virtualbox.output import Shot, parse_names, parse_shots
from lab.plan.model import Plan
from lab.process import Completed
from lab.waiting import Deadline, map_parallel, poll

# RAM goes to a disk of any speed.
SAVE_SECONDS = 1800.0
# A machine that was switched off stays locked for a moment: its process is still on its way out. Vagrant tries
# again, too (plugins/providers/virtualbox/driver/base.rb, "retryable").
RESTORE_TRIES = 20
TRY_SECONDS = 0.5
STAT_BLOCK = 512  # bytes; see stat(2), st_blocks
_DESCRIPTION = "Processor#0 description:"
# What the platform's answers are called, in manifests too.
VERSION, PROCESSOR = "VirtualBox", "processor"


class VirtualBoxCaptures:
    """The captures of one lab on VirtualBox; see `lab.machines.captures.Captures`.

    They belong to their machines: those of a machine that is removed go with it, and it cannot be restored.

    Args:
        plan: the lab's.
        manage: runs VBoxManage with these words.
        infos: what `showvminfo` reports now of each machine of the lab, by node.
    """

    def __init__(
        self, plan: Plan, manage: Callable[..., Completed], infos: Callable[[], Mapping[str, dict[str, str]]]
    ) -> None:
        self._plan = plan
        self._manage = manage
        self._infos = infos

    def suspend(self, nodes: Sequence[str]) -> dict[str, float]:
        machines = self._machines(nodes)
        for name, machine in machines.items():
            if machine.state not in {"running", "paused", "saved"}:
                raise MachineError(f"{name} is not running", hint=Remedy("start", lab=self._plan.name, node=name))

        def pause(name: str) -> float:
            now = time.time()
            if machines[name].state == "running":
                self._do(f"{name} cannot be suspended", "controlvm", machines[name].uuid, "pause")
            return now

        return map_parallel(pause, list(machines))

    def resume(self, nodes: Sequence[str]) -> dict[str, float]:
        machines = self._machines(nodes)

        def go_on(name: str) -> float:
            uuid, why = machines[name].uuid, f"{name} cannot be resumed"
            match machines[name].state:
                case "running":
                    pass
                case "paused":
                    self._do(why, "controlvm", uuid, "resume")
                case "saved":
                    self._do(why, "startvm", uuid, "--type", "headless", timeout=SAVE_SECONDS)
                case state:
                    raise MachineError(
                        why, details=[f"it is {state}"], hint=Remedy("start", lab=self._plan.name, node=name)
                    )
            return time.time()

        return map_parallel(go_on, list(machines))

    def room(self, nodes: Sequence[str]) -> Room:
        machines = self._machines(nodes)
        on = {name: machine for name, machine in machines.items() if machine.state in {"running", "paused"}}
        folders = [machine.settings.parent for machine in self._all().values()]
        free, folder = min(((shutil.disk_usage(each).free, each) for each in folders), default=(0, Path()))
        return Room(folder, free, {name: machine.memory for name, machine in on.items()})

    def platform(self) -> dict[str, dict[str, str]]:
        return dict.fromkeys(self._all(), self._here())

    def unfit(self, saved: Mapping[str, Mapping[str, str]]) -> list[str]:
        """VirtualBox loads what an older one has saved: each part of a saved state has a version, and what loads it
        knows those before its own (CPUM's since 1.6: src/VBox/VMM/include/CPUMInternal.h), but none that came later.
        """
        here = self._here()
        older = [
            f"the RAM of {node} was saved with VirtualBox {before[VERSION]}, here it is {here[VERSION]}, which is older"
            for node, before in saved.items()
            if _number(before.get(VERSION, "")) > _number(here[VERSION])
        ]
        processors = {node: {PROCESSOR: before.get(PROCESSOR, "unknown")} for node, before in saved.items()}
        processor = {PROCESSOR: here[PROCESSOR]}
        return older + differences(processors, dict.fromkeys(saved, processor))

    def _here(self) -> dict[str, str]:
        """The platform of each machine on this host."""
        # Where its kernel module is missing it reports that first, in the same place.
        version = self._manage("--version").stdout.strip().rpartition("\n")[2]
        lines = self._manage("list", "hostinfo").stdout.splitlines()
        processor = next((line.removeprefix(_DESCRIPTION) for line in lines if line.startswith(_DESCRIPTION)), "")
        return {VERSION: version, PROCESSOR: processor.strip()}

    def capture(self, key: str, nodes: Sequence[str], on_saved: Callable[[str], None]) -> None:
        machines = self._machines(nodes)
        for name, machine in machines.items():
            if machine.state == "running":
                raise MachineError(
                    f"{name} must be paused before it is saved, but it runs",
                    hint="run the same command again: it pauses the node first",
                )

        def save(name: str) -> None:
            why = f"{name} cannot be saved"
            self._do(why, "snapshot", machines[name].uuid, "take", key, timeout=SAVE_SECONDS)
            on_saved(name)

        map_parallel(save, list(machines))

    def revert(self, key: str, nodes: Sequence[str], on_back: Callable[[str], None]) -> None:
        machines = self._machines(nodes)
        for name, machine in machines.items():
            if key not in self._names(machine):
                raise NotFound(f"{name} has no capture {key!r}", hint=(Remedy("snapshots"), " lists what there is"))

        def restore(name: str) -> None:
            uuid, why = machines[name].uuid, f"{name} cannot be restored"
            if machines[name].state in {"running", "paused", "gurumeditation"}:
                self._do(why, "controlvm", uuid, "poweroff")
            # One whose RAM was kept is "saved" afterwards: it is paused, without a process.
            self._do(why, "snapshot", uuid, "restore", key, timeout=SAVE_SECONDS, tries=RESTORE_TRIES)
            on_back(name)

        map_parallel(restore, list(machines))

    def keys(self) -> list[str]:
        """The snapshots that every machine of the lab has, oldest first."""
        by_node = [self._shots(machine) for machine in self._all().values()]
        if not by_node:
            return []
        whole = set.intersection(*(set(shots) for shots in by_node))
        return sorted(whole, key=lambda key: by_node[0][key].stamp)

    def parts(self, key: str) -> list[Part]:
        found = []
        for name, machine in self._all().items():
            shot = self._shots(machine).get(key)
            if shot is None:
                raise NotFound(f"{name} has no capture {key!r}", hint=(Remedy("snapshots"), " lists what there is"))
            files = [(shot.state, PartKind.MEMORY)] if shot.state else []
            for file, kind in [*files, *((disk, PartKind.DISK) for disk in shot.disks)]:
                if not file.is_file():
                    raise MachineError(
                        f"the file {file.name} is missing",
                        details=[str(file)],
                        hint=(Remedy("snapshots"), " lists the others"),
                    )
                found.append(Part(name, kind, str(file), file.stat().st_blocks * STAT_BLOCK))
        return found

    def finalize(self, key: str) -> None:
        try:
            for part in self.parts(key):
                images.to_disk(Path(part.name))
        except OSError as error:
            raise MachineError(
                f"capture {key} cannot be written to disk", details=[str(error)], hint=READ_HINT
            ) from error

    def content(self, part: Part) -> Iterator[tuple[int, bytes | memoryview]]:
        try:
            yield from images.stretches(Path(part.name))
        except OSError as error:
            raise MachineError(f"{part.name} cannot be read", details=[str(error)], hint=READ_HINT) from error

    def rewrites(self, keys: Sequence[str]) -> list[Rewrite]:
        """VirtualBox merges disks as it sees fit: each of those that stay may be rewritten."""
        there = self.keys()
        stay = [key for key in there if key not in keys]
        if len(stay) == len(there):
            return []
        names = {part.name for key in stay for part in self.parts(key) if part.kind == PartKind.DISK}
        return [Rewrite(name, tuple(sorted(names))) for name in sorted(names)]

    def unmerged(self) -> list[str]:
        return []

    def delete(self, keys: Sequence[str], *, merge: bool = False) -> None:  # noqa: ARG002 - VirtualBox decides itself
        for name, machine in self._all().items():
            # Of one that was begun, not every machine has its part.
            there = self._names(machine)
            for key in keys:
                if key in there:
                    why = f"a snapshot of {name} cannot be removed"
                    self._do(why, "snapshot", machine.uuid, "delete", key, timeout=SAVE_SECONDS)

    def _names(self, machine: _Machine) -> set[str]:
        # It fails where there is none, and prints: "This machine does not have any snapshots".
        return parse_names(self._manage("snapshot", machine.uuid, "list", "--machinereadable", check=False).stdout)

    def _shots(self, machine: _Machine) -> dict[str, Shot]:
        file = machine.settings
        try:
            return parse_shots(file.read_text(encoding="utf-8"), file.parent)
        except (OSError, ValueError) as error:
            raise MachineError(
                f"the settings of {machine.node} cannot be read", details=[f"{file}: {error}"], hint=READ_HINT
            ) from error

    def _machines(self, nodes: Sequence[str]) -> dict[str, _Machine]:
        """These nodes' machines as they are now.

        Raises:
            NotFound: the lab has no such node.
            MachineError: one has no machine.
        """
        wanted, there = [node.name for node in self._plan.select(nodes)], self._all()
        for name in wanted:
            if name not in there:
                raise MachineError(
                    f"there is no machine of {name}", hint=(Remedy("node replace", node=name), " recreates the machine")
                )
        return {name: there[name] for name in wanted}

    def _all(self) -> dict[str, _Machine]:
        return {name: _Machine(name, info) for name, info in self._infos().items()}

    def _do(self, why: str, *words: str, timeout: float | None = None, tries: int = 1) -> None:
        failure: ProgramError | None = None

        def done() -> bool:
            nonlocal failure, tries
            tries -= 1
            try:
                self._manage(*words, **({} if timeout is None else {"timeout": timeout}))
            except ProgramError as error:
                failure = error
                return tries == 0
            failure = None
            return True

        poll(done, Deadline.after(SAVE_SECONDS), every=TRY_SECONDS)
        if failure is not None:
            raise MachineError(
                why, details=failure.details, hint="VBoxManage showvminfo shows what the machine is doing"
            ) from failure


@dataclass(frozen=True, slots=True)
class _Machine:
    """What `showvminfo` reports of a node's machine."""

    node: str
    info: Mapping[str, str]

    @property
    def uuid(self) -> str:
        return self.info["UUID"]

    @property
    def state(self) -> str:
        """In VirtualBox's word for it."""
        return self.info.get("VMState", "")

    @property
    def memory(self) -> int:
        """Its RAM in bytes; how much of it is used VirtualBox does not tell."""
        return int(self.info["memory"]) << 20

    @property
    def settings(self) -> Path:
        """Its settings file, in the folder that holds all that is its."""
        return Path(self.info.get("CfgFile", ""))


def _number(version: str) -> Version:
    return parse_version(version) or (0, 0, 0)
