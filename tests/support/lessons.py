"""Lessons as courses give them, done on a real lab and looked at from outside it."""

from __future__ import annotations

import time

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
until = time.monotonic() + 300
while True:
    try:
        print(urllib.request.urlopen("{url}", timeout=120).read().decode())
        break
    except urllib.error.URLError:
        if time.monotonic() > until:
            raise
        time.sleep(1)
"""


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
        page = lab.inside(ASK.format(url=f"http://{address}:30080"), seconds=450)
        assert "Welcome to nginx!" in page, node


def services_by_name(lab: Lab, *nodes: str) -> None:
    """A pod on each of the nodes gets nginx's page under the Service's name."""
    for node in nodes:
        lab.kubectl("apply", "-f", "-", stdin=ASKING_POD.format(node=node))
    for node in nodes:
        wait_for_end(lab, f"ask-{node}")
        assert "Welcome to nginx!" in lab.kubectl("logs", f"ask-{node}")
