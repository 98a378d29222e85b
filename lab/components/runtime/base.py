"""What klab asks a container runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from lab.components.cluster import File, Minor, Versions

# Where the node's own registry answers, over HTTP; it has each registry's repositories below the registry's name.
NODE_REGISTRY = "127.0.0.1:5000"
# Where it keeps them, and whose they are.
NODE_REGISTRY_STORAGE = "/var/lib/docker-registry"
NODE_REGISTRY_ROOT = f"{NODE_REGISTRY_STORAGE}/docker/registry/v2"
NODE_REGISTRY_USER = "docker-registry"
# In a scenario, all registries that have no mirror of their own; containerd's word.
OTHER_REGISTRIES = "_default"
# The folder of every registry's API (distribution specification).
API = "v2"


class Mirror(NamedTuple):
    """A registry's mirror. `ca` is certificates in PEM; `basic` is a login as HTTP's Basic scheme has it (RFC 7617).

    Where only is asked whether a mirror is possible, `ca` and `basic` may be any text.
    """

    registry: str
    url: str
    ca: str = ""
    basic: str = ""

    @property
    def host(self) -> str:
        """The mirror's host name, perhaps with a port."""
        return self.url.partition("://")[2].partition("/")[0]


def repository_of(registry: str) -> str:
    """The folder that a registry's repositories have in the node's own registry, where a name has no colon.

    >>> repository_of("hub.example:5000")
    'hub.example_5000'
    """
    return registry.lower().replace(":", "_")


def crictl(socket: str) -> File:
    """The configuration of crictl, which asks containerd otherwise.

    Args:
        socket: where the CRI is served, with its scheme.
    """
    return File("/etc/crictl.yaml", f"runtime-endpoint: {socket}\nimage-endpoint: {socket}\n")


class ContainerRuntime(ABC):
    """One container runtime. Several answers depend on the minor version of Kubernetes, such as (1, 35).

    summary: what it is, in a few words of the scenario's reference.
    packages: Debian packages that a box must hold.
    programs: what a box must hold beside them, for some versions at least.
    units: its systemd units, in the order in which they start; those of every version.
    boxed: what of it a box starts by itself, sockets first; stopped where a machine is to be plain.
    stop_drop_in: the systemd drop-in that sets how long its containers may take to end.
    list_images: the shell command that prints the images it has for Kubernetes, a full reference a line.
    fill: the script that, inside the box's file system while it is built, starts the box's own runtime, puts all
        images into its store, prints them as `list_images` does, and ends it in good order. /run/host/images is an OCI
        layout with a manifest.json of Docker's beside it; KLAB_ALL names its images, KLAB_PINNED those that stay.
    databases: files below / in which `fill` leaves dates and the order of pages, as bbolt has them.
    forgotten: what `fill` leaves below / that each node makes for itself.
    blobs: the folder below / in which its store has an OCI layout's blobs as files; empty where it keeps none.
    registry_links: names in the node's registry, each with the one that it stands for as well.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    programs: ClassVar[tuple[str, ...]] = ()
    units: ClassVar[tuple[str, ...]]
    boxed: ClassVar[tuple[str, ...]]
    stop_drop_in: ClassVar[str]
    list_images: ClassVar[str]
    fill: ClassVar[str] = ""
    databases: ClassVar[tuple[str, ...]] = ()
    forgotten: ClassVar[tuple[str, ...]] = ()
    blobs: ClassVar[str] = ""
    registry_links: ClassVar[Mapping[str, str]] = {}

    @property
    def needs(self) -> str:
        """What a box must hold for it, in words."""
        return ", and ".join(filter(None, (f"Debian's {', '.join(self.packages)}", ", ".join(self.programs))))

    @abstractmethod
    def socket(self, minor: Minor) -> str:
        """Where the CRI is served, as kubeadm of that version is told."""

    @abstractmethod
    def files(self, versions: Versions, mirrors: Sequence[Mirror]) -> Sequence[File]:
        """Its configuration on a node; what holds a login is for root alone.

        Args:
            versions: the lab's Kubernetes and what goes with it.
            mirrors: as the scenario has them, one for each registry.
        """

    @abstractmethod
    def pull(self, image: str) -> str:
        """The shell command that gets an image for Kubernetes, from the node's own registry first."""

    @abstractmethod
    def forget(self, image: str) -> str:
        """The shell command that takes an image out of its own store; containers that run are not touched."""

    def offer(self, images: Sequence[str], *, mirrored: Iterable[str]) -> str:  # noqa: ARG002
        """Shell commands that let it ask the node's own registry for images that were brought there; idempotent.

        Args:
            images: their whole names.
            mirrored: the registries for which `files` has a configuration on the node.
        """
        return ""

    def units_for(self, minor: Minor) -> tuple[str, ...]:  # noqa: ARG002
        """Its units with that version."""
        return self.units

    def prepare(self, minor: Minor) -> str:  # noqa: ARG002
        """Part of the node's script, before anything uses the runtime: makes it read `files`."""
        return ""

    def refusal(self, minor: Minor) -> str:  # noqa: ARG002
        """Why it cannot serve that version; empty where it can."""
        return ""

    def mirrors_refusal(self, mirrors: Sequence[Mirror]) -> str:  # noqa: ARG002
        """Why it cannot have these mirrors; empty where it can."""
        return ""
