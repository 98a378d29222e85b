#!/bin/bash
# Every node: the lesson's settings, then binaries and images from the server in the room.
set -euo pipefail
swapoff -a || true
printf 'overlay\nbr_netfilter\n' > /etc/modules-load.d/k8s.conf
modprobe overlay
modprobe br_netfilter
printf 'net.ipv4.ip_forward=1\nnet.bridge.bridge-nf-call-iptables=1\n' > /etc/sysctl.d/k8s.conf
sysctl --system > /dev/null
printf '192.168.56.11 cp1\n192.168.56.21 w1\n192.168.56.22 w2\n' >> /etc/hosts
# The box holds everything; a hand-out's machine does not. What klab baked in is thrown away first.
systemctl stop containerd || true
rm -rf /var/lib/containerd /usr/bin/kubeadm /usr/bin/kubelet /usr/bin/kubectl
mkdir -p /tmp/packages
curl -fsS "$1/packages" | while read -r package; do
    curl -fsS -o "/tmp/packages/$package" "$1/$package"
done
DEBIAN_FRONTEND=noninteractive dpkg --force-confold -i /tmp/packages/*.deb
systemctl stop containerd || true
for program in kubeadm kubelet kubectl; do
    curl -fsS -o "/usr/bin/$program" "$1/$program"
    chmod 755 "/usr/bin/$program"
done
systemctl enable --now containerd
curl -fsS -o /tmp/images.tar "$1/images.tar"
ctr -n k8s.io images import /tmp/images.tar
rm /tmp/images.tar
systemctl enable --now kubelet
