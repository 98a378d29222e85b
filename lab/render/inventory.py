"""Where a lab's nodes are, for other programs: Ansible's inventory, an ssh configuration, lines for /etc/hosts.

Source: Ansible's documentation, "How to build your inventory" and the plugins inventory/yaml and
connection/ssh; ssh_config(5); hosts(5).
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from lab.plan.model import Node, Plan

# Debian's; without it Ansible looks for one at first contact and warns of what it found.
PYTHON = "/usr/bin/python3"
ENDPOINT = "control-plane-endpoint"  # what the nodes call the virtual IP; see lab.render.hosts
GROUPS = {"control_planes": "control-plane", "workers": "worker"}
# Ansible has variables of its own for these.
TOLD_APART = ("HostName", "User", "IdentityFile", "ConnectTimeout")


@dataclass(frozen=True, slots=True)
class Way:
    """How ssh gets to one node.

    `settings`: names and values of ssh_config(5), the values as they are in such a file.
    `proxy`: the command that connects its standard input and output to a port of the node, which is
    appended to it; empty where this machine reaches the node by itself.
    """

    settings: Mapping[str, str]
    proxy: tuple[str, ...] = ()

    @property
    def lines(self) -> dict[str, str]:
        """All of it by the names of ssh_config(5), in order."""
        if not self.proxy:
            return dict(self.settings)
        # ssh hands the line to a shell, after it has put the port for %p.
        command = shlex.join(self.proxy).replace("%", "%%")
        return {**self.settings, "ProxyCommand": f"{command} %p"}


def group_name(lab: str) -> str:
    """The group of a lab's nodes: Ansible wants no "-" and no digit first, and no lab's name has a "_"."""
    return "klab_" + lab.replace("-", "_")


def ansible_inventory(plan: Plan, lab_id: str, ways: Mapping[str, Way]) -> dict[str, Any]:
    """The inventory as data that is JSON and YAML alike.

    Args:
        plan: the lab.
        lab_id: what tells this lab from an earlier one of the same name.
        ways: how each node is reached, by the node's name.
    """
    groups = {
        group: {"hosts": {node.name: _host(node, lab_id, ways[node.name]) for node in plan.nodes if node.role == role}}
        for group, role in GROUPS.items()
    }
    address, port = plan.api_endpoint
    variables = {
        "klab_lab": plan.name,
        "klab_kubernetes_version": plan.kubernetes.version,
        "klab_network": str(plan.networks.cidr),
        "klab_api_endpoint": f"{address}:{port}",
    }
    if plan.load_balancer is not None:
        variables["klab_vip"] = str(plan.load_balancer.vip)
    return {"all": {"children": {group_name(plan.name): {"children": groups, "vars": variables}}}}


def render_ansible(plan: Plan, lab_id: str, ways: Mapping[str, Way]) -> str:
    """The inventory as a YAML file; see `ansible_inventory`."""
    comment = f"# The nodes of lab {plan.name}, for Ansible: ansible -i FILE all -m ping (FILE without .ini)\n"
    data = ansible_inventory(plan, lab_id, ways)
    return comment + yaml.safe_dump(data, sort_keys=False, width=10_000)  # no option is broken over two lines


def render_ssh(plan: Plan, ways: Mapping[str, Way]) -> str:
    """An ssh configuration; every node answers to NODE and to LAB-NODE, which stays clear beside other labs."""
    parts = [f"# The nodes of lab {plan.name}, for ssh and scp: ssh -F FILE {plan.nodes[0].name}\n"]
    for node in plan.nodes:
        lines = [f"Host {plan.name}-{node.name} {node.name}"]
        lines += [f"  {name} {value}" for name, value in ways[node.name].lines.items()]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def render_host_lines(plan: Plan) -> str:
    """Lines for /etc/hosts, the virtual IP included."""
    names = [(node.address, node.name) for node in plan.nodes]
    if plan.load_balancer is not None:
        names.append((plan.load_balancer.vip, ENDPOINT))
    lines = [f"# lab {plan.name}", *(f"{address} {plan.name}-{name} {name}" for address, name in names)]
    return "\n".join(lines) + "\n"


def _host(node: Node, lab_id: str, way: Way) -> dict[str, str | int]:
    digest = hashlib.sha256(f"{lab_id}/{node.name}".encode()).hexdigest()[:10]
    options = {name: value for name, value in way.lines.items() if name not in TOLD_APART}
    # -F none: a person's own ssh_config is for other hosts.
    words = ["-F", "none", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    return {
        "ansible_host": str(node.address),
        "ansible_user": way.settings["User"],
        # Ansible puts the quotes itself.
        "ansible_ssh_private_key_file": way.settings["IdentityFile"].strip('"'),
        "ansible_ssh_common_args": shlex.join(words),
        "ansible_ssh_timeout": int(way.settings["ConnectTimeout"]),
        # Ansible keeps connections open by address, and labs take turns at the same addresses.
        "ansible_control_path": f"%(directory)s/klab-{digest}",
        "ansible_python_interpreter": PYTHON,
        "klab_address": str(node.address),
        "klab_role": node.role,
    }
