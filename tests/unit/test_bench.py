"""What the benches make of their figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import ordinary_user
from bench import snapshots as module
from bench.create import ready_at
from bench.measure import Pair
from bench.snapshots import (
    ALL,
    BACK,
    BACK_OLDEST,
    BACK_SAVED,
    DD,
    FREEZE,
    MIB,
    ONE,
    VAGRANT,
    VIRSH,
    Measured,
    from_json,
    last_object,
    merged,
    pairs,
    to_json,
    until_ready,
)
from lab.store import Home

THREE = Measured(
    "1m2w",
    3,
    10,
    {
        FREEZE: [3.0, 1.0, 2.0],
        DD: [2.0, 2.0, 9.0],
        BACK: [60.0, 50.0],
        BACK_SAVED: [80.0, 80.0],
        BACK_OLDEST: [66.0, 66.0],
        VIRSH: [20.0, 21.0, 40.0],
        VAGRANT: [70.0],
    },
    {ONE: 1000 * MIB, ALL: 2100 * MIB},
)
SINGLE = Measured("single", 1, 1, {FREEZE: [1.0], DD: [1.0], BACK: [25.0], VIRSH: [20.0]}, {ONE: MIB, ALL: MIB})


def told(pair: Pair) -> tuple[float, str]:
    return round(pair.ratio, 2), pair.verdict


def test_the_moment_when_every_node_was_ready_is_read_from_the_events() -> None:
    began, done = (
        {"event": {"time": at, "phase": "every node is Ready", "state": state}}
        for at, state in ((5.0, "begin"), (9.5, "done"))
    )
    assert ready_at([{"event": {"time": 1.0, "phase": "create", "state": "begin"}}, began, done]) == 9.5
    with pytest.raises(ValueError, match="no event"):
        ready_at([began])


def test_medians_are_set_against_each_other_each_with_what_is_wanted() -> None:
    """Seven comparisons: the frozen time, a restore in two ways against two others, growth of time and of space."""
    assert [told(pair) for pair in pairs([THREE])] == [
        (1.0, "met"),
        (2.62, "met"),
        (3.81, "NOT met"),
        (0.79, "met"),
        (1.14, "NOT met"),
        (1.2, ""),
        (2.1, "NOT met"),
    ]


def test_only_what_was_measured_is_told() -> None:
    assert [(pair.klab, pair.peer) for pair in pairs([SINGLE])] == [(1.0, 1.0), (25.0, 20.0)]
    assert pairs([]) == []


def test_a_larger_lab_may_take_less_than_its_part() -> None:
    five = replace(THREE, nodes=5, seconds={BACK: [130.0]})
    growth = [pair for pair in pairs([THREE, five, SINGLE]) if pair.what.endswith("/ 1")]
    assert [(pair.at_most, told(pair)) for pair in growth] == [(3.0, (2.2, "met")), (5.0, (5.2, "NOT met"))]


def test_what_comes_after_the_lab_is_verified_does_not_count() -> None:
    assert until_ready(50.0, {"verify": 30.0, "digests of the automatic snapshot": 8.0, "leases": 2.0}) == 40.0
    assert until_ready(50.0, {"verify": 30.0}) == 50.0


def test_the_result_stands_after_the_events() -> None:
    assert last_object('{"event": 1}\n{"verified": true}\n') == {"verified": True}
    assert last_object('{\n  "removed": []\n}\n') == {"removed": []}


def test_results_are_read_back_and_a_new_lab_replaces_one_of_its_size() -> None:
    text = to_json([THREE])
    assert from_json(text) == [THREE]
    assert {row["verdict"] for row in json.loads(text)["pairs"]} == {"met", "NOT met", ""}
    again = replace(THREE, count=2)
    assert merged([THREE], [SINGLE, again]) == [SINGLE, again]


def test_a_row_says_whether_what_is_wanted_is_met() -> None:
    assert Pair("a / b", 1.0, 2.0, 0.4).row() == "| a / b | 1 s | 2 s | 0.50 | 0.4 | NOT met |"
    assert Pair("a / b", 100.0, 50.0, None, "MiB").row() == "| a / b | 100 MiB | 50 MiB | 2.00 |  |  |"


def test_labs_that_are_there_are_measured_one_after_the_other_into_one_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"one": SINGLE, "three": THREE}
    asked: list[tuple[str, int, bool]] = []

    def measure(_home: Home, name: str, *, count: int, rounds: int, all_ways: bool) -> Measured:
        asked.append((name, count, all_ways))
        return found[name]

    monkeypatch.setattr(module, "measure", measure)
    results = tmp_path / "results.json"
    there = ["--home", str(tmp_path), "--json", str(results)]
    assert CliRunner().invoke(module.main, [*there, "--lab", "one", "--growth"]).exit_code == 0
    done = CliRunner().invoke(module.main, [*there, "--lab", "three", "--add"])
    assert done.exit_code == 0, done.output
    assert "| 55 s | 25 s | 2.20 | 3 | met |" in done.output
    assert asked == [("one", 1, False), ("three", 10, True)]
    assert from_json(results.read_text()) == [SINGLE, THREE]
    assert CliRunner().invoke(module.main, [*there, "--lab", "three"]).exit_code == 0
    assert from_json(results.read_text()) == [THREE], "without --add it starts a new file"


def test_of_its_own_labs_one_is_measured_in_all_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, bool] = {}

    def measure_own(scenario: str, results: Path, words: Sequence[str]) -> None:
        made[Path(scenario).name] = "--growth" in words
        results.write_text(to_json([THREE]))

    monkeypatch.setattr(module, "measure_own", measure_own)
    done = CliRunner().invoke(module.main, ["--json", str(tmp_path / "results.json")])
    assert done.exit_code == 0, done.output
    assert made == {"single.yaml": True, "1m2w": False}
    assert CliRunner().invoke(module.main, ["--lab", "one"]).exit_code == 2


def test_an_ordinary_user_against_root() -> None:
    user = {"snapshot": [1.0, 9.0, 1.2], "restore": [2.7]}
    root = {"snapshot": [1.0, 1.0, 0.5], "restore": [2.0]}
    snapshot, restore = ordinary_user.pairs(user, root)
    assert (snapshot.ratio, snapshot.verdict) == (1.2, "met")
    assert (restore.what, restore.verdict) == ("restore", "NOT met")
    side = ordinary_user.Side("mine", ("env", "A=b"), Path("/x.klab"))
    assert side.command(ordinary_user.ACTS[0][1]) == ["env", "A=b", ordinary_user.KLAB, "snapshot", "mine", "one"]
