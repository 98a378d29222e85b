"""What is rarer than a round: one worker alone, a lab that is off, a restore a month and more than a year later.

The tests share the lab of `make soak`; each leaves it at the snapshot that it found.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.real_lab import say
from support.soak import SPACE, Frozen, Soak

if TYPE_CHECKING:
    from support.real_lab import Lab

YEAR_AND_MORE = 400


@pytest.fixture(scope="module")
def newest(soak: Soak) -> Frozen:
    soak.kept.append(soak.freeze("newest"))
    return soak.kept[-1]


def test_one_worker_goes_back_alone_and_a_control_plane_does_not(lab: Lab, soak: Soak, newest: Frozen) -> None:
    refused = lab.klab("restore", lab.name, newest.name, "--node", "cp1", check=False)
    assert refused.returncode == 2
    assert "etcd member" in refused.stderr
    for node in ("w1", "w2"):
        lab.on(node, "touch /root/alone; sync")
    said = lab.result("restore", lab.name, newest.name, "--node", "w2")
    assert said["nodes"] == ["w2"]
    assert lab.on("w2", "ls /root/alone 2> /dev/null || true") == ""
    assert lab.on("w1", "ls /root/alone").strip() == "/root/alone"
    assert lab.result("status", lab.name)["ready"] is True
    soak.restore(newest)


def test_a_lab_that_is_off_is_kept_and_brought_back(lab: Lab, soak: Soak, newest: Frozen) -> None:
    lab.kubectl("create", "configmap", "switched-off", "-n", SPACE)
    lab.klab("stop", lab.name)
    taken = lab.result("snapshot", lab.name, "off")["snapshot"]
    assert [node["running"] for node in taken["nodes"]] == [False, False, False]
    # From off to running, and back.
    soak.restore(newest)
    assert "switched-off" not in lab.kubectl("get", "configmaps", "-n", SPACE, "-o", "name")
    assert lab.result("restore", lab.name, "off")["running"] == []
    assert {n["machine"] for n in lab.result("status", lab.name, check=False)["nodes"]} == {"stopped"}
    lab.klab("start", lab.name)
    assert "switched-off" in lab.kubectl("get", "configmaps", "-n", SPACE, "-o", "name")
    soak.restore(newest)
    lab.klab("snapshot", "rm", lab.name, "off")


LATER = """
import json, sys, time
from dataclasses import replace
from lab.app.labs import Labs
from lab.app.snapshots import restore
found = Labs().find(NAME)
later = LATER_SECONDS / found.record.dilation
notes = []
lab = replace(found, listener=notes.append, clock=lambda: time.time() + later)
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


def test_more_than_a_year_later_everything_has_been_renewed(lab: Lab, soak: Soak, newest: Frozen) -> None:
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
    assert "certificates had expired and have been renewed" in year["warnings"]
    assert year["said"] < year["before"], "it is said before anything is touched"
    soak.check_clocks(ahead=year["later"])
    for node in lab.nodes:
        left = certificates_left(lab, node)
        assert left
        assert all(days > 300 for days in left.values()), (node, left)
    assert lab.result("status", lab.name)["ready"] is True
    lab.kubectl("create", "configmap", "renewed", "-n", SPACE)
    # Back to the present: older certificates, and clocks that are right.
    soak.restore(newest)
    lab.klab("snapshot", "rm", lab.name, "old")
