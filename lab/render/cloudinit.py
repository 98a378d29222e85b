"""The cloud-init NoCloud seed of one node.

Source: cloudinit.readthedocs.io, NoCloud datasource, network config version 2, and the
modules write_files, users, bootcmd. `cloud-init schema` judges the result in the tests.
"""

from __future__ import annotations

from typing import Any

from lab.components.cluster import File
from lab.components.cni import network
from lab.components.kubernetes.proxy import MODES
from lab.components.runtime import runtime
from lab.components.runtime.base import Mirror
from lab.plan.model import Node, Plan
from lab.render.balancer import render_load_balancer
from lab.render.hosts import HOSTS_FILE, render_hosts
from lab.render.kubeadm import PATCHES_FOLDER, PATIENT_GOGC, render_init, render_join, render_patches
from lab.render.node_script import CONSOLE, MARK, NODE_SCRIPT, NODE_UNIT, START_NODE, UNIT_FILE, render_node_script
from lab.render.pod_network import render_manifest
from lab.render.renewal import KUBELET_PKI
from lab.render.secrets import Secrets
from lab.render.timekeeping import render_chrony
from lab.render.yamltext import dump
from lab.scenario.mirror_access import MirrorAccess

USER = "vagrant"
KUBELET_DROP_IN = "/etc/systemd/system/kubelet.service.d/20-klab.conf"
PROXY_MODULES_FILE = "/etc/modules-load.d/klab-kube-proxy.conf"
# Where the manifest of the pod network lies for a student who makes the cluster.
PREPARED_FOLDER = "/opt/klab"
# A node that shuts down kills the containers that do not end by themselves, after 90 seconds by default.
# Several control planes that shut down together take etcd from one another's API servers, which then
# wait for it until they are killed. They keep nothing that could be lost.
CONTROL_PLANE_STOP_SECONDS = 20
# What a pod is given where it is deleted. Many never end by themselves, such as `sleep infinity`.
WORKER_STOP_SECONDS = 30


def render_seed(
    plan: Plan, node: Node, secrets: Secrets, *, slow_host: bool = False, joining: bool = False
) -> dict[str, str]:
    """The files of one node's seed.

    Args:
        plan: the lab.
        node: the node that will read it.
        secrets: the lab's keys; a worker's seed holds no CA key.
        slow_host: stretch kubeadm's time limits for a host without hardware virtualization.
        joining: the cluster is there already; a control plane joins it, too.

    Returns:
        Content by file name: user-data, meta-data, network-config.
    """
    return {
        "user-data": "#cloud-config\n"
        + dump(_user_data(plan, node, node_files(plan, node, secrets, slow_host=slow_host, joining=joining), secrets)),
        "meta-data": dump({"instance-id": node.uuid, "local-hostname": node.name}),
        "network-config": dump(_network(plan, node)),
    }


def _user_data(plan: Plan, node: Node, files: list[File], secrets: Secrets) -> dict[str, Any]:
    data = {
        "hostname": node.name,
        "preserve_hostname": False,
        "manage_etc_hosts": False,
        "ssh_deletekeys": True,
        "ssh_genkeytypes": ["ed25519"],
        "ssh_quiet_keygen": True,
        "no_ssh_fingerprints": True,
        "users": [
            {
                "name": USER,
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": True,
                "ssh_authorized_keys": [secrets.ssh_public_key.strip()],
            }
        ],
        "bootcmd": [["sh", "-c", f"echo '{MARK} cloud-init begin' > {CONSOLE}"]],
        "write_files": [
            {"path": path, "content": content, "permissions": mode, "owner": "root:root"}
            for path, content, mode in files
        ],
    }
    # klab's own box starts the script as soon as it is there.
    return {**data, "runcmd": [list(command) for command in START_NODE]} if plan.cloud_image else data


