from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lab.cluster.events import Journal, phase_of, read_events
from lab.cluster.wait.console import MOST_AT_ONCE, MOST_IN_LINE, MOST_MARKS, Console
from lab.cluster.wait.console_file import BLOCK, ConsoleFile, rotated

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


def test_a_line_is_cut_before_it_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_bytes(b"cloud-init " * 100_000 + b"klab: join failed too far out\nklab: init begin\n")
    console.read(journal_of(tmp_path))
    assert seen(tmp_path) == [("init", "begin")]
    assert max(len(line) for line in console.tail()) <= MOST_IN_LINE


def test_a_mark_after_much_of_an_unfinished_line_is_part_of_that_line(tmp_path: Path) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_bytes(b"x" * (BLOCK + 1))
    console.read(journal_of(tmp_path))
    with file.open("ab") as more:
        more.write(b"klab: init begin\nklab: join begin\n")
    console.read(journal_of(tmp_path))
    assert seen(tmp_path) == [("join", "begin")]


def test_much_is_read_in_several_goes_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_bytes(b"klab: init begin\n" + (b"x" * 2000 + b"\n") * (MOST_AT_ONCE // 2000) + b"klab: init done\n")
    console.read(journal_of(tmp_path))
    assert seen(tmp_path) == [("init", "begin")]
    console.read(journal_of(tmp_path))
    assert seen(tmp_path) == [("init", "begin"), ("init", "done")]


def test_marks_without_end_do_not_fill_the_labs_journal(tmp_path: Path) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_bytes(b"klab: init retry\n" * (MOST_MARKS + 10))
    console.read(journal_of(tmp_path))
    assert len(seen(tmp_path)) == MOST_MARKS


@pytest.mark.parametrize(
    ("line", "complains"),
    [
        (b"[   12.1] cloud-init[310]: 2026-01-01 - util.py[WARNING]: failed", True),
        (b"[   12.1] Cloud-Init[310]: Traceback (most recent call last):", True),
        (b"error: cloud-init is well", False),
        (b"cloud-init is well", False),
    ],
)
def test_complaints_of_cloud_init_are_kept(tmp_path: Path, line: bytes, complains: bool) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_bytes(line + b"\nthe last line\n")
    console.read(journal_of(tmp_path))
    assert console.tail()[-1] == ("the last line" if not complains else line.decode())


def test_words_in_another_order_do_not_say_that_there_is_no_seed(tmp_path: Path) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_bytes(b"DataSourceNone finished at cloud-init\n")
    console.read(journal_of(tmp_path))
    assert console.failed is None
    with file.open("ab") as more:
        more.write(b"cloud-init v. 25 finished at Mon, 01 Jan. Datasource DataSourceNone.  Up 9 seconds\n")
    console.read(journal_of(tmp_path))
    assert console.failed == ("cloud-init", "the node has not found its seed")


# --- files that are replaced, and runs that follow one another ------------------------------------------


def take_another(file: Path, text: bytes) -> None:
    """As virtlogd does when a file is full."""
    file.rename(rotated(file))
    file.write_bytes(text)


def begin_another(file: Path, text: bytes) -> None:
    """As klab does before it starts a machine."""
    file.unlink()
    file.write_bytes(text)


def test_a_full_file_is_read_to_its_end_before_the_one_that_continues_it(tmp_path: Path) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_bytes(b"klab: join begin\nklab: jo")
    console.read(journal_of(tmp_path))
    with file.open("ab") as more:
        more.write(b"in retry\n")
    take_another(file, b"klab: join done\n")
    console.read(journal_of(tmp_path))
    assert seen(tmp_path) == [("join", "begin"), ("join", "retry"), ("join", "done")]


def test_the_failure_of_an_earlier_run_is_no_news_of_this_one(tmp_path: Path) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_bytes(BOOTING + b"klab: clean done\nklab: join failed no route\nklab| no route\n")
    console.read(journal_of(tmp_path))
    assert console.failed == ("join", "no route")
    begin_another(file, b"")
    console.read(journal_of(tmp_path))
    begin_another(file, b"[    0.1] Linux version 6.12, at more length than all that was said before: " + b"x" * 200)
    console.read(journal_of(tmp_path))
    assert console.failed is None
    assert console.tail() == []
    assert console.finished == {"clean"}, "what is finished stays so"


@pytest.mark.parametrize("again", [b"klab: cloud-init begin\n", b"klab: boot done\n"])
def test_a_node_that_tries_again_after_a_reboot_has_not_failed(tmp_path: Path, again: bytes) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    file.write_bytes(BOOTING + b"klab: join failed no route\nklab| no route\n" + again + b"klab: join done\n")
    console.read(journal_of(tmp_path))
    assert console.failed is None
    with file.open("ab") as more:
        more.write(b"klab: clean failed disk full\n")
    console.read(journal_of(tmp_path))
    assert console.failed == ("clean", "disk full")


def test_a_file_that_klab_may_not_read_is_told_from_one_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "w1.log"
    console = Console("w1", file)
    console.read(journal_of(tmp_path))
    assert console.unreadable == ""
    file.write_bytes(b"klab: join begin\n")
    console.read(journal_of(tmp_path))
    take_another(file, b"klab: join done\n")
    really = os.open

    def closed(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", closed)
    console.read(journal_of(tmp_path))
    assert console.unreadable == f"Permission denied: {file}"
    monkeypatch.setattr(os, "open", really)
    console.read(journal_of(tmp_path))
    assert console.unreadable == ""
    assert "join" in console.finished


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_reader_keeps_one_file_open_and_no_more(tmp_path: Path) -> None:
    file, before = tmp_path / "w1.log", open_files()
    file.write_bytes(b"1\n")
    reader = ConsoleFile(file)
    for number in range(5):
        list(reader.read(100))
        begin_another(file, f"{number}\n".encode())
    assert open_files() == before + 1
    assert [(piece.data, piece.fresh) for piece in reader.read(100)] == [(b"4\n", True)]
    del reader
    assert open_files() == before
