"""Vagrant, through python-vagrant.

python-vagrant knows Vagrant's commands and reads their machine-readable output. It has no
time limits, throws standard error away and lets exit codes pass in places, so every command
it makes is run by `lab.process` instead of by itself; and `up` is written here, because its
own has no `--no-destroy-on-error`.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab import process
from lab.errors import HostError, LabError, ProgramError
from lab.machines.vagrant import vagrant_home
from lab.packages import install_hint
from lab.process import Completed
from lab.text import shortened, visible

if TYPE_CHECKING:
    import subprocess

BOX_VERSION = "1.0.0"
QUICK_SECONDS = 120.0
MARK = "KLAB_VAGRANT"
BOX_SECONDS = 600.0
# Vagrant asks its maker for news of itself and of boxes unless told not to.
ENVIRONMENT = {"VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_BOX_UPDATE_CHECK_DISABLE": "1", "VAGRANT_NO_COLOR": "1"}


# What a person may have set for Vagrant that does not lead to other machines: where it keeps boxes and plug-ins.
_KEPT = {"VAGRANT_HOME", "VAGRANT_LOG", "VAGRANT_LOG_FILE"}


def environment(folder: Path) -> dict[str, str | None]:
    """The variables under which Vagrant works on the project in `folder`; None for those that it must not have.

    With a person's own it might read another Vagrantfile, keep the machines' ids of all labs in one place, give a
    command another meaning, or load no plug-in (Vagrant 2.3.4, lib/vagrant/environment.rb and shared_helpers.rb).
    """
    others = {name for name in os.environ if name.startswith("VAGRANT_")} - _KEPT
    return {**dict.fromkeys(sorted(others)), **ENVIRONMENT, "VAGRANT_CWD": str(folder)}


class Vagrant:
    """Vagrant in one project folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._child: subprocess.Popen[str] | None = None
        self._cancelled = False
        self._commands = _make(self)

    def up(self, provider: str, timeout: float, on_line: Callable[[str], None], names: Sequence[str]) -> Completed:
        """`vagrant up` of these machines, parallel where the provider can; the caller judges the exit code.

        A machine that fails is left as it is: its console's output is wanted, and the next
        `up` continues with it.
        """
        words = ["up", *names, "--provider", provider, "--no-provision", "--no-destroy-on-error"]
        return self.run(words, timeout=timeout, on_line=on_line, check=False)

    def destroy(self, timeout: float, on_line: Callable[[str], None], names: Sequence[str]) -> Completed:
        """`vagrant destroy -f` of these machines; the caller judges the exit code."""
        return self.run(["destroy", "-f", *names], timeout=timeout, on_line=on_line, check=False)

    def status(self) -> dict[str, str]:
        """The state Vagrant reports for each machine."""
        return {status.name: status.state for status in self._read(lambda: self._commands.status()) if status.name}

    def boxes(self) -> set[str]:
        """Names of the boxes Vagrant has."""
        return {box.name for box in self._read(lambda: self._commands.box_list())}

    def plugins(self) -> set[str]:
        """Names of the installed plugins."""
        return {plugin.name for plugin in self._read(lambda: self._commands.plugin_list())}

    def version(self) -> str:
        """Vagrant's version, for example 2.3.4."""
        return str(self._read(lambda: self._commands.version()))

    def _read(self, command: Callable[[], Any]) -> Any:
        """What python-vagrant makes of Vagrant's output; of what it does not understand it raises anything."""
        try:
            return command()
        except LabError:
            raise
        except Exception as error:
            raise ProgramError(
                "what Vagrant printed cannot be understood",
                details=[shortened(visible(f"{type(error).__name__}: {error}"))],
                hint="vagrant --version and vagrant global-status show whether it works; a plugin may print more",
            ) from error

    def add_box(self, name: str, provider: str, files: Sequence[tuple[str, bytes | Path]], scratch: Path) -> None:
        """Add a box made of the given files, unless Vagrant has one of that name.

        Args:
            name: the box's name, with its digest: the same name is the same box.
            provider: libvirt or virtualbox.
            files: content by name; a path becomes a symbolic link, so that a disk of
                gigabytes is neither packed nor copied.
            scratch: where the box file is put together.
        """
        names = [file for file, _ in files]
        if vagrant_home.holds(name, BOX_VERSION, provider, names):
            return
        # Of two Vagrants that add the same box at the same time one fails.
        with vagrant_home.locked():
            if not vagrant_home.holds(name, BOX_VERSION, provider, names):
                self._add_box(name, provider, files, scratch)

    def _add_box(self, name: str, provider: str, files: Sequence[tuple[str, bytes | Path]], scratch: Path) -> None:
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
            # Its log goes to where errors are told, and holds every word that they are known by.
            env={**environment(self.folder), "VAGRANT_LOG": None, MARK: str(self.folder)},
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
        raise HostError("vagrant is not installed", hint=install_hint("vagrant"))
    import vagrant

    class Commands(vagrant.Vagrant):  # type: ignore[misc]  # untyped library
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
