"""Vagrant, through python-vagrant.

python-vagrant knows Vagrant's commands and reads their machine-readable output. It has no
time limits, throws standard error away and lets exit codes pass in places, so every command
it makes is run by `lab.process` instead of by itself; and `up` is written here, because its
own knows no `--no-destroy-on-error`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import tarfile
import tempfile
from collections.abc import Callable, Container, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import process
from lab.errors import HostError, LabError, MachineError, NotFound
from lab.plan import Node, Plan
from lab.process import Completed
from lab.waiting import Deadline, poll

if TYPE_CHECKING:
    import subprocess

BOX_VERSION = "1.0.0"
QUICK_SECONDS = 120.0
MARK = "KLAB_VAGRANT"
BOX_SECONDS = 600.0
DESTROY_SECONDS = 300.0
PRESS_SECONDS = 30.0
OFF_POLL_SECONDS = 1.0
_ID = re.compile(r"[0-9a-f]+")
# Vagrant asks its maker for news of itself and of boxes unless told not to.
ENVIRONMENT = {"VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_BOX_UPDATE_CHECK_DISABLE": "1", "VAGRANT_NO_COLOR": "1"}


def _library() -> Any:
    import vagrant

    return vagrant


def environment(folder: Path) -> dict[str, str]:
    """The variables under which Vagrant works on the project in `folder`."""
    return {**ENVIRONMENT, "VAGRANT_CWD": str(folder)}


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


def _is_whole(name: str, provider: str) -> bool:
    """Whether what Vagrant's copy of a box links to is still there; a box that was built anew may lie elsewhere."""
    home = Path(os.environ.get("VAGRANT_HOME", "~/.vagrant.d")).expanduser()
    folder = home / "boxes" / name.replace("/", "-VAGRANTSLASH-") / BOX_VERSION / provider
    return all(file.exists() for file in folder.iterdir()) if folder.is_dir() else True


