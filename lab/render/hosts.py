"""Names: what every node of a lab must agree on."""

from __future__ import annotations

from lab.plan.model import Plan

HOSTS_FILE = "/etc/hosts"


def render_hosts(plan: Plan) -> str:
    """The whole of /etc/hosts, the same on every node: each name leads to the lab's network, never to 127.0.1.1."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", ""]
    lines += [f"{n.address} {n.name}" for n in plan.nodes]
    if plan.load_balancer is not None:
        lines.append(f"{plan.load_balancer.vip} control-plane-endpoint")
    return "\n".join(lines) + "\n"
