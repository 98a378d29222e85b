from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError, UsageError
from lab.machines.captures import PartKind
from lab.snapshots.manifest import Manifest, NodeRecord, PartRecord, from_json, to_json
from lab.snapshots.names import check_name, made_id, made_name, surplus, surplus_autos
from lab.snapshots.tree import Branch, tree


def manifest(identity: str, parent: str = "", *, auto: bool = False, created: float | None = None) -> Manifest:
    parts = (
        PartRecord(PartKind.MEMORY, "ram", 100, "0" * 32),
        PartRecord(PartKind.DISK, "top", 10, "1" * 32),
        PartRecord(PartKind.DISK, "below", 1000, "2" * 32),
    )
    node = NodeRecord("cp1", "uuid", "control-plane", True, 5.0, 6.5, 4.0, {"QEMU": "10.0.2"}, parts)
    when = float(int(identity, 36) if created is None else created)
    return Manifest(identity, f"name-{identity}", "lab", "demo", "1m2w", when, 1.0, (node,), parent, auto=auto)


def names(branches: tuple[Branch, ...]) -> list[object]:
    return [[b.manifest.id, *names(b.above)] for b in branches]


def test_a_manifest_is_read_back() -> None:
    whole = replace(manifest("a"), note="ä", expires={"token": 1.5}, seconds={"save": 0.25}, versions={"klab": "1"})
    assert from_json(to_json(whole)) == whole
    assert whole.frozen == 1.5
    assert whole.size == 110, "layers below are those of the snapshots below"
    assert whole.node("cp1") == whole.nodes[0]
    assert whole.node("w1") is None


def at(*path: str | int, value: object) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (at("name", value=5), "name is 5, which is not text"),
        (at("parent", value=None), "parent is null, which is not text"),
        (at("auto", value=0), "auto is 0, which is not true or false"),
        (at("created", value="today"), 'created is "today", which is not a number'),
        (at("guest_time", value=1e300), "guest_time is out of bounds"),
        (at("missing", value=[1]), "missing[0] is 1, which is not text"),
        (at("versions", value={"klab": 1}), "versions.klab is 1, which is not text"),
        (at("expires", value={"token": True}), "expires.token is true, which is not a number"),
        (at("seconds", value={"save": "1"}), 'seconds.save is "1", which is not a number'),
        (at("nodes", 0, "role", value=[]), "nodes[0].role is [], which is not text"),
        (at("nodes", 0, "running", value="yes"), 'nodes[0].running is "yes", which is not true or false'),
        (at("nodes", 0, "resumed", value=None), "nodes[0].resumed is null, which is not a number"),
        (at("nodes", 0, "platform", value={"QEMU": 10}), "nodes[0].platform.QEMU is 10, which is not text"),
        (at("nodes", 0, "parts", 0, "digest", value=1), "nodes[0].parts[0].digest is 1, which is not text"),
        (
            at("nodes", 0, "parts", 0, "size", value=False),
            "nodes[0].parts[0].size is false, which is not a whole number",
        ),
        (at("nodes", value=[]), "it has no nodes"),
        (at("format", value=2), "its format is 2, this klab knows 1"),
    ],
)
def test_a_damaged_manifest_is_refused_with_the_name_of_the_field(change: Callable[[Any], None], said: str) -> None:
    data = json.loads(to_json(manifest("a")))
    change(data)
    with pytest.raises(LabError) as caught:
        from_json(json.dumps(data))
    assert caught.value.message.endswith(said)


def test_the_tree_has_each_above_its_parent_oldest_first() -> None:
    found = tree([manifest("d", "a"), manifest("c", "b"), manifest("b", "a"), manifest("a"), manifest("e", "gone")])
    assert names(found) == [["a", ["b", ["c"]], ["d"]], ["e"]]


def test_a_circle_is_cut() -> None:
    assert names(tree([manifest("a", "b"), manifest("b", "a")])) == [["a", ["b"]]]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), unique_by=lambda pair: pair[0]))
def test_every_snapshot_is_in_the_tree_once(pairs: list[tuple[int, int]]) -> None:
    manifests = [manifest(str(own), str(parent)) for own, parent in pairs]

    def flat(branches: tuple[Branch, ...]) -> list[str]:
        return [name for b in branches for name in [b.manifest.id, *flat(b.above)]]

    assert sorted(flat(tree(manifests))) == sorted(m.id for m in manifests)


def test_names() -> None:
    assert check_name("Lesson-3.1_b") == "Lesson-3.1_b"
    with pytest.raises(UsageError, match="command"):
        check_name("prune")
    assert made_id(0.0, "beef") == "19700101-000000-beef"
    first = made_name(1e9, [])
    assert made_name(1e9, [first]) == f"{first}-2"
    assert made_name(1e9, [first, f"{first}-2"]) == f"{first}-3"
    assert made_name(1e9, [], auto=True) == f"auto-{first}"


def test_what_is_pruned() -> None:
    found = [manifest("a", auto=True), manifest("b", auto=True), manifest("c"), manifest("d", auto=True)]
    assert surplus_autos(found, 1) == ["b", "a"]
    assert surplus_autos(found, 1, spared=["d"]) == ["a"]
    assert surplus_autos(found, 3) == []
    assert surplus(found, 1) == ["c", "b", "a"]
    assert surplus(found, 9) == []