class Vagrant:
    """Vagrant in one project folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._child: subprocess.Popen[str] | None = None
        self._cancelled = False
        self._commands = _make(self)

    def up(self, provider: str, timeout: float, on_line: Callable[[str], None], names: Sequence[str] = ()) -> Completed:
        """`vagrant up` of these machines (of all without names), parallel where the provider can.

        The caller judges the exit code.

        A machine that fails is left as it is: what its console says is wanted, and the next
        `up` goes on with it.
        """
        words = ["up", *names, "--provider", provider, "--no-provision", "--no-destroy-on-error"]
        return self.run(words, timeout=timeout, on_line=on_line, check=False)

    def destroy(self, timeout: float, on_line: Callable[[str], None], names: Sequence[str]) -> Completed:
        """`vagrant destroy -f` of these machines; the caller judges the exit code."""
        return self.run(["destroy", "-f", *names], timeout=timeout, on_line=on_line, check=False)

    def status(self) -> dict[str, str]:
        """The state Vagrant reports for each machine."""
        return {status.name: status.state for status in self._commands.status() if status.name}

    def boxes(self) -> set[str]:
        """Names of the boxes Vagrant has."""
        return {box.name for box in self._commands.box_list()}

    def plugins(self) -> set[str]:
        """Names of the installed plugins."""
        return {plugin.name for plugin in self._commands.plugin_list()}

    def version(self) -> str:
        """Vagrant's version, for example 2.3.4."""
        return str(self._commands.version())

    def add_box(self, name: str, provider: str, files: Iterable[tuple[str, bytes | Path]], scratch: Path) -> None:
        """Add a box made of the given files, unless Vagrant has one of that name.

        Args:
            name: the box's name, with its digest: the same name is the same box.
            provider: libvirt or virtualbox.
            files: content by name; a path becomes a symbolic link, so that a disk of
                gigabytes is neither packed nor copied.
            scratch: where the box file is put together.
        """
        if name in self.boxes() and _is_whole(name, provider):
            return
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch, prefix="vagrant-box-") as temporary:
            box, catalogue = Path(temporary) / "klab.box", Path(temporary) / "klab.json"
            _write_box(box, files)
            # Through a catalogue: a box that is added by file alone has no version, and
            # vagrant-libvirt then names its volume after the file's date.
            entry = {"version": BOX_VERSION, "providers": [{"name": provider, "url": box.as_uri()}]}
            catalogue.write_text(json.dumps({"name": name, "versions": [entry]}))
            self.run(["box", "add", str(catalogue), "--provider", provider, "--force"], timeout=BOX_SECONDS)

    def cancel(self) -> None:
        """End the command that runs, from another thread; one that is about to start ends at once, too."""
        self._cancelled = True
        if self._child is not None:
            process.kill_group(self._child)

    def run(
        self,
        words: Sequence[str],
        *,
        timeout: float = QUICK_SECONDS,
        check: bool = True,
        on_line: Callable[[str], None] | None = None,
    ) -> Completed:
        """Run one command of Vagrant's.

        Raises:
            HostError: Vagrant is not installed.
            ProgramError, ProgramTimeout: as `lab.process.run`.
        """
        return process.run(
            ["vagrant", *words],
            timeout=timeout,
            check=check,
            cwd=self.folder if self.folder.is_dir() else None,
            env={**environment(self.folder), MARK: str(self.folder)},
            on_line=on_line,
            on_start=self._started,
        )

    def _started(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        if self._cancelled:
            process.kill_group(child)


def _make(owner: Vagrant) -> Any:
    """python-vagrant's command maker and parser, with klab's door to programs in place of its own."""
    if shutil.which("vagrant") is None:
        raise HostError("vagrant is not installed", hint=f"sudo apt-get install {process.PACKAGES['vagrant']}")
    library = _library()

    class Commands(library.Vagrant):  # type: ignore[misc, name-defined]  # untyped library
        def _run_vagrant_command(self, args: Sequence[str | None]) -> str:
            return owner.run([arg for arg in args if arg is not None]).stdout

        def _call_vagrant_command(self, args: Sequence[str | None]) -> None:
            self._run_vagrant_command(args)

    return Commands(root=os.fspath(owner.folder))


def _write_box(target: Path, files: Iterable[tuple[str, bytes | Path]]) -> None:
    with tarfile.open(target, "w") as box:
        for name, content in files:
            member = tarfile.TarInfo(name)
            if isinstance(content, Path):
                member.type, member.linkname = tarfile.SYMTYPE, str(content)
                box.addfile(member)
            else:
                member.size = len(content)
                box.addfile(member, BytesIO(content))


# --- what the providers that go through Vagrant share ------------------------------------------------


def chosen(plan: Plan, names: Sequence[str] | None) -> tuple[Node, ...]:
    """The nodes of these names, in the plan's order; all of them for None.

    Raises:
        NotFound: the lab has no node of such a name.
    """
    for name in names or ():
        if plan.node(name) is None:
            there = ", ".join(node.name for node in plan.nodes)
            raise NotFound(f"lab {plan.name!r} has no node called {name!r}", hint=f"it has: {there}")
    return tuple(node for node in plan.nodes if names is None or node.name in names)


def refuse_absent(nodes: Sequence[str], there: Container[str]) -> None:
    """Make sure that each of these nodes has a machine.

    Raises:
        MachineError: one has none.
    """
    absent = [name for name in nodes if name not in there]
    if absent:
        raise MachineError(
            f"there is no machine to start for {', '.join(absent)}", hint=f"klab node replace {absent[0]} makes it anew"
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


def clear_books(
    folder: Path, vagrant: Callable[[], Vagrant], on_line: Callable[[str], None], names: Sequence[str]
) -> None:
    """`vagrant destroy -f` of these machines, as far as it gets: it clears Vagrant's index of machines.

    It may fail on a lab that is half-made or half-gone; klab removes everything itself afterwards.
    """
    # Vagrant takes a name for the beginning of an id in its index, which holds every project's
    # machines (lib/vagrant/machine_index.rb, find_by_prefix): "db1" may be somebody else's.
    known = [name for name in names if machine_folder(folder, name).is_dir() and _ID.fullmatch(name) is None]
    if not known or not (folder / "Vagrantfile").is_file():
        return
    try:
        done = vagrant().destroy(DESTROY_SECONDS, on_line, known)
        if done.code != 0:
            on_line(f"vagrant destroy ended with exit code {done.code}; klab removes the rest itself")
    except LabError as error:
        on_line(f"{error.message}; klab removes the rest itself")


def machine_folder(folder: Path, node: str) -> Path:
    """Where Vagrant keeps what it knows of one machine of the project in `folder`."""
    return folder / ".vagrant" / "machines" / node
