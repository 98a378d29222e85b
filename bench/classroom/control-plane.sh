#!/bin/bash
# The control plane, as in the hand-out: init, kubectl for the user, flannel, a token that the workers know.
set -euo pipefail
curl -fsS -o /root/init.yaml "$1/init.yaml"
mkdir -p /etc/kubernetes
curl -fsS "$1/pki.tar" | tar x -C /etc/kubernetes
kubeadm init --config /root/init.yaml
export KUBECONFIG=/etc/kubernetes/admin.conf
mkdir -p /etc/cni/net.d
curl -fsS -o /etc/cni/net.d/10-flannel.conflist "$1/10-flannel.conflist"
kubectl apply -f "$1/kube-flannel.yml"
kubectl get nodes
