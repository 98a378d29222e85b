"""Add-ons that klab knows by name: apply one and wait until it works, remove it, look which are there.

Which add-ons a lab has, the cluster says: its objects carry the add-on's label. So a restored snapshot brings them back
as they were then, and nothing on this machine can disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.cluster.acts import images
from lab.cluster.acts.apply import Objects
from lab.cluster.acts.images import Crew
from lab.cluster.acts.on_node import refuse_off
from lab.cluster.acts.steps import Context, Step, apply_step, run_steps
from lab.cluster.clients.api import Api, UnreachableError
from lab.cluster.lab import Lab
from lab.cluster.wait import watch, workloads
from lab.cluster.wait.ready import Requirement, understood
from lab.cluster.wait.watch import Watch
from lab.components.addons import addons
from lab.components.addons.base import LABEL, Addon
from lab.errors import Conflict, Remedy
from lab.images import record
from lab.images.record import LabImage
from lab.plan.model import Plan
from lab.store import Record

_VOLUMES = "/api/v1/persistentvolumes"


@dataclass(frozen=True, slots=True)
class State:
    """One add-on in a lab: whether the cluster has it, and what keeps it from working, one line each."""

    addon: Addon
    installed: bool
    missing: tuple[str, ...] = ()


def addon_steps(plan: Plan, names: Sequence[str], more: Callable[[Context], Objects]) -> list[Step]:
    """Apply add-ons by name, and the objects of `more`; then wait until each add-on works."""
    known = [addons()[name] for name in names]

    def objects(context: Context) -> Objects:
        return [*(each for addon in known for each in addon.manifest(plan)), *more(context)]

    return [apply_step("add-ons", objects), *map(_works, known)]


def _works(addon: Addon) -> Step:
    name = f"{addon.name} works"

    def run(context: Context) -> None:
        probe = understood(lambda: workloads.missing(context.api, addon.manifest(context.plan)))
        context.watch.hold(Requirement(name, probe, advice(addon, context.plan)), phase=name)

    return Step(name, run, told=True)


def advice(addon: Addon, plan: Plan) -> Remedy:
    """The command that shows what an add-on's pods do."""
    spaces = {
        each["metadata"].get("namespace", "") for each in addon.manifest(plan) if each["kind"] in workloads.RUNNING
    }
    return Remedy("kubectl", lab=plan.name, options=("--", "get", "events,pods", "-n", min(spaces, default="default")))


def refuse_unfit(lab: Lab) -> Record:
    """Make sure that a lab has a cluster of klab's, whether it runs or not; returns its record.

    Raises:
        Conflict: it is half made or half destroyed, or has no cluster that klab made.
    """
    found = lab.finished()
    if lab.plan.bootstrap != "full":
        raise Conflict(
            f"the cluster of lab {lab.name!r} is the student's to make (bootstrap: {lab.plan.bootstrap})",
            hint="kubectl apply on its control plane installs what the lesson needs",
        )
    return found


def add(lab: Lab, names: Sequence[str], brought: Sequence[LabImage]) -> None:
    """Bring add-ons to a lab, and wait until they work; doing it again changes nothing.

    Args:
        lab: the lab.
        names: of `lab.components.addons`; they fit the plan.
        brought: their images, which this machine keeps; those of the box are not among them.

    Raises:
        Conflict: as `refuse_unfit`; another klab works on the lab, or not all of its machines run.
        ImageError: as `lab.cluster.acts.images.load`.
        ClusterError, NotReadyInTime: the API server refuses an object, or an add-on does not come up.
    """
    with lab.folder.lock():
        crew = _crew(lab)
        if brought:
            record.add(lab.folder, brought)
        every = [node.name for node in lab.plan.nodes]
        images.bring(crew, record.images_of(lab.folder), every)
        run_steps(addon_steps(lab.plan, names, lambda _: ()), _context(lab, crew))


def remove(lab: Lab, names: Sequence[str]) -> None:
    """Take add-ons out of a lab, each object of theirs; their images stay.

    Raises:
        Conflict: as `add`; or volumes are in use that one of them looks after.
        NotReadyInTime: the API server does not let an object go.
    """
    with lab.folder.lock():
        crew = _crew(lab)
        context = _context(lab, crew)
        for addon in (addons()[name] for name in names):
            _refuse_used(context.api, addon, lab.name)
            run_steps([_removal(addon)], context)


def _removal(addon: Addon) -> Step:
    name = f"{addon.name} is removed"

    def run(context: Context) -> None:
        # The last applied goes first: what others make, then who makes it, then its rights and kinds.
        left = list(reversed(addon.manifest(context.plan)))
        why: list[str] = []

        def gone() -> bool:
            left[:] = [each for each in left if not _is_gone(context.api, each, why)]
            return not left

        context.watch.until(gone, name, every=watch.API_POLL_SECONDS, missing=lambda: why, phase=name)

    return Step(name, run, told=True)


def _is_gone(api: Api, wanted: Mapping[str, Any], why: list[str]) -> bool:
    """Delete an object; returns whether it is gone."""
    try:
        api.remove(wanted)
        return workloads.find(api, wanted) is None
    except UnreachableError as error:
        why[:] = [f"{wanted['kind']} {wanted['metadata']['name']}: {error.message}"]
        return error.status == 404


def _refuse_used(api: Api, addon: Addon, lab: str) -> None:
    """Make sure that no volume would be left without the one who deletes its data."""
    if not addon.storage_class:
        return
    volumes = api.get(_VOLUMES)["items"]
    used = [each["metadata"]["name"] for each in volumes if each["spec"].get("storageClassName") == addon.storage_class]
    if used:
        raise Conflict(
            f"{len(used)} volumes of the lab are in the care of {addon.name}",
            details=used[:5],
            hint=(
                "delete the claims first: ",
                Remedy("kubectl", lab=lab, options=("--", "get", "persistentvolumeclaims", "-A")),
            ),
        )


def look(lab: Lab) -> list[State]:
    """Every add-on that klab knows, and how it is in this lab; objects of the same names that others made do not count.

    Raises:
        UnreachableError: the API server does not answer.
    """
    api = lab.api()
    return [_state(api, addon, lab.plan) for addon in addons().values()]


def _state(api: Api, addon: Addon, plan: Plan) -> State:
    objects = addon.manifest(plan)
    running = workloads.see(api, objects, workloads.RUNNING)
    if not any(_is_of(addon, found) for _, found in running if found is not None):
        return State(addon, installed=False)
    seen = [*running, *workloads.see(api, objects, workloads.SERVED)]
    return State(addon, installed=True, missing=tuple(understood(lambda: workloads.missing_of(seen))()))


def _is_of(addon: Addon, found: Mapping[str, Any]) -> bool:
    labels = found["metadata"].get("labels")
    return isinstance(labels, dict) and labels.get(LABEL) == addon.name


def _crew(lab: Lab) -> Crew:
    crew = Crew.of(lab, refuse_unfit(lab))
    refuse_off(crew.machines, lab.name, "")
    return crew


def _context(lab: Lab, crew: Crew) -> Context:
    waiting = Watch(lab.folder, lab.plan, crew.machines, crew.journal, lab.deadline(crew.record))
    return Context.of(lab, crew.record, crew.machines, waiting)
