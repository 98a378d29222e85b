"""The labs of one person: find one, get to where its machines are, and finish what a killed klab has left there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.cluster.lab import Lab
from lab.errors import LabError, Remedy
from lab.plan.model import Plan
from lab.store import Home, LabFolder, Record

Note = Callable[[str], None]  # told a sentence for the person; it is not an event of a lab


def silent(_text: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One lab in a list. Of a damaged one only the name is known; `created` is in seconds since 1970, or 0."""

    name: str
    scenario: str = ""
    provider: str = ""
    phase: str = "damaged"
    nodes: tuple[str, ...] = ()
    created: float = 0


class Labs:
    """The labs in one folder of klab's, KLAB_HOME by default."""

    def __init__(self, home: Home | None = None) -> None:
        self.home = home or Home.default()

    @property
    def names(self) -> list[str]:
        """The names of all labs, damaged ones included."""
        return [folder.name for folder in self.home.existing()]

    def summaries(self) -> list[Summary]:
        """All labs; a damaged one is listed, too, so that a person sees what to destroy."""
        return [_summary(folder) for folder in self.home.existing()]

    def find(self, name: str | None = None) -> Lab:
        """The lab of this name, or the only one there is. Nothing is touched: `enter` comes before its machines.

        Raises:
            NotFound, Conflict: as `Home.pick`.
            LabError: its files are damaged beyond repair.
        """
        return _lab(self.home, self.home.pick(name))

    def open(self, name: str | None = None, *, changes: bool = True, note: Note = silent) -> Lab:
        """The lab of this name, or the only one there is, ready to be worked on; arguments and errors as `enter`."""
        lab = self.find(name)
        enter(lab, changes=changes, note=note)
        return lab

    @contextmanager
    def opened(self, name: str | None = None, *, changes: bool = True, note: Note = silent) -> Iterator[Lab]:
        """As `open`, but only for a `with` block: afterwards the calling thread is where it was before.

        One process can so work with labs of several homes, in a thread for each.
        """
        lab = self.find(name)
        with inside(lab, changes=changes, note=note):
            yield lab


@contextmanager
def inside(lab: Lab, *, changes: bool = False, note: Note = silent) -> Iterator[None]:
    """As `enter`, but only for a `with` block: afterwards the calling thread is where it was before."""
    from lab import log
    from lab.machines.providers import entered

    log.about(lab.folder.log)
    with entered(lab.record.provider, lab.home):
        _finish(lab, changes=changes, note=note)
        yield


def enter(lab: Lab, *, changes: bool = False, note: Note = silent) -> None:
    """Get to where the lab's machines are, and finish there what a killed klab has left.

    It is the calling thread that gets there, with the threads that it starts afterwards: the private libvirt is in
    namespaces of its own.

    Args:
        lab: the lab.
        changes: whether the lab is to be changed. Then it is an error when something cannot be finished;
            otherwise `note` is told of it.
        note: told what takes time, and what became of it.

    Raises:
        LabError: the machines cannot be reached, or the above.
    """
    reach(lab)
    _finish(lab, changes=changes, note=note)


def _finish(lab: Lab, *, changes: bool, note: Note) -> None:
    """Finish what a killed klab has left; arguments and errors as `enter`."""
    # Nothing else is read or imported while there is nothing to finish.
    if not lab.folder.attempt.exists():
        return
    try:
        said = _recover(lab, note)
    except (LabError, OSError) as error:
        if changes:
            raise
        said = "; ".join((error.message, *error.details)) if isinstance(error, LabError) else str(error)
    if said:
        note(f"{lab.name}: {said}")


def reach(lab: Lab) -> None:
    """Get to where the lab's network is: into the private libvirt's namespaces, where there is one."""
    from lab import log
    from lab.machines.providers import enter_host

    log.about(lab.folder.log)
    enter_host(lab.record.provider, lab.home)


def _recover(lab: Lab, note: Note) -> str:
    from lab.snapshots.recover import recover

    return recover(lab, lambda text: note(f"{lab.name}: {text}"))


def _summary(folder: LabFolder) -> Summary:
    from lab.plan.file import from_json

    try:
        record = folder.record()
        plan = from_json(folder.plan_text())
    except LabError:
        return Summary(folder.name)
    nodes = tuple(node.name for node in plan.nodes)
    return Summary(folder.name, plan.scenario, record.provider, record.phase, nodes, record.created)


def _lab(home: Home, folder: LabFolder) -> Lab:
    return Lab(home, folder, _plan(folder, folder.record()))


def _plan(folder: LabFolder, record: Record) -> Plan:
    """The lab's plan; decided again from its scenario where the file is damaged: equal input gives an equal plan."""
    from lab.plan.file import from_json

    try:
        return from_json(folder.plan_text())
    except LabError:
        return _decided(folder, record)


def _decided(folder: LabFolder, record: Record) -> Plan:
    from lab.plan.decide import decide
    from lab.scenario.catalog import load_catalog
    from lab.scenario.parser import parse_scenario

    try:
        catalog = load_catalog()
        scenario = parse_scenario(folder.scenario_file.read_text(encoding="utf-8"), catalog)
        return decide(scenario, catalog, name=record.name, seat=record.seat)
    except (OSError, UnicodeDecodeError, LabError) as error:
        raise LabError(
            f"neither the plan nor the scenario of lab {folder.name!r} can be read",
            details=str(error).splitlines(),
            hint=(f"restore {folder.scenario_file}, then ", Remedy("destroy", lab=folder.name)),
        ) from error
