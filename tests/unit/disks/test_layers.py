"""The index of layers: what may go, what becomes one, and that nobody's disk ever reads differently."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lab.disks.layers import Merge, Tidying, chain, closure, tidying

BOX = "/pool/box.img"


def test_a_machine_without_captures_keeps_its_layer() -> None:
    assert tidying({"a": BOX}, ["a"]) == Tidying((), ())


def test_what_nobody_lies_on_and_nobody_needs_goes_from_the_top_down() -> None:
    assert tidying({"a": BOX, "b": "a", "c": "b", "top": "a"}, ["a", "top"]).drop == ("c", "b")


def test_a_layer_for_the_sake_of_one_other_becomes_one_with_it() -> None:
    assert tidying({"a": BOX, "b": "a", "c": "b"}, ["c"]).merge == (Merge("a", ("b", "c")),)


def test_a_layer_that_a_capture_holds_stays_itself() -> None:
    found = tidying({"a": BOX, "b": "a", "c": "b", "d": "c"}, ["b", "d"])
    assert found.merge == (Merge("a", ("b",)), Merge("c", ("d",)))
    assert found.merge[0].top == "b"


def test_a_layer_that_two_lie_on_stays() -> None:
    assert tidying({"a": BOX, "b": "a", "c": "a"}, ["b", "c"]) == Tidying((), ())


def test_chains_end_at_the_box_and_do_not_run_in_circles() -> None:
    assert chain({"a": None, "b": "a"}, "b") == ["b", "a"]
    assert chain({"a": "b", "b": "a"}, "a") == ["a", "b"]
    assert chain({}, "a") == []
    assert closure({"a": None, "b": "a", "c": "a"}, ["b"]) == {"a", "b"}


@st.composite
def books(draw: st.DrawFn) -> tuple[dict[str, str | None], set[str]]:
    """A tree of layers, and which of them are needed."""
    count = draw(st.integers(1, 12))
    backing: dict[str, str | None] = {"0": None}
    for i in range(1, count):
        backing[str(i)] = str(draw(st.integers(0, i - 1)))
    return backing, set(draw(st.lists(st.sampled_from(sorted(backing)))))


@given(books())
def test_what_is_needed_reads_as_before(book: tuple[dict[str, str | None], set[str]]) -> None:
    """A layer's number stands for what was written to it; a disk reads as all that its chain holds."""
    backing, needed = book
    held = {name: frozenset([name]) for name in backing}
    before = {name: frozenset(chain(backing, name)) for name in needed}
    plan = tidying(backing, needed)
    now = dict(backing)
    for name in plan.drop:
        assert name not in now.values(), "something still lies on it"
        del now[name]
    names = {name: name for name in needed}
    for merge in plan.merge:
        held[merge.into] = frozenset().union(held[merge.into], *(held[name] for name in merge.gone))
        for child, below in now.items():
            if below == merge.top:
                now[child] = merge.into
        for name in merge.gone:
            del now[name]
            names = {need: merge.into if at == name else at for need, at in names.items()}
    after = {need: frozenset().union(*(held[n] for n in chain(now, at))) for need, at in names.items()}
    assert after == before
    assert set(chain(now, top)[-1] for top in names.values()) <= {"0"}  # noqa: C401
    again = tidying(now, set(names.values()))
    assert again == Tidying((), ()), "once is enough"
