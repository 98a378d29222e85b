"""Lessons as courses give them, done on a real lab and looked at from outside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from support.real_lab import Lab

NODE_PORT_SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 80, nodePort: 30080}]
"""

NGINX = (
    """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: nginx, image: "nginx:latest", ports: [{containerPort: 80}]}
"""
    + NODE_PORT_SERVICE
)

ASKING_POD = """
apiVersion: v1
kind: Pod
metadata: {{name: ask-{node}}}
spec:
  nodeName: {node}
  restartPolicy: Never
  containers:
  - name: ask
    image: busybox:latest
    command: [wget, -q, -T, "60", -O, "-", "http://web.default.svc.cluster.local"]
"""


# A pod may be Ready before kube-proxy of every node has heard of it: until then a node refuses.
ASK = """
import time, urllib.error, urllib.request
until = time.monotonic() + {seconds}
while True:
    try:
        asked = urllib.request.Request("{url}", headers={headers})
        print(urllib.request.urlopen(asked, timeout=120).read().decode())
        break
    except urllib.error.URLError:
        if time.monotonic() > until:
            raise
        time.sleep(1)
"""

Seen = TypeVar("Seen")


def page(lab: Lab, url: str, *, host: str = "", seconds: int = 300) -> str:
    """What a URL answers where the host meets the lab's network; `host` is whom it is asked as."""
    headers = {"Host": host} if host else {}
    return lab.inside(ASK.format(url=url, headers=headers, seconds=seconds), seconds=seconds * 1.5)


def awaited(ask: Callable[[], Seen], what: str, seconds: float = 1200, holds: Callable[[Seen], object] = bool) -> Seen:
    """What a question is answered, once it is what `holds` wants: something, where nothing else is said."""
    until = time.monotonic() + seconds
    while not holds(seen := ask()):
        assert time.monotonic() < until, f"not within {seconds:.0f} s: {what}; the last answer: {seen!r}"
        time.sleep(3)
    return seen


def wait_for_end(lab: Lab, pod: str) -> None:
    """Wait until a pod has done its work; `kubectl wait` knows phases only since 1.23."""
    until = time.monotonic() + 20 * 60
    while (phase := lab.get("pod", pod)["status"]["phase"]) != "Succeeded":
        assert phase != "Failed", pod
        assert time.monotonic() < until, f"{pod} is still {phase}"
        time.sleep(2)


def nginx_behind_a_node_port(lab: Lab) -> None:
    """Three nginx, by the manifest of every tutorial; each node answers on the port."""
    lab.kubectl("apply", "-f", "-", stdin=NGINX)
    lab.kubectl("rollout", "status", "deployment/web", "--timeout=20m")
    pods = lab.get("pods", "-l", "app=web")["items"]
    assert {c["imagePullPolicy"] for p in pods for c in p["spec"]["containers"]} == {"Always"}
    for node, address in lab.addresses.items():
        assert "Welcome to nginx!" in page(lab, f"http://{address}:30080"), node


def services_by_name(lab: Lab, *nodes: str) -> None:
    """A pod on each of the nodes gets nginx's page under the Service's name."""
    for node in nodes:
        lab.kubectl("apply", "-f", "-", stdin=ASKING_POD.format(node=node))
    for node in nodes:
        wait_for_end(lab, f"ask-{node}")
        assert "Welcome to nginx!" in lab.kubectl("logs", f"ask-{node}")
