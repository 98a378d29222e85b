"""The nodes' serial consoles, followed from the host: how a node says how far it is.

Nothing but the hypervisor stands between the two, so this works before the node has a
network and after it has lost it. `lab.render.node_script` writes what is read here.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from lab.cluster.events import STATES, Journal, State
from lab.render.node_script import LOG_MARK, MARK

TAIL = 25
_MARK = re.compile(rf"{MARK} (?P<phase>[a-z-]+) (?P<state>[a-z]+) ?(?P<text>.*)")
_CLOUD_INIT_TROUBLE = re.compile(r"cloud-init.*(warn|error|critical|fail|traceback|invalid)", re.IGNORECASE)
# cloud-init ended without a seed: this node will never report anything.
_NO_SEED = re.compile(r"cloud-init.* finished at .*DataSourceNone")
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
        self._rest = ""
        self._lines: deque[str] = deque(maxlen=200)
        self._log: deque[str] = deque(maxlen=TAIL)
        self._cloud_init: deque[str] = deque(maxlen=TAIL)

    def read(self, journal: Journal) -> None:
        """Read what is new and note each mark in the journal."""
        try:
            with self._file.open("rb") as file:
                size = file.seek(0, 2)
                if size < self._offset:  # a new console: the node was started again
                    self._offset, self._rest = 0, ""
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return
        self._offset += len(data)
        text = self._rest + data.decode("utf-8", "replace")
        *lines, self._rest = text.split("\n")
        for line in lines:
            self._line(_CONTROL.sub("", line.replace("\r", "")), journal)

    @property
    def amidst(self) -> bool:
        """Whether the node is amidst its first boot: cloud-init does not go on with what a crash has cut off."""
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
        if _CLOUD_INIT_TROUBLE.search(line):
            self._cloud_init.append(line.strip())
        if _NO_SEED.search(line):
            self.failed = ("cloud-init", "the node has not found its seed")
        if LOG_MARK in line:
            self._log.append(line.split(LOG_MARK, 1)[1].strip())
            return
        mark = _MARK.search(line)
        if mark is None or mark["state"] not in STATES:
            return
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


def open_consoles(files: Mapping[str, Path]) -> dict[str, Console]:
    """A Console for each node."""
    return {node: Console(node, file) for node, file in files.items()}
