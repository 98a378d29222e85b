"""`klab doctor LAB`: what can be wrong is made wrong on real nodes, found, and repaired by the commands it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.trouble import STALE_CLOCK, await_findings, await_health, heal, repair

if TYPE_CHECKING:
    from support.real_lab import Lab

ETCDCTL = (
    "etcdctl --endpoints=https://127.0.0.1:2379 --command-timeout=60s --cacert=/etc/kubernetes/pki/etcd/ca.crt "
    "--cert=/etc/kubernetes/pki/etcd/server.crt --key=/etc/kubernetes/pki/etcd/server.key"
)
QUOTA = f"""
file=/etc/kubernetes/manifests/etcd.yaml
cp $file /root/etcd.yaml
quota=$(( $(stat -c %s /var/lib/etcd/member/snap/db) + (16 << 20) ))
sed "s/^    - --data-dir=/    - --quota-backend-bytes=$quota\\n&/" /root/etcd.yaml > /root/etcd-small.yaml
mv /root/etcd-small.yaml $file
until tr '\\0' ' ' < /proc/$(pgrep -xo etcd)/cmdline | grep -q "quota-backend-bytes=$quota"; do sleep 1; done
until {ETCDCTL} endpoint health > /dev/null 2>&1; do sleep 1; done
head -c 700000 /dev/urandom | base64 -w 0 > /root/junk
for _ in $(seq 60); do {ETCDCTL} put junk < /root/junk > /dev/null 2>&1 || break; done
{ETCDCTL} alarm list
"""

# Waits: a kubelet that is restarted while the API server hangs restarts its own waits.
RESTORED = f"""
{ETCDCTL} del junk
mv /root/etcd.yaml /etc/kubernetes/manifests/etcd.yaml
while tr '\\0' ' ' < /proc/$(pgrep -xo etcd || echo self)/cmdline | grep -q quota-backend-bytes; do sleep 1; done
until {ETCDCTL} endpoint health > /dev/null 2>&1; do sleep 1; done
"""


def test_a_healthy_lab_is_called_healthy(lab: Lab) -> None:
    heal(lab)  # what the tests before may have left: a cordoned node, a pod that is not yet back
    assert "is healthy" in lab.klab("doctor", lab.name).stdout


def test_broken_nodes_are_found_and_repaired(lab: Lab) -> None:
    coredns = lab.on("w1", "ctr -n k8s.io images ls -q | grep '/coredns:'").split()[0]
    lab.on(
        "w1",
        "fallocate -l 64M /swapfile; chmod 600 /swapfile; mkswap /swapfile > /dev/null; swapon /swapfile; "
        f"ctr -n k8s.io images rm {coredns} > /dev/null; systemctl disable --now kubelet 2> /dev/null",
    )
    lab.on(
        "w2",
        f"{STALE_CLOCK}; systemctl restart chrony 2> /dev/null; "
        "date -s '+30 seconds' > /dev/null; rm /etc/cni/net.d/10-flannel.conflist; "
        # 82 %: from 84 % on the kubelet evicts pods and reports DiskPressure for five of the guests' minutes.
        "set -- $(df --output=size,avail -k / | tail -n 1); fallocate -l $(( $2 - $1 * 17 / 100 ))K /filler",
    )
    lab.kubectl("delete", "secret", "-n", "kube-system", "--field-selector=type=bootstrap.kubernetes.io/token")
    found = await_findings(
        lab,
        *(("kubelet", "w1"), ("swap", "w1"), ("images", "w1"), ("token", "")),
        *(("chrony", "w2"), ("clocks", "w2"), ("network", "w2"), ("disk", "w2")),
    )
    assert lab.klab("doctor", lab.name, check=False).returncode == 9
    assert coredns in found["images", "w1"]["evidence"]
    # What may go from a full disk only a person can say; the command shows what takes most.
    assert "/filler" in repair(lab, found["disk", "w2"]).stdout
    lab.on("w2", "rm /filler")
    heal(lab)
    lab.on("w1", "rm /swapfile")
    assert lab.on("w1", "systemctl is-enabled kubelet").strip() == "enabled"


def test_a_broken_control_plane_is_found_and_repaired(lab: Lab) -> None:
    assert "NOSPACE" in lab.on("cp1", QUOTA)
    lab.on("cp1", "mv /etc/kubernetes/manifests/kube-scheduler.yaml /root/")
    refused = lab.klab("kubectl", lab.name, "--", "create", "configmap", "full", check=False)
    assert refused.returncode != 0
    found = await_findings(lab, ("etcd", ""), ("static pods", "cp1"))
    assert "NOSPACE" in found["etcd", ""]["evidence"]
    heal(lab)
    lab.kubectl("create", "configmap", "full")
    lab.on("cp1", RESTORED)
    await_health(lab)
