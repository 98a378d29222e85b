"""docs/how-to/computer-room.md, done as it says: its own commands, by a teacher with sudo and two students without.

The box is not built but copied, and a plain node stands for the cluster: what a cluster needs is tested elsewhere.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import pytest
from support.workstation import CLONE, REPOSITORY, USER, Workstation, registries
from support.workstation_view import SLOW_CLOCK, VIRSH

from lab.components.kubernetes import DEFAULT

pytestmark = pytest.mark.incremental

TEXT = (REPOSITORY / "docs/how-to/computer-room.md").read_text(encoding="utf-8")
STUDENTS = ("anna", "ben")
SCENARIO = """version: 1
name: one
topology:
  control_planes: 1
  workers: 0
cpus: 1
memory: 1Gi
disk: 10G
bootstrap: none
"""
SCENARIO_FILE = "/srv/klab/one.yaml"


def commands(heading: str) -> list[str]:
    """The indented blocks below a heading, each as a script."""
    part = re.split(rf"^## {re.escape(heading)}$", TEXT, flags=re.MULTILINE)[1].split("\n## ")[0]
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", part, flags=re.MULTILINE)
    return [re.sub(r"^ {4}", "", block, flags=re.MULTILINE).strip() for block in found]


@pytest.fixture(scope="module")
def room(new_workstation: Callable[[str], Workstation]) -> Workstation:
    """The first machine of the room, with the repository that klab is cloned from."""
    found = new_workstation("trixie")
    author = "-c user.name=teacher -c user.email=teacher@example.org"
    found.run(f"git init -q && git add -A && git {author} commit -qm klab")
    for student in STUDENTS:
        found.run(f"useradd --create-home --shell /bin/bash {student}", user="root")
    return found


def test_the_first_machine(room: Workstation) -> None:
    install, profile, build = commands("The first machine")
    with room.online():
        done = room.run(
            f"cd / && {registries()} bash -euc {shlex.quote(install.replace('URL-OF-KLAB', CLONE))}", seconds=3600
        )
    assert "python" in done.stdout
    room.run(profile)
    assert room.run("echo $KLAB_HOME").stdout.strip() == f"/srv/klab/homes/{USER}"
    names = room.put_boxes("/srv/klab/boxes")
    room.run(f"cat > {SCENARIO_FILE}", user="root", stdin=SCENARIO)
    # On KVM, which the page asks for, there is nothing to repair.
    for command in SLOW_CLOCK.findall(room.run("klab doctor", check=False).stdout):
        room.run(command)
    room.run(as_a_plain_node(build.replace("klab box build\n", "")), seconds=3600)
    assert room.run("stat -c %U /opt/klab /srv/klab/boxes/*").stdout.split() == ["root"] * (1 + len(names))
    assert room.run(f"{VIRSH} list --all --name").stdout.split() == []


def test_students_are_let_in(room: Workstation) -> None:
    (join,) = commands("Who may use it")
    room.run(join)
    check = commands("Before the first class")[0]
    inner = re.search(r'bash -lc "(.*?)"', check)
    assert inner is not None
    for student in STUDENTS:
        shown = room.run(as_a_plain_node(inner[1]), user=student)
        assert "this machine can run labs" in shown.stdout
        assert room.run("stat -c '%U %a' $KLAB_HOME", user=student).stdout.split() == [student, "700"]


def test_two_students_at_one_machine(room: Workstation) -> None:
    room.run(f"klab create {SCENARIO_FILE}", user=STUDENTS[0], seconds=3600)
    refused = room.run(f"klab create {SCENARIO_FILE} --seat 1", user=STUDENTS[1], check=False)
    assert refused.returncode != 0
    assert "--name" in refused.stderr
    room.run(f"klab create {SCENARIO_FILE} --seat 1 --name one-ben", user=STUDENTS[1], seconds=3600)
    for student in STUDENTS:
        assert room.run("klab ssh cp1 -- hostname", user=student).stdout.strip() == "cp1"


def test_a_student_changes_no_box(room: Workstation) -> None:
    before = room.run("ls -lR /srv/klab/boxes", user="root").stdout
    for command in (f"klab box rm debian-13-k8s-{DEFAULT}", "klab box prune", "rm -rf /srv/klab/boxes/*"):
        room.run(command, user=STUDENTS[0], check=False)
    assert room.run("ls -lR /srv/klab/boxes", user="root").stdout == before
    refused = room.run("klab box rm $(ls /srv/klab/boxes | head -1)", user=STUDENTS[1], check=False)
    assert refused.returncode != 0
    assert "a bug in klab" not in refused.stderr


def test_between_classes(room: Workstation) -> None:
    (clean,) = commands("Between classes")
    room.run(clean, seconds=3600)
    assert room.run(f"{VIRSH} list --all --name").stdout.split() == []
    assert room.run("find /srv/klab/homes -path '*/labs/*'", user="root").stdout == ""


def as_a_plain_node(script: str) -> str:
    """A command of the page with a lab of one plain node, which has no kubectl, in place of a cluster."""
    return script.replace("1m2w", SCENARIO_FILE).replace(" && klab kubectl -- get nodes", "")
