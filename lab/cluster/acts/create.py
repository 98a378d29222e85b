"""Create a lab: a list of steps (`steps_for`), each of which may be repeated.

After Ctrl-C, kill -9 or a power cut the same `create` continues from
what it finds: secrets are read back, machines converge, nodes bootstrap by themselves,
manifests are applied server-side.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.cluster.acts import images
from lab.cluster.acts.addons import addon_steps
from lab.cluster.acts.steps import Context, Step, apply_step, ready_steps, run_steps
from lab.cluster.admin_kubeconfig import write_kubeconfig
from lab.cluster.lab import Lab, refuse_half_destroyed
from lab.cluster.observe.expiry import refuse_expired
from lab.cluster.secrets import keep_mirror_access, load_or_make, with_kubelet
from lab.cluster.wait.watch import Watch
from lab.components.cni import network
from lab.disks.seed_iso import write_iso
from lab.errors import Advice, Conflict, MachineError, Remedy
from lab.files import write_atomic
from lab.host.profile import HostProfile
from lab.images.record import LabImage, images_of
from lab.images.record import add as add_images
from lab.machines.protocol import NodeState
from lab.plan.changes import same_but_for_nodes
from lab.plan.file import from_json, to_json
from lab.plan.model import Plan
from lab.render.cloudinit import render_seed
from lab.scenario.mirror_access import MirrorAccess
from lab.store import LabFolder, Record


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """What `create` is asked for.

    `addons` are the objects of manifests in order, beside those of add-ons that the plan names. `images` is what the
    nodes shall have beside the images of their box; this machine keeps them. `mirror_access` is as `Loaded` has it.
    """

    scenario_text: str
    provider: str
    profile: HostProfile
    box_name: str
    box_vagrant: Path | None
    addons: Sequence[dict[str, Any]] = ()
    mirror_access: Mapping[str, MirrorAccess] = field(default_factory=dict, repr=False)
    images: Sequence[LabImage] = ()


@dataclass(frozen=True, slots=True)
class Created:
    """A lab that is there. `already`: there was nothing left to do."""

    folder: LabFolder
    plan: Plan
    seconds: float
    already: bool


def create(lab: Lab, request: CreateRequest) -> Created:
    """Bring the lab to where its scenario wants it; returns when every requirement holds.

    Raises:
        Conflict: a different lab has this name, another klab works on it, or something foreign is where its machines
            would be; nothing is left of a new lab then.
        HostError, UsageError: as `Machines.check_new`; nothing is left of a new lab.
        MachineError, ClusterError, NotReadyInTime: with the node, the phase, its log, and what to try;
        at once where the certificates of a lab that was Ready have expired.
        The lab is left as it is then: `create` again continues, `destroy` removes it.
    """
    began = time.monotonic()
    with lab.folder.lock():
        there = _there(lab)
        already = there is not None
        record = there or _new_record(lab, request)
        machines = lab.machines(record, request.box_vagrant)
        if not already:
            machines.check_new()
            _write_folder(lab, request, record)
        if request.images:
            add_images(lab.folder, request.images)
        journal = lab.journal()
        journal.add("", "create", "begin", "again" if already else "")
        watch = Watch(lab.folder, lab.plan, machines, journal, lab.deadline(record))
        run_steps(steps_for(record.phase, lab.plan), Context.of(lab, record, machines, watch, request.addons))
        lab.folder.update_record(phase="ready")
        journal.add("", "create", "done")
    return Created(lab.folder, lab.plan, time.monotonic() - began, already and record.phase == "ready")


def _there(lab: Lab) -> Record | None:
    """The lab's record; None where there is no such lab yet."""
    if not lab.folder.exists:
        return None
    record = lab.folder.record()
    _refuse_conflict(lab.folder, record, lab.plan)
    return record


def _new_record(lab: Lab, request: CreateRequest) -> Record:
    return Record(
        id=str(uuid.uuid4()),
        name=lab.plan.name,
        provider=request.provider,
        box=request.box_name,
        seat=lab.plan.seat,
        phase="creating",
        created=time.time(),
        accelerated=request.profile.accelerated,
        dilation=request.profile.dilation,
        epoch=time.time(),
    )


def _write_folder(lab: Lab, request: CreateRequest, record: Record) -> None:
    """Everything that stands on disk before the first machine; the record comes last, and makes it a lab."""
    folder = lab.folder
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.path.chmod(0o700)
    folder.logs.mkdir(exist_ok=True)
    keep_mirror_access(folder, request.mirror_access)
    write_atomic(folder.scenario_file, request.scenario_text)
    write_atomic(folder.plan_file, to_json(lab.plan))
    folder.write_record(record)


def _refuse_conflict(folder: LabFolder, record: Record, plan: Plan) -> None:
    refuse_half_destroyed(folder, record)
    there = from_json(folder.plan_text())
    if there == plan:
        return
    way: list[str | Remedy] = ["choose another name with --name, or ", Remedy("destroy", lab=folder.name), " first"]
    if same_but_for_nodes(there, plan):
        way = [Remedy("scale", lab=folder.name), " changes its size; else ", *way]
    raise Conflict(
        f"a lab called {folder.name!r} exists, made from another scenario or seat",
        details=_differences(there, plan),
        hint=way,
    )


