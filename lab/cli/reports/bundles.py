"""What klab export, import and bundles print; apart from the commands so that `klab --help` stays quick."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.app.bundles import (
    Export,
    Prepared,
    Request,
    bundles,
    export_lab,
    importing,
    keep_snapshots,
    make_imported,
    prepare_import,
    signer_of,
)
from lab.app.labs import enter
from lab.app.programs import has_kubectl
from lab.cli.reports.create import speed
from lab.cli.terminal.output import echo, echo_json, note, table
from lab.cli.terminal.phases import elapsed
from lab.cli.terminal.progress import show
from lab.cli.terminal.words import seconds_in
from lab.errors import LabError
from lab.plan.model import import_command
from lab.scenario.sizes import human

if TYPE_CHECKING:
    from lab.bundles.file import BundleFile
    from lab.bundles.import_lab import Made
    from lab.cluster.lab import Lab

_FOREIGN_BOX = "its box was not built here: it serves the labs of this bundle only (klab box list)"


# --- export -------------------------------------------------------------------------------------------


def run_export(lab: Lab, wanted: Export, *, as_json: bool) -> None:
    """Write a bundle and print the result."""
    began = time.monotonic()
    target = wanted.file
    enter(lab, changes=True, note=note)
    with show(lab.plan, as_json=as_json, first="export") as listener:
        made = export_lab(lab, wanted, listener=listener)
    seconds = time.monotonic() - began
    if as_json:
        echo(json.dumps({"lab": lab.name, **_both(summary(made)), "seconds": round(seconds, 1)}))
        return
    size = human(made.size >> 20)
    note(f"{lab.name}: bundle {wanted.name} written after {elapsed(seconds)}: {made.path}, {size}")
    note("it holds the lab's private keys: anyone who has it is an administrator of every lab made from it")
    if not wanted.with_box:
        note(f"creating a lab from it also needs the box {made.bundle.box.folder}")
    if (by := signer_of(made)) is not None:
        note(f"signed with {by}")
    note(f"its digest, for those who get it: {made.digest}")
    note(f"{import_command(str(target))} makes the lab")


def _both(told: dict[str, Any]) -> dict[str, Any]:
    """A bundle by its name, and by the one that it had in version 0.1."""
    return {"checkpoint": told, "bundle": told}


# --- the list -----------------------------------------------------------------------------------------


def run_list(files: Sequence[Path], *, as_json: bool) -> None:
    """Print what is in these files, or in those that klab has kept; exits as the first of `files` that is damaged."""
    found = bundles(files)
    if as_json:
        told = [_data(file, each) for file, each in found.items()]
        echo_json({"checkpoints": told, "bundles": told})
    elif not found:
        note("no bundle is kept; klab export writes one, klab destroy --keep-snapshots keeps snapshots as bundles")
    else:
        rows = [_row(file, each) for file, each in found.items()]
        echo(table(["name", "lab", "made", "size", "box", "file"], rows))
    for each in found.values():
        if files and isinstance(each, LabError):
            raise SystemExit(each.exit_code)


def _why(error: LabError) -> str:
    return "; ".join((error.message, *error.details))


def _data(file: Path, each: BundleFile | LabError) -> dict[str, Any]:
    return {"file": str(file), "damaged": _why(each)} if isinstance(each, LabError) else summary(each)


def _row(file: Path, each: BundleFile | LabError) -> list[str]:
    if isinstance(each, LabError):
        return ["DAMAGED", "", "", "", "", f"{file}: {_why(each)}"]
    found = each.bundle
    made = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.created))
    size = human(each.size >> 20)
    box = "in it" if found.with_box else f"needs {found.box.folder}"
    return [found.name, found.lab, made, size, box, str(each.path)]


def summary(file: BundleFile) -> dict[str, Any]:
    """A bundle for programs: sizes in bytes, times in seconds since 1970."""
    found = file.bundle
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


# --- import -------------------------------------------------------------------------------------------


def run_import(request: Request, *, timeout: str | None, as_json: bool) -> None:
    """Make the lab of a bundle and print the result."""
    limit = seconds_in(timeout)
    prepared = prepare_import(request, note=note)
    plan = prepared.plan
    with importing(prepared):
        if not as_json:
            note(_author(prepared))
            if prepared.foreign_box:
                note(_FOREIGN_BOX)
            note(f"{plan.name}: {len(plan.nodes)} nodes on {prepared.where}, {speed(prepared.profile)}")
        with show(plan, as_json=as_json, first="verify") as listener:
            made = make_imported(prepared, timeout=limit, listener=listener)
    _report(prepared, made, as_json=as_json)


def _author(prepared: Prepared) -> str:
    by = prepared.signer
    if by is None:
        unknown = "not signed: its digests show that it is whole, not who it is from"
        return "kept by klab on this machine" if prepared.kept else unknown
    return f"signed by {by}" if by.principal else f"signed with {by}; compare that with its author's"


def _report(prepared: Prepared, made: Made, *, as_json: bool) -> None:
    file, plan, by = prepared.file, prepared.plan, prepared.signer
    if as_json:
        result = {
            "lab": plan.name,
            **_both(summary(file)),
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
    was = " existed already and" if made.already else f", from bundle {file.bundle.name},"
    note(f"{plan.name}{was} is {word} after {elapsed(made.seconds)}")
    for line in made.warnings:
        note(line)
    if plan.bootstrap == "full":
        echo(_first_look(prepared.lab))
    echo(f"  klab ssh {plan.name} {plan.nodes[0].name}")


def _first_look(lab: Lab) -> str:
    """A command that shows the nodes: with a kubectl of this machine, for a bundle brings none."""
    if has_kubectl(lab):
        return f"  klab kubectl {lab.name} -- get nodes   kubectl, pointed at this lab"
    inside = "sudo kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes"
    return f"  klab ssh {lab.name} {lab.plan.nodes[0].name} -- {inside}   there is no kubectl on this machine"


# --- destroy --keep-snapshots -------------------------------------------------------------------------


def run_keep(lab: Lab, *, as_json: bool) -> list[dict[str, Any]]:
    """Write the snapshots of a lab that is to be removed into files, and print them; returns them for programs."""
    with show(lab.plan, as_json=as_json, first="export") as listener:
        made = keep_snapshots(lab, listener=listener)
    if not as_json:
        for each in made:
            note(f"{each.bundle.name} is kept: {each.path}, {human(each.size >> 20)}")
        note(f"{import_command(made[-1].path.stem)} creates a lab from the last; klab bundles lists them")
    return [summary(each) for each in made]
