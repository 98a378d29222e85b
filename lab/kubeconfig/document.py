"""One kubeconfig file as a tree of YAML nodes, edited so that nothing of the person's is lost. Pure.

Every other entry keeps its keys, their order and the very text of its values. Comments go, since YAML trees have
none, as they go whenever kubectl changes the file (kubectl config use-context does); a backup keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from lab.errors import UsageError
from lab.scenario.yaml_scalars import PLAIN, STANDARD, PlainDumper, PlainLoader, kubectl_value
from lab.text import shortened, visible

# Marks an entry as klab's: kubeconfig entries may carry extensions (kubernetes.io, kubeconfig v1).
_MARK = "klab"
OTHER_FILE = "correct that, or merge into another file: klab kubeconfig --merge FILE"
SECTIONS = {"clusters": "cluster", "users": "user", "contexts": "context"}


class Document:
    """A kubeconfig, checked as far as it is edited: kubectl reads it, and reads in it what klab does.

    `changed` tells whether anything was put in; `current_context` is empty where there is none.

    Args:
        text: the file's content; empty where there is none yet.
        source: what to call the file in messages.

    Raises:
        UsageError: it is not a kubeconfig, or means one thing to kubectl and another to a reader.
    """

    def __init__(self, text: str, source: str) -> None:
        self.changed = False
        self._source = source
        self._root = self._read(text)
        self._refuse_ambiguous()
        for key, expected in (("apiVersion", "v1"), ("kind", "Config")):
            if self._word(self._root, key) not in {"", expected}:
                raise self._refusal(f"{key} is not {expected}")
        self.current_context = self._word(self._root, "current-context")
        self._sections = {section: self._entries(section) for section in SECTIONS}

    @property
    def _empty(self) -> bool:
        return not self._root.value

    def has(self, section: str, name: str) -> bool:
        """Whether a section has an entry of that name."""
        return name in self._sections[section]

    def is_marked(self, section: str, name: str) -> bool:
        """Whether klab made that entry."""
        body = _get(self._sections[section][name], SECTIONS[section])
        extensions = _get(body, "extensions")
        return isinstance(extensions, yaml.SequenceNode) and any(
            isinstance(mark := _get(item, "name"), yaml.ScalarNode) and mark.value == _MARK for item in extensions.value
        )

    def entries(self) -> Iterator[tuple[str, str, yaml.Node]]:
        """Every entry, as (section, name, entry)."""
        for section, found in self._sections.items():
            for name, entry in found.items():
                yield section, name, entry

    def put(self, section: str, name: str, entry: yaml.Node) -> None:
        """Put in an entry of klab's, with its mark, in place of one of that name."""
        self.changed = True
        if self._empty:
            self._root.flow_style = False
            _set(self._root, "apiVersion", _plain("v1"))
            _set(self._root, "kind", _plain("Config"))
        body = _get(entry, SECTIONS[section])
        assert isinstance(body, yaml.MappingNode)  # noqa: S101 - klab wrote it
        mark = yaml.compose(f"- name: {_MARK}\n  extension: {{}}\n", Loader=PlainLoader)
        assert mark is not None  # noqa: S101 - for the type checker
        _set(body, "extensions", mark)
        there = _get(self._root, section)
        # A list of its own: an alias may have made it another section's, too.
        items = list(there.value) if isinstance(there, yaml.SequenceNode) else []
        if name in self._sections[section]:
            items[list(self._sections[section]).index(name)] = entry
        else:
            items.append(entry)
        self._sections[section][name] = entry
        _set(self._root, section, yaml.SequenceNode(STANDARD + "seq", items, flow_style=False))

    def set_current_context(self, name: str) -> None:
        """Make a context the one that kubectl uses."""
        self.changed = True
        self.current_context = name
        _set(self._root, "current-context", _plain(name))

    def text(self) -> str:
        """The file's new content."""
        return str(yaml.serialize(self._root, Dumper=PlainDumper, width=2**31, allow_unicode=True))

    def _read(self, text: str) -> yaml.MappingNode:
        try:
            documents = [root for root in yaml.compose_all(text, Loader=PlainLoader) if not _is_null(root)]
        except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
            reason = visible(str(error), keep="\n").splitlines()
            raise UsageError(
                f"{self._source} is not YAML; nothing was changed", details=reason[-2:], hint=OTHER_FILE
            ) from None
        if len(documents) > 1:
            raise self._refusal(f"line {_line(documents[1])}: kubectl reads nothing from here on, a second document")
        root = documents[0] if documents else yaml.MappingNode(STANDARD + "map", [], flow_style=False)
        if not isinstance(root, yaml.MappingNode):
            raise self._refusal("it is not a set of keys")
        return root

    def _refuse_ambiguous(self) -> None:
        """Refuse what kubectl reads in a way of its own: a key twice, and merged keys, which klab does not see."""
        seen: set[int] = set()
        waiting: list[yaml.Node] = [self._root]
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                waiting += node.value
            elif isinstance(node, yaml.MappingNode):
                self._refuse_twice(node)
                waiting += [part for pair in node.value for part in pair]

    def _refuse_twice(self, node: yaml.MappingNode) -> None:
        lines: dict[str, int] = {}
        for key, _value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line, shown = _line(key), shortened(visible(key.value), 60)
            if key.value == "<<" and key.tag == PLAIN:
                raise self._refusal(f"line {line}: klab cannot merge keys (<<); write them out")
            if key.value in lines:
                raise self._refusal(f"line {line}: {shown} is here twice; first in line {lines[key.value]}")
            lines[key.value] = line

    def _entries(self, section: str) -> dict[str, yaml.Node]:
        """A section's entries by name, in order; kubectl takes null for a list, an entry or what is in it."""
        there, inner = _get(self._root, section), SECTIONS[section]
        if _is_null(there):
            return {}
        if not isinstance(there, yaml.SequenceNode):
            raise self._refusal(f"{section} is not a list")
        found: dict[str, yaml.Node] = {}
        for entry in there.value:
            where = f"line {_line(entry)}: an entry of {section}"
            if not isinstance(entry, yaml.MappingNode) and not _is_null(entry):
                raise self._refusal(f"{where} is not a set of keys")
            name, body = self._word(entry, "name"), _get(entry, inner)
            if not isinstance(body, yaml.MappingNode) and not _is_null(body):
                raise self._refusal(f"{where} has something in {inner} that is not a set of keys")
            if name in found:
                raise self._refusal(f"{where} has the name of another: {shortened(visible(name), 60)!r}")
            found[name] = entry
        return found

    def _word(self, node: yaml.Node, key: str) -> str:
        """The text under a key; empty where there is none."""
        there = _get(node, key)
        if there is None:
            return ""
        try:
            value = kubectl_value(there) if isinstance(there, yaml.ScalarNode) else there
        except ValueError as error:
            raise self._refusal(f"line {_line(there)}: {key}: {visible(str(error))}") from None
        if value is not None and not isinstance(value, str):
            raise self._refusal(f"line {_line(there)}: {key} is not text")
        return value or ""

    def _refusal(self, what: str) -> UsageError:
        return UsageError(
            f"{self._source} cannot be used as a kubeconfig; nothing was changed", details=[what], hint=OTHER_FILE
        )


def _plain(value: str) -> yaml.ScalarNode:
    return yaml.ScalarNode(PLAIN, value)


def _is_null(node: yaml.Node | None) -> bool:
    if node is None:
        return True
    return isinstance(node, yaml.ScalarNode) and node.tag == PLAIN and node.value in {"", "~", "null", "Null", "NULL"}


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _get(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _set(node: yaml.MappingNode, key: str, value: yaml.Node) -> None:
    for i, (name, _) in enumerate(node.value):
        if name.value == key:
            node.value[i] = (name, value)
            return
    node.value.append((_plain(key), value))
