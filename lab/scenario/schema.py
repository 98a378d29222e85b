"""What a key of a YAML file may hold, and reading it with every problem at once.

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Disk:
        size: int = key(Value(parse_size, {"type": "string"}), "How large.", default=20)

    disk = Section(Disk).read({"size": "30G"}, (), report)

Small on purpose, and instead of pydantic: importing that and building its models takes
longer than everything else `klab plan` does (docs/decisions/0301-own-scenario-reader.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

Loc = tuple[str | int, ...]
Report = Callable[[Loc, str], None]


class Kind(Protocol):
    """What may stand at one place: reads it, and describes itself as JSON Schema."""

    def read(self, value: object, at: Loc, report: Report) -> Any:
        """The value as klab uses it; or INVALID, with the reason reported.

        A value that is INVALID already has been reported before.
        """
        ...

    def schema(self) -> dict[str, Any]:
        """JSON Schema (draft 2020-12) of what may be written."""
        ...


class _Invalid:
    def __repr__(self) -> str:
        return "INVALID"


INVALID: Any = _Invalid()


def key(kind: Kind, description: str, **default: Any) -> Any:
    """A dataclass field that is a key of the file; required unless `default` or `default_factory` is given."""
    return dataclasses.field(metadata={"kind": kind, "description": description}, **default)


def named(value: object) -> str:
    """A value as messages show it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return "a list" if isinstance(value, list) else "a set of keys"
    if isinstance(value, int) and abs(value) >= 10**50:
        return "a number of more than 50 digits"  # which Python may refuse to print
    shown = repr(value) if isinstance(value, (str, int, float)) else str(value)
    return shown if len(shown) <= 60 else shown[:60] + "..."


def did_you_mean(given: object, known: list[str]) -> str:
    """The closest of the known words, as the end of a message; empty when none is close."""
    import difflib

    close = difflib.get_close_matches(str(given), known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """A single value. `convert` raises ValueError with a message for the person."""

    convert: Callable[[Any], Any]
    json: Mapping[str, Any]

    def read(self, value: object, at: Loc, report: Report) -> Any:
        if value is INVALID:
            return INVALID
        if value is None:
            report(at, "nothing stands here; give a value or leave the key out")
            return INVALID
        try:
            return self.convert(value)
        except ValueError as error:
            report(at, str(error))
            return INVALID

    def schema(self) -> dict[str, Any]:
        return dict(self.json)


@dataclasses.dataclass(frozen=True, slots=True)
class ListOf:
    """A list; becomes a tuple."""

    item: Kind
    most: int

    def read(self, value: object, at: Loc, report: Report) -> Any:
        if value is INVALID:
            return INVALID
        if not isinstance(value, list):
            report(at, f"needs a list, not {named(value)}")
            return INVALID
        if len(value) > self.most:
            report(at, f"{len(value)} entries; at most {self.most} are possible")
            return INVALID
        items = tuple(self.item.read(each, (*at, i), report) for i, each in enumerate(value))
        return INVALID if INVALID in items else items

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.item.schema(), "maxItems": self.most}


@dataclasses.dataclass(frozen=True, slots=True)
class MapOf:
    """Keys of the person's choosing, each with a value of one kind; becomes a dict."""

    name: Kind
    item: Kind

    def read(self, value: object, at: Loc, report: Report) -> Any:
        if value is INVALID:
            return INVALID
        if not isinstance(value, dict):
            report(at, f"needs keys below it, not {named(value)}")
            return INVALID
        found = {
            self.name.read(name, (*at, name), report): self.item.read(each, (*at, name), report)
            for name, each in value.items()
        }
        return INVALID if INVALID in found or INVALID in found.values() else found

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "propertyNames": self.name.schema(), "additionalProperties": self.item.schema()}


@dataclasses.dataclass(frozen=True, slots=True)
class ShortOr:
    """A section, or the value of its first key alone, which is the short way to write it."""

    section: Section

    @property
    def _first(self) -> dataclasses.Field[Any]:
        return dataclasses.fields(self.section.model)[0]

    def read(self, value: object, at: Loc, report: Report) -> Any:
        if isinstance(value, dict):
            return self.section.read(value, at, report)
        first = self._first.metadata["kind"].read(value, at, report)
        return INVALID if first is INVALID else self.section.model(**{self._first.name: first})

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self._first.metadata["kind"].schema(), self.section.schema()]}


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """Known keys, each with its own kind; becomes an instance of the dataclass `model`.

    `conflict` sees the keys as written and returns what is wrong with their combination.
    """

    model: type
    conflict: Callable[[Mapping[str, object]], str | None] = lambda _given: None

    def read(self, value: object, at: Loc, report: Report) -> Any:
        """An instance of the model in which unsound keys, once reported, have their defaults.

        INVALID when a required key has no sound value.
        """
        if value is INVALID:
            return INVALID
        values = self.values(value, at, report)
        required = [field.name for field in dataclasses.fields(self.model) if _is_required(field)]
        return self.model(**values) if all(name in values for name in required) else INVALID

    def values(self, value: object, at: Loc, report: Report) -> dict[str, Any]:
        """The keys whose values are sound."""
        if not isinstance(value, dict):
            report(at, f"needs keys below it, not {named(value)}")
            return {}
        fields = {field.name: field for field in dataclasses.fields(self.model)}
        found: dict[str, Any] = {}
        for name, each in value.items():
            if name in fields:
                found[name] = fields[name].metadata["kind"].read(each, (*at, name), report)
            else:
                report((*at, name), _unknown(name, fields))
        for name, field in fields.items():
            if name not in value and _is_required(field):
                report((*at, name), "this key is required")
        if clash := self.conflict(value):
            report(at, clash)
        return {name: each for name, each in found.items() if each is not INVALID}

    def schema(self) -> dict[str, Any]:
        properties = {}
        required = []
        for field in dataclasses.fields(self.model):
            properties[field.name] = {"description": field.metadata["description"]} | field.metadata["kind"].schema()
            if _is_required(field):
                required.append(field.name)
            elif _is_plain(field.default):
                properties[field.name]["default"] = field.default
        found = {"type": "object", "properties": properties, "additionalProperties": False}
        return found | ({"required": required} if required else {})


def _unknown(name: object, fields: Mapping[str, dataclasses.Field[Any]]) -> str:
    known = list(fields)
    for outer, field in fields.items():
        kind = field.metadata["kind"]
        if isinstance(kind, Section) and any(inner.name == name for inner in dataclasses.fields(kind.model)):
            return f"unknown key here; it belongs under {outer}"
    close = did_you_mean(name, known)
    return f"unknown key{close}" if close else f"unknown key; known here: {', '.join(sorted(known))}"


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _is_plain(value: object) -> bool:
    return isinstance(value, (str, int)) and value != ""
