"""The CNI project's reference plug-ins: a bridge on each node, and routes from node to node. No daemon, no manifest.

Which addresses a node's pods have follows from the node's own address, so every node knows all routes before the
first of them boots. systemd-networkd keeps the routes (a drop-in to the file that cloud-init has written for the
lab's NIC); a unit of klab's keeps the one rule by which pods reach what is outside their network. The node tells
the API server its range itself, as its kubelet, and kube-controller-manager assigns none. Decision 0401 explains why.
Sources: cni.dev/plugins/current (bridge, host-local, portmap); systemd.network(5); nft(8);
kubernetes, plugin/pkg/admission/noderestriction and pkg/apis/core/validation (spec.podCIDRs is set once).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Network

from lab.components.cluster import LAB_INTERFACE, Cluster, File, Node
from lab.components.cni.base import Commands, Observed, PodNetwork, Problem

CNI_FILE = "/etc/cni/net.d/10-bridge.conflist"
# cloud-init writes 10-cloud-init-NIC.network (cloudinit/net/networkd.py).
ROUTES_FILE = f"/etc/systemd/network/10-cloud-init-{LAB_INTERFACE}.network.d/klab-pods.conf"
RULES_FILE = "/etc/nftables/klab-pods.nft"
UNIT = "klab-pods"
UNIT_FILE = f"/etc/systemd/system/{UNIT}.service"
# A node's part is no larger than kube-controller-manager would make it, and has room for some pods.
LARGEST_PART = 24
SMALLEST_PART = 26
MULTICAST = "224.0.0.0/4"

_UNIT = f"""\
[Unit]
Description=klab: pods reach what is outside their network under the node's address
Before=kubelet.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f {RULES_FILE}

[Install]
WantedBy=multi-user.target
"""

_TELL = """\
# As its kubelet the node tells the cluster which addresses its pods have.
say network begin
work=$(mktemp -d)
for attempt in $(seq {attempts}); do
    kubectl --kubeconfig=/etc/kubernetes/kubelet.conf --cache-dir="$work" \\
        patch node {name} -p '{patch}' > "$work/log" 2>&1 && break
    [ "$attempt" = {attempts} ] && fail network "the API server does not take the node's range of pods" "$work/log"
    sleep 2
