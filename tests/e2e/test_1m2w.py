"""The main promise, on real machines: `klab create 1m2w` is the cluster that lessons describe.

All end-to-end tests share one lab, file after file in the order of their names; the last file destroys it.
"""

from __future__ import annotations

import json
import math
import re
import time
from typing import TYPE_CHECKING

import pytest
from support.facts import facts
from support.lessons import nginx_behind_a_node_port, services_by_name, wait_for_end

from lab.components.kubernetes import DEFAULT

if TYPE_CHECKING:
    from support.real_lab import Lab


@pytest.fixture(scope="module")
def by_node(lab: Lab) -> dict[str, dict[str, str]]:
    return {node: facts(lab, node) for node in lab.nodes}


def test_three_nodes_are_ready(lab: Lab) -> None:
    assert lab.created is not None
    assert [n["name"] for n in lab.created["nodes"]] == lab.nodes
    items = lab.get("nodes")["items"]
    ready = {
        n["metadata"]["name"]: c["status"] for n in items for c in n["status"]["conditions"] if c["type"] == "Ready"
    }
    assert ready == {"cp1": "True", "w1": "True", "w2": "True"}
    status = json.loads(lab.klab("status", "--json").stdout)
    assert status["ready"] is True
    # KVM may offer the host's clock; where it does not, and without KVM, the control plane has only its own.
    assert status["time_source"] in {"host", "own"}, status["clocks"]


