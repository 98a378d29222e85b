"""Break a lab on purpose, and let `klab doctor LAB` name what is wrong and how to repair it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.render.timekeeping import STALE_FILE
from support.real_lab import COMMAND_SECONDS, say

if TYPE_CHECKING:
    from support.real_lab import Lab

HEAL_SECONDS = 30 * 60
# What a repair starts may take that long; who repeats it sooner only disturbs.
REPEAT_SECONDS = 10 * 60

# As a node of an older klab that was made on KVM looks where the clock is not there.
STALE_CLOCK = f"echo 'refclock PHC /dev/ptp9 poll 2 dpoll -2 offset 0 stratum 2' > {STALE_FILE}"

Findings = dict[tuple[str, str], dict[str, Any]]


def findings(lab: Lab) -> Findings:
    """What doctor finds now, by check and node."""
    seen = lab.result("doctor", lab.name, check=False)
    return {(f["check"], f["node"]): f for check in seen["checks"] for f in check["findings"]}


def await_findings(lab: Lab, *wanted: tuple[str, str], seconds: float = 600) -> Findings:
    """Ask doctor until it names all of these."""
    deadline = time.monotonic() + seconds
    while True:
        found = findings(lab)
        missing = [f"{check} on {node or 'the lab'}" for check, node in wanted if (check, node) not in found]
        if not missing:
            return found
        assert time.monotonic() < deadline, f"doctor does not see: {missing}; it sees {list(found.values())}"
        time.sleep(5)


def repair(lab: Lab, finding: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the command that doctor names, as a person does who copies the line."""
    say(f"repair: {finding['repair'][:150]}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", finding["repair"]],
        env={**lab.env, "PATH": path},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


def await_health(lab: Lab) -> None:
    """Ask doctor until it finds the lab healthy; nothing is done for it."""
    deadline = time.monotonic() + HEAL_SECONDS
    while not (seen := lab.result("doctor", lab.name, check=False))["healthy"]:
        found = [finding for check in seen["checks"] for finding in check["findings"]]
        assert time.monotonic() < deadline, f"not healthy: {found}"
        time.sleep(10)


def heal(lab: Lab) -> None:
    """Do what doctor says, ask it again, until it finds the lab healthy.

    What it says once only may be the lab on its way back, as after a repair: that is not acted upon.
    """
    deadline = time.monotonic() + HEAL_SECONDS
    done: dict[str, float] = {}
    before: set[str] = set()
    while True:
        seen = lab.result("doctor", lab.name, check=False)
        if seen["healthy"]:
            return
        found = {f["repair"]: f for check in seen["checks"] for f in check["findings"]}
        assert time.monotonic() < deadline, f"not healthy: {list(found.values())}"
        for command in found:  # causes first
            if command in before and time.monotonic() - done.get(command, -REPEAT_SECONDS) >= REPEAT_SECONDS:
                repair(lab, found[command])
                done[command] = time.monotonic()
        before = set(found)
        time.sleep(10)
