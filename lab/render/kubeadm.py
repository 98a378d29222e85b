"""kubeadm's configuration for one node, in the API of the lab's Kubernetes version.

Source: kubeadm Configuration, kubernetes.io/docs/reference/config-api/kubeadm-config.v1beta4 (and v1beta3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.components.cni import network
from lab.components.runtime import runtime
from lab.plan.model import Node, Plan
from lab.render.secrets import Secrets
from lab.render.yamltext import dump, dump_all

ETCD_PEER_PORT = 2380
DNS_PROBE_SECONDS = 2
# Nodes that are not Ready yet count, too: the second pod waits for one of them.
DNS_APART = {
    "maxSkew": 1,
    "topologyKey": "kubernetes.io/hostname",
    "whenUnsatisfiable": "DoNotSchedule",
    "labelSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
}
# Go's garbage collector runs when the heap has grown by so many per cent; 100 by default (pkg.go.dev/runtime).
PATIENT_GOGC = "400"
PATCHES_FOLDER = "/etc/klab/patches"
# What only the first of several control planes does; all run `kubeadm init` with the same CAs.
FIRST_ONLY_PHASES = ("upload-config", "upload-certs", "bootstrap-token", "addon")
JOIN_COMMAND_PHASE = "show-join-command"
TOKEN_TTL = "24h0m0s"  # noqa: S105  (a duration)
CONTROL_PLANE_LIMIT = "controlPlaneComponentHealthCheck"
# Every default below is too short for a node that runs 15 times slower than it should.
PATIENT = {
    CONTROL_PLANE_LIMIT: "15m0s",
    "kubeletHealthCheck": "15m0s",
    "kubernetesAPICall": "10m0s",
    "etcdAPICall": "10m0s",
    "tlsBootstrap": "15m0s",
    "discovery": "30m0s",
}
# What kubeadm upgrade alone waits for: a component of the new version in the place of the old one.
UPGRADE_LIMIT = "upgradeManifests"
# Workers start to join before the API server exists; on any host they must outwait its start.
EAGER = {"discovery": "15m0s"}


def render_init(plan: Plan, node: Node, secrets: Secrets, *, slow_host: bool = False) -> str:
    """The file for `kubeadm init --config` on a control plane.

    Args:
        plan: the lab.
        node: the control plane.
        secrets: for the bootstrap token.
        slow_host: stretch the time limits for a host without hardware virtualization.
    """
    features = plan.kubernetes.versions.features
    limits = PATIENT if slow_host else EAGER
    return _documents(
        {
            "apiVersion": features.kubeadm_api,
            "kind": "InitConfiguration",
            "bootstrapTokens": [{"token": secrets.token, "ttl": TOKEN_TTL}],
            "localAPIEndpoint": {"advertiseAddress": str(node.address)},
            "nodeRegistration": _registration(plan, node),
            **({"timeouts": limits} if features.timeouts else {}),
            **({"patches": {"directory": PATCHES_FOLDER}} if features.patches else {}),
        },
        _cluster(plan, limits),
        *_components(plan),
    )


def render_join(plan: Plan, node: Node, secrets: Secrets, *, slow_host: bool = False) -> str:
    """The file for `kubeadm join --config`; arguments as in `render_init`.

    A control plane that joins finds the cluster's CAs on its disk: no certificate key is needed.
    """
    features = plan.kubernetes.versions.features
    limits = PATIENT if slow_host else EAGER
    address, port = plan.api_endpoint
    control = {"controlPlane": {"localAPIEndpoint": {"advertiseAddress": str(node.address)}}}
    return _documents(
        {
            **(control if node.is_control_plane else {}),
            "apiVersion": features.kubeadm_api,
            "kind": "JoinConfiguration",
            "discovery": {
                "bootstrapToken": {
                    "apiServerEndpoint": f"{address}:{port}",
                    "token": secrets.token,
                    "caCertHashes": [secrets.ca_hash],
                },
                **({} if features.timeouts else {"timeout": limits["discovery"]}),
            },
            "nodeRegistration": _registration(plan, node),
            **({"timeouts": limits} if features.timeouts else {}),
        }
    )


def render_upgrade(plan: Plan, *, slow_host: bool, patches: str = "") -> str:
    """The file for `kubeadm upgrade --config`, where kubeadm takes one (v1beta4).

    Certificates stay: klab signs a lab's (`klab certs renew`), and dates them by the host's clock.

    Args:
        plan: the lab, with the version that it is to have.
        slow_host: stretch the time limits for a host without hardware virtualization. There kubeadm does not ask
            first whether the cluster ends a Job within fifteen seconds.
        patches: the folder of patches on the node; none where it is empty.
    """
    features = plan.kubernetes.versions.features
    both = {
        "certificateRenewal": False,
        "imagePullPolicy": "IfNotPresent",
        **({"patches": {"directory": patches}} if patches else {}),
    }
    ignored = {"ignorePreflightErrors": ["CreateJob"]} if slow_host else {}
    limits = {**PATIENT, UPGRADE_LIMIT: "15m0s"}
    return _documents(
        {
            "apiVersion": features.kubeadm_api,
            "kind": "UpgradeConfiguration",
            "apply": {"kubernetesVersion": f"v{plan.kubernetes.version}", **both, **ignored},
            "node": both,
            **({"timeouts": limits} if slow_host else {}),
        }
    )


def _registration(plan: Plan, node: Node) -> dict[str, Any]:
    features = plan.kubernetes.versions.features
    registration: dict[str, Any] = {
        "name": node.name,
        "criSocket": runtime(plan.kubernetes.runtime).socket(plan.kubernetes.versions.minor),
        # All images are in the box; asking a registry first would only cost time.
        **({"imagePullPolicy": "IfNotPresent"} if features.pull_policy else {}),
        # Every node also has Vagrant's NIC; the kubelet must not pick that one.
        "kubeletExtraArgs": features.arguments({"node-ip": str(node.address)}),
    }
    if node.is_control_plane and not plan.workers:
        registration["taints"] = []
    return registration


def _cluster(plan: Plan, limits: Mapping[str, str]) -> dict[str, Any]:
    kubernetes, features = plan.kubernetes, plan.kubernetes.versions.features
    server: dict[str, Any] = {"certSANs": api_names(plan)}
    if not features.timeouts and CONTROL_PLANE_LIMIT in limits:
        server["timeoutForControlPlane"] = limits[CONTROL_PLANE_LIMIT]
    cluster: dict[str, Any] = {
        "apiVersion": features.kubeadm_api,
        "kind": "ClusterConfiguration",
        "clusterName": plan.name,
        "kubernetesVersion": f"v{kubernetes.version}",
        "networking": {
            "podSubnet": str(kubernetes.pod_cidr),
            "serviceSubnet": str(kubernetes.service_cidr),
            "dnsDomain": "cluster.local",
        },
        # RSA keys cost seconds each under emulation and buy nothing here.
        **features.ecdsa,
        "apiServer": server,
        **controller_manager(plan),
    }
    if plan.load_balancer is not None:
        address, port = plan.api_endpoint
        cluster["controlPlaneEndpoint"] = f"{address}:{port}"
    return cluster


def controller_manager(plan: Plan) -> dict[str, Any]:
    """A ClusterConfiguration's part for kube-controller-manager; nothing where the pod network asks for nothing."""
    flags = network(plan.kubernetes.cni).controller_manager_flags()
    arguments = plan.kubernetes.versions.features.arguments(flags)
    return {"controllerManager": {"extraArgs": arguments}} if flags else {}