def _differences(there: Plan, wanted: Plan) -> list[str]:
    lines = []
    for key in (
        "scenario",
        "seat",
        "box",
        "bootstrap",
        "nodes",
        "networks",
        "kubernetes",
        "mirrors",
        "addons",
        "images",
    ):
        old, new = getattr(there, key), getattr(wanted, key)
        if old == new:
            continue
        if key == "nodes":
            old = ", ".join(f"{n.name} ({n.cpus} CPU, {n.memory} MiB, {n.address})" for n in old)
            new = ", ".join(f"{n.name} ({n.cpus} CPU, {n.memory} MiB, {n.address})" for n in new)
        lines.append(f"{key}: {old} -> {new}")
    return lines


# --- the steps ------------------------------------------------------------------------------------


def steps_for(phase: str, plan: Plan) -> list[Step]:
    """The steps of `create`, for a lab that is being made ("creating") or was made completely ("ready")."""
    return _first_steps(plan) if phase == "creating" else _again_steps(plan)


def _first_steps(plan: Plan) -> list[Step]:
    return [
        Step("the lab's secrets are there", _make_secrets),
        Step("every node has its seed", _write_seeds),
        Step("the machines are started", _power_on),
        *_cluster_steps(plan),
        Step("every node has finished its first boot", _await_first_boot),
        Step("every machine answers", _await_answers),
        *_image_steps(plan, "prepared"),
        Step("the seeds are deleted", _drop_seeds),
    ]


def _again_steps(plan: Plan) -> list[Step]:
    """For a lab whose machines all run there is nothing to start, so Vagrant is not asked."""
    return [
        Step("the lab's secrets are there", _make_secrets),
        Step("every node has a machine", _look_at_machines),
        Step("the machines are started", _power_on, _starts),
        Step("every machine answers", _await_answers, _starts),
        Step("no certificate has expired", _refuse_expired, _has_cluster),
        *_cluster_steps(plan),
        Step("every machine answers", _await_answers, _starts),
        *_image_steps(plan, "prepared"),
        Step("the seeds are deleted", _drop_seeds, _starts),
    ]


def _cluster_steps(plan: Plan) -> list[Step]:
    if plan.bootstrap != "full":
        return []
    answers, *others = ready_steps(plan)
    pod_network = apply_step("pod network", lambda context: network(plan.kubernetes.cni).manifest(context.plan))
    # Add-ons may need them.
    images = _image_steps(plan, "full")
    return [answers, pod_network, *others, *images, *addon_steps(plan, plan.named_addons, lambda c: c.addons)]


def _image_steps(plan: Plan, bootstrap: str) -> list[Step]:
    """For labs of that kind: the nodes get what klab has brought to this lab before, or shall bring."""
    if plan.bootstrap != bootstrap:
        return []
    name = "the lab's images are on every node"
    return [Step(name, _bring_images, lambda context: bool(images_of(context.lab.folder)), told=True)]


def _starts(context: Context) -> bool:
    return context.power_on


def _has_cluster(context: Context) -> bool:
    return context.plan.bootstrap == "full"


def _make_secrets(context: Context) -> None:
    features = context.plan.kubernetes.versions.features
    load_or_make(context.lab.folder, rsa_service_account=features.rsa_service_account)
    write_kubeconfig(context.lab.folder, context.plan)


def _write_seeds(context: Context) -> None:
    secrets = load_or_make(context.lab.folder)
    for node in context.plan.nodes:
        seed = render_seed(context.plan, node, with_kubelet(secrets, node), slow_host=not context.record.accelerated)
        write_iso(seed, context.lab.folder.seeds / f"{node.name}.iso")


def _look_at_machines(context: Context) -> None:
    """See which machines there are: none can be made now.

    Raises:
        MachineError: one is missing. A new one would have no seed: the cluster has used it up, and its token.
    """
    states = context.machines.states()
    absent = [name for name, state in states.items() if state == NodeState.ABSENT]
    if absent:
        name = context.lab.folder.name
        remake: Advice = (Remedy("destroy", lab=name, options=("-y",)), " and the same command again recreate the lab")
        if _has_cluster(context):
            remake = (Remedy("node replace", lab=name, node=absent[0]), " recreates it")
        raise MachineError(f"{name} is complete, but {', '.join(absent)} has no machine", hint=remake)
    context.power_on = set(states.values()) != {NodeState.RUNNING}


def _power_on(context: Context) -> None:
    context.watch.power_on()


def _refuse_expired(context: Context) -> None:
    """Ask the nodes of a lab that is to be Ready again whether it can be; they have to run."""
    lab = context.lab
    refuse_expired(lab.folder, lab.plan, context.record, context.machines, context.nodes, context.watch.deadline)


def _await_first_boot(context: Context) -> None:
    context.watch.until(context.watch.cleaned, "every node has finished its first boot")


def _await_answers(context: Context) -> None:
    context.watch.until(context.watch.powered, "every machine answers")


def _bring_images(context: Context) -> None:
    _await_answers(context)
    lab = context.lab
    crew = images.Crew(lab.home, lab.plan, context.record, context.machines, context.watch.journal)
    images.bring_untimed(crew, images_of(lab.folder), context.nodes, context.watch, lab)


def _drop_seeds(context: Context) -> None:
    context.machines.drop_seeds()
