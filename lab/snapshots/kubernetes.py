"""Which Kubernetes a lab had when a snapshot was taken: an upgrade changes it, and a restore brings it back."""

from __future__ import annotations

from dataclasses import replace

from lab.components.kubernetes.versions import KubernetesVersion
from lab.errors import LabError, Remedy
from lab.files import write_atomic
from lab.plan.file import to_json
from lab.plan.model import Plan
from lab.plan.versions import with_version
from lab.snapshots.manifest import Manifest
from lab.snapshots.session import Session


def plan_of(manifest: Manifest, plan: Plan) -> Plan:
    """A lab's plan with the Kubernetes of a snapshot; the same where the snapshot is older than upgrades are.

    Raises:
        LabError: the manifest's versions are damaged.
    """
    if not manifest.kubernetes:
        return plan
    try:
        return with_version(plan, KubernetesVersion.from_data(dict(manifest.kubernetes)))
    except ValueError as error:
        raise LabError(
            f"the versions of snapshot {manifest.name!r} are damaged",
            details=[str(error)],
            hint=(Remedy("snapshots"), " lists the others"),
        ) from error


def take_over(session: Session, manifest: Manifest) -> Session:
    """Note that the whole lab has the Kubernetes of a snapshot that it was reverted to. Idempotent.

    Returns:
        The session of the lab as it is now.
    """
    lab = session.lab
    plan = plan_of(manifest, lab.plan)
    if plan != lab.plan:
        write_atomic(lab.folder.plan_file, to_json(plan))
    record = session.record
    if manifest.upgrading_to != record.upgrading_to:
        record = lab.folder.update_record(upgrading_to=manifest.upgrading_to)
    return replace(session, lab=replace(lab, plan=plan), record=record)
