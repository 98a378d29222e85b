"""What a node says of itself: identity, size, and how it was prepared."""

from __future__ import annotations

from support.real_lab import Lab

FACTS = r"""
set -u
echo "hostname=$(hostname)"
echo "swap=$(tail -n +2 /proc/swaps | wc -l)"
echo "forward=$(cat /proc/sys/net/ipv4/ip_forward)"
echo "bridge=$(cat /proc/sys/net/bridge/bridge-nf-call-iptables)"
echo "br_netfilter=$(grep -c '^br_netfilter ' /proc/modules)"
echo "cpus=$(nproc)"
echo "memory=$(awk '/MemTotal/{print int($2/1024)}' /proc/meminfo)"
echo "disk=$(df --output=size -BG / | tail -n 1 | tr -dc 0-9)"
echo "uuid=$(cat /sys/class/dmi/id/product_uuid)"
echo "machine_id=$(cat /etc/machine-id)"
echo "macs=$(cat /sys/class/net/eth0/address /sys/class/net/eth1/address | tr '\n' ' ')"
echo "address=$(ip -4 -o addr show eth1 | awk '{print $4}')"
echo "kubelet_restarts=$(systemctl show -p NRestarts --value kubelet)"
echo "kubelet_enabled=$(systemctl is-enabled kubelet)"
echo "kubelet=$(kubelet --version)"
echo "containerd=$(containerd --version)"
echo "hostkey=$(cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub)"
"""


def facts(lab: Lab, node: str) -> dict[str, str]:
    """The values of FACTS by their names."""
    lines = lab.on(node, FACTS).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