def node_files(
    plan: Plan, node: Node, secrets: Secrets, *, slow_host: bool, joining: bool, again: bool = False
) -> list[File]:
    """The files with which a node makes, or joins, the cluster by itself.

    Args:
        plan: the lab.
        node: the node.
        secrets: as for `render_seed`, like the next two.
        slow_host: stretch kubeadm's time limits.
        joining: the cluster is there already.
        again: the node has been in the cluster before, and its first boot is long over.
    """
    script = render_node_script(plan, node, slow_host=slow_host, joining=joining, again=again)
    if plan.cloud_image:
        return [File(HOSTS_FILE, render_hosts(plan)), File(NODE_SCRIPT, script, "0700"), File(UNIT_FILE, NODE_UNIT)]
    files = [
        File(HOSTS_FILE, render_hosts(plan)),
        *render_chrony(plan, node),
        File(NODE_SCRIPT, script, "0700"),
    ]
    if plan.bootstrap == "none":
        return files
    if modules := MODES[plan.kubernetes.proxy_mode].modules:
        files.append(File(PROXY_MODULES_FILE, "".join(f"{module}\n" for module in modules)))
    containers = runtime(plan.kubernetes.runtime)
    files += containers.files(plan.kubernetes.versions, mirrors_of(plan, secrets))
    stop_seconds = CONTROL_PLANE_STOP_SECONDS if node.is_control_plane else WORKER_STOP_SECONDS
    files.append(File(containers.stop_drop_in, f"[Scope]\nTimeoutStopSec={stop_seconds}\n"))
    if plan.bootstrap == "prepared":
        return files + _prepared(plan, node)
    files += network(plan.kubernetes.cni).seed_files(plan, node)
    if slow_host:
        files.append(File(KUBELET_DROP_IN, f"[Service]\nEnvironment=GOGC={PATIENT_GOGC}\n"))
    if secrets.kubelet is not None:
        files += [
            File(f"{KUBELET_PKI}/kubelet.key", secrets.kubelet.private, "0600"),
            File(f"{KUBELET_PKI}/kubelet.crt", secrets.kubelet.public),
        ]
    render = render_join if joining or not node.is_control_plane else render_init
    files.append(File("/etc/klab/kubeadm.yaml", render(plan, node, secrets, slow_host=slow_host), "0600"))
    if not node.is_control_plane:
        return files
    if not joining:
        patches = render_patches(plan, slow_host=slow_host)
        files += [File(f"{PATCHES_FOLDER}/{name}", text, "0600") for name, text in patches.items()]
    files += [File(f"/etc/klab/pki/{name}", text, "0600") for name, text in secrets.control_plane_files.items()]
    if plan.load_balancer is not None and node.name in plan.load_balancer.nodes:
        services = render_load_balancer(plan, plan.load_balancer, node)
        files += [File(path, text) for made in services.values() for path, text in made.items()]
    return files


def mirrors_of(plan: Plan, secrets: Secrets) -> list[Mirror]:
    """The lab's mirrors, each with what it is asked with."""
    found = []
    for registry, url in plan.mirrors:
        access = secrets.mirror_access.get(registry, MirrorAccess())
        found.append(Mirror(registry, url, access.ca, access.basic if access.login else ""))
    return found


def _prepared(plan: Plan, node: Node) -> list[File]:
    """The pod network's files on a node whose cluster the student makes."""
    pods = network(plan.kubernetes.cni)
    files = list(pods.prepared_files(plan, node))
    if node.is_control_plane and pods.manifest_file:
        files.append(File(f"{PREPARED_FOLDER}/{pods.manifest_file}", render_manifest(plan)))
    return files


def _network(plan: Plan, node: Node) -> dict[str, Any]:
    return {
        "version": 2,
        "ethernets": {
            "eth0": {
                "match": {"macaddress": node.management_mac},
                "set-name": "eth0",
                "dhcp4": True,
                # The lab's network is what Kubernetes waits for; Vagrant's may come later.
                "optional": True,
            },
            "eth1": {
                "match": {"macaddress": node.mac},
                "set-name": "eth1",
                "addresses": [f"{node.address}/{plan.networks.cidr.prefixlen}"],
            },
        },
    }
