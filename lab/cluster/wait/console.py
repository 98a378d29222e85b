"""The nodes' serial consoles, followed from the host: how a node reports its progress.

Nothing but the hypervisor stands between the two, so this works before the node has a
network and after it has lost it. `lab.render.node_script` writes what is read here.
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.cluster.events import STATES, Journal, State
from lab.cluster.wait.console_file import ConsoleFile
from lab.render.node_script import LOG_MARK, MARK

TAIL = 25
MOST_IN_LINE = 2048  # bytes; the rest of a longer line is passed over
MOST_AT_ONCE = 4 << 20  # bytes; the rest is read the next time, so that a guest that keeps printing does not block klab
MOST_MARKS = 2000  # a node with every attempt of every phase sets some hundred
_MARK = re.compile(rf"{MARK} (?P<phase>[a-z-]+) (?P<state>[a-z]+) ?(?P<text>.*)")
_CLOUD_INIT_TROUBLE = ("warn", "error", "critical", "fail", "traceback", "invalid")
# cloud-init ended without a seed: this node will never report anything.
_NO_SEED = ("cloud-init", " finished at ", "DataSourceNone")
# Terminal control sequences that a booting system sprinkles over its console (ECMA-48).
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x00-\x08\x0b-\x1f\x7f]")


class Console:
    """One node's console, read from where it was left: what it tells of the machine's present run.

    `unreadable` is why klab cannot read it, for example because root owns it; empty if it can, or if it does not exist.
    """

    def __init__(self, node: str, file: Path) -> None:
        self.node = node
        self.finished: set[str] = set()
        self.failed: tuple[str, str] | None = None
        self.alive = False
        self.unreadable = ""
        self._begun = False
        self._file = ConsoleFile(file)
        self._rest = b""
        self._marks = 0
        self._lines: deque[str] = deque(maxlen=200)
        self._log: deque[str] = deque(maxlen=TAIL)
        self._cloud_init: deque[str] = deque(maxlen=TAIL)

    def read(self, journal: Journal) -> None:
        """Read what is new and note each mark in the journal."""
        try:
            for piece in self._file.read(MOST_AT_ONCE):
                if piece.fresh:
                    self._forget()
                self._take(piece.data, journal)
        except OSError as error:
            self.unreadable = "" if isinstance(error, FileNotFoundError) else f"{error.strerror}: {error.filename}"
        else:
            self.unreadable = ""

    def pass_over(self) -> None:
        """Read no more of what it holds so far."""
        with contextlib.suppress(OSError):  # `read` tells why it cannot be read
            self._file.end()

    def _forget(self) -> None:
        """The machine was started again: what it said before is no news of this run. What it has finished stays so."""
        self.alive, self.failed, self._rest = False, None, b""
        for lines in (self._lines, self._log, self._cloud_init):
            lines.clear()

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

    def fail(self, phase: str, text: str, log: Sequence[str]) -> None:
        """Take the node for failed, as learned in another way."""
        self.failed = (phase, text)
        self._log.extend(log)

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
        if phase == "cloud-init" and state == "begin":  # at each boot, until the first is finished
            self._begun, self.failed = True, None
            journal.add(self.node, "boot", "done")
        if phase == "boot":  # node.sh runs, from its beginning: cloud-init has done its part
            phase, self.failed = "cloud-init", None
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

    def follow(self, files: Mapping[str, Path], *, anew: bool = True) -> None:
        """Follow these files, by their nodes; without `anew`, what they hold so far is passed over."""
        self._by_node = {node: Console(node, file) for node, file in files.items()}
        if not anew:
            for console in self._by_node.values():
                console.pass_over()

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

    @property
    def unreadable(self) -> list[Console]:
        """Those that klab cannot read."""
        return [console for console in self._by_node.values() if console.unreadable]

    def finish(self, node: str) -> None:
        """Take a node's first boot for finished, as learned in another way."""
        self._by_node[node].finished.add("clean")
