"""Lessons on services, storage of the cluster and autoscaling, as a student does them. The etcd lesson comes last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.lessons import awaited, page

if TYPE_CHECKING:
    from support.real_lab import Lab

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers: [{name: nginx, image: "nginx:latest", imagePullPolicy: IfNotPresent, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  type: LoadBalancer
  selector: {app: shop}
  ports: [{port: 80}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  rules:
  - host: shop.example
    http:
      paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]
"""
# A processor's time without end, of which the autoscaler may have as much as two tenths of a pod's request.
BUSY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  replicas: 1
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox:latest
        imagePullPolicy: IfNotPresent
        command: [sh, -c, "while :; do :; done"]
        resources: {requests: {cpu: 20m}, limits: {cpu: 60m}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: busy}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: busy}
  minReplicas: 1
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
"""
# The task of the exam, by its own words: save, lose something, restore into another folder, and use that.
SAVE = """
set -eu
export ETCDCTL_API=3
pki=/etc/kubernetes/pki/etcd
etcdctl --endpoints https://127.0.0.1:2379 --cacert $pki/ca.crt --cert $pki/server.crt --key $pki/server.key \\
    snapshot save /opt/backup.db
etcdutl snapshot status /opt/backup.db --write-out table
"""
RESTORE = """
set -eu
etcdutl snapshot restore /opt/backup.db --data-dir /var/lib/etcd-restored
sed -i 's#path: /var/lib/etcd$#path: /var/lib/etcd-restored#' /etc/kubernetes/manifests/etcd.yaml
"""


def test_every_add_on_of_the_scenario_works(lab: Lab) -> None:
    found = lab.result("addon", "list", lab.name)["addons"]
    assert {each["name"] for each in found if each["works"]} >= set(lab.plan["addons"])


def test_a_load_balancer_is_answered_from_the_host(lab: Lab) -> None:
    lab.kubectl("apply", "-f", "-", stdin=WEB)
    lab.kubectl("rollout", "status", "deployment/shop", "--timeout=20m")
    address = awaited(lambda: ingress_of(lab, "service", "shop"), "an address", 1500)
    assert "Welcome to nginx!" in page(lab, f"http://{address}")


def test_an_ingress_is_answered_from_the_host(lab: Lab) -> None:
    address = awaited(lambda: ingress_of(lab, "-n", "traefik", "service", "traefik"), "an address of traefik's", 1500)
    assert "Welcome to nginx!" in page(lab, f"http://{address}/", host="shop.example", seconds=600)


def ingress_of(lab: Lab, *which: str) -> str:
    status = lab.get(*which)["status"].get("loadBalancer", {}).get("ingress") or [{}]
    return str(status[0].get("ip", ""))


def test_a_busy_deployment_is_scaled_to_three(lab: Lab) -> None:
    lab.kubectl("apply", "-f", "-", stdin=BUSY)
    awaited(lambda: lab.get("deployment", "busy")["status"].get("readyReplicas") == 3, "three pods", 1500)
    lab.kubectl("delete", "hpa/busy", "deployment/busy", "--wait=true", "--timeout=10m")


def test_etcd_is_saved_and_restored(lab: Lab) -> None:
    lab.kubectl("create", "configmap", "before", "--from-literal=word=kept")
    assert "TOTAL KEY" in lab.on("cp1", SAVE).upper()
    lab.kubectl("delete", "configmap", "before")
    lab.kubectl("create", "configmap", "after")
    lab.on("cp1", RESTORE)
    word = ("get", "configmap", "before", "-o", "jsonpath={.data.word}")
    assert awaited(lambda: lab.kubectl(*word, check=False), "what was saved", 1500) == "kept"
    assert "NotFound" in lab.klab("kubectl", lab.name, "--", "get", "configmap", "after", check=False).stderr
    lab.kubectl("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=20m")
