"""Snapshots of a real cluster at work: frozen and brought back, nothing lost, nothing done twice.

Fifty rounds of the same are `make soak`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.counting import gone
from support.real_lab import say
from support.soak import SPACE, Soak

if TYPE_CHECKING:
    from support.real_lab import Lab

ROUNDS = 3
YEAR_AND_MORE = 400


@pytest.fixture(scope="module")
def soak(lab: Lab) -> Iterator[Soak]:
    made = Soak(lab)
    made.start()
    yield made
    made.end()


@pytest.mark.parametrize("number", range(1, ROUNDS + 1))
def test_nothing_is_lost_and_nothing_done_twice(soak: Soak, number: int) -> None:
    soak.round(number)


def test_the_list_is_a_tree_with_the_place_where_the_lab_stands(lab: Lab, soak: Soak) -> None:
    text = lab.klab("snapshots", lab.name).stdout
    found = lab.result("snapshots", lab.name)
    assert found["stands_on"] in {each.name for each in soak.kept}
    assert f"{lab.name} stands on {found['stands_on']}; " in text
    names = {each["name"]: each for each in found["snapshots"]}
    for each in soak.kept:
        assert names[each.name]["size"] > 100 << 20, "a node's RAM is not so small"
    assert any(each["auto"] for each in found["snapshots"])
    assert found["damaged"] == []


def test_what_differs_is_told_without_a_secrets_value(lab: Lab, soak: Soak) -> None:
    newest = soak.kept[-1].name
    lab.kubectl("create", "secret", "generic", "hidden", "-n", SPACE, "--from-literal=word=xyzzy")
    told = lab.klab("diff", lab.name, newest).stdout
    assert f"+ {SPACE}: Secret hidden" in told
    # It counts all the time.
    assert f"~ {SPACE}: ConfigMap counter" in told
    assert "xyzzy" not in told
    assert "eHl6enk" not in told


def test_a_changed_byte_is_refused_and_the_lab_left_as_it_is(lab: Lab, soak: Soak) -> None:
    newest = soak.kept[-1].name
    for node in lab.nodes:
        lab.on(node, "touch /root/untouched; sync")
    file = memory_file(lab, newest, "w1")
    flip(file)
    try:
        done = lab.klab("restore", lab.name, newest, check=False)
    finally:
        flip(file)
    assert done.returncode == 4
    assert f"{file.name} has changed" in done.stderr
    assert "the lab has not been touched" in done.stderr
    assert "Traceback" not in done.stderr
    for node in lab.nodes:
        lab.on(node, "ls /root/untouched")
    assert lab.result("status", lab.name)["ready"] is True
    soak.restore(soak.kept[-1])


def memory_file(lab: Lab, snapshot: str, node: str) -> Path:
    """The file that holds a node's RAM."""
    (found,) = (each for each in lab.result("snapshots", lab.name)["snapshots"] if each["name"] == snapshot)
    manifest = json.loads((lab.folder / "snapshots" / f"{found['id']}.json").read_text())
    (parts,) = (each["parts"] for each in manifest["nodes"] if each["name"] == node)
    (name,) = (part["name"] for part in parts if part["kind"] == "memory")
    (file,) = (lab.home / "realm").rglob(Path(name).name)
    return file


def flip(file: Path) -> None:
    """Change the lowest bit of a byte in the middle; done twice, nothing has changed."""
    with file.open("r+b") as out:
        at = file.stat().st_size // 2
        out.seek(at)
        byte = out.read(1)
        out.seek(at)
        out.write(bytes([byte[0] ^ 1]))


def test_one_worker_goes_back_alone_and_a_control_plane_does_not(lab: Lab, soak: Soak) -> None:
    newest = soak.kept[-1].name
    refused = lab.klab("restore", lab.name, newest, "--node", "cp1", check=False)
    assert refused.returncode == 2
    assert "etcd member" in refused.stderr
    for node in ("w1", "w2"):
        lab.on(node, "touch /root/alone; sync")
    said = lab.result("restore", lab.name, newest, "--node", "w2")
    assert said["nodes"] == ["w2"]
    assert lab.on("w2", "ls /root/alone 2> /dev/null || true") == ""
    assert lab.on("w1", "ls /root/alone").strip() == "/root/alone"
    assert lab.result("status", lab.name)["ready"] is True
    soak.restore(soak.kept[-1])


def test_a_lab_that_is_off_is_kept_and_brought_back(lab: Lab, soak: Soak) -> None:
    lab.kubectl("create", "configmap", "switched-off", "-n", SPACE)
    lab.klab("stop", lab.name)
    taken = lab.result("snapshot", lab.name, "off")["snapshot"]
    assert [node["running"] for node in taken["nodes"]] == [False, False, False]
    # From off to running, and back.
    soak.restore(soak.kept[-1])
    assert "switched-off" not in lab.kubectl("get", "configmaps", "-n", SPACE, "-o", "name")
    assert lab.result("restore", lab.name, "off")["running"] == []
    assert {n["machine"] for n in lab.result("status", lab.name, check=False)["nodes"]} == {"stopped"}
    lab.klab("start", lab.name)
    assert "switched-off" in lab.kubectl("get", "configmaps", "-n", SPACE, "-o", "name")
    soak.restore(soak.kept[-1])
    lab.klab("snapshot", "rm", lab.name, "off")


