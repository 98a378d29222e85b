"""What klab asks a container runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

from lab.components.cluster import File


class ContainerRuntime(ABC):
    """One container runtime.

    unit: its systemd unit.
    socket: where it serves the CRI, as kubeadm is told.
    stop_drop_in: the systemd drop-in that sets how long its containers may take to end.
    list_images: the shell command that prints the images it has for Kubernetes, a reference a line.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    socket: ClassVar[str]
    stop_drop_in: ClassVar[str]
    list_images: ClassVar[str]

    @abstractmethod
    def mirror_files(self, mirrors: Iterable[tuple[str, str]], registry: str) -> Sequence[File]:
        """Its configuration of registries.

        Args:
            mirrors: registries and the mirror of each.
            registry: where the node's own registry answers; it has each registry below its name.
        """

    @abstractmethod
    def pull(self, image: str) -> str:
        """The shell command that gets an image for Kubernetes, from the node's own registry first."""
