"""What the providers that go through Vagrant do in the same way: libvirt and VirtualBox."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Container, Sequence
from pathlib import Path

from lab.errors import LabError, MachineError, Remedy
from lab.machines.ssh import Ssh
from lab.machines.vagrant.command import MARK, Vagrant
from lab.plan.model import Plan
from lab.plan.names import console_file
from lab.process import Completed
from lab.render.vagrantfile import GUARD, ID_BEGINNING
from lab.store import LabFolder
from lab.waiting import Deadline, poll

DESTROY_SECONDS = 300.0
PRESS_SECONDS = 30.0
OFF_POLL_SECONDS = 1.0
AGAIN = "run the same command again to continue"


class VagrantProvider:
    """What both do alike with the machines of one lab; see `lab.machines.protocol.Machines`."""

    def __init__(self, folder: LabFolder, plan: Plan) -> None:
        self._folder = folder
        self._plan = plan
        self._ssh = Ssh(folder, plan)

    def consoles(self) -> dict[str, Path]:
        return {node.name: self._folder.logs / console_file(node.name) for node in self._plan.nodes}

    def ssh(
        self, node: str, command: Sequence[str], timeout: float, check: bool = True, stdin: str | Path | None = None
    ) -> Completed:
        return self._ssh.run(node, command, timeout, check, stdin)

    def run(self, node: str, command: Sequence[str], timeout: float) -> Completed:
        return self.ssh(node, command, timeout, check=False)

    def ssh_argv(self, node: str, command: Sequence[str] = ()) -> list[str]:
        return self._ssh.argv(node, command)

    def _drop_files(self, node: str) -> None:
        """Delete what Vagrant and klab have in the lab's folder of one machine that is gone."""
        shutil.rmtree(machine_folder(self._folder.path, node), ignore_errors=True)
        for file in (self._folder.seeds / f"{node}.iso", self.consoles()[node]):
            file.unlink(missing_ok=True)


def refuse_absent(nodes: Sequence[str], there: Container[str]) -> None:
    """Make sure that each of these nodes has a machine.

    Raises:
        MachineError: one has none.
    """
    absent = [name for name in nodes if name not in there]
    if absent:
        raise MachineError(
            f"there is no machine to start for {', '.join(absent)}",
            hint=(Remedy("node replace", node=absent[0]), " recreates the machine"),
        )


def press_until_off(on: Callable[[], list[str]], press: Callable[[str], None], deadline: Deadline) -> list[str]:
    """Press the power button of each machine until it is off, or the deadline has passed.

    Again and again: a guest that is still booting does not hear it.

    Args:
        on: the names of those that are still on.
        press: presses the button of one; it may have gone off in that moment.
        deadline: when to give up.

    Returns:
        The names of those that are still on at the end.
    """
    again = Deadline.after(0)

    def all_off() -> bool:
        nonlocal again
        names = on()
        if again.passed:
            again = Deadline.after(PRESS_SECONDS)
            for name in names:
                press(name)
        return not names

    poll(all_off, deadline, every=OFF_POLL_SECONDS)
    return on()


def forget_in_vagrant(
    folder: Path, vagrant: Callable[[], Vagrant], on_line: Callable[[str], None], names: Sequence[str]
) -> None:
    """`vagrant destroy -f` of these machines, as far as it gets: it clears Vagrant's index of machines.

    It may fail on a lab that is half-made or half-gone; klab removes everything itself afterwards.
    """
    known = [name for name in names if machine_folder(folder, name).is_dir()]
    try:
        vagrantfile = LabFolder(folder).vagrantfile.read_text()
    except OSError:
        return
    # One without what keeps Vagrant from it, of an older klab or a person's own: Vagrant may take such
    # a name for the beginning of another machine's id, and this removes what it finds.
    if GUARD not in vagrantfile:
        known = [name for name in known if ID_BEGINNING.fullmatch(name) is None]
    if not known:
        return
    try:
        done = vagrant().destroy(DESTROY_SECONDS, on_line, known)
        if done.code != 0:
            on_line(f"vagrant destroy ended with exit code {done.code}; klab removes the rest itself")
    except LabError as error:
        on_line(f"{error.message}; klab removes the rest itself")


def machine_folder(folder: Path, node: str) -> Path:
    """Where Vagrant keeps what it knows of one machine of the project in `folder`."""
    return LabFolder(folder).vagrant_state / "machines" / node


def end_orphans(folder: Path) -> None:
    """End Vagrants that a killed klab left at work on this project; the caller holds the lab's lock.

    They are known by the variables klab starts them with, which a person's own Vagrant
    in that folder does not have.
    """
    marks = {f"{MARK}={folder}".encode()}
    for process_folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            pid = int(process_folder.name)
            if pid != os.getpid() and marks & set((process_folder / "environ").read_bytes().split(b"\0")):
                os.kill(pid, signal.SIGKILL)
