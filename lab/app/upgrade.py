"""Upgrade a lab's Kubernetes.

Each function takes a lab that `lab.app.labs` has entered, and may take a time limit in seconds and a listener. Each
raises what the act of `lab.cluster.acts.upgrade` raises, `BoxError` where there is no box of the version, and
`Interrupted` on Ctrl-C.
"""

from __future__ import annotations

from pathlib import Path

from lab.app import snapshots
from lab.app.interruption import interruptible
from lab.boxes import store
from lab.boxes.kubectl import kubectl_for
from lab.cluster.acts import upgrade as act
from lab.cluster.acts.upgrade import Order, Upgraded
from lab.cluster.events import Listener
from lab.cluster.lab import Lab
from lab.components.kubernetes.versions import KubernetesVersion
from lab.errors import Conflict, Remedy, UsageError
from lab.plan.versions import refuse_upgrade, with_version
from lab.render.upgrade import commands_by_hand
from lab.scenario.catalog import load_catalog
from lab.snapshots.store import SnapshotStore

__all__ = ["Upgraded", "prepare", "upgrade"]


def upgrade(
    lab: Lab,
    to: str,
    *,
    keep: bool = True,
    timeout: float | None = None,
    listener: Listener | None = None,
) -> Upgraded:
    """Bring every node of a lab to a version, and wait until the lab is Ready; the same again continues.

    Args:
        lab: the lab; all its machines run.
        to: a later patch of its version, or one of the next minor version: "1.36.3", or "1.36" for its newest patch.
        keep: take a snapshot first, unless an upgrade is continued.
        timeout: how long it may take, in seconds.
        listener: told each event.
    """
    record = lab.finished()
    target = _target(lab, to)
    if record.upgrading_to and record.upgrading_to != target.version:
        raise Conflict(
            f"lab {lab.name!r} is half upgraded to Kubernetes {record.upgrading_to}",
            hint=(
                Remedy("upgrade", lab=lab.name, options=("--to", record.upgrading_to)),
                " finishes that first",
                *(
                    ("; ", Remedy("restore", lab=lab.name, options=(record.upgrade_snapshot,)), " takes it back")
                    if record.upgrade_snapshot
                    else ()
                ),
            ),
        )
    act.refuse_unfit(lab)  # before the snapshot
    watched = lab.watched_by(listener, timeout)
    with interruptible(
        "stopped half-way; the lab still runs", ("run the same command again to continue; ", Remedy("status"))
    ):
        file = _file(watched, target)
        name = ""
        if keep and not record.upgrading_to and target != lab.plan.kubernetes.versions:
            name = snapshots.take(
                watched, _free_name(lab, f"before-{target.version}"), note=f"before the upgrade to {target.version}"
            ).manifest.name
        kubectl = kubectl_for(lab.home, "", target.version)
        return act.upgrade(Order(watched, target, file, kubectl, name))


def prepare(
    lab: Lab, to: str, *, timeout: float | None = None, listener: Listener | None = None
) -> tuple[str, list[str]]:
    """Put the packages and images of a version on every node, for an upgrade by hand; arguments as `upgrade`.

    Returns:
        The version, and what a person does then, one line each: NODE: COMMAND, or a kubectl command for the host.
    """
    target = _target(lab, to)
    watched = lab.watched_by(listener, timeout)
    with interruptible("stopped half-way; the lab is as it was", "run the same command again to continue"):
        act.spread(watched, target, _file(watched, target))
    return target.version, commands_by_hand(with_version(lab.plan, target))


def _target(lab: Lab, to: str) -> KubernetesVersion:
    catalog = load_catalog()
    version = catalog.full_version(to)
    held = catalog.recipes.get(lab.plan.box)
    known = list(held.kubernetes) if held else []
    if version not in known:
        raise UsageError(f"the box {lab.plan.box} has no Kubernetes {to!r}", hint=f"known are: {', '.join(known)}")
    target = catalog.kubernetes[version]
    refuse_upgrade(lab.plan, target, known)
    return target


def _file(lab: Lab, target: KubernetesVersion) -> Path:
    """What the nodes need, from the box of the version."""
    box = store.find_box(lab.home, lab.plan.box, target.version)
    lab.journal().add("", "packages", "begin", f"from the box {box.name}")
    images = set(target.own_images.values())
    # Of every network of the box, whichever the lab has: the file is made once for all labs.
    for name in load_catalog().recipes[lab.plan.box].cnis:
        images.update(target.network_images(name).values())
    return store.upgrade_file(lab.home, box, images)


def _free_name(lab: Lab, name: str) -> str:
    taken = {manifest.name for manifest in SnapshotStore(lab.folder).manifests()}
    return next(found for i in range(1, len(taken) + 2) if (found := f"{name}-{i}" if i > 1 else name) not in taken)
