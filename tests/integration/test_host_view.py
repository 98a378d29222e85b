"""What tells whether a lab has left anything on the host, in a host of the test's own: each kind of it is named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# A host of the test's own: networks, mounts and processes, and whoever starts it is its root.
# What is left running ends with its first process.
HOST = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--propagation", "private"]
HOST += ["--pid", "--fork", "--kill-child", "--mount-proc"]
HOST += ["sh", "-ec", 'mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run; exec "$@"', "sh"]
# Prints what has changed in the eyes of a home once something was done.
CHANGED = """
import dataclasses, pathlib, subprocess, sys
from support.host import look_at_host
home, act = pathlib.Path(sys.argv[1]), sys.argv[2]
before = look_at_host(home)
subprocess.run(["sh", "-ec", act], check=True)
after = look_at_host(home)
print(*(field.name for field in dataclasses.fields(after) if getattr(after, field.name) != getattr(before, field.name)))
"""
# Something in the private libvirt's namespaces, as QEMU is: its arguments and its environment do not name the home.
INSIDE = """
mkfifo /run/ready
unshare --mount --propagation private sh -ec '
  mount --bind "$1/realm/run" /mnt
  cd /
  exec env -i /bin/sh -c "echo > /run/ready; exec sleep 600"
' sh {home} > /dev/null 2>&1 &
read line < /run/ready
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    (folder / "realm" / "run").mkdir(parents=True)
    return folder


def changed(home: Path, act: str) -> list[str]:
    """The fields of the view that changed when a shell did something there."""
    done = subprocess.run(
        [*HOST, sys.executable, "-c", CHANGED, str(home), act],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(TESTS), str(TESTS.parent)))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("act", "fields"),
    [
        ("true", []),
        ("ip link add bridge0 type bridge", ["links"]),
        ("mkdir /run/netns; touch /run/netns/space", ["namespaces"]),
        ("mount -t tmpfs tmpfs /mnt", ["mounts"]),
        ("nft add table inet klab", ["rules"]),
    ],
)
def test_what_is_left_is_named(home: Path, act: str, fields: list[str]) -> None:
    assert changed(home, act) == fields


def test_what_lives_in_the_private_libvirt_is_found_without_a_name(home: Path) -> None:
    assert changed(home, INSIDE.format(home=home)) == ["processes"]
    # Also when the folder is gone by then, but not in the eyes of another home.
    assert changed(home, INSIDE.format(home=home) + f"rmdir {home}/realm/run") == ["processes"]
    other = home.with_name("other")
    (other / "realm" / "run").mkdir(parents=True)
    assert changed(home, INSIDE.format(home=other)) == []
