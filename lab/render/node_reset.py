"""How a node leaves its cluster and lives on, and how it comes back: scripts for root's shell on it.

`kubeadm reset` leaves what is not kubeadm's: configuration, interfaces and addresses of the pod network, rules of
kube-proxy and of CNI plug-ins. It is found by the names of all pod networks that klab knows, whichever the lab has: a
student may have brought another. The container runtime, its images and the load balancer stay.
Source: kubernetes.io, "kubeadm reset" and "Creating a cluster with kubeadm", Clean up; proxy/nftables/proxier.go.
"""

from __future__ import annotations

from collections.abc import Iterable

from lab.components.cluster import File
from lab.components.cni import network, networks
from lab.components.runtime import runtime
from lab.plan.model import Node, Plan
from lab.render.cloudinit import node_files
from lab.render.kubectl import render_take
from lab.render.node_script import UNIT
from lab.render.secrets import Secrets

LOCK = "/run/klab-reset.lock"
# Where a kubelet that kubeadm has given a configuration finds it: up to then the unit would only fail, again and again.
KUBELET_CONFIG = "/var/lib/kubelet/config.yaml"
KUBELET_DROP_IN = File(
    "/etc/systemd/system/kubelet.service.d/30-klab-member.conf", f"[Unit]\nConditionPathExists={KUBELET_CONFIG}\n"
)
FOLDERS = (
    *("/etc/kubernetes", "/var/lib/cni", "/var/lib/kubelet", "/var/lib/etcd"),
    *("/var/log/containers", "/var/log/pods", "/etc/klab"),
)
# kube-proxy's and the kubelet's own, and those of CNI's plug-in portmap.
LINKS = ("kube-ipvs0",)
TABLES = ("ip kube-proxy", "ip6 kube-proxy")
CHAINS = ("KUBE-", "CNI-")

# Ends each file in a script; no file that klab renders has such a line.
_END = "KLAB_END_OF_FILE"

# A function, called by the last line: a shell that was sent only half of it does nothing.
# The lock: an earlier run that klab was cut off from may still be at work on the node.
_RESET = """\
busy() {{
    find /sys/fs/cgroup -path '*kubepods*' -name cgroup.procs -exec cat {{}} + 2> /dev/null | grep -q .
}}
reset() {{
set -u
exec 9> {lock}
flock 9
log=/var/log/klab-kubeadm.log
# A join that has not finished ends here.
systemctl --quiet stop {unit}
systemctl --quiet reset-failed {unit} 2> /dev/null
{copies}for _ in 1 2; do
    kubeadm reset --force --cri-socket {socket} >> "$log" 2>&1 ||
        {{ echo "kubeadm reset failed" >&2; tail -n 10 "$log" >&2; exit 1; }}
    systemctl --quiet stop kubelet
    # Of containers that it cannot remove kubeadm only warns.
    busy || break
done
if busy; then echo "containers of pods still run" >&2; tail -n 10 "$log" >&2; exit 1; fi
set -e
rm -rf --one-file-system {folders}
mkdir -p /etc/kubernetes/manifests /etc/cni/net.d
find /etc/cni/net.d -mindepth 1 -delete
for link in {links}; do
    # One may go together with another.
    [ ! -e "$link" ] || ip link delete "${{link##*/}}" 2> /dev/null || [ ! -e "$link" ]
done
for table in {tables}; do
    nft delete table ${{table%:*}} "${{table#*:}}" 2> /dev/null || true
done
for family in iptables ip6tables; do
    rules=$($family-save 2> /dev/null)
    ! printf '%s\\n' "$rules" | grep -qE '{chains}' ||
        printf '%s\\n' "$rules" | grep -vE '{chains}' | $family-restore
done
{files}systemctl daemon-reload
systemctl --quiet enable kubelet
# It watches CNI's folder, and no longer does where somebody has deleted that and made another.
systemctl restart {runtime}
sync
}}
reset
"""

_JOIN = f"""\
chmod 700 /etc/klab
systemctl daemon-reload
systemctl restart {UNIT}
"""


def render_reset(plan: Plan, node: Node) -> str:
    """The script after which a node is as it was just before it joined. Idempotent.

    kubeadm then finds all that a join by hand needs: the pod network's files are those of a node whose cluster the
    student makes, and the kubelet is enabled, though it starts only with a configuration of kubeadm's.
    """
    known, kubernetes = networks().values(), plan.kubernetes
    containers = runtime(kubernetes.runtime)
    return _RESET.format(
        lock=LOCK,
        unit=UNIT,
        copies=render_take(plan),
        runtime=" ".join(containers.units_for(kubernetes.versions.minor)),
        socket=containers.socket(kubernetes.versions.minor),
        folders=" ".join(dict.fromkeys((*FOLDERS, *(folder for each in known for folder in each.leftovers)))),
        links=" ".join(
            dict.fromkeys(f"/sys/class/net/{link}" for link in (*(li for each in known for li in each.links), *LINKS))
        ),
        tables=" ".join(table.replace(" ", ":") for table in (*TABLES, *(t for each in known for t in each.tables))),
        chains="|".join((*CHAINS, *(each.chains for each in known if each.chains))),
        files=_put([KUBELET_DROP_IN, *network(kubernetes.cni).prepared_files(plan, node)]),
    )


def render_rejoin(plan: Plan, node: Node, secrets: Secrets, *, slow_host: bool) -> str:
    """The script that lets a node that was reset join by itself, as in its first boot. It returns at once.

    Args:
        plan: the lab.
        node: the node.
        secrets: with a token that is valid; a worker gets no CA key.
        slow_host: stretch kubeadm's time limits for a host without hardware virtualization.
    """
    files = node_files(plan, node, secrets, slow_host=slow_host, joining=True, again=True)
    return f"set -eu\numask 077\n{_put(files)}{_JOIN}"


def _put(files: Iterable[File]) -> str:
    """The part of a script that writes files."""
    return "".join(
        f"install -D -m {file.mode} /dev/stdin {file.path} <<'{_END}'\n{file.content}{_END}\n" for file in files
    )
