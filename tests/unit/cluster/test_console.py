from __future__ import annotations

from pathlib import Path

from lab.cluster.console import Console
from lab.cluster.events import Journal, phase_of, read_events

BOOTING = b"\x1b[0m\x1b[2J[    0.1] Linux version 6.12\r\nklab: cloud-init begin\r\n"


def journal_of(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "events.jsonl")


def seen(tmp_path: Path) -> list[tuple[str, str]]:
    return [(e.phase, e.state) for e in read_events(tmp_path / "events.jsonl")]


def test_marks_become_events(tmp_path: Path) -> None:
    file = tmp_path / "cp1.log"
    console = Console("cp1", file)
    file.write_bytes(
        BOOTING + b"klab: boot done\r\nklab: init begin attempt 1\r\nklab: init done\r\nklab: clean done\r\n"
    )
    console.read(journal_of(tmp_path))
    assert seen(tmp_path) == [
        ("boot", "done"),
        ("cloud-init", "begin"),
        ("cloud-init", "done"),
        ("init", "begin"),
        ("init", "done"),
        ("clean", "done"),
    ]
    assert console.finished == {"cloud-init", "init", "clean"}
    assert console.failed is None


def test_a_mark_cut_in_two_by_the_reader_is_whole_the_next_time(tmp_path: Path) -> None:
    file = tmp_path / "cp1.log"
    console = Console("cp1", file)
    file.write_bytes(b"klab: init be")
    console.read(journal_of(tmp_path))
    assert seen(tmp_path) == []
    file.write_bytes(b"klab: init begin\nklab: in")
    console.read(journal_of(tmp_path))
    assert seen(tmp_path) == [("init", "begin")]


def test_a_failure_brings_its_log(tmp_path: Path) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_bytes(b"klab: join failed kubeadm join failed 3 times\nklab| error: no route\nklab| giving up\n")
    console.read(journal_of(tmp_path))
    assert console.failed == ("join", "kubeadm join failed 3 times")
    assert console.tail() == ["error: no route", "giving up"]


def test_without_a_log_the_tail_is_the_consoles_end(tmp_path: Path) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_bytes(b"SeaBIOS\r\nNo bootable device.\r\n")
    console.read(journal_of(tmp_path))
    assert console.tail()[-1] == "No bootable device."
    assert console.alive


def test_a_missing_console_is_silent_not_an_error(tmp_path: Path) -> None:
    console = Console("w1", tmp_path / "none.log")
    console.read(journal_of(tmp_path))
    assert not console.alive
    assert console.tail() == []


def test_a_console_that_begins_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_bytes(BOOTING * 3)
    console.read(journal_of(tmp_path))
    file.write_bytes(b"klab: join done\n")
    console.read(journal_of(tmp_path))
    assert "join" in console.finished


def test_words_that_only_look_like_marks_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_bytes(b"klab: what is this\nklab:\nhello klab: init\n")
    console.read(journal_of(tmp_path))
    assert seen(tmp_path) == []


def test_the_phase_of_a_node_is_its_last_event(tmp_path: Path) -> None:
    journal = journal_of(tmp_path)
    assert phase_of([], "cp1") == ("boot", "begin")
    journal.add("cp1", "init", "begin")
    journal.add("w1", "join", "begin")
    assert phase_of(read_events(tmp_path / "events.jsonl"), "cp1") == ("init", "begin")


def test_a_journal_cut_off_by_a_kill_is_still_read(tmp_path: Path) -> None:
    journal_of(tmp_path).add("cp1", "init", "begin")
    with (tmp_path / "events.jsonl").open("a") as out:
        out.write('{"time": 1, "node": "cp')
    assert seen(tmp_path) == [("init", "begin")]


def test_what_cloud_init_complains_of_is_shown_as_long_as_the_node_hangs_there(tmp_path: Path) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    trouble = "[   14.1] cloud-init[437]: 2026-01-01 - schema.py[WARNING]: Failed at cloud-config: users is no list"
    file.write_text(f"klab: cloud-init begin\n{trouble}\nDebian GNU/Linux 13 w1 ttyS0\n")
    console.read(journal_of(tmp_path))
    assert console.tail() == [trouble]
    file.write_text(f"klab: cloud-init begin\n{trouble}\nklab: boot done\nklab: join begin\nlast line\n")
    console = Console("w1", file)
    console.read(journal_of(tmp_path))
    assert console.tail()[-1] == "last line"


def test_a_node_that_found_no_seed_has_failed(tmp_path: Path) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_text(
        "[   35.9] cloud-init[364]: Cloud-init v. 25.1.4 finished at Sat, 21 Nov 2026 12:40:22 +0000. "
        "Datasource DataSourceNone.  Up 35.90 seconds\n"
    )
    console.read(journal_of(tmp_path))
    assert console.failed == ("cloud-init", "the node has not found its seed")
