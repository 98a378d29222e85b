"""The nodes' serial consoles, followed from the host: how a node reports its progress.

Nothing but the hypervisor stands between the two, so this works before the node has a
network and after it has lost it. `lab.render.node_script` writes what is read here.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.cluster.events import STATES, Journal, State
from lab.render.node_script import LOG_MARK, MARK

TAIL = 25
MOST_IN_LINE = 2048  # bytes; the rest of a longer line is passed over
BLOCK = 1 << 16
MOST_AT_ONCE = 4 << 20  # bytes; the rest is read the next time, so that a guest that keeps printing does not block klab
MOST_MARKS = 2000  # a node with every attempt of every phase sets some hundred
_MARK = re.compile(rf"{MARK} (?P<phase>[a-z-]+) (?P<state>[a-z]+) ?(?P<text>.*)")
_CLOUD_INIT_TROUBLE = ("warn", "error", "critical", "fail", "traceback", "invalid")
# cloud-init ended without a seed: this node will never report anything.
_NO_SEED = ("cloud-init", " finished at ", "DataSourceNone")
# Terminal control sequences that a booting system sprinkles over its console (ECMA-48).
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0b-\x1f\x7f]")


class Console:
    """One node's console file, read from where it was left."""

    def __init__(self, node: str, file: Path) -> None:
        self.node = node
        self.finished: set[str] = set()
        self.failed: tuple[str, str] | None = None
        self.alive = False
        self._begun = False
        self._file = file
        self._offset = 0
        self._rest = b""
        self._marks = 0
        self._lines: deque[str] = deque(maxlen=200)
        self._log: deque[str] = deque(maxlen=TAIL)
        self._cloud_init: deque[str] = deque(maxlen=TAIL)

    def read(self, journal: Journal) -> None:
        """Read what is new and note each mark in the journal."""
        try:
            with self._file.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:  # a new console: the node was started again
                    self._offset, self._rest = 0, b""
                file.seek(self._offset)
                end = self._offset + MOST_AT_ONCE
                while self._offset < end and (data := file.read(BLOCK)):
                    self._offset += len(data)
                    self._take(data, journal)
        except OSError:
            return

    def _take(self, data: bytes, journal: Journal) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            text = (self._rest + line)[:MOST_IN_LINE].decode("utf-8", "replace")
            self._rest = b""
            self._line(_CONTROL.sub("", text.replace("\r", "")), journal)
        self._rest = (self._rest + rest)[:MOST_IN_LINE]

    @property
    def in_first_boot(self) -> bool:
        """Whether the node is in its first boot: cloud-init does not resume what a crash has interrupted."""
        return self._begun and "clean" not in self.finished

    def tail(self) -> list[str]:
        """The last lines a person should see.

        The log that came with a failure; else what cloud-init complained of, if the node has
        not come further; else the console's end.
        """
        complaints = [] if "cloud-init" in self.finished else list(self._cloud_init)
        return list(self._log) or complaints or [line for line in self._lines if line.strip()][-TAIL:]

    def _line(self, line: str, journal: Journal) -> None:
        if line.strip():
            self.alive = True
        self._lines.append(line)
        complaint = line.lower().partition("cloud-init")[2]
        if any(word in complaint for word in _CLOUD_INIT_TROUBLE):
            self._cloud_init.append(line.strip())
        if _in_order(line, _NO_SEED):
            self.failed = ("cloud-init", "the node has not found its seed")
        if LOG_MARK in line:
            self._log.append(line.split(LOG_MARK, 1)[1].strip())
            return
        mark = _MARK.search(line)
        if mark is None or mark["state"] not in STATES or self._marks == MOST_MARKS:
            return
        self._marks += 1
        state: State = next(s for s in STATES if s == mark["state"])
        phase, text = mark["phase"], mark["text"].strip()
        self._note(phase, state, text, journal)

    def _note(self, phase: str, state: State, text: str, journal: Journal) -> None:
        if phase == "cloud-init" and state == "begin":
            self._begun = True
            journal.add(self.node, "boot", "done")
        if phase == "boot":  # node.sh runs: cloud-init has done its part
            phase = "cloud-init"
        if state == "begin":
            self._log.clear()
        if state == "done":
            self.finished.add(phase)
        if state == "failed":
            self.failed = (phase, text)
        journal.add(self.node, phase, state, text)


def _in_order(line: str, words: Sequence[str]) -> bool:
    """Whether a line has these words, one after another."""
    at = 0
    for word in words:
        at = line.find(word, at)
        if at < 0:
            return False
        at += len(word)
    return True


class Consoles:
    """The consoles of the nodes that are being made, followed from when `follow` is called."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._by_node: dict[str, Console] = {}

    def follow(self, files: Mapping[str, Path]) -> None:
        """Follow these files, by their nodes."""
        self._by_node = {node: Console(node, file) for node, file in files.items()}

    def read(self) -> None:
        """Read what is new on each and note it in the journal."""
        for console in self._by_node.values():
            console.read(self._journal)

    def of(self, node: str) -> Console | None:
        """A node's console; None where it is not followed."""
        return self._by_node.get(node)

    def tail(self, node: str) -> list[str]:
        """The last lines that a person should see; empty where the node's console is not followed."""
        console = self.of(node)
        return console.tail() if console else []

    def in_first_boot(self, node: str) -> bool:
        """Whether a node is in the middle of its first boot; False where its console is not followed."""
        console = self.of(node)
        return console is not None and console.in_first_boot

    @property
    def failed(self) -> Console | None:
        """The first whose node reported a failure."""
        return next((console for console in self._by_node.values() if console.failed), None)

    @property
    def unfinished(self) -> list[str]:
        """The nodes that have not reported the end of their first boot."""
        return [name for name, console in self._by_node.items() if "clean" not in console.finished]

    def finish(self, node: str) -> None:
        """Take a node's first boot for finished, as learned in another way."""
        self._by_node[node].finished.add("clean")
