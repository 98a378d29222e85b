"""A lab's kubeconfig: read it, or merge it into a person's own."""

from __future__ import annotations

import shlex
from pathlib import Path

from lab.cluster.clients.proxies import straight_to
from lab.errors import LabError, Remedy
from lab.kubeconfig import Merged, find_user, kubectl_files, merge_files
from lab.plan.file import from_json
from lab.store import LabFolder


def read(folder: LabFolder) -> str:
    """The lab's kubeconfig.

    Raises:
        LabError: the lab has no kubeconfig yet.
    """
    try:
        return folder.kubeconfig.read_text(encoding="utf-8")
    except OSError as error:
        raise LabError(
            f"lab {folder.name!r} has no kubeconfig", details=[str(error)], hint=(Remedy("create"), " again makes one")
        ) from error


def merge(folder: LabFolder, file: Path | None = None) -> list[Merged]:
    """Merge the lab's kubeconfig into a file as context klab-LAB.

    Args:
        folder: the lab's.
        file: the file; those that `kubectl config` would change when left out.

    Returns:
        The files that changed, each with its backup.
    """
    return merge_files([file.expanduser()] if file else kubectl_files(), read(folder))


def merged_into(folder: LabFolder) -> Path | None:
    """The first of a person's own files that the lab's kubeconfig was merged into."""
    return find_user(f"klab-{folder.name}")


def beside_a_proxy(folder: LabFolder) -> str | None:
    """What lets other programs reach the lab, as an assignment for a shell.

    None where the environment names no proxy, or the lab's plan cannot be read.
    """
    try:
        exceptions = straight_to(from_json(folder.plan_text()))
    except LabError:
        return None
    return f"NO_PROXY={shlex.quote(exceptions['NO_PROXY'])}" if exceptions else None
