#!/bin/bash
# Made by klab. Runs once, as root, when the node has read its seed; gone afterwards.
set -uo pipefail
say() { echo "klab: $*" > /dev/ttyS0; }
fail() {
    say "$1" failed "$2"
    tail -n 25 "$3" 2>/dev/null | cut -c -300 | sed 's/^/klab| /' > /dev/ttyS0
    exit 1
}

say boot done

# chrony's sources came with the seed, after systemd had read its units.
systemctl daemon-reload
systemctl restart chrony

systemctl --quiet enable docker
systemctl restart docker

systemctl enable --now haproxy keepalived > /dev/null 2>&1


(
    until [ -e /run/flannel/subnet.env ]; do sleep 0.5; done
    install -D -m 644 /etc/klab/cni.conflist /etc/cni/net.d/10-flannel.conflist
) &
cni=$!

log=/var/log/klab-kubeadm.log
mkdir -p /etc/kubernetes
for attempt in 1 2 3; do
    say init begin "attempt $attempt"
    cp -r /etc/klab/pki /etc/kubernetes/
    if kubeadm init --config /etc/klab/kubeadm.yaml --skip-token-print >> "$log" 2>&1; then
        break
    fi
    [ "$attempt" = 3 ] && fail init "kubeadm init failed $attempt times" "$log"
    say init retry "kubeadm init failed"
    tail -n 5 "$log" | cut -c -300 | sed 's/^/klab| /' > /dev/ttyS0
    kubeadm reset --force --cri-socket /var/run/dockershim.sock >> "$log" 2>&1
    sleep 5
done
systemctl --quiet enable kubelet
say init done

say network begin
wait "$cni"
say network done

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
# kubectl finds the cluster. A file in which somebody has other clusters, too, stays.
server=$(awk '$1 == "server:" { print $2; exit }' /etc/kubernetes/admin.conf)
for copy in /root/.kube/config /home/vagrant/.kube/config; do
    home=${copy%/.kube/config}
    [ -d "$home" ] || continue
    grep -s 'server: ' "$copy" | grep -qvF "server: $server" && continue
    owner=$(stat -c %u:%g "$home")
    mkdir -p "$home/.kube"
    chown "$owner" "$home/.kube"
    install -m 600 -o "${owner%:*}" -g "${owner#*:}" /etc/kubernetes/admin.conf "$copy"
done
touch /etc/cloud/cloud-init.disabled
rm -rf /var/lib/cloud/instances/* /var/lib/cloud/instance /var/lib/cloud/seed /etc/klab
rm -f /run/cloud-init/instance-data* /run/cloud-init/combined-cloud-config.json /var/log/cloud-init-output.log
sync
say clean done
