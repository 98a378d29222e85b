"""One real lab for all end-to-end tests: three VMs, real kubeadm, real Kubernetes.

It has a KLAB_HOME of its own, hence a private libvirt and a network of its own; boxes and
the build cache are those of the person's home, so that a second run builds nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.host import HostView, look_at_host

from lab.store import Home

KLAB = [sys.executable, "-m", "lab.cli.main"]
NAME = "e2e"
CREATE_SECONDS = 60 * 60
COMMAND_SECONDS = 20 * 60
# Somewhere in the middle of making the machines, each time.
INTERRUPT_AFTER_SECONDS = 15
KILL_AFTER_SECONDS = 30


@dataclass
class Lab:
    """klab, pointed at the lab under test."""

    home: Path
    before: HostView
    created: dict[str, Any] | None = None

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "KLAB_HOME": str(self.home), "NO_COLOR": "1"}

    def klab(self, *words: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*KLAB, *words], env=self.env, input=stdin, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
        if check:
            assert done.returncode == 0, f"klab {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def kubectl(self, *words: str, check: bool = True, stdin: str | None = None) -> str:
        return self.klab("kubectl", NAME, "--", *words, check=check, stdin=stdin).stdout

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def on(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a shell script as root on a node."""
        return self.klab("ssh", NAME, node, "--", "sudo", "bash", "-s", stdin=script, check=check).stdout

    def inside(self, code: str) -> str:
        """Run Python where the host meets the lab's network."""
        head = (
            "from lab.machines import enter_host_network; from lab.store import Home\n"
            "enter_host_network(Home.default())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", head + code], env=self.env, capture_output=True, text=True, timeout=300, check=True
        )
        return done.stdout

    @property
    def nodes(self) -> list[str]:
        return ["cp1", "w1", "w2"]

    @property
    def addresses(self) -> dict[str, str]:
        plan = json.loads(self.klab("plan", "1m2w", "--name", NAME, "--json").stdout)["plan"]
        return {n["name"]: n["address"] for n in plan["nodes"]}


def say(text: str) -> None:
    """Progress for whoever watches a long run."""
    sys.stderr.write(f"[e2e] {text}\n")
    sys.stderr.flush()


def _create(lab: Lab) -> int:
    """`klab create`, its events passed on as progress."""
    argv = [*KLAB, "create", "1m2w", "--name", NAME, "--json"]
    began = time.monotonic()
    with subprocess.Popen(argv, env=lab.env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            data = json.loads(line)
            if "event" in data:
                event = data["event"]
                words = (event["node"] or "lab", event["phase"], event["state"], event["text"])
                say(f"{time.monotonic() - began:6.0f}s {' '.join(words)}")
            else:
                lab.created = data
        return child.wait(CREATE_SECONDS)


def _create_cut_off(lab: Lab, sign: signal.Signals, after: float) -> subprocess.CompletedProcess[str]:
    """`klab create`, sent a signal after some seconds."""
    argv = [*KLAB, "create", "1m2w", "--name", NAME]
    with subprocess.Popen(argv, env=lab.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(after)
        child.send_signal(sign)
        out, err = child.communicate(timeout=120)
    return subprocess.CompletedProcess(argv, child.returncode, out, err)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Lab]:
    # Half an hour without a word would look like a hang: what is said here goes past pytest's capture.
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        found = _make(tmp_path_factory)
    yield found
    say("destroy")
    found.klab("destroy", "-y", NAME, check=False)
    shutil.rmtree(found.home, ignore_errors=True)


def _make(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    real = Home.default().root
    home = Path(tmp_path_factory.mktemp("klab", numbered=False)) / "home"
    home.mkdir()
    for shared in ("boxes", "cache"):
        (real / shared).mkdir(parents=True, exist_ok=True)
        (home / shared).symlink_to(real / shared)
    found = Lab(home, look_at_host())
    say("building the box, unless it is there")
    subprocess.run([*KLAB, "box", "build"], env=found.env, check=True, timeout=CREATE_SECONDS)
    try:
        say("create, cut off by Ctrl-C")
        stopped = _create_cut_off(found, signal.SIGINT, INTERRUPT_AFTER_SECONDS)
        assert stopped.returncode == 130, stopped.stderr
        assert "goes on from here" in stopped.stderr
        assert "Traceback" not in stopped.stderr
        say("create again, cut off by kill -9; the next one must go on from there")
        killed = _create_cut_off(found, signal.SIGKILL, KILL_AFTER_SECONDS)
        assert killed.returncode == -signal.SIGKILL
        assert (home / "labs" / NAME / "lab.json").exists()
        code = _create(found)
        assert code == 0, f"klab create ended with {code}; its messages are above"
    except BaseException:
        found.klab("destroy", "-y", NAME, check=False)
        raise
    return found
