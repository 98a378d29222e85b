"""Text of a scenario file -> Scenario, or one error with every problem and its line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.errors import Remedy, ScenarioError
from lab.scenario.catalog import Catalog
from lab.scenario.model import SCENARIO, Scenario
from lab.scenario.rules import contradictions
from lab.scenario.schema import Loc, named
from lab.scenario.yaml_source import Tree, read_tree

# Stands in for a name that is missing or wrong while the rest of the file is looked at.
_NAMELESS: dict[str, Any] = {"version": 1, "name": "nameless"}


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing wrong with a file: where (1-based line), which key, what."""

    line: int
    where: str
    what: str

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return f"line {self.line}: {where}{self.what}"


def parse_scenario(text: str, catalog: Catalog, *, source: str = "scenario") -> Scenario:
    """Read a scenario.

    Args:
        text: the file's content.
        catalog: the versions, runtimes, network plug-ins and boxes there are.
        source: what to call the file in messages.

    Raises:
        ScenarioError: it cannot be used; `details` has every problem, by line.
    """
    tree = read_tree(text.removeprefix("\ufeff"))
    if isinstance(tree.data, dict):
        return _scenario(tree, catalog, source)
    problems = [Problem(line, _path(at), what) for line, at, what in tree.problems]
    if not problems:
        what = f"a scenario is a set of keys (version: 1, name: ...); this is {named(tree.data)}"
        problems = [Problem(1, "", what)]
    raise _error(source, problems)


def _scenario(tree: Tree, catalog: Catalog, source: str) -> Scenario:
    problems = [Problem(line, _path(at), what) for line, at, what in tree.problems]
    broken = [at for _line, at, _what in tree.problems]

    def report(at: Loc, what: str) -> None:
        problems.append(Problem(_line(at, tree), _path(at), what))
        broken.append(at)

    scenario = Scenario(**(_NAMELESS | SCENARIO.values(tree.data, (), report)))
    for looked_at, what in contradictions(scenario, catalog):
        if not any(_related(at, other) for at in looked_at for other in broken):
            at = next((at for at in looked_at if at in tree.lines), looked_at[0])
            problems.append(Problem(_line(at, tree), _path(at), what))
    if problems:
        raise _error(source, problems)
    return scenario


def _error(source: str, problems: list[Problem]) -> ScenarioError:
    found = sorted(set(problems))
    count = "a problem" if len(found) == 1 else f"{len(found)} problems"
    return ScenarioError(
        f"{source} has {count}",
        details=[str(p) for p in found],
        hint=(Remedy("schema"), " describes every key; ", Remedy("scenarios"), " lists working examples"),
    )


def _related(one: Loc, other: Loc) -> bool:
    """Whether one place holds the other."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _line(at: Loc, tree: Tree) -> int:
    """The line of a place, or of the nearest one around it that the file has."""
    while at not in tree.lines and at:
        at = at[:-1]
    return tree.lines.get(at, 1)


def _path(at: Loc) -> str:
    """A place as people write it: topology.nodes[0].name."""
    return "".join(_step(part) for part in at).removeprefix(".")


def _step(part: str | int) -> str:
    return f"[{part}]" if isinstance(part, int) else f".{part[:60]}"
