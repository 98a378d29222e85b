"""The life of a real cluster, led by an ordinary user on the system's libvirtd, each step checked from outside klab.

On Debian 13, and on Debian 12 from its stable archive alone (libvirt 9.0, QEMU 7.2, vagrant-libvirt 0.11.2).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.workstation import SUITES, Workstation
from support.workstation_view import View, act, first_look, klab, look, repair

pytestmark = pytest.mark.incremental

NAME = "lesson"


@pytest.fixture(scope="module", params=SUITES)
def lab(request: pytest.FixtureRequest, new_workstation: Callable[[str], Workstation]) -> Iterator[Workstation]:
    """A workstation with a box, on which one lab lives."""
    machine = new_workstation(request.param)
    machine.put_boxes()
    yield machine
    machine.stop()


@pytest.fixture(scope="module")
def before(lab: Workstation) -> View:
    return first_look(lab)


def status(machine: Workstation) -> Any:
    return json.loads(klab(machine, "status", NAME, "--json"))


def ready(machine: Workstation) -> list[str]:
    """The nodes that the API server calls Ready."""
    shown = klab(machine, "kubectl", NAME, "--", "get", "nodes", "--no-headers")
    return sorted(line.split()[0] for line in shown.splitlines() if line.split()[1] == "Ready")


def write_marker(machine: Workstation, text: str) -> None:
    klab(machine, "kubectl", NAME, "--", "delete", "configmap", "marker", "--ignore-not-found")
    klab(machine, "kubectl", NAME, "--", "create", "configmap", "marker", f"--from-literal=text={text}")


def marker(machine: Workstation) -> str:
    return klab(machine, "kubectl", NAME, "--", "get", "configmap", "marker", "-o", "jsonpath={.data.text}")


def test_doctor_finds_nothing_that_keeps_labs_from_running(lab: Workstation, before: View) -> None:
    assert "this machine can run labs" in repair(lab)
    assert before.foreign == ()


def test_create(lab: Workstation, before: View) -> None:
    act(lab, "create", "1m1w", "--name", NAME)
    assert ready(lab) == ["cp1", "w1"]
    running = [line for line in look(lab).domains if line.startswith("klab-")]
    assert running == [f"klab-{NAME}_cp1", f"klab-{NAME}_w1"]


def test_everything_in_the_home_is_the_users(lab: Workstation) -> None:
    assert look(lab).foreign == ()
    assert lab.run("stat -c %a ~").stdout.strip() == "700"
    assert "login:" in klab(lab, "logs", NAME, "w1")


def test_reboot(lab: Workstation) -> None:
    act(lab, "reboot", NAME)
    assert ready(lab) == ["cp1", "w1"]
    for node in ("cp1", "w1"):
        assert "active" in klab(lab, "ssh", NAME, node, "--", "systemctl", "is-active", "chrony")


def test_snapshot_and_restore(lab: Workstation) -> None:
    write_marker(lab, "first")
    act(lab, "snapshot", "take", NAME, "one")
    write_marker(lab, "second")
    act(lab, "restore", NAME, "one")
    assert marker(lab) == "first"
    assert ready(lab) == ["cp1", "w1"]


def test_stop_and_start(lab: Workstation) -> None:
    act(lab, "stop", NAME)
    assert look(lab).guests == ()
    act(lab, "start", NAME)
    assert ready(lab) == ["cp1", "w1"]
    assert marker(lab) == "first"


def test_one_more_worker(lab: Workstation) -> None:
    act(lab, "node", "add", NAME)
    assert ready(lab) == ["cp1", "w1", "w2"]


def test_export_and_import(lab: Workstation) -> None:
    act(lab, "stop", NAME)
    act(lab, "export", NAME, "lesson", "-o", "~/lesson.klab")
    act(lab, "destroy", "-y", NAME)
    act(lab, "import", "~/lesson.klab", "--name", NAME)
    assert ready(lab) == ["cp1", "w1", "w2"]
    assert marker(lab) == "first"


def test_destroy_leaves_nothing(lab: Workstation, before: View) -> None:
    act(lab, "destroy", "-y", NAME)
    lab.run("rm -f ~/lesson.klab")
    assert look(lab) == before
    left = lab.run("ls -A ~/.local/share/klab/labs 2>/dev/null || true").stdout
    assert left == ""
