"""What a node that runs must learn when the lab has grown or shrunk: a script for root's shell on it."""

from __future__ import annotations

from lab.components.cni import network
from lab.plan.model import Node, Plan
from lab.render.balancer import render_load_balancer
from lab.render.hosts import HOSTS_FILE, render_hosts
from lab.render.timekeeping import STALE_FILE, render_chrony

# Ends each file in the script; no file that klab renders has such a line.
_END = "KLAB_END_OF_FILE"

_HEAD = """\
set -eu
# Writes a file only where it differs, and says so by its exit code.
put() {
    mkdir -p "${1%/*}"
    cat > "$1.klab"
    if cmp -s "$1" "$1.klab"; then rm -f "$1.klab"; return 1; fi
    chmod 644 "$1.klab" && mv "$1.klab" "$1"
}
"""


def render_update(plan: Plan, node: Node) -> str:
    """The script that brings a node's names, time sources, pod network and load balancer to the plan. Idempotent."""
    parts = [_HEAD, _put(HOSTS_FILE, render_hosts(plan), ":")]
    parts += [f"rm -f {STALE_FILE}\n", "time=right\n"]
    parts += [_put(file.path, file.content, "time=wrong") for file in render_chrony(plan, node)]
    parts.append("if [ $time = wrong ]; then systemctl daemon-reload; systemctl restart chrony; fi\n")
    if plan.bootstrap != "none":
        parts += [
            _put(file.path, file.content, then) for file, then in network(plan.kubernetes.cni).updates(plan, node)
        ]
    balancer = plan.load_balancer
    if balancer is not None and node.name in balancer.nodes:
        for service, files in render_load_balancer(plan, balancer, node).items():
            again = f"systemctl -q try-reload-or-restart {service}"
            parts += [_put(path, content, again) for path, content in files.items()]
        parts.append("systemctl -q enable --now haproxy keepalived\n")
    elif balancer is not None:
        parts.append("systemctl -q disable --now haproxy keepalived\n")
    return "".join(parts)


def _put(path: str, content: str, then: str) -> str:
    return f"if put {path} <<'{_END}'\n{content}{_END}\nthen {then}\nfi\n"
