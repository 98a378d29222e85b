"""Archives of programs that their projects publish at GitHub, each beside its checksum.

Sources: the assets of the releases of kubernetes-sigs/cri-tools and of containerd/containerd.
"""

from __future__ import annotations

from dataclasses import dataclass

_CRI_TOOLS = "sigs.k8s.io/cri-tools"
_CONTAINERD = "github.com/containerd/containerd/v2"


@dataclass(frozen=True, slots=True)
class Archive:
    """path: below github.com; suffix: of its checksum; folder: that of the programs in it, with a slash."""

    path: str
    suffix: str
    folder: str = ""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def archive_of(module: str, version: str) -> Archive | None:
    """Where the programs of a Go module are published; None for one that klab compiles from whatever source.

    Args:
        module: its path.
        version: v2.3.7.
    """
    if module == _CRI_TOOLS:
        path = f"kubernetes-sigs/cri-tools/releases/download/{version}/crictl-{version}-linux-amd64.tar.gz"
        return Archive(path, ".sha256")
    if module == _CONTAINERD:
        bare = version.removeprefix("v")
        path = f"containerd/containerd/releases/download/{version}/containerd-{bare}-linux-amd64.tar.gz"
        return Archive(path, ".sha256sum", "bin/")
    return None