LATER = """
import json, sys, time
from lab.cli.opening import find_lab
from lab.machines import open_machines
from lab.snapshots.restore import restore
from lab.snapshots.session import Lab
found = find_lab(NAME)
later = LATER_SECONDS / found.record.dilation
notes = []
lab = Lab(found.home, found.folder, found.plan, open_machines, listener=notes.append, clock=lambda: time.time() + later)
done = restore(lab, SNAPSHOT)
print(json.dumps({
    "warnings": done.warnings,
    "notes": [[e.phase, e.text] for e in notes if e.state == "note"],
    "before": [e.phase for e in notes].index("freeze"),
    "said": [e.phase for e in notes].index("certificates") if any(e.phase == "certificates" for e in notes) else None,
    "leases": done.verification.leases(),
    "full": done.verification.full,
    "later": later,
}))
"""
SECONDS_OF_A_DAY = 24 * 3600


def restored_later(lab: Lab, snapshot: str, days: int) -> dict[str, Any]:
    """Bring the lab back as if so many days of the guests' time had passed since."""
    say(f"restore {days} days later")
    code = LATER.replace("NAME", repr(lab.name)).replace("SNAPSHOT", repr(snapshot))
    text = lab.inside(code.replace("LATER_SECONDS", str(days * SECONDS_OF_A_DAY)), seconds=2 * 3600)
    found: dict[str, Any] = json.loads(text.splitlines()[-1])
    return found


CERTIFICATES = r"""
for file in /etc/kubernetes/pki/*.crt /etc/kubernetes/pki/etcd/*.crt /var/lib/kubelet/pki/kubelet-client-current.pem; do
  case $file in *ca.crt) continue;; esac
  [ -e $file ] || continue
  end=$(openssl x509 -noout -enddate -in $file | cut -d= -f2)
  echo "$file $(date -d "$end" +%s)"
done
echo "now $(date +%s)"
"""


def certificates_left(lab: Lab, node: str) -> dict[str, float]:
    """By file how many days each certificate of a node holds still, by its own clock."""
    rows = dict(line.rsplit(" ", 1) for line in lab.on(node, CERTIFICATES).splitlines())
    now = float(rows.pop("now"))
    return {file: (float(end) - now) / SECONDS_OF_A_DAY for file, end in rows.items()}


def test_more_than_a_year_later_everything_has_been_renewed(lab: Lab, soak: Soak) -> None:
    # The nodes' time is klab's to set here: where the host's clock can be read, chrony would put it back.
    for node in lab.nodes:
        lab.on(node, "systemctl stop chrony")
    lab.klab("snapshot", lab.name, "old")
    month = restored_later(lab, "old", 30)
    assert month["full"] is True
    assert month["leases"] == []
    assert [phase for phase, _ in month["notes"] if phase == "certificates"] == []
    soak.check_clocks(ahead=month["later"])
    year = restored_later(lab, "old", YEAR_AND_MORE)
    assert year["full"] is True
    assert year["leases"] == []
    assert "certificates had ended and have been renewed" in year["warnings"]
    assert year["said"] < year["before"], "it is said before anything is touched"
    soak.check_clocks(ahead=year["later"])
    for node in lab.nodes:
        left = certificates_left(lab, node)
        assert left
        assert all(days > 300 for days in left.values()), (node, left)
    assert lab.result("status", lab.name)["ready"] is True
    lab.kubectl("create", "configmap", "renewed", "-n", SPACE)
    # Back to the present: older certificates, and clocks that are right.
    soak.restore(soak.kept[-1])
    lab.klab("snapshot", "rm", lab.name, "old")


KILLED = """
import os, signal, sys
from lab.cli import app
from lab.snapshots.journal import AttemptJournal
write = AttemptJournal._write
def killed(journal, attempt):
    write(journal, attempt)
    if attempt.step == STEP:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt
AttemptJournal._write = killed
app.run(WORDS)
"""


def killed_at(lab: Lab, step: str, *words: str) -> None:
    """klab, killed as soon as it has written down that it begins a step."""
    code = KILLED.replace("STEP", repr(step)).replace("WORDS", repr(list(words)))
    done = subprocess.run([sys.executable, "-c", code], env=lab.env, capture_output=True, text=True, timeout=3600)
    assert done.returncode == -9, done.stderr


def test_a_killed_snapshot_is_taken_back_and_a_killed_restore_finished_by_the_next_command(
    lab: Lab, soak: Soak
) -> None:
    killed_at(lab, "save", "snapshot", lab.name, "cut-off")
    done = lab.klab("snapshots", lab.name)
    assert "an unfinished snapshot was taken back" in done.stderr
    assert "cut-off" not in done.stdout
    newest = soak.kept[-1]
    killed_at(lab, "revert", "restore", lab.name, newest.name)
    told = lab.klab("status", lab.name, check=False)
    assert "an unfinished restore was finished" in told.stderr
    # klab start waits until the cluster is Ready; everything runs already.
    lab.klab("start", lab.name)
    now = soak.tally()
    assert gone(newest.before, now) == []
    soak.await_going_on(now)
    soak.restore(newest)
