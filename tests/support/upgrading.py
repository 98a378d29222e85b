"""A Service that is asked without a pause from outside, and a klab upgrade that is killed at each of its steps."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.app.boxes import DEFAULT_BOX
from lab.components.kubernetes import DEFAULT
from lab.scenario.catalog import load_catalog
from support.lessons import NODE_PORT_SERVICE
from support.real_lab import COMMAND_SECONDS, ENTER, KLAB, Lab, say

VERSIONS = list(load_catalog().recipes[DEFAULT_BOX].kubernetes)
BEFORE = VERSIONS[VERSIONS.index(DEFAULT) - 1]

# Two pods at least serve while one is evicted; one that ends serves until kube-proxy has heard of its end.
WEB = (
    """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: nginx
        image: nginx:latest
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {port: 80}, periodSeconds: 2}
        lifecycle: {preStop: {sleep: {seconds: 20}}}
      terminationGracePeriodSeconds: 60
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec:
  maxUnavailable: 1
  selector: {matchLabels: {app: web}}
"""
    + NODE_PORT_SERVICE
)

# Each question in a thread of its own: one that waits holds up none.
ASKING = """
import pathlib, threading, time, urllib.request
end, log = pathlib.Path(END), open(LOG, "a", buffering=1)
def ask():
    began = time.time()
    try:
        text = urllib.request.urlopen("http://ADDRESS:30080", timeout=60).read().decode()
        said = "ok" if "Welcome to nginx!" in text else "another page"
    except Exception as error:
        said = repr(error)
    log.write(f"{began:.1f} {time.time() - began:.1f} {said}\\n")
while not end.exists():
    threading.Thread(target=ask).start()
    time.sleep(0.5)
"""


@dataclass
class Answers:
    """What came of the questions, in the order in which they were answered."""

    lines: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[str]:
        return [line for line in self.lines if not line.endswith(" ok")]

    @property
    def slowest(self) -> float:
        return max(float(line.split()[1]) for line in self.lines)


@contextlib.contextmanager
def asked_all_the_time(lab: Lab, folder: Path) -> Iterator[Answers]:
    """Ask a Service's NodePort twice a second on the first control plane, from the host, until the block ends."""
    end, log, answers = folder / "end", folder / "answers", Answers()
    address = next(iter(lab.addresses.values()))
    code = ASKING.replace("END", repr(str(end))).replace("LOG", repr(str(log))).replace("ADDRESS", address)
    child = subprocess.Popen([sys.executable, "-c", ENTER + code], env=lab.env)
    try:
        yield answers
    finally:
        end.touch()
        child.wait(120)
        answers.lines += log.read_text().splitlines()
        said = f"{len(answers.failed)} failed; the slowest answer took {answers.slowest:.1f} s"
        say(f"asked {len(answers.lines)} times, {said}")


def upgrade_killed_at_each_step(lab: Lab, version: str, after: float = 4.0) -> list[tuple[str, str]]:
    """Run klab upgrade until it ends, killed some seconds after the beginning of each step that it begins.

    Returns:
        The steps at which it was killed: node and phase.
    """
    killed: list[tuple[str, str]] = []
    while True:
        step, code = _run(lab, version, killed, after)
        if step is None:
            assert code == 0, "klab upgrade failed; its messages are above"
            return killed
        say(f"killed at: {' '.join(filter(None, step))}")
        killed.append(step)
        assert len(killed) < 60, killed


def _run(lab: Lab, version: str, known: list[tuple[str, str]], after: float) -> tuple[tuple[str, str] | None, int]:
    """One run: the step at which it was killed, or None and its exit code."""
    argv = [*KLAB, "upgrade", lab.name, "--to", version, "--json"]
    began = time.monotonic()
    with subprocess.Popen(argv, env=lab.env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            data: dict[str, Any] = json.loads(line)
            if "event" not in data:
                continue
            event = data["event"]
            step = (event["node"], event["phase"])
            say(f"{time.monotonic() - began:6.0f}s {' '.join(filter(None, (*step, event['state'], event['text'])))}")
            if event["state"] == "begin" and step not in known and not event["text"].endswith("GiB"):
                time.sleep(after)
                child.send_signal(signal.SIGKILL)
                child.wait(60)
                return step, child.returncode
        return None, child.wait(COMMAND_SECONDS)
