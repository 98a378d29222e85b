"""Three control planes survive the loss of one, and a lab survives its host. Real machines, real Kubernetes.

The tests share one lab and run in this order; the last one destroys it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.host import look_at_host
from support.lessons import awaited
from support.membership import left_behind
from support.real_lab import say
from support.trouble import await_findings, heal
from support.witness import Witness

if TYPE_CHECKING:
    from support.real_lab import Lab

PLANES = ["cp1", "cp2", "cp3"]
# How often HAProxy asks each API server, and keepalived asks HAProxy (lab.render.balancer).
PROBE_SECONDS = 3
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: nginx, image: "nginx:latest", ports: [{containerPort: 80}]}
"""


def status(lab: Lab) -> Any:
    return lab.result("status", lab.name, check=False)


def healthy_members(lab: Lab) -> set[str]:
    etcd = status(lab)["etcd"]
    return {m["name"] for m in etcd["members"] if m["status"] and m["status"]["healthy"] and not m["learner"]}


def api_of(lab: Lab, node: str) -> str:
    """What is wrong with the API server of a control plane; empty where nothing is."""
    return str(next(n["api"] for n in status(lab)["nodes"] if n["name"] == node))


def serials(lab: Lab, connections: int) -> set[str]:
    """The serial numbers of the certificates that so many connections to the virtual IP are shown."""
    code = (
        "import ssl; from cryptography import x509; from lab.plan.model import LOAD_BALANCER_PORT as port\n"
        f"for _ in range({connections}):\n"
        f"    pem = ssl.get_server_certificate(({lab.plan['load_balancer']['vip']!r}, port), timeout=60)\n"
        "    print(x509.load_pem_x509_certificate(pem.encode()).serial_number)\n"
    )
    return set(lab.inside(code, seconds=600).split())


@pytest.fixture(scope="module")
def witness(lab: Lab) -> Witness:
    return Witness(lab)


def test_five_nodes_are_ready_and_three_members_healthy(lab: Lab) -> None:
    seen = status(lab)
    assert seen["ready"] is True
    assert [n["name"] for n in seen["nodes"]] == [*PLANES, "w1", "w2"]
    assert seen["etcd"]["quorum"] is True
    assert healthy_members(lab) == set(PLANES)
    assert seen["endpoint"]["holder"] in PLANES
    assert {n["api"] for n in seen["nodes"] if n["role"] == "control-plane"} == {""}
    dns = lab.get("pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"]
    assert len({pod["spec"]["nodeName"] for pod in dns}) == 2, "one lost node must not take cluster DNS along"


def test_the_kubeconfig_leads_to_the_virtual_ip(lab: Lab) -> None:
    balancer = lab.plan["load_balancer"]
    assert f"https://{balancer['vip']}:{balancer['port']}" in (lab.folder / "kubeconfig").read_text()


def test_the_cluster_is_an_ordinary_kubeadm_cluster(lab: Lab) -> None:
    config = lab.get("configmap", "kubeadm-config", "-n", "kube-system")["data"]["ClusterConfiguration"]
    assert "initial-cluster" not in config
    lab.on("cp2", "kubeadm certs check-expiration")
    names = lab.on("cp3", "openssl x509 -noout -ext subjectAltName -in /etc/kubernetes/pki/apiserver.crt")
    assert lab.plan["load_balancer"]["vip"] in names
    assert all(f"DNS:{name}" in names for name in PLANES)


def test_requests_are_spread_over_all_control_planes(lab: Lab) -> None:
    assert len(serials(lab, 12)) == 3


