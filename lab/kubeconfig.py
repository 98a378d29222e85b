"""Merging a lab's kubeconfig into a person's own, which must never lose anything.

The file is edited as a tree of YAML nodes, so that every other entry keeps its keys, their
order and the very text of its values. Comments go, since YAML trees have none, as they go whenever
kubectl changes the file (kubectl config use-context does); the backup keeps them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from lab.errors import Conflict, LabError, UsageError
from lab.store import write_atomic

# Marks an entry as klab's: kubeconfig entries may carry extensions (kubernetes.io, kubeconfig v1).
_MARK = "klab"
_NULLS = {"", "~", "null"}  # BaseLoader takes every value as text and so gives it back unchanged
OTHER_FILE = "put that right, or merge into another file: klab kubeconfig --merge FILE"
_SECTIONS = {"clusters": "cluster", "users": "user", "contexts": "context"}


def personal_kubeconfig() -> Path:
    """The file kubectl would change: the first in KUBECONFIG, else ~/.kube/config."""
    first = next((part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part), None)
    return Path(first).expanduser() if first else Path.home() / ".kube" / "config"


def merge_file(target: Path, lab_text: str) -> Path | None:
    """Merge a lab's kubeconfig into the file `target`; returns the backup of what was there, if anything was.

    Raises:
        UsageError: the file is no kubeconfig; it is left as it is.
        Conflict: it has an entry of that name which klab did not make, or kubectl is changing it.
        LabError: it cannot be read or written.
    """
    file = target.resolve()  # a link to the real file stays a link
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(file):
            raw = file.read_bytes() if file.exists() else b""
            merged = merge(_decoded(raw, target), lab_text, str(target))
            backup = file.with_name(f"{file.name}.before-klab") if raw else None
            if backup is not None:
                write_atomic(backup, raw, mode=0o600)
            write_atomic(file, merged, mode=0o600)
    except OSError as error:
        raise LabError(f"{target} cannot be changed", details=[str(error)], hint=OTHER_FILE) from error
    return backup


def merge(text: str, lab_text: str, source: str) -> str:
    """A kubeconfig with a lab's entries put in, in place of those that klab made before for the same lab.

    The current context stays as it is where there is one.

    Raises:
        UsageError, Conflict: as `merge_file`.
    """
    root, lab = _parse(text or "{}", source), _parse(lab_text, "the lab's kubeconfig")
    if not root.value:
        root.flow_style = False
        _set(root, "apiVersion", _text("v1"))
        _set(root, "kind", _text("Config"))
    for section, inner in _SECTIONS.items():
        entries = _list(root, section, source)
        for entry in _list(lab, section, "the lab's kubeconfig").value:
            _put(entries, entry, inner, source)
    current = _get(root, "current-context")
    if current is None or current.value in _NULLS:
        _set(root, "current-context", _get(lab, "current-context") or _text(""))
    return str(yaml.serialize(root, Dumper=yaml.BaseDumper, width=2**31, allow_unicode=True))


def _put(entries: yaml.SequenceNode, entry: yaml.MappingNode, inner: str, source: str) -> None:
    name = _name(entry)
    body = _get(entry, inner)
    assert isinstance(body, yaml.MappingNode)  # noqa: S101 - klab wrote it
    mark = yaml.compose(f"- name: {_MARK}\n  extension: {{}}\n", Loader=yaml.BaseLoader)
    assert mark is not None  # noqa: S101 - for the type checker
    _set(body, "extensions", mark)
    for i, there in enumerate(entries.value):
        if _name(there) != name:
            continue
        if not _is_marked(_get(there, inner)):
            raise Conflict(
                f"{source} has an entry {name!r} that klab did not make",
                hint="rename that entry, or merge into another file: --merge FILE",
            )
        entries.value[i] = entry
        return
    entries.value.append(entry)
    entries.flow_style = False


def _is_marked(body: yaml.Node | None) -> bool:
    extensions = _get(body, "extensions")
    return isinstance(extensions, yaml.SequenceNode) and any(_name(item) == _MARK for item in extensions.value)


def _decoded(raw: bytes, target: Path) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{target} is not UTF-8 text; nothing was changed", hint=OTHER_FILE) from None


def _parse(text: str, source: str) -> yaml.MappingNode:
    try:
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()
        raise UsageError(f"{source} is not YAML; nothing was changed", details=reason[-2:], hint=OTHER_FILE) from None
    if root is None:
        return yaml.MappingNode("tag:yaml.org,2002:map", [], flow_style=False)
    if not isinstance(root, yaml.MappingNode):
        raise UsageError(
            f"{source} is no kubeconfig; nothing was changed", details=["it is not a set of keys"], hint=OTHER_FILE
        )
    return root


def _list(root: yaml.MappingNode, key: str, source: str) -> yaml.SequenceNode:
    """The list under a key; made where there is none (kubectl itself writes null there)."""
    node = _get(root, key)
    if node is None or (isinstance(node, yaml.ScalarNode) and node.value in _NULLS):
        node = yaml.SequenceNode("tag:yaml.org,2002:seq", [], flow_style=False)
        _set(root, key, node)
    if not isinstance(node, yaml.SequenceNode):
        raise UsageError(
            f"{source} is no kubeconfig; nothing was changed", details=[f"{key} is not a list"], hint=OTHER_FILE
        )
    return node


def _text(value: str) -> yaml.ScalarNode:
    return yaml.ScalarNode("tag:yaml.org,2002:str", value)


def _get(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _set(node: yaml.MappingNode, key: str, value: yaml.Node) -> None:
    for i, (name, _) in enumerate(node.value):
        if name.value == key:
            node.value[i] = (name, value)
            return
    node.value.append((_text(key), value))


def _name(entry: yaml.Node) -> str | None:
    name = _get(entry, "name")
    return name.value if isinstance(name, yaml.ScalarNode) else None


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold the lock that kubectl takes too (client-go, clientcmd: FILE.lock, made exclusively)."""
    lock = file.with_name(f"{file.name}.lock")
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise Conflict(
            f"{file} is being changed by another program", hint=f"if none is running, remove {lock} and try again"
        ) from None
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
