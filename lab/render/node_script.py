"""The script that each node runs once, by itself, at its first boot (/etc/klab/node.sh).

It reports on the serial console, which the host reads without a network:

    klab: PHASE STATE [text]     PHASE  boot, init, join, network, clean
                                 STATE  begin, done, retry, failed
    klab| a line of a log        after `failed`

cloud-init's bootcmd writes the first such line. A node that is cut off half-way runs the
script again at its next boot: an unfinished kubeadm is reset and tried again.

A node that was reset runs it once more when klab lets it join again.

klab's own box has a unit that runs it; on a cloud image the seed brings one, which goes with it.
"""

from __future__ import annotations

from lab.components.cni import network
from lab.components.kubernetes.proxy import MODES
from lab.components.runtime import runtime
from lab.plan.model import Node, Plan
from lab.render.kubeadm import FIRST_ONLY_PHASES, JOIN_COMMAND_PHASE, PATIENT_GOGC
from lab.render.kubectl import render_give

NODE_SCRIPT = "/etc/klab/node.sh"
UNIT = "klab-node"
UNIT_FILE = f"/etc/systemd/system/{UNIT}.service"
CONSOLE = "/dev/ttyS0"
MARK = "klab:"
LOG_MARK = "klab|"
ATTEMPTS = 3

_HEAD = """\
#!/bin/bash
# Made by klab. Runs once, as root, when the node has read its seed; gone afterwards.
set -uo pipefail
say() { echo "klab: $*" > /dev/ttyS0; }
fail() {
    say "$1" failed "$2"
    tail -n 25 "$3" 2>/dev/null | cut -c -300 | sed 's/^/klab| /' > /dev/ttyS0
    exit 1
}
"""
_FIRST_BOOT = """\
say boot done

# chrony's sources came with the seed, after systemd had read its units.
systemctl daemon-reload
systemctl restart chrony
"""

_PLAIN = """\
# The lesson starts from an empty machine: nothing of Kubernetes runs or is configured.
systemctl disable --now {runtime} docker-registry kubelet > /dev/null 2>&1
rm -f /etc/modules-load.d/klab.conf /etc/sysctl.d/99-klab.conf
sysctl -q -w net.ipv4.ip_forward=0
modprobe -q -r br_netfilter
"""

# SELinux keeps systemd from starting a file in /etc, but not bash from reading it. `simple`: no boot waits for it.
NODE_UNIT = f"""\
# Made by klab. Gone when the node has read its seed.
[Unit]
Description=klab: this node's part of the lab
ConditionPathExists={NODE_SCRIPT}

[Service]
Type=simple
ExecStart=/bin/bash {NODE_SCRIPT}

[Install]
WantedBy=multi-user.target
"""
# By cloud-init's runcmd, one after the other. Enabled: what a power failure cuts off is done at the next boot.
START_NODE = (
    ("systemctl", "daemon-reload"),
    ("systemctl", "enable", UNIT),
    ("systemctl", "start", "--no-block", UNIT),
)

_OWN_CLOCK = """\
# On this host the machines' clocks are slow, all of them alike: a time server's would make this one jump.
timedatectl set-ntp false > /dev/null 2>&1
"""

_MODULES = """\
# For this mode of kube-proxy. At later boots systemd loads them.
modprobe -a {modules}
"""

_CGROUP_V1 = """\
# This kubelet looks for cgroup v1.
[ "$(stat -f -c %T /sys/fs/cgroup)" = tmpfs ] ||
    fail {phase} "Kubernetes {version} needs cgroup v1, and the box has started with v2" /proc/cmdline
"""

_KUBEADM = """\
log=/var/log/klab-kubeadm.log
mkdir -p /etc/kubernetes
for attempt in {attempts}; do
    say {phase} begin "attempt $attempt"
    {prepare}
    if kubeadm {command} >> "$log" 2>&1; then
        break
    fi
    [ "$attempt" = {last} ] && fail {phase} "kubeadm {phase} failed $attempt times" "$log"
    say {phase} retry "kubeadm {phase} failed"
    tail -n 5 "$log" | cut -c -300 | sed 's/^/klab| /' > /dev/ttyS0
    kubeadm reset --force --cri-socket {socket} >> "$log" 2>&1
    sleep 5
done
systemctl --quiet enable kubelet
say {phase} done
"""

