"""What klab create prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lab.app.create import Created, Request, make, making, prepare
from lab.app.timeline import timeline
from lab.cli.terminal.output import echo, note, table
from lab.cli.terminal.phases import elapsed
from lab.cli.terminal.progress import show
from lab.cli.terminal.words import seconds_in

if TYPE_CHECKING:
    from lab.host.profile import HostProfile


def run_create(
    scenario: str, *, name: str | None, provider: str, seat: int, timeout: str | None, as_json: bool
) -> None:
    """Make a lab, and print the result."""
    limit = seconds_in(timeout)
    request = Request(scenario, name, provider, seat)
    prepared = prepare(request, note=note)
    plan = prepared.plan
    with making(prepared.lab.home, prepared.lab.folder, request.command):
        if not as_json:
            note(f"{plan.name}: {len(plan.nodes)} nodes on {prepared.where}, {speed(prepared.profile)}")
        with show(plan, as_json=as_json) as listener:
            created = make(prepared, timeout=limit, listener=listener)
    _report(created, as_json=as_json)


def speed(profile: HostProfile) -> str:
    """How quick guests are on this host, as a person is told."""
    if profile.accelerated:
        return "hardware virtualization"
    emulated = f"emulated, guests' clocks at {profile.dilation:g} of real speed"
    if profile.obstacle is None:
        return emulated
    # QEMU's own words may be several lines, joined so; `klab doctor` shows them all.
    why, _, _ = profile.obstacle.why.partition("; ")
    return f"{emulated}: {why} ({profile.obstacle.hint})"


def _report(created: Created, *, as_json: bool) -> None:
    folder, plan = created.folder, created.plan
    phases = [s for s in timeline(folder) if s.done]
    if as_json:
        # One object a line, as the events before it.
        result = {
            "lab": plan.name,
            "nodes": [{"name": n.name, "role": n.role, "address": str(n.address)} for n in plan.nodes],
            "kubeconfig": str(folder.kubeconfig),
            "seconds": round(created.seconds, 1),
            "already": created.already,
            "phases": [{"row": s.row, "phase": s.phase, "seconds": round(s.seconds, 1)} for s in phases],
        }
        echo(json.dumps(result))
        return
    if created.already:
        note(f"{plan.name} existed already; checked in {elapsed(created.seconds)}")
    took = {n.name: "  ".join(f"{s.phase} {elapsed(s.seconds)}" for s in phases if s.row == n.name) for n in plan.nodes}
    echo()
    echo(
        table(["node", "role", "address", "took"], [[n.name, n.role, str(n.address), took[n.name]] for n in plan.nodes])
    )
    word = "Ready" if plan.bootstrap == "full" else "up"
    first = plan.nodes[0].name
    echo(f"\n{plan.name} is {word} after {elapsed(created.seconds)}.")
    if plan.bootstrap == "full":
        echo(f"  klab kubectl -- get nodes       kubectl, pointed at this lab (kubeconfig: {folder.kubeconfig})")
    echo(f"  klab ssh {first:<22} a shell on a node")
    echo("  klab timeline                   where the time went")
