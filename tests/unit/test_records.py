"""Files that klab writes itself, read again: each problem is named with its place, and nothing is coerced."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

import pytest

from lab import records
from lab.records import RecordError


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    size: int
    colour: Colour = Colour.RED


@dataclass(frozen=True, slots=True)
class Own:
    words: str

    @classmethod
    def from_data(cls, data: Any) -> Own:
        if not isinstance(data, str):
            raise ValueError("it has other words")
        return cls(data)


@dataclass(frozen=True, slots=True)
class Whole:
    name: str
    weight: float
    good: bool
    kind: Literal["a", "b"]
    parts: tuple[Part, ...]
    pair: tuple[int, str]
    sizes: Mapping[str, int]
    address: IPv4Address
    network: IPv4Network | None
    own: Own
    data: dict[str, Any] = field(default_factory=dict)


WHOLE = Whole(
    "it", 1.5, True, "a", (Part("p", 1),), (1, "x"), {"a": 1}, IPv4Address("10.0.0.1"), IPv4Network("10.0.0.0/8"),
    Own("mine"), {"any": [1, "thing"]},
)  # fmt: skip
DATA = json.loads(json.dumps({**asdict(WHOLE), "own": "mine"}, default=str))


def test_what_was_written_is_read() -> None:
    assert records.build(Whole, DATA) == WHOLE
    assert records.build(Whole, {**DATA, "network": None}).network is None
    assert records.build(Whole, {key: value for key, value in DATA.items() if key != "data"}).data == {}


def test_a_whole_number_is_a_number_and_stays_as_it_is() -> None:
    assert repr(records.build(Whole, {**DATA, "weight": 2}).weight) == "2"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 1}, "name is 1, which is not text"),
        ({"weight": "1.5"}, 'weight is "1.5", which is not a number'),
        ({"weight": True}, "weight is true, which is not a number"),
        ({"good": 1}, "good is 1, which is not true or false"),
        ({"kind": "c"}, 'kind is "c", which is not one of a, b'),
        ({"kind": ["a"]}, 'kind is ["a"], which is not one of a, b'),
        ({"parts": {}}, "parts is {}, which is not a list"),
        ({"parts": ["p"]}, 'parts[0] is "p", which is not an object'),
        ({"parts": [{"name": "p", "size": 1.0}]}, "parts[0].size is 1.0, which is not a whole number"),
        ({"parts": [{"name": "p"}]}, "parts[0].size is missing"),
        ({"parts": [{"name": "p", "size": 1, "colour": "green"}]}, 'parts[0].colour is "green", which is not one of'),
        ({"parts": [{"name": "p", "size": 1, "colour": []}]}, "parts[0].colour is [], which is not one of red, blue"),
        ({"pair": [1]}, "pair is [1], which is not a list of 2"),
        ({"pair": ["x", 1]}, 'pair[0] is "x", which is not a whole number; pair[1] is 1, which is not text'),
        ({"sizes": {"a": None}}, "sizes.a is null, which is not a whole number"),
        ({"sizes": []}, "sizes is [], which is not an object"),
        ({"address": "10.0.0"}, 'address is "10.0.0", which is not an IPv4 address'),
        ({"address": 7}, "address is 7, which is not an IPv4 address"),
        ({"network": "10.0.0.1/8"}, 'network is "10.0.0.1/8", which is not an IPv4 network'),
        ({"own": 1}, "own: it has other words"),
        ({"surplus": 1}, "surplus is not known here"),
        ({"sur\x1bplus": 1}, "sur\\x1bplus is not known here"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordError) as caught:
        records.build(Whole, {**DATA, **change})
    assert str(caught.value).startswith(said)


def test_all_problems_are_told_within_bounds() -> None:
    with pytest.raises(RecordError, match=r"and 93 more$") as caught:
        records.build(Whole, {**DATA, **{f"surplus{i}": 1 for i in range(98)}})
    assert len(str(caught.value)) < 1000
    with pytest.raises(RecordError) as caught:
        records.build(Whole, {**DATA, "name": ["x" * 100_000]})
    assert len(str(caught.value)) < 1000


def test_other_keys_and_defaults() -> None:
    data = {"name": "p", "size": 1}
    assert records.build(Part, {**data, "later": 1}, others=True) == Part("p", 1)
    assert records.build(Part, {"size": 1}, name="given") == Part("given", 1)
    with pytest.raises(RecordError, match="colour is missing"):
        records.build(Part, data, complete=True)
    # Those of a value within are not another version's to add.
    inner = {**DATA, "parts": [{**data, "later": 1}]}
    with pytest.raises(RecordError, match=r"parts\[0\].later is not known here"):
        records.build(Whole, inner, others=True)


@pytest.mark.parametrize("text", ["", "[]", "null", "1", '"text"', "{", "[" * 100_000, '{"a":' * 100_000, b"\xff"])
def test_what_is_no_object(text: str | bytes) -> None:
    with pytest.raises(RecordError) as caught:
        records.parse(text)
    assert str(caught.value)


def test_a_number_without_end_is_told_of() -> None:
    with pytest.raises(RecordError, match="name is a value of type int"):
        records.build(Part, {"name": 10**5000, "size": 1})


def test_the_format_is_taken_out_of_the_keys() -> None:
    data = {"format": 1, "name": "p"}
    assert records.pop_format(data) == 1
    assert data == {"name": "p"}
    with pytest.raises(RecordError, match="format is missing"):
        records.pop_format(data)