_CLEAN = """\
# What the seed held must not stay behind: not the seed's copies, not the files made from it.
say clean begin
for _ in $(seq 300); do
    [ -e /run/cloud-init/result.json ] && break
    # A power failure in the last lines of this script: cloud-init does not run again.
    [ -e /etc/cloud/cloud-init.disabled ] && break
    sleep 1
done
[ -e /run/cloud-init/result.json ] || [ -e /etc/cloud/cloud-init.disabled ] ||
    fail clean "cloud-init did not finish" /var/log/cloud-init.log
"""
_FORGET = """\
touch /etc/cloud/cloud-init.disabled
rm -rf /var/lib/cloud/instances/* /var/lib/cloud/instance /var/lib/cloud/seed /etc/klab
rm -f /run/cloud-init/instance-data* /run/cloud-init/combined-cloud-config.json /var/log/cloud-init-output.log
"""
_FORGET_UNIT = f"""\
systemctl -q disable {UNIT} > /dev/null 2>&1
rm -f {UNIT_FILE}
"""
_DONE = """\
sync
say clean done
"""


def render_node_script(
    plan: Plan, node: Node, *, slow_host: bool = False, joining: bool = False, again: bool = False
) -> str:
    """The script for one node, by role and by how far klab is to go.

    Args:
        plan: the lab.
        node: the node that will run it.
        slow_host: the host is slow; see `lab.render.kubeadm.render_patches`.
        joining: the cluster is there already; a control plane joins it, too.
        again: the node's first boot is over; see `lab.render.cloudinit.node_files`.
    """
    if plan.cloud_image:
        clock = [_OWN_CLOCK] if slow_host else []
        return "\n".join([_HEAD, "say boot done\n", *clock, _CLEAN + _FORGET + _FORGET_UNIT + _DONE])
    parts = [_HEAD, "" if again else _FIRST_BOOT]
    containers = runtime(plan.kubernetes.runtime)
    if plan.bootstrap == "none":
        parts.append(_PLAIN.replace("{runtime}", " ".join(containers.boxed)))
    else:
        parts.append(containers.prepare(plan.kubernetes.versions.minor))
        if modules := MODES[plan.kubernetes.proxy_mode].modules:
            parts.append(_MODULES.format(modules=" ".join(modules)))
    pods = network(plan.kubernetes.cni)
    if plan.bootstrap == "prepared":
        parts.append(pods.prepare(plan, node))
    if plan.bootstrap == "full":
        parts.append(_cgroup(plan, _phase(node, joining)))
        parts.append(_balancer(plan, node))
        parts.append(pods.before_kubeadm(plan, node))
        if slow_host:
            parts.append(f"export GOGC={PATIENT_GOGC}\n")
        parts.append(_kubeadm(plan, node, joining=joining))
        parts.append(pods.after_kubeadm(plan, node))
    return "\n".join([*(part for part in parts if part), _CLEAN + _for_people(plan, node) + _FORGET + _DONE])


def _for_people(plan: Plan, node: Node) -> str:
    """What makes kubectl of use to who logs in; cloud-init, which makes the users, has finished."""
    return render_give() if plan.bootstrap == "full" and node.is_control_plane else ""


def _phase(node: Node, joining: bool) -> str:
    return "init" if node.is_control_plane and not joining else "join"


def _cgroup(plan: Plan, phase: str) -> str:
    versions = plan.kubernetes.versions
    return "" if versions.features.cgroup_v2 else _CGROUP_V1.format(phase=phase, version=versions.version)


def _balancer(plan: Plan, node: Node) -> str:
    if plan.load_balancer is None or node.name not in plan.load_balancer.nodes:
        return ""
    return "systemctl enable --now haproxy keepalived > /dev/null 2>&1\n\n"


def _kubeadm(plan: Plan, node: Node, *, joining: bool) -> str:
    # `kubeadm reset` deletes /etc/kubernetes/pki; each attempt starts from the seed's copy.
    phase = _phase(node, joining)
    command = f"{phase} --config /etc/klab/kubeadm.yaml"
    if phase == "init":
        command += " --skip-token-print"
        if node != plan.control_planes[0]:
            last = (JOIN_COMMAND_PHASE,) if plan.kubernetes.versions.features.join_command else ()
            command += f" --skip-phases={','.join((*FIRST_ONLY_PHASES, *last))}"
    return _KUBEADM.format(
        attempts=" ".join(str(i + 1) for i in range(ATTEMPTS)),
        last=ATTEMPTS,
        phase=phase,
        prepare="cp -r /etc/klab/pki /etc/kubernetes/" if node.is_control_plane else ":",
        socket=runtime(plan.kubernetes.runtime).socket(plan.kubernetes.versions.minor),
        command=command,
    )
