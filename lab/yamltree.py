"""YAML text -> plain values, the line of each, and what YAML allows but a file of klab's does not.

PyYAML's own constructor is not used for lists and mappings: it silently keeps the last of
two equal keys, follows aliases that multiply without bound, and forgets line numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from lab.shape import INVALID, Loc

MAX_BYTES = 64 * 1024
MAX_VALUES = 10_000
MAX_DEPTH = 20
_STANDARD_TAG = "tag:yaml.org,2002:"


@dataclass(slots=True)
class Tree:
    """What a YAML text holds; INVALID stands for each value that cannot be used.

    `lines` has the 1-based line of each value by its place, `problems` the reasons as
    (line, place, what).
    """

    data: Any
    lines: dict[Loc, int] = field(default_factory=dict)
    problems: list[tuple[int, Loc, str]] = field(default_factory=list)


def read_tree(text: str) -> Tree:
    """Read YAML of one document; never raises."""
    tree = Tree(INVALID)
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        tree.problems.append((1, (), f"this file is larger than {MAX_BYTES // 1024} KiB; that is no scenario"))
        return tree
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        tree.problems.append((mark.line + 1 if mark else 1, (), _syntax(error)))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        tree.problems.append((line, (), f"not YAML: the character U+{ord(text[error.position]):04X} is not allowed"))
    except (yaml.YAMLError, ValueError) as error:
        tree.problems.append((1, (), f"not YAML: {error}".splitlines()[0]))
    except RecursionError:
        tree.problems.append((1, (), "nested too deeply"))
    else:
        try:
            tree.data = None if root is None else _Reader(tree).value(root, (), ())
        except _ExhaustingError as error:
            tree.problems.append((error.line, (), "aliases (*) make this file refer to itself or grow without bound"))
    return tree


def _syntax(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or error.context or "it cannot be read"
    if "'\\t'" in problem:
        return "not YAML: a tab; YAML indents with spaces only"
    if "but found another document" in problem or "single document" in (error.context or ""):
        return "a second document begins here (---); write one scenario in each file"
    return f"not YAML: {problem}"


class _ExhaustingError(Exception):
    """YAML's way to exhaust a reader: an alias that contains itself, or aliases that multiply."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line


class _Reader:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._seen = 0

    def value(self, node: yaml.Node, at: Loc, above: tuple[int, ...]) -> Any:
        """The value of a node, INVALID (and a problem noted) where there is none."""
        line = node.start_mark.line + 1
        self._tree.lines.setdefault(at, line)
        self._seen += 1
        if id(node) in above or self._seen > MAX_VALUES:
            raise _ExhaustingError(line)
        if len(above) > MAX_DEPTH:
            return self._problem(line, at, "nested too deeply")
        inside = (*above, id(node))
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line, at)
        kind = "seq" if isinstance(node, yaml.SequenceNode) else "map"
        if node.tag != _STANDARD_TAG + kind:
            return self._problem(line, at, f"the tag {node.tag[:60]} has no meaning here")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*at, i), inside) for i, item in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)  # noqa: S101 - YAML has three kinds of node
        return self._mapping(node, at, inside)

    def _mapping(self, node: yaml.MappingNode, at: Loc, inside: tuple[int, ...]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._problem(line, at, "a key must be a word")
                continue
            here = (*at, key.value)
            if key.value == "<<":
                self._problem(line, at, "merging (<<) is not possible here; write the keys out")
            elif key.value in found:
                self._problem(line, here, f"this key stands here twice; first in line {self._tree.lines[here]}")
            else:
                self._tree.lines[here] = line
                found[key.value] = self.value(value, here, inside)
        return found

    def _scalar(self, node: yaml.ScalarNode, line: int, at: Loc) -> Any:
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError, KeyError, IndexError, AttributeError, TypeError):
            tag = node.tag.removeprefix(_STANDARD_TAG)
            return self._problem(line, at, f"{node.value[:40]!r} cannot be read as {tag[:40]}")

    def _problem(self, line: int, at: Loc, what: str) -> Any:
        self._tree.problems.append((line, at, what))
        return INVALID
