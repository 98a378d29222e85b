from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import UsageError
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
