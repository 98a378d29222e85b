"""Names and time: what every node of a lab must agree on."""

from __future__ import annotations

from lab.plan.model import Node, Plan

HOSTS_FILE = "/etc/hosts"
CHRONY_FILE = "/etc/chrony/conf.d/klab.conf"
# Stratum of a node that serves the lab's time without a better source of its own (chrony.conf(5), local).
LOCAL_STRATUM = 8


def render_hosts(plan: Plan) -> str:
    """The whole of /etc/hosts, the same on every node: each name leads to the lab's network, never to 127.0.1.1."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", ""]
    lines += [f"{n.address} {n.name}" for n in plan.nodes]
    if plan.load_balancer is not None:
        lines.append(f"{plan.load_balancer.vip} control-plane-endpoint")
    return "\n".join(lines) + "\n"


def render_chrony(plan: Plan, node: Node) -> str:
    """chrony on one node: the lab's clocks agree, with or without a network outside.

    Control planes serve the time. Where the hypervisor offers its clock (KVM's PTP device)
    they follow that; otherwise the one that chrony's orphan mode elects sets the time for
    all. Workers follow the control planes. An offset above half a second is stepped at once.
    """
    peers = [n for n in plan.control_planes if n.name != node.name]
    lines = [f"server {n.address} iburst minpoll 1 maxpoll 3" for n in peers]
    lines += ["makestep 0.5 -1", "rtcsync"]
    if node.is_control_plane:
        lines += [f"allow {plan.networks.cidr}", f"local stratum {LOCAL_STRATUM} orphan"]
    return "\n".join(lines) + "\n"


PTP_REFCLOCK = "refclock PHC /dev/ptp0 poll 2 dpoll -2 offset 0 stratum 2\n"
