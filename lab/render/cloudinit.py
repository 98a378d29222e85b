"""The cloud-init NoCloud seed of one node.

Source: cloudinit.readthedocs.io, NoCloud datasource, network config version 2, and the
modules write_files, users, bootcmd. `cloud-init schema` judges the result in the tests.
"""

from __future__ import annotations

import json
from typing import Any

from lab.plan.model import Node, Plan
from lab.render.balancer import render_load_balancer
from lab.render.flannel import CNI_FILE, render_cni, render_manifest
from lab.render.hosts import CHRONY_FILE, HOSTS_FILE, render_chrony, render_hosts
from lab.render.kubeadm import PATCHES_FOLDER, PATIENT_GOGC, render_init, render_join, render_patches
from lab.render.node_script import CNI_SOURCE, CONSOLE, MARK, render_node_script
from lab.render.secrets import Secrets
from lab.render.yamltext import dump

USER = "vagrant"
KUBELET_DROP_IN = "/etc/systemd/system/kubelet.service.d/20-klab.conf"
# A node that shuts down kills the containers that do not end by themselves, after 90 seconds by default.
CONTAINERS_DROP_IN = "/etc/systemd/system/cri-containerd-.scope.d/10-klab.conf"
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
        patient: stretch kubeadm's time limits for a host without hardware virtualization.
        joining: the cluster is there already; a control plane joins it, too.

    Returns:
        Content by file name: user-data, meta-data, network-config.
    """
    return {
        "user-data": "#cloud-config\n"
        + dump(_user_data(node, _files(plan, node, secrets, slow_host, joining), secrets)),
        "meta-data": dump({"instance-id": node.uuid, "local-hostname": node.name}),
        "network-config": dump(_network(plan, node)),
    }


def _user_data(node: Node, files: list[tuple[str, str, str]], secrets: Secrets) -> dict[str, Any]:
    return {
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


def _files(plan: Plan, node: Node, secrets: Secrets, slow_host: bool, joining: bool) -> list[tuple[str, str, str]]:
    files = [
        (HOSTS_FILE, render_hosts(plan), "0644"),
        (CHRONY_FILE, render_chrony(plan, node), "0644"),
        ("/etc/klab/node.sh", render_node_script(plan, node, slow_host=slow_host, joining=joining), "0700"),
    ]
    if plan.bootstrap == "none":
        return files
    files += _mirrors(plan)
    stop_seconds = CONTROL_PLANE_STOP_SECONDS if node.is_control_plane else WORKER_STOP_SECONDS
    files.append((CONTAINERS_DROP_IN, f"[Scope]\nTimeoutStopSec={stop_seconds}\n", "0644"))
    if plan.bootstrap == "prepared":
        if plan.kubernetes.cni == "flannel":
            files.append((CNI_FILE, render_cni(), "0644"))
            if node.is_control_plane:
                files.append(("/opt/klab/kube-flannel.yml", render_manifest(plan), "0644"))
        return files
    if plan.kubernetes.cni == "flannel":
        files.append((CNI_SOURCE, render_cni(), "0644"))
    if slow_host:
        files.append((KUBELET_DROP_IN, f"[Service]\nEnvironment=GOGC={PATIENT_GOGC}\n", "0644"))
    render = render_join if joining or not node.is_control_plane else render_init
    files.append(("/etc/klab/kubeadm.yaml", render(plan, node, secrets, slow_host=slow_host), "0600"))
    if not node.is_control_plane:
        return files
    if not joining:
        patches = render_patches(plan, slow_host=slow_host)
        files += [(f"{PATCHES_FOLDER}/{name}", text, "0600") for name, text in patches.items()]
    files += [(f"/etc/klab/pki/{name}", text, "0600") for name, text in secrets.control_plane_files.items()]
    if plan.load_balancer is not None and node.name in plan.load_balancer.nodes:
        services = render_load_balancer(plan, plan.load_balancer, node)
        files += [(path, text, "0644") for made in services.values() for path, text in made.items()]
    return files


def _mirrors(plan: Plan) -> list[tuple[str, str, str]]:
    """containerd's hosts.toml for each mirrored registry: the lab's own registry, then the mirror, then upstream.

    Source: github.com/containerd/containerd, docs/hosts.md.
    """
    files = []
    for host, mirror in plan.mirrors:
        upstream = "https://registry-1.docker.io" if host == "docker.io" else f"https://{host}"
        text = (
            f"server = {_toml(upstream)}\n\n"
            f"[host.{_toml(f'http://127.0.0.1:5000/v2/{host}')}]\n"
            '  capabilities = ["pull", "resolve"]\n  override_path = true\n\n'
            f'[host.{_toml(mirror)}]\n  capabilities = ["pull", "resolve"]\n'
        )
        files.append((f"/etc/containerd/certs.d/{host}/hosts.toml", text, "0644"))
    return files


def _toml(text: str) -> str:
    """A text, or a quoted key, as TOML writes it: JSON's escapes are TOML's (toml.io, v1.0.0, "String")."""
    return json.dumps(text).replace("\x7f", "\\u007f")


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
