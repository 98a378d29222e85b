"""Kubernetes by version: what goes with one, and how kubeadm and kube-proxy of that version are to be told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from lab.components.cni import networks

FULL_VERSION = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4}){2}")
CONTROL_PLANE_TAINT = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
FORMER_TAINT = {"key": "node-role.kubernetes.io/master", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class Features:
    """How kubeadm and kube-proxy of one minor version are to be told what klab wants of every version.

    kubeadm_api: the newest API of kubeadm's configuration that is no experiment in it.
    proxy_mode: kube-proxy's mode where none is chosen; nftables once no feature gate has to be opened for it.
    rsa_service_account: a control plane that joins takes the service accounts' key as an RSA one only.
    ecdsa: what makes kubeadm's keys ECDSA ones, as part of a ClusterConfiguration; RSA ones where nothing does.
    timeouts: a configuration has a section with all of kubeadm's time limits.
    arguments_as_list: extra arguments are a list of names and values, so that one can be given twice.
    pull_policy: a node's registration tells whether images are pulled.
    patches: an InitConfiguration names a folder of patches.
    patches_dns: CoreDNS' deployment can be patched, too.
    join_command: kubeadm init ends with the phase show-join-command.
    readyz: etcd (3.5.11 and newer) and kube-scheduler say at /readyz whether they are ready; at other paths before.
    cgroup_v2: the kubelet knows cgroup v2; otherwise the node has to have v1.
    taints: what keeps pods from control planes.
    registry: where kubeadm looks for images.
    dns_image: the name of CoreDNS' image there, and what its tag has before the version.

    Sources: kubernetes.io, kubeadm Configuration (v1beta2, v1beta3, v1beta4), "Changes since"; kubernetes,
    cmd/kubeadm/app/{apis,util/patches,constants,features} and pkg/features/kube_features.go of each version;
    CHANGELOG-1.19 (85218, cgroup v2) and CHANGELOG-1.26 (111512, show-join-command).
    """

    kubeadm_api: str
    proxy_mode: str
    rsa_service_account: bool
    ecdsa: Mapping[str, Any]
    timeouts: bool
    arguments_as_list: bool
    pull_policy: bool
    patches: bool
    patches_dns: bool
    join_command: bool
    readyz: bool
    cgroup_v2: bool
    taints: tuple[Mapping[str, str], ...]
    registry: str
    dns_image: str

    def arguments(self, flags: Mapping[str, str]) -> Any:
        """Extra arguments of a program, by flag without dashes, as kubeadm's configuration has them."""
        if self.arguments_as_list:
            return [{"name": name, "value": value} for name, value in flags.items()]
        return dict(flags)


def features(minor: tuple[int, int]) -> Features:
    """What klab needs to know of a minor version, such as (1, 35)."""
    v1beta4 = minor >= (1, 31)
    v1beta3 = minor >= (1, 22)
    ecdsa_gate = minor >= (1, 19)
    current = "v1beta4" if v1beta4 else "v1beta3" if v1beta3 else "v1beta2"
    return Features(
        kubeadm_api=f"kubeadm.k8s.io/{current}",
        # Beta, and so open by default, in 1.31.
        proxy_mode="nftables" if minor >= (1, 31) else "iptables",
        rsa_service_account=minor < (1, 28),
        ecdsa={"encryptionAlgorithm": "ECDSA-P256"}
        if v1beta4
        else ({"featureGates": {"PublicKeysECDSA": True}} if ecdsa_gate else {}),
        timeouts=v1beta4,
        arguments_as_list=v1beta4,
        pull_policy=v1beta3,
        patches=v1beta3,
        patches_dns=minor >= (1, 31),
        join_command=minor >= (1, 26),
        readyz=minor >= (1, 31),
        cgroup_v2=minor >= (1, 19),
        taints=(
            *((FORMER_TAINT,) if minor < (1, 25) else ()),
            *((CONTROL_PLANE_TAINT,) if minor >= (1, 24) else ()),
        ),
        registry="registry.k8s.io" if minor >= (1, 25) else "k8s.gcr.io",
        dns_image="coredns/coredns:v" if minor >= (1, 21) else "coredns:",
    )


@dataclass(frozen=True, slots=True)
class KubernetesVersion:
    """One Kubernetes version and the versions of everything that goes with it, without a leading "v".

    `etcd_image` and `pause` are image tags (kubeadm numbers its etcd builds: 3.6.6-0),
    `etcd` and `coredns` the upstream projects' versions. `components` has those of other
    components, by the keys that they give them.
    """

    version: str
    etcd: str
    etcd_image: str
    coredns: str
    pause: str
    components: tuple[tuple[str, str], ...] = ()

    @property
    def minor(self) -> tuple[int, int]:
        """Major and minor number, for comparisons: (1, 35)."""
        major, minor, _ = self.version.split(".")
        return int(major), int(minor)

    @property
    def features(self) -> Features:
        """How its programs are to be told what klab wants of every version."""
        return features(self.minor)

    @property
    def own_images(self) -> Mapping[str, str]:
        """Full references of the images that kubeadm asks for, by component."""
        own = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
        registry = self.features.registry
        return {
            **{name: f"{registry}/{name}:v{self.version}" for name in own},
            "pause": f"{registry}/pause:{self.pause}",
            "etcd": f"{registry}/etcd:{self.etcd_image}",
            "coredns": f"{registry}/{self.features.dns_image}{self.coredns}",
        }

    @property
    def images(self) -> Mapping[str, str]:
        """Full image references by component, as kubeadm and the components' manifests name them."""
        found = dict(self.own_images)
        for name in networks():
            found |= self.network_images(name)
        return MappingProxyType(found)

    def network_images(self, name: str) -> Mapping[str, str]:
        """The images of the pod network of that name; none where its version is not among the components."""
        network, others = networks()[name], dict(self.components)
        return network.images(others) if set(network.version_keys) <= others.keys() else {}

    def image(self, component: str) -> str:
        """The full reference of one component's image, for example `image("etcd")`.

        Raises:
            KeyError: there is no image of that component.
        """
        return self.images[component]

    def as_data(self) -> dict[str, str]:
        """Every version by its key, as recipes and plans name them."""
        return {**{key: getattr(self, key) for key in ("version", *KEYS)}, **dict(self.components)}

    @classmethod
    def from_data(cls, data: Any) -> KubernetesVersion:
        """Read what `as_data` gave, as JSON's values.

        Raises:
            ValueError: it has another shape, or a key that no component has.
        """
        own = {"version", *KEYS}
        known = {key for network in networks().values() for key in network.version_keys}
        if not isinstance(data, dict) or not own <= data.keys() or not data.keys() <= own | known:
            raise ValueError(f"{cls.__name__} has other keys")
        if not all(type(value) is str for value in data.values()):
            raise ValueError(f"{cls.__name__} has a value that is not a text")
        if FULL_VERSION.fullmatch(data["version"]) is None:
            raise ValueError(f"{cls.__name__} is not of a full version")
        others = tuple((key, value) for key, value in data.items() if key not in own)
        return cls(**{key: data[key] for key in own}, components=others)


# Beside the version itself, what a recipe names for each.
KEYS = tuple(field.name for field in fields(KubernetesVersion) if field.name not in {"version", "components"})
