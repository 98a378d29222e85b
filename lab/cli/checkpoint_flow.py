"""What klab checkpoint, checkpoints and create --from do; apart from the commands so that `klab --help` stays quick."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lab.app.create import making, provider_for, refuse_what_does_not_fit
from lab.app.interruption import interruptible
from lab.app.labs import enter
from lab.boxes.kubectl import kubectl_for
from lab.bundles.export_lab import keep_snapshots, kept, write_bundle
from lab.bundles.file import BundleFile, open_bundle
from lab.bundles.format import SUFFIX, Bundle, check_checkpoint_name
from lab.bundles.import_lab import (
    Made,
    Request,
    box_at_hand,
    create_from_bundle,
    plan_of,
    refuse_conflict,
    room_problems,
)
from lab.bundles.signature import Signer, allowed_signer, default_allowed, sign, signer
from lab.cli.reports.create import speed
from lab.cli.terminal.output import echo, echo_json, note, table
from lab.cli.terminal.progress import elapsed, show
from lab.cli.terminal.words import seconds_in
from lab.cluster.lab import Lab
from lab.errors import Conflict, HostError, LabError, UsageError
from lab.host.capacity import host_facts
from lab.host.kvm_probe import probe_host
from lab.machines.providers import enter_host, open_machines, provider_named
from lab.plan.model import Plan, create_command
from lab.process import have
from lab.scenario.sizes import human
from lab.store import Home, LabFolder

_FOREIGN_BOX = "its box was not built here: it serves the labs of this checkpoint only (klab box list)"
NO_VIRTUALBOX = "klab create makes a lab from its scenario on VirtualBox, too"


# --- checkpoint ---------------------------------------------------------------------------------------


def run_checkpoint(
    lab: Lab, name: str, output: Path | None, *, with_box: bool, key: Path | None, force: bool, as_json: bool
) -> None:
    """Write a checkpoint and say what became of it."""
    began = time.monotonic()
    target = output if output is not None else Path(f"{check_checkpoint_name(name)}{SUFFIX}")
    enter(lab, changes=True, note=note)
    with (
        interruptible("stopped; nothing was written, and the lab has not been touched", "klab checkpoint begins anew"),
        show(lab.plan, as_json=as_json, first="checkpoint") as listener,
    ):
        made = write_bundle(
            lab.watched_by(listener),
            name,
            target,
            with_box=with_box,
            replaces=force,
            sign=None if key is None else partial(sign, key.expanduser().absolute()),
        )
    seconds = time.monotonic() - began
    if as_json:
        echo(json.dumps({"lab": lab.name, "checkpoint": summary(made), "seconds": round(seconds, 1)}))
        return
    size = human(made.size >> 20)
    note(f"{lab.name}: checkpoint {name} written after {elapsed(seconds)}: {made.path}, {size}")
    note("it holds the lab's private keys: anyone who has it is an administrator of every lab made from it")
    if not with_box:
        note(f"to make a lab from it takes the box {made.checkpoint.box.folder}, too")
    if made.signature:
        note(f"signed with {signer(made.manifest, made.signature)}")
    note(f"its digest, for those who get it: {made.digest}")
    note(f"{create_command(['--from', str(target)], None)} makes the lab")


# --- the list -----------------------------------------------------------------------------------------


def run_list(files: Sequence[Path], *, as_json: bool) -> None:
    """Print what is in these files, or in those that klab has kept; exits as the first of `files` that is none."""
    found = {file: _opened(file) for file in files or kept(Home.default())}
    if as_json:
        echo_json({"checkpoints": [_data(file, each) for file, each in found.items()]})
    elif not found:
        note("no checkpoint is kept; klab checkpoint and klab destroy --keep-snapshots make some")
    else:
        rows = [_row(file, each) for file, each in found.items()]
        echo(table(["name", "lab", "made", "size", "box", "file"], rows))
    for each in found.values():
        if files and isinstance(each, LabError):
            raise SystemExit(each.exit_code)


def _opened(file: Path) -> BundleFile | LabError:
    try:
        return open_bundle(file)
    except LabError as error:
        return error
    except OSError as error:
        return HostError(f"it cannot be read: {error.strerror or error}")


def _why(error: LabError) -> str:
    return "; ".join((error.message, *error.details))


def _data(file: Path, each: BundleFile | LabError) -> dict[str, Any]:
    return {"file": str(file), "damaged": _why(each)} if isinstance(each, LabError) else summary(each)


def _row(file: Path, each: BundleFile | LabError) -> list[str]:
    if isinstance(each, LabError):
        return ["DAMAGED", "", "", "", "", f"{file}: {_why(each)}"]
    found = each.checkpoint
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.created))
    size = human(each.size >> 20)
    box = "in it" if found.with_box else f"needs {found.box.folder}"
    return [found.name, found.lab, made, size, box, str(each.path)]


def summary(file: BundleFile) -> dict[str, Any]:
    """A checkpoint for programs: sizes in bytes, times in seconds since 1970."""
    found = file.checkpoint
    return {
        "name": found.name,
        "file": str(file.path),
        "size": file.size,
        "digest": file.digest,
        "signed": bool(file.signature),
        "created": found.created,
        "lab": found.lab,
        "scenario": found.plan.scenario,
        "nodes": [node.name for node in found.plan.nodes],
        "box": found.box.folder,
        "with_box": found.with_box,
        "snapshot": found.snapshot or None,
        "versions": dict(found.versions),
    }


# --- create --from ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Demands:
    """What a checkpoint must be: of that digest, signed by one of that list; None where it may be any."""

    digest: str | None = None
    allowed_signers: Path | None = None


def run_create_from(
    file: Path, demands: Demands, *, name: str | None, provider: str, timeout: str | None, as_json: bool
) -> None:
    """Everything from the words on the command line to the last line printed."""
    limit = seconds_in(timeout)
    home = Home.default()
    found = open_bundle(_meant(home, file))
    by = _signer(home, found, demands)
    plan = _plan(found.checkpoint, name)
    record = refuse_conflict(home, plan, found)
    chosen = provider_for(provider, record)
    if not all(provider_named(name).features.disk_transfer for name in (chosen, found.checkpoint.provider)):
        raise HostError("a lab cannot be made from a checkpoint on VirtualBox yet", hint=NO_VIRTUALBOX)
    box = box_at_hand(home, found.checkpoint)
    where = enter_host(chosen, home)
    if record is not None:
        enter(Lab(home, home.lab(plan.name), plan), changes=True, note=note)
    with making(home, home.lab(plan.name), create_command(["--from", str(file)], name)):
        profile = probe_host(home, plan.cpus)
        if record is None:
            room = room_problems(found.checkpoint, box, host_facts(home).disk)
            refuse_what_does_not_fit(home, plan, room, "klab checkpoints FILE shows what is in it", note)
        if not as_json:
            note(_author(home, found, by))
            if box is None:
                note(_FOREIGN_BOX)
            note(f"{plan.name}: {len(plan.nodes)} nodes on {where}, {speed(profile)}")
        with show(plan, as_json=as_json, first="verify") as listener:
            made = create_from_bundle(
                Request(Lab(home, home.lab(plan.name), plan, open_machines, limit, listener), found, chosen, profile)
            )
    _report(found, plan, made, by, as_json=as_json)


def _signer(home: Home, found: BundleFile, demands: Demands) -> Signer | None:
    """Who has signed a checkpoint; None where nobody has, and nobody needs to.

    Raises:
        UsageError: it is not what is demanded, or its signature does not match.
    """
    if demands.digest is not None and demands.digest.removeprefix("sha256:").lower() != found.digest:
        raise UsageError(
            "this is not the checkpoint of that digest",
            details=[f"wanted: {demands.digest[:80]}", f"found:  {found.digest}"],
            hint="get the file again from its author",
        )
    allowed = demands.allowed_signers
    if allowed is None and not _is_kept(home, found):
        allowed = default_allowed(home.root)
    if allowed is not None:
        return allowed_signer(found.manifest, found.signature, allowed.expanduser())
    return signer(found.manifest, found.signature) if found.signature else None


def _is_kept(home: Home, found: BundleFile) -> bool:
    """Whether klab itself wrote the file, on this machine."""
    return found.path.resolve().is_relative_to(home.checkpoints.resolve())


def _author(home: Home, found: BundleFile, by: Signer | None) -> str:
    if by is None:
        unknown = "not signed: its digests show that it is whole, not who it is from"
        return "kept by klab on this machine" if _is_kept(home, found) else unknown
    return f"signed by {by}" if by.principal else f"signed with {by}; compare that with its author's"


def _meant(home: Home, file: Path) -> Path:
    """The file, or the one of that name that klab has kept.

    Raises:
        Conflict: it has kept several, which need different boxes.
    """
    if not file.exists() and file.name == str(file):
        same = [each for each in kept(home) if str(file) in {each.name, each.stem}]
        if len(same) > 1:
            raise Conflict(
                f"klab has kept {len(same)} checkpoints called {file}",
                details=[str(each) for each in same],
                hint="name the one you mean with its folder",
            )
        if same:
            return same[0]
    return file.absolute()


def _plan(checkpoint: Bundle, name: str | None) -> Plan:
    try:
        return plan_of(checkpoint, name)
    except ValueError as error:
        raise UsageError(f"the lab cannot have this name: {error}", hint="such as --name lesson-3") from None


def _report(file: BundleFile, plan: Plan, made: Made, by: Signer | None, *, as_json: bool) -> None:
    if as_json:
        result = {
            "lab": plan.name,
            "checkpoint": summary(file),
            "signer": None if by is None else asdict(by),
            "nodes": [{"name": n.name, "role": n.role, "address": str(n.address)} for n in plan.nodes],
            "running": made.power.running,
            "kubeconfig": str(made.folder.kubeconfig),
            "seconds": round(made.seconds, 1),
            "already": made.already,
            "warnings": made.warnings,
        }
        echo(json.dumps(result))
        return
    word = "Ready" if plan.bootstrap == "full" else "up"
    was = " was there already and" if made.already else f", from checkpoint {file.checkpoint.name},"
    note(f"{plan.name}{was} is {word} after {elapsed(made.seconds)}")
    for line in made.warnings:
        note(line)
    if plan.bootstrap == "full":
        echo(_first_look(plan, made.folder))
    echo(f"  klab ssh {plan.name} {plan.nodes[0].name}")


def _first_look(plan: Plan, folder: LabFolder) -> str:
    """A command that shows the nodes: with a kubectl of this machine's, for no checkpoint brings one."""
    if have(kubectl_for(Home.default(), folder.record().box, plan.kubernetes.version)):
        return f"  klab kubectl {plan.name} -- get nodes   kubectl, pointed at this lab"
    inside = "sudo kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes"
    return f"  klab ssh {plan.name} {plan.nodes[0].name} -- {inside}   there is no kubectl on this machine"


# --- destroy --keep-snapshots -------------------------------------------------------------------------


def run_keep(lab: Lab, *, as_json: bool) -> list[dict[str, Any]]:
    """Write the snapshots of a lab that is to go into files, and name them; returns them for programs."""
    with (
        interruptible("stopped; the lab has not been touched", "klab destroy again begins anew"),
        show(lab.plan, as_json=as_json, first="checkpoint") as listener,
    ):
        made = keep_snapshots(lab.watched_by(listener))
    if not as_json:
        for each in made:
            note(f"{each.checkpoint.name} is kept: {each.path}, {human(each.size >> 20)}")
        note(f"klab create --from {made[-1].path.stem} makes a lab of the last; klab checkpoints lists them")
    return [summary(each) for each in made]
