"""A real lab for end-to-end tests: klab as a person runs it, with a KLAB_HOME of its own.

Hence a private libvirt and a network of its own; boxes and the build cache are those of the
person's home, so that a second run builds nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lab.app.boxes import DEFAULT_BOX
from lab.components.kubernetes import DEFAULT
from lab.store import Home
from support.host import HostView, look_at_host, processes_of

KLAB = [sys.executable, "-m", "lab.cli.main"]
CREATE_SECONDS = 60 * 60
COMMAND_SECONDS = 40 * 60


def say(text: str) -> None:
    """Progress for whoever watches a long run."""
    sys.stderr.write(f"[lab] {text}\n")
    sys.stderr.flush()


@dataclass(frozen=True)
class Answer:
    """What a script on a node printed, and when it was asked and had answered: seconds since 1970."""

    asked: float
    text: str
    answered: float


@dataclass
class Lab:
    """klab, pointed at the lab under test."""

    home: Path
    scenario: str
    name: str
    before: HostView
    created: dict[str, Any] | None = None
    # It was there before the tests, and stays.
    stays: bool = False

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "KLAB_HOME": str(self.home), "NO_COLOR": "1"}

    @property
    def folder(self) -> Path:
        return self.home / "labs" / self.name

    def klab(self, *words: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        began = time.monotonic()
        done = subprocess.run(
            [*KLAB, *words], env=self.env, input=stdin, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
        if time.monotonic() - began > 20:
            say(f"klab {' '.join(words)}: {time.monotonic() - began:.0f} s")
        if check:
            assert done.returncode == 0, f"klab {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def result(self, *words: str, check: bool = True) -> Any:
        """The result of a command with `--json`: all of its output, or the last line after its events."""
        text = self.klab(*words, "--json", check=check).stdout
        try:
            return json.loads(text)
        except ValueError:
            return json.loads(text.splitlines()[-1])

    def kubectl(self, *words: str, check: bool = True, stdin: str | None = None) -> str:
        return self.klab("kubectl", self.name, "--", *words, check=check, stdin=stdin).stdout

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def on(self, node: str, script: str, *, check: bool = True) -> str:
        """Run a shell script as root on a node."""
        return self.klab("ssh", self.name, node, "--", "sudo", "bash", "-s", stdin=script, check=check).stdout

    def inside(self, code: str, *, seconds: float = 300) -> str:
        """Run Python where the host meets the lab's network."""
        done = subprocess.run(
            [sys.executable, "-c", ENTER + code],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def look(self, *scripts: tuple[str, str]) -> list[Answer]:
        """Run shell scripts as root, each on its node, one after the other: a tenth of what logins take."""
        code = LOOK.replace("NAME", repr(self.name)).replace("SCRIPTS", repr(scripts))
        return [Answer(*json.loads(line)) for line in self.inside(code, seconds=COMMAND_SECONDS).splitlines()]

    @property
    def plan(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "plan.json").read_text())
        return found

    @property
    def nodes(self) -> list[str]:
        return [n["name"] for n in self.plan["nodes"]]

    @property
    def addresses(self) -> dict[str, str]:
        return {n["name"]: n["address"] for n in self.plan["nodes"]}

    def create(self) -> int:
        """`klab create`, its events passed on as progress."""
        argv = [*KLAB, "create", self.scenario, "--name", self.name, "--json"]
        began = time.monotonic()
        with subprocess.Popen(argv, env=self.env, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    self._pass_on(json.loads(line), time.monotonic() - began)
                return child.wait(CREATE_SECONDS)
            except KeyboardInterrupt:
                # It may have reached this process alone; the lab can be destroyed when klab has let go of it.
                child.send_signal(signal.SIGINT)
                child.wait(120)
                raise

    def _pass_on(self, data: dict[str, Any], seconds: float) -> None:
        """A line of `klab create --json`: an event is told, the result is kept."""
        if "event" in data:
            event = data["event"]
            words = (event["node"] or "lab", event["phase"], event["state"], event["text"])
            say(f"{seconds:6.0f}s {' '.join(words)}")
        else:
            self.created = data

    def create_cut_off(self, sign: signal.Signals, after: float) -> subprocess.CompletedProcess[str]:
        """`klab create`, sent a signal after some seconds."""
        argv = [*KLAB, "create", self.scenario, "--name", self.name]
        with subprocess.Popen(argv, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(after)
            child.send_signal(sign)
            out, err = child.communicate(timeout=120)
        return subprocess.CompletedProcess(argv, child.returncode, out, err)

    @contextlib.contextmanager
    def crashing(self, node: str) -> Iterator[None]:
        """Kill the QEMU of a node once Vagrant has started it, as an emulating one ends by itself now and then."""
        log = self.folder / "logs" / "up.log"
        known, over = len(log.read_text()), threading.Event()

        def crash() -> None:
            while f"{node}: Waiting for domain" not in log.read_text()[known:]:
                if over.wait(0.2):
                    return
            (found,) = (line for line in processes_of(self.home) if f"guest=klab-{self.name}_{node}," in line)
            os.kill(int(found.split()[0]), signal.SIGKILL)

        thread = threading.Thread(target=crash)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def destroy(self) -> None:
        say("destroy")
        self.klab("destroy", "-y", self.name, check=False)
        shutil.rmtree(self.home, ignore_errors=True)


# What answers klab's own questions quickest, the guest's agent where there is one, answers those of a test.
LOOK = """
import json, time
from lab.app.labs import Labs
machines = Labs().find(NAME).machines()
for node, script in SCRIPTS:
    began = time.time()
    done = machines.run(node, ["sudo", "sh", "-c", script], 600)
    assert done.code == 0, (node, script, done)
    print(json.dumps([began, done.stdout, time.time()]))
"""

# What Python code begins with that is to run inside the lab's network.
ENTER = (
    "from lab.host.network import enter_host_network; from lab.store import Home\nenter_host_network(Home.default())\n"
)


def prepare(folder: Path, scenario: str, name: str, kubernetes: str = DEFAULT, box: str = DEFAULT_BOX) -> Lab:
    """A home for a lab, with a box to make it from; nothing runs yet."""
    real = Home.default().root
    home = folder / "home"
    home.mkdir()
    for shared in ("boxes", "cache"):
        (real / shared).mkdir(parents=True, exist_ok=True)
        (home / shared).symlink_to(real / shared)
    lab = Lab(home, scenario, name, look_at_host(home))
    say("building the box, unless it is there")
    subprocess.run(
        [*KLAB, "box", "build", box, "--kubernetes", kubernetes], env=lab.env, check=True, timeout=CREATE_SECONDS
    )
    return lab


def import_disks(home: Path, scenario: str, name: str) -> Lab:
    """A lab that was created before, in a KLAB_HOME that is there: before it, no process worked for that home."""
    return Lab(home, scenario, name, replace(look_at_host(home), processes=()), stays=True)


def shared(
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
    scenario: str,
    name: str,
    make: Callable[[Lab], int] = Lab.create,
) -> Iterator[Lab]:
    """The body of a session's fixture: one lab, made by `make`, which returns klab's exit code, and destroyed."""
    # Half an hour without a word would look like a hang: what is said here goes past pytest's capture.
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        if kept := os.environ.get("KLAB_TEST_HOME"):
            # A lab that is there already, in the KLAB_HOME that it names, and stays: for whoever works on these tests.
            yield import_disks(Path(kept), scenario, name)
            return
        found = prepare(Path(tmp_path_factory.mktemp("klab", numbered=False)), scenario, name)
        try:
            code = make(found)
            assert code == 0, f"klab create ended with {code}; its messages are above"
        except BaseException:
            found.destroy()
            raise
    yield found
    found.destroy()