def render_patches(plan: Plan, *, slow_host: bool = False) -> dict[str, str]:
    """kubeadm's patches for `kubeadm init`, by file name in PATCHES_FOLDER.

    CoreDNS is asked every two seconds whether it is ready, instead of every ten: the first
    question comes before it listens, and a lab is not Ready without DNS.

    With several control planes its two pods go to two nodes. kubeadm only prefers that: both go to
    the node that is Ready first, and when that loses its power no name resolves until Kubernetes
    moves them, six minutes later (seen: `klab start` after a lost quorum waited in vain for DNS).

    Several control planes form etcd from all members at once: no member ever waits alone for a
    quorum it has announced. A patch, not `extraArgs`: those would be in the cluster's
    configuration, and give a control plane that joins later the members of the first day. Of a
    flag given twice etcd takes the second.

    On a slow host, where guests are slow, the components collect garbage less often: memory
    that they would not need for processor time that they do.

    Source: kubernetes.io, "Customizing components with the kubeadm API"; targets in
    cmd/kubeadm/app/util/patches.
    """
    dns: dict[str, Any] = {"containers": [{"name": "coredns", "readinessProbe": {"periodSeconds": DNS_PROBE_SECONDS}}]}
    if plan.load_balancer is not None:
        dns["topologySpreadConstraints"] = [DNS_APART]
    patches = {}
    if plan.kubernetes.versions.features.patches_dns:
        patches["corednsdeployment+strategic.yaml"] = _documents({"spec": {"template": {"spec": dns}}})
    if slow_host:
        for component in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
            container = {"name": component, "env": [{"name": "GOGC", "value": PATIENT_GOGC}]}
            patches[f"{component}+strategic.yaml"] = _documents({"spec": {"containers": [container]}})
    if plan.load_balancer is not None:
        members = ",".join(f"{n.name}=https://{n.address}:{ETCD_PEER_PORT}" for n in plan.control_planes)
        flags = (f"--initial-cluster={members}", "--initial-cluster-state=new")
        added = [{"op": "add", "path": "/spec/containers/0/command/-", "value": flag} for flag in flags]
        patches["etcd+json.yaml"] = dump(added, width=200)
    return patches


def api_names(plan: Plan) -> list[str]:
    """Every name and address at which the API server may be addressed."""
    names = ["127.0.0.1", "localhost"]
    if plan.load_balancer is not None:
        names.append(str(plan.load_balancer.vip))
    for node in plan.control_planes:
        names += [node.name, str(node.address)]
    return names


def _components(plan: Plan) -> tuple[dict[str, Any], ...]:
    kubelet, proxy = "kubelet.config.k8s.io/v1beta1", "kubeproxy.config.k8s.io/v1alpha1"
    mode = plan.kubernetes.proxy_mode
    # Else every node answers ARP for the address of each LoadBalancer (kubernetes.io, kube-proxy Configuration).
    own = {"ipvs": {"strictARP": True}} if mode == "ipvs" else {}
    return (
        {"apiVersion": kubelet, "kind": "KubeletConfiguration", "cgroupDriver": "systemd"},
        {"apiVersion": proxy, "kind": "KubeProxyConfiguration", "mode": mode, **own},
    )


def _documents(*documents: dict[str, Any]) -> str:
    return dump_all(documents)
