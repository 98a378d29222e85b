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

(
    until [ -e /run/flannel/subnet.env ]; do sleep 0.5; done
    install -D -m 644 /etc/klab/cni.conflist /etc/cni/net.d/10-flannel.conflist
) &
cni=$!

log=/var/log/klab-kubeadm.log
mkdir -p /etc/kubernetes
for attempt in 1 2 3; do
    say join begin "attempt $attempt"
    :
    if kubeadm join --config /etc/klab/kubeadm.yaml >> "$log" 2>&1; then
        break
    fi
    [ "$attempt" = 3 ] && fail join "kubeadm join failed $attempt times" "$log"
    say join retry "kubeadm join failed"
    tail -n 5 "$log" | cut -c -300 | sed 's/^/klab| /' > /dev/ttyS0
    kubeadm reset --force --cri-socket /var/run/dockershim.sock >> "$log" 2>&1
    sleep 5
done
systemctl --quiet enable kubelet
say join done

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
touch /etc/cloud/cloud-init.disabled
rm -rf /var/lib/cloud/instances/* /var/lib/cloud/instance /var/lib/cloud/seed /etc/klab
rm -f /run/cloud-init/instance-data* /run/cloud-init/combined-cloud-config.json /var/log/cloud-init-output.log
sync
say clean done
