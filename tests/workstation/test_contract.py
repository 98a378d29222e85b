"""The machines' contract on the system's libvirtd of a Debian, by an ordinary user who is in its group."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.real_lab import say
from support.workstation import CLONE, PYTHON, SUITES, Workstation
from support.workstation_view import repair

SECONDS = 3600
TESTS = ("test_machines", "test_captures")
PASSED = re.compile(r"^(\d+) passed\b[^\n]*$", re.MULTILINE)


@pytest.fixture(scope="module", params=SUITES)
def machine(
    request: pytest.FixtureRequest, new_workstation: Callable[[str], Workstation], tiny_box: Path
) -> Iterator[Workstation]:
    found = new_workstation(request.param)
    found.put(tiny_box, [path.name for path in tiny_box.iterdir()], f"{CLONE}/.pytest_cache/d/{tiny_box.name}")
    repair(found)
    yield found
    found.stop()


@pytest.mark.parametrize("name", TESTS)
def test_contract(machine: Workstation, name: str) -> None:
    words = f"KLAB_LIBVIRT=system {PYTHON} -m pytest -x -q tests/contract/{name}.py -k 'not fake'"
    done = machine.run(words, check=False, seconds=SECONDS)
    say(f"{name}: {done.stdout.strip().splitlines()[-1:]}")
    assert done.returncode == 0, done.stdout[-20_000:]
    assert PASSED.search(done.stdout)


def test_nothing_is_left(machine: Workstation) -> None:
    """Of the labs that the contract has made and destroyed, seen from outside klab."""
    shown = machine.run(
        "virsh -q -c qemu:///system list --all --name; virsh -q -c qemu:///system net-list --all --name"
    )
    assert [line for line in shown.stdout.split() if line.startswith("klab")] == []
    assert machine.run("ls /var/lib/libvirt/images", user="root").stdout.split() == []
    foreign = machine.run("find /home -not -user $(id -un) 2>&1 | grep -v '^/home$' || true")
    assert foreign.stdout == ""
