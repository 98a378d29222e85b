"""What shows on a node that it is a member of a cluster, looked at from outside klab."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.real_lab import Lab

# What `kubeadm join`, the kubelet, kube-proxy and flannel make on a node, a line each.
SHOW = r"""
find /etc/kubernetes /var/lib/kubelet /var/lib/etcd /var/lib/cni /run/flannel /etc/klab -type f 2> /dev/null
ls /sys/class/net | grep -E '^(cni|flannel|veth)'
nft list tables | grep -E 'kube|flannel'
{ iptables-save; ip6tables-save; } 2> /dev/null | grep -E 'KUBE|CNI-|FLANNEL'
ctr -n k8s.io containers ls -q
pgrep -a 'kubelet|kube-proxy|flanneld|pause'
ip route | grep -E 'cni0|flannel'
true
"""


def left_behind(lab: Lab, node: str) -> list[str]:
    """What a node has of a cluster, one line each."""
    return lab.on(node, SHOW).splitlines()


def await_ready(lab: Lab, node: str, seconds: float = 900) -> None:
    """Wait until the API server calls a node Ready."""
    until = time.monotonic() + seconds
    while True:
        said = lab.kubectl("get", "node", node, "-o", "json", check=False)
        conditions = json.loads(said)["status"]["conditions"] if said else []
        if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            return
        assert time.monotonic() < until, (node, conditions)
        time.sleep(2)
