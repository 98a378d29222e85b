"""YAML text -> plain values, the line of each, and what YAML allows but a file of klab's does not.

PyYAML's own constructor is not used: it silently keeps the last of two equal keys, follows
aliases that multiply without bound, and forgets line numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from lab.scenario.schema import INVALID, Loc
from lab.scenario.yaml_scalars import PLAIN, STANDARD, PlainLoader, QuickLoader, kubectl_value, scenario_value

MAX_BYTES = 64 * 1024
MAX_VALUES = 10_000
MAX_DEPTH = 20
# Manifests: the CustomResourceDefinitions of a large operator together; the deepest known schema has 60 levels.
MANIFEST_BYTES = 3 * 1024 * 1024
_MANIFEST_VALUES = 500_000
_MANIFEST_DEPTH = 100


@dataclass(slots=True)
class Tree:
    """What a YAML document holds; INVALID stands for each value that cannot be used.

    `lines` has the 1-based line of each value by its place, `problems` the reasons as
    (line, place, what).
    """

    data: Any
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[tuple[int, Loc, str]] = field(default_factory=list)


@dataclass(slots=True)
class Budget:
    """How much may still be read; what an alias stands for counts each time it is used."""

    values: int
    characters: int
    depth: int


def manifest_budget() -> Budget:
    """What all manifests of a scenario may hold together."""
    return Budget(_MANIFEST_VALUES, MANIFEST_BYTES, _MANIFEST_DEPTH)


def read_tree(text: str) -> Tree:
    """Read a scenario's YAML, which is one document; never raises."""
    tree = Tree(INVALID)
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        tree.problems.append((1, (), f"this file is larger than {MAX_BYTES // 1024} KiB; too large for a scenario"))
        return tree
    budget = Budget(MAX_VALUES, 4 * MAX_BYTES, MAX_DEPTH)
    try:
        root = yaml.compose(text, Loader=PlainLoader)
        tree.data = None if root is None else _Reader(tree, budget, scenario_value).value(root, (), ())
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, _ExhaustingError) as error:
        tree.problems.append(_unreadable(error, text))
    return tree


def read_documents(text: str, budget: Budget) -> Iterator[Tree]:
    """Read YAML of any number of documents as kubectl does; never raises.

    The last tree has the problem where the text is not YAML or exceeds the budget.
    """
    tree = Tree(INVALID)
    try:
        _refuse_depth(text, budget.depth)
        for root in yaml.compose_all(text, Loader=QuickLoader):
            tree = Tree(INVALID)
            tree.data = _Reader(tree, budget, kubectl_value, merges=True).value(root, (), ())
            yield tree
            tree = Tree(INVALID)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, _ExhaustingError) as error:
        tree.data = INVALID
        tree.problems.append(_unreadable(error, text))
        yield tree


def _refuse_depth(text: str, most: int) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=QuickLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > most:
            mark = event.start_mark
            raise _ExhaustingError(mark.line + 1 if mark else 1, "nested too deeply")


def _unreadable(error: Exception, text: str) -> tuple[int, Loc, str]:
    if isinstance(error, _ExhaustingError):
        return error.line, (), error.what
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        return mark.line + 1 if mark else 1, (), _syntax(error)
    if isinstance(error, yaml.reader.ReaderError):
        # libyaml counts bytes, PyYAML characters: found again here.
        found = yaml.reader.Reader.NON_PRINTABLE.search(text)
        if found is None:
            return 1, (), "not YAML: a character is not allowed"
        line = text.count("\n", 0, found.start()) + 1
        return line, (), f"not YAML: the character U+{ord(found[0]):04X} is not allowed"
    if isinstance(error, RecursionError):
        return 1, (), "nested too deeply"
    if isinstance(error, OverflowError):
        return 1, (), "not YAML: an escape (\\U) names no character"
    return 1, (), f"not YAML: {error}".splitlines()[0]


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "it cannot be read"
    if "'\\t'" in problem:
        return "not YAML: a tab; YAML indents with spaces only"
    if "but found another document" in problem or "single document" in (error.context or ""):
        return "a second document begins here (---); write one scenario in each file"
    return f"not YAML: {problem}"


class _ExhaustingError(Exception):
    """YAML's ways to exhaust a reader: an alias that contains itself, aliases that multiply, depth."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__()
        self.line = line
        self.what = what


class _Reader:
    def __init__(
        self, tree: Tree, budget: Budget, scalar: Callable[[yaml.ScalarNode], Any], *, merges: bool = False
    ) -> None:
        self._tree = tree
        self._budget = budget
        self._convert = scalar
        self._merges = merges

    def value(self, node: yaml.Node, at: Loc, above: tuple[int, ...]) -> Any:
        """The value of a node, or INVALID and a noted problem."""
        line = node.start_mark.line + 1
        self._tree.lines.setdefault(at, line)
        self._spend(node, line)
        if id(node) in above:
            raise _ExhaustingError(line, "an alias (*) makes this file refer to itself")
        if len(above) > self._budget.depth:
            return self._problem(line, at, "nested too deeply")
        inside = (*above, id(node))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line, at)
        kind = "seq" if isinstance(node, yaml.SequenceNode) else "map"
        if node.tag != STANDARD + kind:
            return self._problem(line, at, f"the tag {node.tag[:60]} has no meaning here")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*at, i), inside) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)  # noqa: S101 - YAML has three kinds of node
        return self._mapping(node, at, inside)

    def _spend(self, node: yaml.Node, line: int) -> None:
        self._budget.values -= 1
        if isinstance(node, yaml.ScalarNode):
            self._budget.characters -= len(node.value)
        if self._budget.values < 0 or self._budget.characters < 0:
            raise _ExhaustingError(line, "too much for one file; aliases (*) count each time they are used")

    def _mapping(self, node: yaml.MappingNode, at: Loc, inside: tuple[int, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._problem(line, at, "a key must be a word")
                continue
            self._spend(key, line)
            if key.value == "<<" and key.tag == PLAIN:
                found |= self._merged(value, line, at, inside)
                continue
            name = self._key(key, line, at)
            here = (*at, name)
            if name in first:
                self._problem(line, here, f"this key stands here twice; first in line {first[name]}")
            else:
                self._tree.lines[here] = first[name] = line
                found[name] = self.value(value, here, inside)
        return found

    def _merged(self, node: yaml.Node, line: int, at: Loc, inside: tuple[int, ...]) -> dict[str, Any]:
        """The keys that << brings in, the first of several mappings before the others (yaml.org/type/merge.html)."""
        if not self._merges:
            self._problem(line, at, "merging (<<) is not possible here; write the keys out")
            return {}
        value = self.value(node, (*at, "<<"), inside)
        found: dict[str, Any] = {}
        for each in reversed(value if isinstance(value, list) else [value]):
            if not isinstance(each, dict):
                self._problem(line, at, "only keys can be merged (<<)")
                return {}
            found |= each
        return found

    def _key(self, key: yaml.ScalarNode, line: int, at: Loc) -> str:
        """A key as JSON has it. A scenario's own are words, whatever they look like."""
        if not self._merges:
            return str(key.value)
        value = self._scalar(key, line, at)
        if value is None:
            self._problem(line, at, "a key must be a word")
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _scalar(self, node: yaml.ScalarNode, line: int, at: Loc) -> Any:
        try:
            return self._convert(node)
        except ValueError as error:
            return self._problem(line, at, str(error))

    def _problem(self, line: int, at: Loc, what: str) -> Any:
        self._tree.problems.append((line, at, what))
        return INVALID
