"""Inputs made of sound samples: text, JSON and bytes with a few things in them changed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

MOST = 1 << 15  # bytes that an input may grow to
HUGE = (
    "9" * 400,
    "9" * 5000,
    "1e999",
    "-1",
    "0",
    "18446744073709551616",
    "0x7f",
    "NaN",
    "-Infinity",
    "\u0661",
    "\u00b2",
)
DEEP = "[" * 3000
HOSTILE = (
    *HUGE,
    *("\x00", "\x1b[2J", "\x1b]0;title\x07", "\r", "\n", "\n\n", "\t", "\x7f", "\x85", "\u2028", "\u202e", "\ufeff"),
    *("\ud800", "\U0010ffff", "\u0130", "\xa0", "=", ":", "::", "/", "//", "../..", "..", "-", "--", "%", "%s", "{}"),
    *('"', "'", "\\", "\\u0000", "`", "$(id)", "&a ", "*a", "<<: *a", "!!binary ", "---\n", "...\n", "- ", "? ", "|"),
    *("<", ">", "&", "]]>", "<!--", "<![CDATA[", "{", "[", "}", "]", DEEP, '{"a":' * 3000, "null", "true", "~"),
    *("<a>" * 3000, "2020-01-01", "1:30", "=" * 3000, " " * 3000, ",", ",,", "9999-12-31T23:59:60Z"),
)
_NUMBER = re.compile(r"\d+")
SCALARS = st.one_of(
    st.sampled_from(
        [
            *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**30, 10**400, -(10**400), 1.5, 1e308, -0.0),
            *(float("nan"), float("inf"), "", " ", "x", "0", "..", "../x", "/", "a/b", "\x00", "\x1b[2J", "\ud800"),
            *("10.0.0.0/8", "::1", "999.1.1.1", "2020-13-45T99:99:99Z", "True", "9" * 5000, "x" * 5000, "\u00b2"),
        ]
    ),
    st.integers(),
    st.text(max_size=8),
)
VALUES = st.one_of(
    SCALARS,
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(
        st.sampled_from(["name", "kind", "id", "metadata", "items", "status", "x", ""]), SCALARS, max_size=2
    ),
)


def texts(seeds: Sequence[str]) -> st.SearchStrategy[str]:
    """Each seed with one to four changes."""
    return _texts(tuple(seeds))


@st.composite
def _texts(draw: st.DrawFn, seeds: tuple[str, ...]) -> str:
    text = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        text = _changed(draw, text, seeds)
    return text[:MOST]


def _changed(draw: st.DrawFn, text: str, seeds: Sequence[str]) -> str:
    at = draw(st.integers(0, len(text)))
    what = draw(st.sampled_from(("put", "put", "flip", "cut", "end", "number", "number", "line", "splice", "repeat")))
    match what:
        case "put":
            return text[:at] + draw(st.sampled_from(HOSTILE)) + text[at:]
        case "flip":
            other = chr((ord(text[at]) ^ (1 << draw(st.integers(0, 7)))) % 0x110000) if at < len(text) else "x"
            return text[:at] + other + text[at + 1 :]
        case "cut":
            return text[:at] + text[at + draw(st.sampled_from((1, 2, 5, 20, 100))) :]
        case "end":
            return text[:at]
        case "number":
            found = list(_NUMBER.finditer(text))
            if not found:
                return text
            number = found[at % len(found)]
            return text[: number.start()] + draw(st.sampled_from(HUGE)) + text[number.end() :]
        case "line":
            lines = text.splitlines(keepends=True) or [""]
            line = lines.pop(at % len(lines))
            lines.insert(draw(st.integers(0, len(lines))), line * draw(st.sampled_from((0, 1, 2, 3))))
            return "".join(lines)
        case "splice":
            other = draw(st.sampled_from(seeds))
            return text[:at] + other[draw(st.integers(0, len(other))) :]
        case _:
            piece = text[at : at + draw(st.sampled_from((1, 5, 12, 40)))] or "x"
            return text[:at] + piece * min(draw(st.sampled_from((3, 50, 3000))), MOST // len(piece)) + text[at:]


def json_texts(seeds: Sequence[str]) -> st.SearchStrategy[str]:
    """Each seed with leaves and branches replaced, removed, renamed or doubled; some with their text changed, too."""
    changed = _trees(tuple(json.loads(seed) for seed in seeds)).map(_dumped)
    return st.one_of(changed, changed, changed, _texts(tuple(seeds)))


def _dumped(tree: Any) -> str:
    return json.dumps(tree)


@st.composite
def _trees(draw: st.DrawFn, trees: tuple[Any, ...]) -> Any:
    tree = copy.deepcopy(draw(st.sampled_from(trees)))
    for _ in range(draw(st.integers(1, 3))):
        places = _places(tree)
        *path, last = draw(st.sampled_from(places)) if places else [None]
        change = draw(
            st.sampled_from(("replace", "replace", "replace", "replace", "remove", "rename", "double", "wrap"))
        )
        if last is None:
            return draw(VALUES)
        parent = tree
        for key in path:
            parent = parent[key]
        if change == "remove":
            del parent[last]
        elif change == "rename" and isinstance(parent, dict):
            parent[f"{last}{draw(st.sampled_from(('', ' ', 'x')))}"] = parent.pop(last)
        elif change == "double" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        elif change == "wrap":
            parent[last] = draw(st.sampled_from(([parent[last]], {"x": parent[last]}, str(parent[last]))))
        else:
            parent[last] = draw(VALUES)
    return tree


def _places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += _places(value, (*at, key))
    return found


def octets(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Each seed with one to four changes."""
    return _octets(tuple(seeds))


@st.composite
def _octets(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("flip", "flip", "set", "put", "cut", "end", "splice", "zero", "double"))):
            case "flip" if at < len(data):
                data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
            case "set":
                new = draw(st.sampled_from((b"\0", b"\xff", b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 7)))
                data = data[:at] + new + data[at + len(new) :]
            case "put":
                data = data[:at] + draw(st.binary(max_size=8)) + data[at:]
            case "cut":
                data = data[:at] + data[at + draw(st.sampled_from((1, 4, 64, 512))) :]
            case "end":
                data = data[:at]
            case "splice":
                data = data[:at] + draw(st.sampled_from(seeds))[at:]
            case "zero":
                data = data[:at] + bytes(16) + data[at + 16 :]
            case _:
                data = data[:at] + data[at : at + 512] + data[at:]
    return data
