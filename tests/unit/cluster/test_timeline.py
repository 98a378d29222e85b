from __future__ import annotations

import xml.etree.ElementTree as ET

from lab.cluster.events import Event, State
from lab.cluster.timeline import draw_svg, draw_text, last_create, spans


def event(time: float, node: str, phase: str, state: State, text: str = "") -> Event:
    return Event(1000.0 + time, node, phase, state, text)


EVENTS = [
    event(0, "", "create", "begin"),
    event(0, "", "the API server answers", "begin"),
    event(40, "cp1", "boot", "done"),
    event(40, "cp1", "cloud-init", "begin"),
    event(60, "cp1", "cloud-init", "done"),
    event(61, "cp1", "init", "begin", "attempt 1"),
    event(70, "w1", "boot", "done"),
    event(150, "", "the API server answers", "done"),
    event(200, "cp1", "init", "done"),
    event(240, "cp1", "ready", "done"),
]


def test_phases_follow_one_another() -> None:
    mine = [(s.phase, s.start, s.end) for s in spans(EVENTS) if s.row == "cp1"]
    assert mine == [("boot", 0, 40), ("cloud-init", 40, 60), ("init", 60, 200), ("ready", 200, 240)]


def test_steps_of_the_lab_have_their_own_rows() -> None:
    assert [(s.phase, s.seconds, s.done) for s in spans(EVENTS) if s.row == "lab"] == [
        ("the API server answers", 150, True)
    ]


def test_what_is_under_way_is_open_ended() -> None:
    found = spans(EVENTS[:6])
    assert [(s.phase, s.done) for s in found if s.row == "cp1"][-1] == ("init", False)
    assert [s.done for s in found if s.row == "lab"] == [False]


def test_only_the_newest_create_is_drawn() -> None:
    again = [*EVENTS, event(900, "", "create", "begin", "again"), event(901, "", "create", "done")]
    assert last_create(again)[0].time == 1000.0
    anew = [*EVENTS, event(900, "", "create", "begin"), event(950, "cp1", "boot", "done")]
    assert [s.end for s in spans(last_create(anew))] == [50]


def test_charts_name_every_row() -> None:
    text = draw_text(spans(EVENTS))
    assert "cp1" in text
    assert "w1" in text
    assert "init 140s" in text
    svg = draw_svg(spans(EVENTS), title="klab create <x>")
    root = ET.fromstring(svg)  # noqa: S314  (our own text)
    labels = [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "w1" in labels
    assert "klab create <x>" in labels


def test_an_empty_journal_is_said_not_drawn() -> None:
    assert "nothing" in draw_text(spans([]))
    ET.fromstring(draw_svg([], title="x"))  # noqa: S314
