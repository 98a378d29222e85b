"""What only a node itself can tell: one small script over ssh, which prints KEY=VALUE (`node_report` reads it).

A slow guest pays for each program that starts there, so the script does with the shell's own
means what it can; the container runtime's client is the one Go program in it, and one curl asks all of a
control plane's programs. It reads and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from lab.cluster.observe.node_report import COMM_LENGTH, HEALTH, HEALTH_SECONDS, NodeReport, parse
from lab.components.cluster import LAB_INTERFACE
from lab.components.cni import networks
from lab.components.kubernetes.versions import Features
from lab.components.runtime import runtime, runtimes
from lab.errors import LabError
from lab.machines.protocol import Machines
from lab.plan.model import KubernetesPlan
from lab.render.renewal import TELL_CERTIFICATES
from lab.store import Record
from lab.waiting import map_parallel

ASK_SECONDS = 60.0
UNITS = (
    *("kubelet", "chrony", "docker-registry", "haproxy", "keepalived"),
    *(unit for each in runtimes().values() for unit in each.units),
    *(unit for each in networks().values() for unit in each.units),
)
LAST_KEY = "now="

_STATE_FILES = " ".join(each.state_file for each in networks().values() if each.state_file)

_SCRIPT = f"""\
export LC_ALL=C
read -r up _ < /proc/uptime; echo "begin=$up"
set --
for file in /proc/[0-9]*/comm; do
    read -r name < "$file" || continue
    case $name in
CASES    kubelet) ask= ;;
    *) continue ;;
    esac
    read -r stat < "${{file%comm}}stat" || continue
    echo "process=$name ${{stat##*) }}"
    [ -z "$ask" ] || set -- "$@" -o /dev/null "$ask"
done 2> /dev/null
[ $# -eq 0 ] || curl -qsk --parallel --max-time {HEALTH_SECONDS} -w 'health=%{{http_code}} %{{url}}\\n' "$@"
systemctl show --property=Id,LoadState,ActiveState,SubState,UnitFileState,Result {" ".join(UNITS)} |
    sed -e 's/^$/unit=/' -e t -e 's/^/unit./'
[ -e /etc/kubernetes/kubelet.conf ] && echo member=yes
systemctl -q is-active kubelet || echo "kubelet=$(journalctl -q -n 1 -o cat _SYSTEMD_UNIT=kubelet.service)"
df -P / | awk 'NR == 2 {{ sub("%", "", $5); print "disk=" $5; print "free=" $4 }}'
df -Pi / | awk 'NR == 2 {{ sub("%", "", $5); print "inodes=" $5 }}'
awk 'NR > 1 {{ print "swap=" $1 }}' /proc/swaps
ip -4 -o addr show dev {LAB_INTERFACE} | awk '{{ print "address=" $4 }}'
for file in {_STATE_FILES}; do [ -s "$file" ] && echo subnet=yes; done
for file in /etc/cni/net.d/*.conf*; do [ -s "$file" ] && echo "cni=$file"; done
stat -c 'manifest=%s %Y %n' /etc/kubernetes/manifests/*.yaml 2> /dev/null
{TELL_CERTIFICATES}if images=$(LIST_IMAGES 2> /dev/null); then
    echo images=seen
    printf '%s\\n' "$images" | sed 's/^/image=/'
fi
read -r up _ < /proc/uptime; echo "end=$up"
date +{LAST_KEY}%s.%N
"""


def probe(kubernetes: KubernetesPlan) -> str:
    """The script for nodes with that container runtime and version of Kubernetes."""
    urls = health(kubernetes.versions.features)
    cases = "".join(f"    {name[:COMM_LENGTH]}) ask={url} ;;\n" for name, url in urls.items())
    return _SCRIPT.replace("LIST_IMAGES", runtime(kubernetes.runtime).list_images).replace("CASES", cases)


def health(features: Features) -> dict[str, str]:
    """What the kubelet asks static pods, with kubeadm's manifests, before it calls them ready, by name.

    Source: kubernetes, cmd/kubeadm/app/phases/{etcd/local.go,controlplane/manifests.go} of each version.
    """
    ready = ("readyz", "readyz") if features.readyz else ("health", "healthz")
    paths = {"kube-apiserver": "readyz", "kube-controller-manager": "healthz"}
    paths |= dict(zip(("etcd", "kube-scheduler"), ready, strict=True))
    return {name: HEALTH[name] + paths[name] for name in HEALTH}


def ask_nodes(
    machines: Machines, record: Record, nodes: Sequence[str], kubernetes: KubernetesPlan
) -> dict[str, NodeReport | str]:
    """Ask nodes about themselves, side by side; one that does not answer is a text that tells why.

    Args:
        machines: the lab's.
        record: for the guests' clocks.
        nodes: names of machines that run.
        kubernetes: what runs on them.
    """
    asked = probe(kubernetes)
    return map_parallel(lambda name: _ask(machines, record, name, asked), nodes, most=16)


def _ask(machines: Machines, record: Record, name: str, asked: str) -> NodeReport | str:
    began = time.time()
    try:
        done = machines.ssh(name, ["sudo", "sh", "-s"], timeout=ASK_SECONDS, check=False, stdin=asked)
    except LabError as error:
        return "; ".join((error.message, *error.details[-1:]))
    if LAST_KEY not in done.stdout:
        return f"its report is incomplete: exit code {done.code}; {'; '.join(done.tail[-1:])}"
    return parse(done.stdout, record, began, time.time())
