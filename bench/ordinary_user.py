"""Snapshots of an ordinary user on the system's libvirtd against root's in a private libvirt, in one run.

    .venv/bin/python -m bench.ordinary_user --box ~/.local/share/klab/boxes/BOX     as a member of the group libvirt

Both sides get a lab of the same scenario and the same box, made and destroyed; they take turns. Root's side wants sudo
without a password. What is counted is the whole command, digests included: there reading through libvirtd would show.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from bench.create import KLAB
from bench.measure import HEADER, Pair, wall_seconds

AT_MOST = 1.3
# What each round does, by klab's words; {lab} and {file} stand for the side's own. What has no name is not measured.
ACTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("snapshot", ("snapshot", "{lab}", "one")),
    ("second snapshot", ("snapshot", "{lab}", "two")),
    ("restore", ("restore", "{lab}", "one")),
    ("restore --no-save", ("restore", "{lab}", "two", "--no-save")),
    ("", ("stop", "{lab}")),
    ("export", ("export", "{lab}", "bench", "--force", "--without-box", "-o", "{file}")),
    ("", ("start", "{lab}")),
    ("snapshot rm", ("snapshot", "rm", "{lab}", "one")),
    ("snapshot prune", ("snapshot", "prune", "{lab}", "--keep", "0")),
)


@dataclass(frozen=True)
class Side:
    """Who runs klab, and on which lab."""

    lab: str
    before: tuple[str, ...]
    file: Path

    def command(self, words: Sequence[str]) -> list[str]:
        return [*self.before, KLAB, *(word.format(lab=self.lab, file=self.file) for word in words)]


def pairs(user: dict[str, list[float]], root: dict[str, list[float]]) -> list[Pair]:
    """By act the medians of both sides."""
    return [Pair(act, statistics.median(user[act]), statistics.median(root[act]), AT_MOST) for act in user]


@click.command(help=__doc__)
@click.option("--box", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--scenario", default=str(Path(__file__).parent / "single.yaml"), help="What labs to make.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
def main(box: Path, scenario: str, rounds: int) -> None:
    if os.geteuid() == 0:
        raise click.UsageError("run it as an ordinary user; root's side goes through sudo")
    as_root = ("sudo", "--non-interactive")
    # Each side's folder is its own: klab as root refuses labs in another's.
    made = {"user": Path(tempfile.mkdtemp(prefix="klab-bench-", dir="/var/tmp")), "root": _folder_of_root(as_root)}
    made["user"].chmod(0o755)
    homes = {side: folder / "home" for side, folder in made.items()}
    sides = {
        "user": Side("user", ("env", f"KLAB_HOME={homes['user']}", "KLAB_LIBVIRT=system"), made["user"] / "user.klab"),
        "root": Side(
            "root", (*as_root, "env", f"KLAB_HOME={homes['root']}", "KLAB_LIBVIRT=private"), made["root"] / "root.klab"
        ),
    }
    seconds: dict[str, dict[str, list[float]]] = {side: {act: [] for act, _ in ACTS if act} for side in sides}
    try:
        for side, before in (("user", ()), ("root", as_root)):
            subprocess.run([*before, "mkdir", "-p", homes[side] / "boxes"], check=True)
            subprocess.run([*before, "cp", "-r", box, homes[side] / "boxes"], check=True)
            subprocess.run(sides[side].command(("create", scenario, "--name", "{lab}")), check=True)
        for _ in range(rounds):
            for act, words in ACTS:
                for side, who in sides.items():
                    took = wall_seconds(who.command(words))
                    if act:
                        seconds[side][act].append(took)
        found = pairs(seconds["user"], seconds["root"])
        print(HEADER.replace("klab | peer", "ordinary user | root"))
        for pair in found:
            print(pair.row())
        print(json.dumps(seconds))
    finally:
        for who in sides.values():
            subprocess.run(who.command(("destroy", "{lab}", "-y")), check=False)
        subprocess.run([*as_root, "rm", "-rf", *made.values()], check=False)


def _folder_of_root(as_root: Sequence[str]) -> Path:
    words = [*as_root, "mktemp", "--directory", "--tmpdir=/var/tmp", "klab-bench-XXXXXX"]
    return Path(subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip())


if __name__ == "__main__":
    main()
