"""JSON that klab has written, read as the dataclass that it was written from; and recipes, which come with klab.

Nothing is coerced: a number in quotes is text. Each problem names its place, what is there and what belongs there.
Bounds are for the reader of a file to check: a type says nothing of them.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import ipaddress
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from lab.text import shortened, visible

T = TypeVar("T")
MOST_PROBLEMS = 5  # reported for one file
MOST_SHOWN = 60  # characters of a value
_SCALARS: dict[type, tuple[str, frozenset[type]]] = {
    str: ("text", frozenset({str})),
    int: ("a whole number", frozenset({int})),
    float: ("a number", frozenset({int, float})),
    bool: ("true or false", frozenset({bool})),
}
_ADDRESSES = {ipaddress.IPv4Address: "an IPv4 address", ipaddress.IPv4Network: "an IPv4 network"}


class RecordError(ValueError):
    """A file does not say what it should."""


def parse(text: str | bytes) -> dict[str, Any]:
    """The keys and values of a JSON object.

    Raises:
        RecordError: it is something else, or nested too deeply.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordError(str(error) or type(error).__name__) from error
    if not isinstance(found, dict):
        raise RecordError(f"it is {_shown(found)}, which is not an object")
    return found


def pop_format(data: dict[str, Any]) -> Any:
    """Take the number of the file's format out of its keys.

    Raises:
        RecordError: the key is missing.
    """
    if "format" not in data:
        raise RecordError("format is missing")
    return data.pop("format")


def build(kind: type[T], data: Mapping[str, Any], *, complete: bool = False, others: bool = False, **given: Any) -> T:
    """A dataclass from JSON values.

    Args:
        kind: the dataclass. Its fields are text, numbers, truth values, literals, enumerations, IPv4 addresses and
            networks, tuples and mappings of these, other dataclasses, or classes with a `from_data` of their own.
        data: the values by the fields' names.
        complete: a field with a default must be there, too.
        others: pass over keys that are no field's, as another version of klab may have written them; in `data` itself.
        given: fields that are not in `data`, ready made.

    Raises:
        RecordError: something is missing, surplus or of the wrong type; the message tells what and where.
    """
    reader = _Reader(complete)
    found = reader.fields(kind, data, "", others=others, given=given)
    if reader.problems:
        more = len(reader.problems) - MOST_PROBLEMS
        raise RecordError("; ".join(reader.problems[:MOST_PROBLEMS]) + (f"; and {more} more" if more > 0 else ""))
    return typing.cast("T", found)


class _Reader:
    """Reads values as types and collects what is wrong; what it returns is of use where nothing is."""

    def __init__(self, complete: bool) -> None:
        self._complete = complete
        self.problems: list[str] = []

    def fields(
        self, kind: type[Any], data: Mapping[str, Any], at: str, *, others: bool = False, given: Mapping[str, Any] = {}
    ) -> Any:
        wanted = {field.name: field for field in dataclasses.fields(kind) if field.name not in given}
        before = len(self.problems)
        if not others:
            self.problems += [f"{_place(at, name)} is not known here" for name in data if name not in wanted]
        self.problems += [
            f"{_place(at, name)} is missing"
            for name, field in wanted.items()
            if name not in data and (self._complete or not _has_default(field))
        ]
        hints = _hints(kind)  # type: ignore[arg-type]
        values = {name: self.value(hints[name], data[name], _place(at, name)) for name in wanted if name in data}
        return kind(**values, **given) if len(self.problems) == before else None

    def value(self, wanted: Any, value: Any, at: str) -> Any:
        origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
        if wanted is Any:
            return value
        if origin in {types.UnionType, typing.Union}:
            return (
                None if value is None else self.value(next(a for a in arguments if a is not types.NoneType), value, at)
            )
        if wanted in _SCALARS:
            words, accepted = _SCALARS[wanted]
            return value if type(value) in accepted else self._wrong(at, value, words)
        if origin is typing.Literal:
            return value if value in arguments else self._wrong(at, value, f"one of {_listed(arguments)}")
        if origin is tuple:
            return self._tuple(arguments, value, at)
        if origin is not None and issubclass(origin, Mapping):
            return self._mapping(arguments, value, at)
        return self._class(wanted, value, at)

    def _tuple(self, arguments: tuple[Any, ...], value: Any, at: str) -> Any:
        if not isinstance(value, list):
            return self._wrong(at, value, "a list")
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(arguments) != len(value):
            return self._wrong(at, value, f"a list of {len(arguments)}")
        return tuple(
            self.value(kind, each, f"{at}[{i}]") for i, (kind, each) in enumerate(zip(arguments, value, strict=True))
        )

    def _mapping(self, arguments: tuple[Any, ...], value: Any, at: str) -> Any:
        if not isinstance(value, dict):
            return self._wrong(at, value, "an object")
        self.problems += [f"{at} has the key {_shown(key)}, which is not text" for key in value if type(key) is not str]
        return {key: self.value(arguments[1], each, _place(at, key)) for key, each in value.items()}

    def _class(self, wanted: Any, value: Any, at: str) -> Any:
        if hasattr(wanted, "from_data"):
            return self._own(wanted.from_data, value, at)
        if dataclasses.is_dataclass(wanted) and isinstance(wanted, type):
            return self.fields(wanted, value, at) if isinstance(value, dict) else self._wrong(at, value, "an object")
        if wanted in _ADDRESSES:
            words = _ADDRESSES[wanted]
            return self._made(wanted, value, at, words) if isinstance(value, str) else self._wrong(at, value, words)
        if isinstance(wanted, enum.EnumType):
            return self._made(wanted, value, at, f"one of {_listed(wanted)}")
        raise TypeError(f"klab does not read {wanted} from JSON")

    def _made(self, make: Callable[[Any], Any], value: Any, at: str, words: str) -> Any:
        try:
            return make(value)
        except (ValueError, TypeError, LookupError, AttributeError):
            return self._wrong(at, value, words)

    def _own(self, read: Callable[[Any], Any], value: Any, at: str) -> Any:
        try:
            return read(value)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            self.problems.append(f"{at}: {shortened(str(error)) or type(error).__name__}")
            return None

    def _wrong(self, at: str, value: Any, words: str) -> None:
        self.problems.append(f"{at} is {_shown(value)}, which is not {words}")


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _place(at: str, key: str) -> str:
    shown = visible(shortened(str(key), MOST_SHOWN))  # YAML has other keys than text
    return f"{at}.{shown}" if at else shown


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values)


def _shown(value: Any) -> str:
    try:
        return shortened(json.dumps(value), MOST_SHOWN)
    except (ValueError, RecursionError):  # a number of more digits than Python writes; nested too deeply
        return f"a value of type {type(value).__name__}"
