#!/bin/bash
# A worker, as in the hand-out.
set -euo pipefail
mkdir -p /etc/cni/net.d
curl -fsS -o /etc/cni/net.d/10-flannel.conflist "$1"/10-flannel.conflist
curl -fsS -o /root/join.yaml "$1/join-$(hostname).yaml"
kubeadm join --config /root/join.yaml
