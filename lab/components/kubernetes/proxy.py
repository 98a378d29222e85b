"""kube-proxy's modes: what does the work of services on a node, and from which Kubernetes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProxyMode:
    """One mode of kube-proxy.

    summary: what it is, in a few words of the scenario's reference.
    since: the first minor version whose kube-proxy has it without a feature gate.
    modules: kernel modules that a node loads for it.
    ipset: kube-proxy's image must have the program ipset.

    Source: kubernetes.io, "Virtual IPs and Service Proxies"; kubernetes, pkg/features/kube_features.go
    (NFTablesProxyMode) and pkg/proxy/ipvs/README.md.
    """

    summary: str
    since: tuple[int, int]
    modules: tuple[str, ...] = ()
    ipset: bool = False


MODES = {
    "iptables": ProxyMode("rules of iptables; with it, NodePorts answer on localhost, too", (1, 2)),
    "ipvs": ProxyMode(
        "the kernel's load balancer; deprecated since 1.35",
        (1, 11),
        modules=("ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh"),
        ipset=True,
    ),
    "nftables": ProxyMode("rules of nftables", (1, 31)),
}


def refusal(mode: str, minor: tuple[int, int]) -> str:
    """Why kube-proxy of a minor version does not work in a mode; empty if it does."""
    since = MODES[mode].since
    if minor >= since:
        return ""
    return (
        f"kube-proxy of Kubernetes {minor[0]}.{minor[1]} has the mode {mode} only behind a feature gate, if at all: "
        f"{since[0]}.{since[1]} or newer is needed, or another mode"
    )