def test_versions_are_as_asked(lab: Lab, by_node: dict[str, dict[str, str]]) -> None:
    for node in lab.get("nodes")["items"]:
        assert node["status"]["nodeInfo"]["kubeletVersion"] == f"v{DEFAULT}"
        assert node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://")
    assert json.loads(lab.kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"] == f"v{DEFAULT}"
    assert {f["kubelet"] for f in by_node.values()} == {f"Kubernetes v{DEFAULT}"}


def test_hosts_are_prepared_as_the_lesson_says(lab: Lab, by_node: dict[str, dict[str, str]]) -> None:
    for node, f in by_node.items():
        assert f["hostname"] == node
        assert f["swap"] == "0"
        assert (f["forward"], f["bridge"], f["br_netfilter"]) == ("1", "1", "1")
        assert f["address"].split("/")[0] == lab.addresses[node]
        assert f["kubelet_enabled"] == "enabled"


def test_sizes_are_as_asked(by_node: dict[str, dict[str, str]]) -> None:
    for f in by_node.values():
        assert f["cpus"] == "2"
        assert 1850 <= int(f["memory"]) <= 2048
        assert int(f["disk"]) >= 18  # of 20 GiB, what the file system leaves


def test_identities_are_unique(by_node: dict[str, dict[str, str]]) -> None:
    for key in ("hostname", "uuid", "machine_id", "hostkey", "address"):
        assert len({f[key] for f in by_node.values()}) == 3, key
    assert len({mac for f in by_node.values() for mac in f["macs"].split()}) == 6


def test_identities_are_those_of_the_plan(lab: Lab, by_node: dict[str, dict[str, str]]) -> None:
    plan = json.loads(lab.klab("plan", "1m2w", "--name", lab.name, "--json").stdout)["plan"]
    for node in plan["nodes"]:
        f = by_node[node["name"]]
        assert f["uuid"].lower() == node["uuid"]
        assert set(f["macs"].split()) == {node["mac"], node["management_mac"]}


def test_nothing_was_restarted(lab: Lab, by_node: dict[str, dict[str, str]]) -> None:
    for node, f in by_node.items():
        assert f["kubelet_restarts"] == "0", node
    for pod in lab.get("pods", "-n", "kube-system")["items"]:
        for status in pod["status"]["containerStatuses"]:
            if pod["metadata"]["name"].startswith(("kube-apiserver", "etcd")):
                assert status["restartCount"] == 0, pod["metadata"]["name"]


def test_a_control_plane_that_shuts_down_does_not_wait_long_for_its_containers(lab: Lab) -> None:
    shown = lab.on("cp1", "systemctl show 'cri-containerd-*.scope' --property TimeoutStopUSec --value")
    assert set(shown.split()) == {"20s"}


# As bash asks at a Tab: a shell that a person types into, the words of the line, the one that is to be completed.
COMPLETE = """
. /usr/share/bash-completion/completions/k
COMP_WORDS=(k get deploymen) COMP_CWORD=2 COMP_LINE="k get deploymen" COMP_POINT=15
__start_kubectl k
echo "completed: ${COMPREPLY[*]}"
alias k
complete -p k
"""


def test_kubectl_works_at_once_on_the_control_plane(lab: Lab) -> None:
    names = {f"node/{node}" for node in lab.nodes}
    for words in (["kubectl"], ["sudo", "kubectl"], ["sudo", "-i", "kubectl"]):
        said = lab.klab("ssh", lab.name, "cp1", "--", *words, "get", "nodes", "-o", "name").stdout
        assert set(said.split()) == names, words
    copies = "/root/.kube/config /home/vagrant/.kube/config"
    assert lab.on("cp1", f"stat -c '%a %U' {copies}").split() == ["600", "root", "600", "vagrant"]
    shell = lab.klab("ssh", lab.name, "cp1", "--", "bash", "-i", stdin=COMPLETE).stdout
    assert "completed: deployments.apps" in shell
    assert "alias k='kubectl'" in shell
    assert "__start_kubectl k" in shell
    assert lab.on("w1", f"ls {copies} 2>/dev/null || true").strip() == ""


# What was written since the box was built: a file's time of change, which no program can set, is later than the box's
# own. etcd holds the token as a Secret, and control planes their CA: that is Kubernetes, not the seed.
SEARCH = r"""
find / -type d \( -path /proc -o -path /sys -o -path /dev \
  -o -name etcd -o -name containerd -o -name docker-registry \) -prune \
  -o -type f -cnewer /etc/.updated -print0 | xargs -0 grep -lsF -e TOKEN -e KEY || true
"""


def test_no_secret_of_the_seed_is_left(lab: Lab) -> None:
    folder = lab.folder
    token = (folder / "pki" / "token").read_text().split(".")[1]
    ca_key = (folder / "pki" / "ca.key").read_text().splitlines()[1]
    for node in lab.nodes:
        found = lab.on(node, SEARCH.replace("TOKEN", token).replace("KEY", ca_key)).split()
        assert found == (["/etc/kubernetes/pki/ca.key"] if node == "cp1" else []), node
        assert lab.on(node, "blkid -t LABEL=cidata -o device || true").strip() == "", node
        assert lab.on(node, "ls -d /etc/klab /var/lib/cloud/instances/* 2>/dev/null || true").strip() == "", node
    assert not list(folder.rglob("*.iso"))


def test_clocks_agree_and_a_skewed_one_comes_back(lab: Lab) -> None:
    def apart() -> float:
        """How far w1 is from cp1, in seconds, as an NTP client that changes nothing measures it (chronyd(8), -Q).

        Infinite while it cannot tell: the node's own chronyd may set the clock under its eyes.
        """
        said = lab.on("w1", f"chronyd -Q -t 30 'server {lab.addresses['cp1']} iburst' 2>&1 || true")
        match = re.search(r"System clock wrong by (-?[0-9.]+) seconds", said)
        return abs(float(match[1])) if match else math.inf

    assert apart() < 1
    # Both in one breath: were the clock not set wrong, the test below would prove nothing.
    skewed = lab.on("w1", "a=$(date +%s); date -s '+30 seconds' > /dev/null; echo $(($(date +%s) - a))")
    assert skewed.strip() in {"30", "31"}
    deadline = time.monotonic() + 300
    while (offset := apart()) >= 1 and time.monotonic() < deadline:
        time.sleep(2)
    assert offset < 1


def test_the_nginx_lesson_works_unchanged_and_offline(lab: Lab) -> None:
    nginx_behind_a_node_port(lab)


def test_services_answer_by_name_from_every_worker(lab: Lab) -> None:
    services_by_name(lab, "w1", "w2")


def test_every_node_knows_kubernetes_as_packages_and_has_helm(lab: Lab) -> None:
    for node in lab.nodes:
        listed = lab.on(node, "apt-cache madison kubeadm kubelet kubectl").splitlines()
        assert [line.split("|")[1].strip() for line in listed] == [f"{DEFAULT}-1.1"] * 3, node
        owner = lab.on(node, "dpkg -S /usr/lib/systemd/system/kubelet.service /usr/bin/crictl")
        assert [line.partition(":")[0] for line in owner.splitlines()] == ["kubelet", "cri-tools"], node
        assert lab.on(node, "systemctl is-active apparmor iscsid.socket").split() == ["active", "active"], node
    assert lab.klab("ssh", lab.name, "cp1", "--", "helm", "list", "--no-headers").stdout.strip() == ""


CONFINED = """
apiVersion: v1
kind: Pod
metadata: {name: confined}
spec:
  restartPolicy: Never
  containers:
  - {name: look, image: "busybox:latest", command: [cat, /proc/self/attr/current]}
"""


def test_a_container_has_its_runtimes_apparmor_profile(lab: Lab) -> None:
    lab.kubectl("apply", "-f", "-", stdin=CONFINED)
    wait_for_end(lab, "confined")
    assert lab.kubectl("logs", "confined").strip() == "cri-containerd.apparmor.d (enforce)"
    lab.kubectl("delete", "pod", "confined")


def test_a_second_create_finds_everything_done(lab: Lab) -> None:
    boots = lab.on("w1", "cat /proc/sys/kernel/random/boot_id")
    done = json.loads(lab.klab("create", "1m2w", "--name", lab.name, "--json").stdout.splitlines()[-1])
    assert done["already"] is True
    assert lab.on("w1", "cat /proc/sys/kernel/random/boot_id") == boots


def test_a_conflicting_create_is_refused(lab: Lab) -> None:
    done = lab.klab("create", "1m1w", "--name", lab.name, check=False)
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert "klab destroy e2e" in done.stderr


def test_timeline_shows_every_node(lab: Lab) -> None:
    chart = lab.klab("timeline").stdout
    for node in lab.nodes:
        assert node in chart
    svg = lab.home / "timeline.svg"
    lab.klab("timeline", "--svg", str(svg))
    assert "<svg" in svg.read_text()
