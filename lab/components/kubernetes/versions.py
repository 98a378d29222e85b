"""Kubernetes by version: what goes with one, and how kubeadm and kube-proxy of that version are to be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from lab.components.cni import networks

# Where kubeadm looks for its images (kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-init).
REGISTRY = "registry.k8s.io"


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
    def images(self) -> Mapping[str, str]:
        """Full image references by component, as kubeadm and the components' manifests name them."""
        own = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
        found = {
            **{name: f"{REGISTRY}/{name}:v{self.version}" for name in own},
            "pause": f"{REGISTRY}/pause:{self.pause}",
            "etcd": f"{REGISTRY}/etcd:{self.etcd_image}",
            "coredns": f"{REGISTRY}/coredns/coredns:v{self.coredns}",
        }
        others = dict(self.components)
        for network in networks().values():
            if set(network.version_keys) <= others.keys():
                found |= network.images(others)
        return MappingProxyType(found)

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
        others = tuple((key, value) for key, value in data.items() if key not in own)
        return cls(**{key: data[key] for key in own}, components=others)


# Beside the version itself, what a recipe names for each.
KEYS = tuple(field.name for field in fields(KubernetesVersion) if field.name not in {"version", "components"})
