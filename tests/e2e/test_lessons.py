"""Lessons that need add-ons, on the lab that all end-to-end tests share: what they bring works, and goes again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from support.lessons import awaited, wait_for_end

if TYPE_CHECKING:
    from support.real_lab import Lab

NAMES = ("local-path", "metrics-server", "network-policy")

CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 64Mi}}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  volumes:
  - {{name: data, persistentVolumeClaim: {{claimName: data}}}}
  containers:
  - name: main
    image: busybox:latest
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "{script}"]
    volumeMounts: [{{name: data, mountPath: /data}}]
"""
WEB = """
apiVersion: v1
kind: Pod
metadata: {name: guarded, labels: {app: guarded}}
spec:
  containers: [{name: nginx, image: "nginx:latest", imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Service
metadata: {name: guarded}
spec:
  selector: {app: guarded}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "busybox:latest", imagePullPolicy: IfNotPresent, command: [sleep, "86400"]}]
"""
DENY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""
ALLOW = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-client}
spec:
  podSelector: {matchLabels: {app: guarded}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]}]
"""


@pytest.fixture(scope="module")
def lessons(lab: Lab) -> Iterator[Lab]:
    """The lab with its add-ons, which are removed afterwards."""
    before = lab.result("addon", "list", lab.name)["addons"]
    assert not any(each["installed"] for each in before)
    added = lab.result("addon", "add", lab.name, *NAMES)
    assert added["added"] == list(NAMES)
    yield lab
    mine = ["pod/writer", "pod/reader", "pod/guarded", "pod/client", "pvc/data", "service/guarded"]
    mine += ["networkpolicy/deny-all", "networkpolicy/allow-client"]
    lab.kubectl("delete", *mine, "--ignore-not-found", "--wait=true", "--timeout=10m")
    lab.kubectl("wait", "--for=delete", "pv", "--all", "--timeout=10m")
    gone = lab.result("addon", "rm", lab.name, *NAMES)
    assert gone["removed"] == list(NAMES)
    after = lab.result("addon", "list", lab.name)["addons"]
    assert not any(each["installed"] for each in after)


def test_add_ons_work_and_are_listed(lessons: Lab) -> None:
    found = {each["name"]: each for each in lessons.result("addon", "list", lessons.name)["addons"]}
    for name in NAMES:
        assert (found[name]["installed"], found[name]["works"], found[name]["missing"]) == (True, True, [])
    assert "policies" not in lessons.klab("status", lessons.name).stdout


def test_kubectl_top_tells_of_every_node_and_its_pods(lessons: Lab) -> None:
    """By kubelets whose certificates the cluster's CA has signed: nothing here skips that check."""
    # Metrics come with the second look at a kubelet.
    seen = awaited(
        lambda: lessons.kubectl("top", "nodes", "--no-headers", check=False),
        "metrics of every node",
        900,
        lambda text: len(text.splitlines()) >= len(lessons.nodes) and "unknown" not in text,
    )
    rows = {line.split()[0]: line.split() for line in seen.splitlines()}
    assert sorted(rows) == sorted(lessons.nodes)
    assert all(row[1].endswith("m") and row[3].endswith("Mi") for row in rows.values()), rows
    pods = lessons.kubectl("top", "pods", "-n", "kube-system", "--no-headers")
    assert "kube-apiserver-cp1" in pods


def test_a_claim_keeps_its_data_beyond_its_pod(lessons: Lab) -> None:
    lessons.kubectl("apply", "-f", "-", stdin=CLAIM)
    lessons.kubectl("apply", "-f", "-", stdin=POD.format(name="writer", script="echo kept > /data/word; sync"))
    wait_for_end(lessons, "writer")
    lessons.kubectl("delete", "pod", "writer", "--wait=true", "--timeout=10m")
    lessons.kubectl("apply", "-f", "-", stdin=POD.format(name="reader", script="cat /data/word"))
    wait_for_end(lessons, "reader")
    assert lessons.kubectl("logs", "reader").strip() == "kept"
    (volume,) = lessons.get("pv")["items"]
    assert volume["spec"]["storageClassName"] == "local-path"
    refused = lessons.klab("addon", "rm", lessons.name, "local-path", check=False)
    assert refused.returncode == 4, refused.stderr
    assert "in the care of local-path" in refused.stderr


def test_a_policy_stops_traffic_and_another_lets_it_through(lessons: Lab) -> None:
    lessons.kubectl("apply", "-f", "-", stdin=WEB)
    lessons.kubectl("wait", "--for=condition=Ready", "pod/guarded", "pod/client", "--timeout=20m")
    assert asked(lessons, until="Welcome to nginx!")
    lessons.kubectl("apply", "-f", "-", stdin=DENY)
    assert asked(lessons, until="timed out")
    lessons.kubectl("apply", "-f", "-", stdin=ALLOW)
    assert asked(lessons, until="Welcome to nginx!")


def asked(lab: Lab, until: str, seconds: float = 600) -> str:
    """What the client is answered, once it has these words; by the pod's own address, so that no name matters."""
    address = lab.get("pod", "guarded")["status"]["podIP"]
    # busybox's wget says "download timed out"; its time limit is the guest's.
    ask = f"wget -q -T 5 -O - http://{address} 2>&1; true"
    exec_ = ("exec", "client", "--", "sh", "-c", ask)
    return awaited(lambda: lab.kubectl(*exec_, check=False), until, seconds, lambda text: until in text)
