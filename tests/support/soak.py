"""Rounds of snapshot and restore of a real lab that works meanwhile: nothing is lost, nothing done twice.

In the lab a pod on each worker counts up in a file of its volume and copies the other's number; a
writer counts up in a ConfigMap, which is to say in etcd. On the host a witness logs each write
that the API server acknowledged. `support.counting` judges.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lab.guest_clock import GuestClock
from support.counting import Tally, astray, bounds, gone, problems, standing
from support.real_lab import say
from support.witness import NAME as WITNESS
from support.witness import Witness

if TYPE_CHECKING:
    from support.real_lab import Lab

SPACE = "soak"
FOLDER = "/var/lib/klab-soak"
LATER = "/root/later"
WORKERS = ("w1", "w2")
START_SECONDS = 40 * 60
GO_ON_SECONDS = 20 * 60
# Writes of the witness before a snapshot, and after it: what a restore must restore, and what it must remove.
WRITES = 3
APART_SECONDS = 1.0

COUNT = """
cd /data
httpd -p 8080 -h /data
n=0
[ -s own ] && n=$(tail -n 1 own)
while :; do
  n=$((n + 1))
  echo $n >> own
  echo $n > .last
  mv .last last
  seen=$(wget -q -T 10 -O - http://OTHER.SPACE.svc.cluster.local:8080/last)
  [ -n "$seen" ] && echo $seen >> copy
  sleep 1
done
"""
WRITE = """
cd /data
account=/var/run/secrets/kubernetes.io/serviceaccount
where=https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/SPACE/configmaps/counter
n=0
[ -s acknowledged ] && n=$(tail -n 1 acknowledged)
while :; do
  next=$((n + 1))
  # The same number again changes nothing: an answer that was lost makes no hole.
  if curl -sf -m 30 -o /dev/null --cacert $account/ca.crt -H "Authorization: Bearer $(cat $account/token)" \
    -H 'Content-Type: application/merge-patch+json' -X PATCH -d '{"data":{"count":"'$next'"}}' $where; then
    n=$next
    echo $n >> acknowledged
  fi
  sleep 1
done
"""
READ = f"""
cd {FOLDER}
for file in FILES; do
  echo "=$file"
  [ -e $file ] && cat $file
done
true
"""


def manifests() -> list[dict[str, Any]]:
    """What counts in the cluster."""
    about = {"namespace": SPACE}
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["counter"], "verbs": ["patch"]}]
    subject = {"kind": "ServiceAccount", "name": "writer", "namespace": SPACE}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "writer"}
    access = "rbac.authorization.k8s.io/v1"
    found: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "counter", **about}, "data": {"count": "0"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "writer", **about}},
        {"apiVersion": access, "kind": "Role", "metadata": {"name": "writer", **about}, "rules": rules},
        {
            "apiVersion": access,
            "kind": "RoleBinding",
            "metadata": {"name": "writer", **about},
            "subjects": [subject],
            "roleRef": role,
        },
    ]
    for worker, other in zip(WORKERS, reversed(WORKERS), strict=True):
        found.append(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": worker, **about},
                "spec": {"selector": {"counts": worker}, "ports": [{"port": 8080}]},
            }
        )
        script = COUNT.replace("OTHER", other).replace("SPACE", SPACE)
        found.append(_pod(f"count-{worker}", worker, "busybox:latest", ["sh", "-c", script], {"counts": worker}))
    writer = _pod("writer", WORKERS[0], "nginx:latest", ["bash", "-c", WRITE.replace("SPACE", SPACE)], {})
    writer["spec"]["serviceAccountName"] = "writer"
    return [*found, writer]


def _pod(name: str, node: str, image: str, command: list[str], labels: dict[str, str]) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image,
        "command": command,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    volume = {"name": "data", "hostPath": {"path": FOLDER, "type": "DirectoryOrCreate"}}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container], "volumes": [volume]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SPACE, "labels": labels},
        "spec": spec,
    }


@dataclass(frozen=True)
class Frozen:
    """A snapshot that was taken while the lab worked.

    `before` is how far its counters were shortly before; the witness's number was from `least` to
    `most` when it was paused. `pods` tells each pod from a new or a restarted one.
    """

    name: str
    before: Tally
    least: int
    most: int
    pods: dict[str, tuple[str, int]]


class Soak:
    """A real lab 1m2w and what works in it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.witness = Witness(lab)
        self.kept: list[Frozen] = []
        self._before: set[str] = set()

    # --- what works in the lab --------------------------------------------------------------------

    def start(self) -> None:
        """Let it count, and wait until everything does."""
        say("soak: the counters start")
        self._before = self._snapshots()
        items = {"apiVersion": "v1", "kind": "List", "items": manifests()}
        self.lab.kubectl("apply", "-f", "-", stdin=json.dumps(items))
        deadline = time.monotonic() + START_SECONDS
        while missing := self._not_yet(self.tally()):
            assert time.monotonic() < deadline, f"not within {START_SECONDS} s: {missing}"
            time.sleep(5)

    @staticmethod
    def _not_yet(tally: Tally) -> list[str]:
        missing = [f"{name} counts" for name, number in tally.last.items() if not number]
        return missing + [f"{worker} has a copy" for worker, numbers in tally.copies.items() if not numbers]

    def end(self) -> None:
        """Take it out of a lab that stays, and from the disk the snapshots that were not there before.

        A lab that does not stay is destroyed next, with all that it has.
        """
        if not self.lab.stays:
            return
        self.lab.kubectl("delete", "namespace", SPACE, "--wait=true", "--timeout=20m")
        self.lab.kubectl("delete", "configmap", WITNESS, "--ignore-not-found")
        self.lab.look(*((node, f"rm -rf {FOLDER} {LATER}") for node in self.lab.nodes))
        self.kept.clear()
        if made := self._snapshots() - self._before:
            self.lab.klab("snapshot", "rm", self.lab.name, *sorted(made))

    def _snapshots(self) -> set[str]:
        return {each["name"] for each in self.lab.result("snapshots", self.lab.name)["snapshots"]}

    def tally(self) -> Tally:
        """A look at all counters."""
        first, second = WORKERS
        earlier = self._count()
        # Each copy before what it is a copy of: what is counted in between must not count.
        copies, one, two = self._read((second, "copy"), (first, "copy own acknowledged"), (second, "own"))
        return Tally(
            own={first: one["own"], second: two["own"]},
            copies={first: one["copy"], second: copies["copy"]},
            acknowledged=one["acknowledged"],
            earlier=earlier,
            later=self._count(),
        )

    def _read(self, *wanted: tuple[str, str]) -> list[dict[str, list[int]]]:
        scripts = [(worker, READ.replace("FILES", files)) for worker, files in wanted]
        return [_sections(answer.text) for answer in self.lab.look(*scripts)]

    def _count(self) -> int:
        return int(self.lab.get("configmap", "counter", "-n", SPACE)["data"]["count"])

    def await_going_on(self, since: Tally) -> None:
        """Wait until every counter has gone on, and judge all that they wrote."""
        deadline = time.monotonic() + GO_ON_SECONDS
        while True:
            now = self.tally()
            assert problems(now) == []
            missing = standing(since, now)
            if not missing:
                return
            assert time.monotonic() < deadline, f"not within {GO_ON_SECONDS} s: {missing}"
            time.sleep(2)

    def pods(self) -> dict[str, tuple[str, int]]:
        """By namespace and name of each pod its uid, and how often its containers were restarted."""
        found = {}
        for pod in self.lab.get("pods", "-A")["items"]:
            about = pod["metadata"]
            restarts = sum(c["restartCount"] for c in pod["status"].get("containerStatuses", []))
            found[f"{about['namespace']}/{about['name']}"] = about["uid"], restarts
        return found

    # --- rounds -----------------------------------------------------------------------------------

    def round(self, number: int) -> None:
        """One snapshot, one restore; every third one goes back to the snapshot before."""
        say(f"soak: round {number}")
        self.kept.append(self.freeze(f"round-{number}"))
        back = self.kept[-2] if number % 3 == 0 and len(self.kept) > 1 else self.kept[-1]
        self.restore(back)
        if len(self.kept) > 2:
            self.lab.klab("snapshot", "rm", self.lab.name, self.kept.pop(0).name)

    def freeze(self, name: str) -> Frozen:
        """A snapshot of the lab at work, and then something that is not in it."""
        with self.witness as witness:
            witness.await_writes(WRITES)
            before, pods = self.tally(), self.pods()
            assert problems(before) == []
            taken = self.lab.result("snapshot", self.lab.name, name)["snapshot"]
            witness.await_writes(WRITES)
        (plane,) = (node for node in taken["nodes"] if node["role"] == "control-plane")
        least, most = bounds(witness.writes(), plane["suspended"], plane["resumed"])
        assert least, "the witness wrote nothing before the freeze"
        self._mark()
        # The snapshot itself must have cost nothing.
        assert problems(self.tally()) == []
        assert self.pods() == pods
        return Frozen(name, before, least, most, pods)

    def _mark(self) -> None:
        self.lab.kubectl("create", "configmap", "later", "-n", SPACE)
        self.lab.look(*((node, f"touch {LATER}; sync") for node in self.lab.nodes))

    def restore(self, frozen: Frozen) -> Any:
        """Bring the lab back, and judge everything about it; returns what klab said."""
        said = self.lab.result("restore", self.lab.name, frozen.name)
        assert said["verified"] is True
        assert said["leases_missing"] == []
        assert said["warnings"] == []
        say(f"soak: {frozen.name} verified after {said['ready_seconds']} s: {said['seconds']}")
        self.check_back(frozen)
        return said

    def check_back(self, frozen: Frozen) -> None:
        """Judge whether the lab is as it was when that snapshot was taken, and continues from there."""
        now = self.tally()
        assert problems(now) == []
        assert gone(frozen.before, now) == []
        written = int(self.lab.get("configmap", WITNESS)["data"]["count"])
        assert frozen.least <= written <= frozen.most, f"the witness's number is {written}: {frozen}"
        self._look_for_what_came_later()
        assert self.pods() == frozen.pods
        assert self.lab.result("status", self.lab.name)["ready"] is True
        self.check_clocks()
        self.await_going_on(now)

    def _look_for_what_came_later(self) -> None:
        assert "later" not in self.lab.kubectl("get", "configmaps", "-n", SPACE, "-o", "name")
        for answer in self.lab.look(*((node, f"ls {LATER} 2> /dev/null || true") for node in self.lab.nodes)):
            assert answer.text == ""

    def check_clocks(self, ahead: float = 0.0) -> None:
        """Every node's clock is right to a second; `ahead` is by how many seconds the host's is taken to be ahead."""
        record = json.loads((self.lab.folder / "lab.json").read_text())
        answers = self.lab.look(*((node, "date +%s.%N") for node in self.lab.nodes))
        for node, answer in zip(self.lab.nodes, answers, strict=True):
            earliest, latest = (
                GuestClock(record["epoch"], record["dilation"]).guest(moment + ahead)
                for moment in (answer.asked, answer.answered)
            )
            shown = float(answer.text)
            assert astray(shown, earliest, latest) <= APART_SECONDS, f"{node} shows {shown}, it is {earliest}"


def _sections(text: str) -> dict[str, list[int]]:
    """What READ printed: by file the numbers in it."""
    found: dict[str, list[int]] = {}
    for line in text.splitlines():
        if line.startswith("="):
            found[line[1:]] = []
        elif line.strip():
            found[next(reversed(found))].append(int(line))
    return found