def test_ansible_reaches_every_node(lab: Lab) -> None:
    inventory = lab.home / "inventory.yaml"
    inventory.write_text(lab.klab("inventory", lab.name).stdout)
    ansible = str(Path(sys.executable).parent / "ansible")
    done = subprocess.run(
        [ansible, "-i", str(inventory), "all", "-m", "ping"],
        env={**lab.env, "ANSIBLE_HOST_KEY_CHECKING": "True"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == 5


def test_the_holder_of_the_virtual_ip_loses_its_power(lab: Lab, witness: Witness) -> None:
    lab.kubectl("apply", "-f", "-", stdin=WEB)
    lab.kubectl("rollout", "status", "deployment/web", "--timeout=20m")
    holder = status(lab)["endpoint"]["holder"]
    with witness:
        witness.await_writes(10)
        cut = time.time()
        lab.klab("stop", lab.name, holder, "--force")
        witness.await_writes(10)
        gap = witness.longest_gap(cut)
        dilation = json.loads((lab.folder / "lab.json").read_text())["dilation"]
        guest = gap * dilation
        say(f"without API for {gap:.1f} s ({guest:.1f} s of the guests'): {guest / PROBE_SECONDS:.1f} probe intervals")
        witness.check_nothing_lost()
        lab.kubectl("scale", "deployment/web", "--replicas=3")
        lab.kubectl("rollout", "status", "deployment/web", "--timeout=20m")
        seen = status(lab)
        assert seen["endpoint"]["holder"] in set(PLANES) - {holder}
        assert seen["etcd"]["answering"] == 2
        assert seen["etcd"]["quorum"] is True
        lab.klab("start", lab.name, holder)
        awaited(lambda: healthy_members(lab) == set(PLANES), "three healthy members")
    witness.check_nothing_lost()


def test_without_its_api_server_the_holder_keeps_the_virtual_ip(lab: Lab) -> None:
    holder = status(lab)["endpoint"]["holder"]
    manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
    lab.on(holder, f"mv {manifest} /root/")
    awaited(lambda: api_of(lab, holder) != "", f"the API server of {holder} is down")
    for _ in range(3):
        seen = status(lab)
        assert seen["endpoint"]["holder"] == holder
        assert len(serials(lab, 8)) == 2, "the balancer passes over the one that is down"
    lab.on(holder, f"mv /root/kube-apiserver.yaml {manifest}")
    awaited(lambda: api_of(lab, holder) == "", f"the API server of {holder} is back")
    awaited(lambda: len(serials(lab, 12)) == 3, "requests are spread over all three again")


def test_without_a_quorum_klab_says_so_and_one_more_heals_it(lab: Lab, witness: Witness) -> None:
    with witness:
        witness.await_writes(3)
        done = lab.klab("stop", lab.name, "cp2", "cp3", "--force")
        assert "etcd has lost its quorum" in done.stderr
        shown = lab.klab("status", lab.name, check=False)
        assert shown.returncode == 9
        assert "etcd has lost its quorum: 1 of 3 members answer, 2 are needed" in shown.stdout
        lab.klab("start", lab.name, "cp2")
        witness.await_writes(3)
        lab.klab("start", lab.name, "cp3")
        awaited(lambda: healthy_members(lab) == set(PLANES), "three healthy members")
    witness.check_nothing_lost()


def test_a_clean_stop_and_a_start(lab: Lab, witness: Witness) -> None:
    with witness:
        witness.await_writes(3)
        lab.klab("stop", lab.name)
    assert {n["machine"] for n in status(lab)["nodes"]} == {"stopped"}
    before = lab.addresses
    lab.klab("start", lab.name)
    assert lab.addresses == before
    witness.check_nothing_lost()
    assert healthy_members(lab) == set(PLANES)


def test_a_reboot_of_all(lab: Lab, witness: Witness) -> None:
    with witness:
        witness.await_writes(3)
        lab.klab("reboot", lab.name)
        witness.await_writes(3)
    witness.check_nothing_lost()
    assert status(lab)["ready"] is True


def test_power_loss_of_all(lab: Lab, witness: Witness) -> None:
    with witness:
        witness.await_writes(3)
        lab.klab("stop", lab.name, "--force")
    lab.klab("start", lab.name)
    witness.check_nothing_lost()
    assert status(lab)["ready"] is True


LOSE_MEMBER = """
from lab.cluster.clients.etcd import Etcd
from lab.plan.file import from_json
home = Home.default()
folder = home.lab(NAME)
print(Etcd(folder, from_json((folder.path / "plan.json").read_text())).remove_member(NODE))
"""


def test_a_snapshot_brings_back_a_namespace_and_a_lost_etcd_member(lab: Lab) -> None:
    lab.kubectl("create", "namespace", "lesson")
    lab.kubectl("create", "configmap", "settings", "-n", "lesson", "--from-literal=a=b")
    lab.kubectl("apply", "-n", "lesson", "-f", "-", stdin=WEB)
    lab.kubectl("rollout", "status", "deployment/web", "-n", "lesson", "--timeout=20m")
    taken = lab.result("snapshot", lab.name, "lesson", "--note", "before it is broken")["snapshot"]
    assert [node["name"] for node in taken["nodes"] if node["running"]] == [*PLANES, "w1", "w2"]
    # What the holder of the virtual IP loses with its member is its API server.
    holder = status(lab)["endpoint"]["holder"]
    others = set(PLANES) - {holder}
    lab.kubectl("delete", "namespace", "lesson", "--wait=true", "--timeout=20m")
    told = lab.klab("diff", lab.name, "lesson").stdout
    assert "- lesson: ConfigMap settings" in told
    assert "- lesson: Deployment web" in told
    removed = lab.inside(LOSE_MEMBER.replace("NAME", repr(lab.name)).replace("NODE", repr(holder)))
    assert removed.strip() == "True"
    awaited(lambda: healthy_members(lab) == others, f"the members on {others} are all there are")
    awaited(lambda: api_of(lab, holder) != "", f"the API server of {holder} is down")
    said = lab.result("restore", lab.name, "lesson")
    say(f"five nodes verified after {said['ready_seconds']} s: {said['seconds']}")
    assert said["verified"] is True
    assert said["leases_missing"] == []
    assert said["warnings"] == []
    seen = status(lab)
    assert seen["ready"] is True
    assert seen["etcd"]["quorum"] is True
    assert healthy_members(lab) == set(PLANES)
    assert seen["endpoint"]["holder"] in PLANES
    assert {n["api"] for n in seen["nodes"] if n["role"] == "control-plane"} == {""}
    assert len(serials(lab, 12)) == 3, "the virtual IP leads to all three API servers"
    assert lab.get("configmap", "settings", "-n", "lesson")["data"] == {"a": "b"}
    lab.kubectl("rollout", "status", "deployment/web", "-n", "lesson", "--timeout=20m")
    # It can be written to as well: through the virtual IP, with the consent of a quorum.
    lab.kubectl("delete", "namespace", "lesson", "--wait=true", "--timeout=20m")
    lab.klab("snapshot", "prune", lab.name, "--keep", "0")
    assert lab.result("snapshots", lab.name)["snapshots"] == []


def test_a_lost_virtual_ip_and_a_lost_member_are_found_and_repaired(lab: Lab) -> None:
    for node in PLANES:
        lab.on(node, "systemctl stop keepalived")
    lab.on("cp2", "mv /etc/kubernetes/manifests/etcd.yaml /root/")
    keepers = [("keepalived", node) for node in PLANES]
    found = await_findings(lab, ("virtual IP", ""), ("etcd", "cp2"), ("static pods", "cp2"), *keepers)
    assert "lost" in found["etcd", "cp2"]["what"]
    heal(lab)
    assert healthy_members(lab) == set(PLANES)
    lab.on("cp2", "rm /root/etcd.yaml")


def test_a_control_plane_is_replaced(lab: Lab) -> None:
    key = "cat /etc/ssh/ssh_host_ed25519_key.pub"
    old = lab.on("cp2", key)
    changed = lab.result("node", "replace", lab.name, "cp2")
    assert (changed["left"], changed["joined"]) == (["cp2"], ["cp2"])
    assert lab.on("cp2", key) != old
    assert healthy_members(lab) == set(PLANES)
    assert status(lab)["ready"] is True


def test_a_control_plane_leaves_and_joins_again(lab: Lab) -> None:
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = lab.on("cp3", boot)
    for node, left in (("cp3", {"cp1", "cp2"}), ("cp2", {"cp1"})):
        assert lab.result("node", "reset", lab.name, node)["left"] == [node]
        assert left_behind(lab, node) == []
        assert healthy_members(lab) == left
    refused = lab.klab("node", "reset", lab.name, "cp1", check=False)
    assert (refused.returncode, "cp1 is etcd's last member" in refused.stderr) == (9, True)
    for node in ("cp2", "cp3"):
        assert lab.result("node", "join", lab.name, node)["joined"] == [node]
    assert lab.on("cp3", boot) == before
    assert healthy_members(lab) == set(PLANES)
    assert status(lab)["ready"] is True


def test_a_worker_joins_when_the_first_token_has_expired(lab: Lab) -> None:
    hours = 1 + int(max([24.0, *(t["hours"] for t in status(lab)["tokens"])]))
    for node in lab.nodes:
        lab.on(node, f"systemctl stop chrony; date -s '+{hours} hours' > /dev/null; systemctl start chrony")
    awaited(lambda: not any(t["valid"] for t in status(lab)["tokens"] or []), "no token is valid")
    changed = lab.result("node", "replace", lab.name, "w2")
    assert changed["joined"] == ["w2"]
    assert status(lab)["ready"] is True


def test_destroy_leaves_nothing(lab: Lab) -> None:
    lab.klab("destroy", "-y", lab.name)
    assert not lab.folder.exists()
    assert look_at_host(lab.home) == lab.before
