"""A witness on the host: writes a counter into the cluster and logs each write that was acknowledged.

What it has logged must be in the cluster afterwards, whatever happened meanwhile; and the
longest time between two writes is how long the API was away.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass

from support.real_lab import ENTER, Lab

NAME = "klab-witness"
PAUSE_SECONDS = 0.3

_CODE = """
import json, os, sys, time
from lab.cluster.clients.api import Api, UnreachableError
from lab.plan.file import from_json
from lab.store import LabFolder
from pathlib import Path
folder = LabFolder(Path(sys.argv[1]))
plan = from_json((folder.path / "plan.json").read_text())
count, log = int(sys.argv[3]), open(sys.argv[2], "a")
api = Api(folder, plan)
while True:
    began = time.time()
    try:
        api.apply({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "NAME", "namespace": "default"}, "data": {"count": str(count)},
        }, seconds=10)
        log.write(json.dumps({"count": count, "began": began, "time": time.time()}) + "\\n")
        log.flush()
        os.fsync(log.fileno())
        count += 1
    except UnreachableError:
        api = Api(folder, plan)  # the connection may lead to a server that is gone
    time.sleep(PAUSE)
"""


@dataclass(frozen=True)
class Write:
    """One acknowledged write: begun and acknowledged at these times, seconds since 1970."""

    count: int
    began: float
    time: float


class Witness:
    """The witness of one lab; counts on over all of its runs."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.log = lab.home / "witness.log"
        self.log.touch()
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Witness:
        last = max((w.count for w in self.writes()), default=0)
        code = ENTER + _CODE.replace("NAME", NAME).replace("PAUSE", str(PAUSE_SECONDS))
        argv = [sys.executable, "-c", code, str(self.lab.folder), str(self.log), str(last + 1)]
        self._child = subprocess.Popen(argv, env=self.lab.env, text=True, stderr=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.terminate()
            self._child.communicate(timeout=60)

    def writes(self) -> list[Write]:
        return [Write(**json.loads(line)) for line in self.log.read_text().splitlines()]

    def await_writes(self, more: int, seconds: float = 1200) -> None:
        """Wait until so many more writes have been acknowledged."""
        wanted, deadline = len(self.writes()) + more, time.monotonic() + seconds
        while len(self.writes()) < wanted:
            assert self._child is not None
            assert self._child.poll() is None, "the witness has ended"
            assert time.monotonic() < deadline, f"no {more} writes within {seconds:.0f} s"
            time.sleep(1)

    def longest_gap(self, since: float) -> float:
        """The longest time from one acknowledgement to the next, in seconds, from the last one before `since` on."""
        times = [w.time for w in self.writes()]
        first = max((i for i, t in enumerate(times) if t <= since), default=0)
        return max(b - a for a, b in zip(times[first:], times[first + 1 :], strict=False))

    def check_nothing_lost(self) -> None:
        """The cluster holds the last acknowledged write, or one that was sent after it."""
        kept = int(self.lab.get("configmap", NAME)["data"]["count"])
        last = max(w.count for w in self.writes())
        assert last <= kept <= last + 1, f"acknowledged {last}, found {kept}"