done
rm -rf "$work"
say network done
"""
ATTEMPTS = 120  # two seconds apart: the kubelet registers the node soon after kubeadm has ended


class Bridge(PodNetwork):
    """bridge, host-local and portmap, which Debian packs."""

    name = "bridge"
    summary = "routes between the nodes, no daemon"
    packages = ("containernetworking-plugins", "nftables")
    listed = False
    units = (UNIT,)
    cni_file = CNI_FILE
    links = ("cni0",)

    def refusal(self, pods: IPv4Network, lab: IPv4Network) -> str:
        least = SMALLEST_PART - (lab.max_prefixlen - lab.prefixlen)
        if pods.prefixlen <= least:
            return ""
        return (
            f"the pod network bridge has a part of the pods' range for each address of {lab}: "
            f"a /{least} or wider is needed; given: /{pods.prefixlen}"
        )

    def controller_manager_flags(self) -> Mapping[str, str]:
        return {"allocate-node-cidrs": "false"}

    def seed_files(self, cluster: Cluster, node: Node) -> Sequence[File]:
        return (
            File(CNI_FILE, cni_configuration(pods_of(cluster, node))),
            File(ROUTES_FILE, routes(cluster, node)),
            File(RULES_FILE, rules(cluster)),
            File(UNIT_FILE, _UNIT),
        )

    def prepared_files(self, cluster: Cluster, node: Node) -> Sequence[File]:
        return self.seed_files(cluster, node)

    def before_kubeadm(self, cluster: Cluster, node: Node) -> str:
        return f"systemctl --quiet enable --now {UNIT}\n{set_routes(cluster, node)}\n"

    def prepare(self, cluster: Cluster, node: Node) -> str:
        return self.before_kubeadm(cluster, node)

    def after_kubeadm(self, cluster: Cluster, node: Node) -> str:
        pods = str(pods_of(cluster, node))
        patch = json.dumps({"spec": {"podCIDR": pods, "podCIDRs": [pods]}})
        return _TELL.format(attempts=ATTEMPTS, name=node.name, patch=patch)

    def updates(self, cluster: Cluster, node: Node) -> Sequence[tuple[File, str]]:
        return ((File(ROUTES_FILE, routes(cluster, node)), set_routes(cluster, node)),)

    def problems(self, seen: Observed, commands: Commands) -> Iterator[Problem]:
        if CNI_FILE not in seen.state.cni:
            evidence = f"{CNI_FILE} is missing; there is {', '.join(seen.state.cni) or 'no other'}"
            what = "its CNI configuration is missing, so no pod gets a network"
            yield Problem(what, evidence, commands.recreate_node(seen.node), follows=False)
        unit = seen.state.unit(UNIT)
        if unit.active != "active":
            repair = commands.ssh(seen.node, f"sudo systemctl restart {UNIT}")
            what = "its pods reach nothing outside the pod network"
            yield Problem(what, f"{UNIT}.service: {unit.active}", repair)


COMPONENT = Bridge()


def pods_of(cluster: Cluster, node: Node) -> IPv4Network:
    """The range of a node's pods: of as many parts as the lab's network has addresses, the one at the node's own."""
    pods, lab = cluster.kubernetes.pod_cidr, cluster.networks.cidr
    part = max(LARGEST_PART, pods.prefixlen + lab.max_prefixlen - lab.prefixlen)
    offset = int(node.address) - int(lab.network_address)
    return IPv4Network((int(pods.network_address) + offset * 2 ** (pods.max_prefixlen - part), part))


def cni_configuration(pods: IPv4Network) -> str:
    """The node's CNI configuration."""
    config = {
        "name": "klab",
        "cniVersion": "0.3.1",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isDefaultGateway": True,
                "hairpinMode": True,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": str(pods)}]]},
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    return json.dumps(config, indent=2) + "\n"


def routes(cluster: Cluster, node: Node) -> str:
    """The part of systemd-networkd's configuration that leads to the pods of the other nodes."""
    parts = ["# The pods of the lab's other nodes.\n"]
    parts += [f"[Route]\nDestination={pods}\nGateway={gateway}\n" for pods, gateway in _others(cluster, node)]
    return "\n".join(parts)


def set_routes(cluster: Cluster, node: Node) -> str:
    """The shell command that sets the same routes now, and drops those of nodes that are gone.

    systemd-networkd would only read its file again if it configured the NIC again, which takes the virtual IP
    from the load balancer.
    """
    to, wanted = f"dev {LAB_INTERFACE} proto static", _others(cluster, node)
    kept = "".join(f" {pods}" for pods, _ in wanted)
    lines = [f"ip route replace {pods} via {gateway} {to}" for pods, gateway in wanted]
    drop = f'case "{kept} " in *" $pods "*) ;; *) ip route del "$pods" {to} ;; esac'
    lines.append(f"ip -4 route show {to} root {cluster.kubernetes.pod_cidr} |")
    lines.append(f"    while read -r pods _; do {drop}; done")
    return "\n".join(lines)


def rules(cluster: Cluster) -> str:
    """nftables' rule for what pods send to the outside."""
    pods = cluster.kubernetes.pod_cidr
    return f"""\
table ip klab-pods
delete table ip klab-pods
table ip klab-pods {{
    chain postrouting {{
        type nat hook postrouting priority srcnat
        ip saddr {pods} ip daddr != {{ {pods}, {MULTICAST} }} masquerade
    }}
}}
"""


def _others(cluster: Cluster, node: Node) -> list[tuple[IPv4Network, str]]:
    """The pods' range of each other node and that node's address."""
    return [(pods_of(cluster, each), str(each.address)) for each in cluster.nodes if each.name != node.name]
