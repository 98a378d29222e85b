"""YAML that every reader takes for what klab meant: PyYAML (1.1), cloud-init, and the Go programs of Kubernetes.

PyYAML leaves a text without quotes when PyYAML itself would read it as text. Go's library reads some of those as
numbers, booleans or null: 08, 1e3, 0o10, y. So a text goes without quotes only when it begins with a letter or a
slash and is no word that means something.
Sources: yaml.org/type (1.1), yaml.org/spec/1.2.2, chapter 10.3 (core schema); sigs.k8s.io/yaml, goyaml.v2, resolve.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml

_PLAIN = re.compile(r"[A-Za-z/][^\x00-\x1f\x7f-\x9f]*")
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


class _Dumper(yaml.SafeDumper):
    """Quotes texts; writes those of several lines as blocks, so that a person (and a diff) can read them."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - a value that occurs twice is written twice
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=_style(text))


def _style(text: str) -> str | None:
    if "\n" in text:
        return "|"
    plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _WORDS
    return None if plain else '"'


_Dumper.add_representer(str, _text)


def dump(data: Any, *, width: int = 120) -> str:
    """One document."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=width))


def dump_all(documents: Iterable[Any], *, width: int = 120) -> str:
    """Several documents, with `---` between them."""
    return str(yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=width))
