"""What most commands begin with: find the lab a person means, and get to where its machines are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.cli.terminal.output import note
from lab.errors import LabError
from lab.machines.protocol import Machines
from lab.plan.model import Node, Plan
from lab.store import Home, LabFolder, Record

if TYPE_CHECKING:
    from lab.cluster.events import Listener
    from lab.cluster.lab import Lab


@dataclass(frozen=True, slots=True)
class OpenLab:
    """A lab found on disk, with its plan and record."""

    home: Home
    folder: LabFolder
    plan: Plan
    record: Record

    @property
    def name(self) -> str:
        return self.folder.name

    def machines(self, box: Path | None = None) -> Machines:
        """The lab's machines; call `enter` first."""
        from lab.machines.providers import open_machines

        return open_machines(self.home, self.folder, self.plan, self.record, box)

    def lab(self, timeout: float | None = None, listener: Listener | None = None) -> Lab:
        """The lab for who works on it; call `enter` first."""
        from lab.cluster.lab import Lab
        from lab.machines.providers import open_machines

        return Lab(self.home, self.folder, self.plan, open_machines, timeout, listener)

    def enter(self, *, changes: bool = False) -> None:
        """Get to where the lab's machines are, and bring to its end what a killed klab has left unfinished there.

        Args:
            changes: whether the command is to change the lab. Then what cannot be brought to its end is an
                error; who only looks is told of it and goes on.

        Raises:
            LabError: there is no way there, or the above.
        """
        self.reach()
        # Nothing else is read or imported while there is nothing to finish.
        if not self.folder.attempt.exists():
            return
        try:
            said = self._recover()
        except (LabError, OSError) as error:
            if changes:
                raise
            said = "; ".join((error.message, *error.details)) if isinstance(error, LabError) else str(error)
        if said:
            note(f"{self.name}: {said}")

    def reach(self) -> None:
        """Get to where the lab's network is: into the private libvirt's namespaces, where there is one."""
        from lab.machines.providers import enter_host_network

        if self.record.provider == "libvirt":
            enter_host_network(self.home)

    def _recover(self) -> str:
        from lab.snapshots.recover import recover

        return recover(self.lab(), lambda text: note(f"{self.name}: {text}"))

    def node(self, name: str) -> Node:
        """One node of the lab; errors as `Plan.known`."""
        return self.plan.known(name)


def find_lab(name: str | None) -> OpenLab:
    """The lab a person means: by name, or the only one there is.

    Raises:
        NotFound, Conflict: as `Home.pick`.
        LabError: its files are damaged beyond repair.
    """
    home = Home.default()
    return open_lab(home, home.pick(name))


def open_lab(home: Home, folder: LabFolder) -> OpenLab:
    """A lab that exists; raises LabError as `find_lab`."""
    record = folder.record()
    return OpenLab(home, folder, _plan(folder, record), record)


def _plan(folder: LabFolder, record: Record) -> Plan:
    """The lab's plan; decided anew from its scenario where the file is damaged: the same input gives the same plan."""
    from lab.plan.file import read

    try:
        return read(folder.path / "plan.json")
    except LabError:
        from lab.plan.model import decide
        from lab.scenario.catalog import load_catalog
        from lab.scenario.parser import parse_scenario

        try:
            catalog = load_catalog()
            scenario = parse_scenario((folder.path / "scenario.yaml").read_text(encoding="utf-8"), catalog)
            return decide(scenario, catalog, name=record.name, seat=record.seat)
        except (OSError, UnicodeDecodeError, LabError) as error:
            raise LabError(
                f"neither the plan nor the scenario of lab {folder.name!r} can be read",
                details=str(error).splitlines(),
                hint=f"put back {folder.path / 'scenario.yaml'}, then klab destroy {folder.name}",
            ) from error


def lab_then(words: Sequence[str]) -> tuple[OpenLab, list[str]]:
    """Split `[LAB] REST...`: the first word is the lab's name where a lab has that name."""
    labs = {folder.name for folder in Home.default().existing()}
    if words and words[0] in labs:
        return find_lab(words[0]), list(words[1:])
    return find_lab(None), list(words)
