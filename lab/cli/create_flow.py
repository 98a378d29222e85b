"""What klab create does, step by step; apart from the command so that `klab --help` stays quick."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lab.boxes.store import Box, box_of, find_box, vagrant_box
from lab.cli.opening import open_lab
from lab.cli.terminal.output import echo, note, table
from lab.cli.terminal.progress import elapsed, show
from lab.cluster.acts.create import Created, Request, as_scaled, create
from lab.cluster.events import read_events
from lab.cluster.lab import Lab
from lab.cluster.timeline import last_create, spans
from lab.errors import Conflict, HostError, Interrupted, UsageError
from lab.host.capacity import answering, check_fits, host_facts, warnings
from lab.host.kvm_probe import probe_host
from lab.host.profile import HostProfile
from lab.machines.providers import choose_provider, enter_host_network, open_machines, stop_unused_private_libvirt
from lab.plan.model import Plan, create_command, decide
from lab.scenario.catalog import load_catalog
from lab.scenario.library import load_scenario
from lab.store import Home, LabFolder, Record
from lab.text import shortened

_DURATION = re.compile(r"(?:(?P<h>[0-9]+)h)?(?:(?P<m>[0-9]+)m)?(?:(?P<s>[0-9]+)s?)?")
LONGEST = 7 * 24 * 3600


def parse_duration(text: str) -> float:
    """Seconds in a duration such as 90, 90s, 20m or 1h30m.

    Raises:
        UsageError: it is not a duration, zero, or longer than a week.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = 0
    if match and text.strip():
        seconds = sum(_number(match[unit]) * factor for unit, factor in (("h", 3600), ("m", 60), ("s", 1)))
    shown = shortened(text, 40)
    if seconds <= 0:
        raise UsageError(f"{shown!r} is not a duration", hint="write for example 90s, 20m or 1h30m")
    if seconds > LONGEST:
        raise UsageError(f"{shown!r} is too long to wait", hint="at most 168h, which is a week")
    return float(seconds)


def _number(digits: str | None) -> int:
    """A number of which twelve digits say enough: Python refuses to read some thousand."""
    return int((digits or "").lstrip("0")[:12] or 0)


def run_create(
    scenario: str, *, name: str | None, provider: str, seat: int, timeout: str | None, as_json: bool
) -> None:
    """Everything from the words on the command line to the last line printed."""
    limit = parse_duration(timeout) if timeout else None
    home = Home.default()
    catalog = load_catalog()
    loaded = load_scenario(scenario, catalog)
    plan = decide(loaded.scenario, catalog, name=name, seat=seat)
    folder = home.lab(plan.name)
    record = folder.record() if folder.exists else None
    if record is not None:
        _refuse_half_checkpoint(record)
        plan = as_scaled(folder, plan, loaded.text)
    chosen = provider_for(provider, record)
    box = _box(home, plan, record)
    # Before the lab's network exists: the routes of the host are what it must not collide with.
    where = enter_host_network(home) if chosen == "libvirt" else "VirtualBox"
    if record is not None:
        open_lab(home, folder).enter(changes=True)
    with making(home, folder, create_command([scenario], name, seat)):
        profile = probe_host(home, plan.cpus)
        if record is None:
            hint = f"klab plan {plan.scenario} shows what it needs; smaller sizes go into the scenario file"
            refuse_what_does_not_fit(home, plan, [], hint)
        if not as_json:
            note(f"{plan.name}: {len(plan.nodes)} nodes on {where}, {speed(profile)}")
        request = Request(
            scenario_text=loaded.text,
            provider=chosen,
            profile=profile,
            box_name=box.folder.name,
            box_vagrant=vagrant_box(home, box, chosen),
            addons=loaded.addons,
        )
        with show(plan, as_json=as_json) as listener:
            created = create(Lab(home, home.lab(plan.name), plan, open_machines, limit, listener), request)
    _report(created, as_json=as_json)


def _refuse_half_checkpoint(record: Record) -> None:
    """Machines of the box beside machines of a checkpoint would make no cluster.

    Raises:
        Conflict: the lab was begun from a checkpoint.
    """
    if record.checkpoint and record.phase == "creating":
        command = create_command(["--from", "FILE"], record.name)
        raise Conflict(
            f"lab {record.name!r} is half made from a checkpoint",
            hint=f"{command} goes on with it, klab destroy {record.name} removes it",
        )


@contextmanager
def making(home: Home, folder: LabFolder, command: str) -> Iterator[None]:
    """Word a Ctrl-C while a lab is made, and end the private libvirt where nothing was made in it.

    Args:
        home: klab's folder.
        folder: the lab's.
        command: the command line, for the hint.
    """
    try:
        yield
    except BaseException as error:
        stop_unused_private_libvirt(home)
        if not isinstance(error, KeyboardInterrupt):
            raise
        if not folder.exists:
            raise Interrupted("stopped; nothing of the lab has been made yet", hint=f"{command} begins anew") from None
        raise Interrupted(
            "stopped; the machines made so far are still there",
            hint=f"{command} again goes on from here; klab destroy {folder.name} removes it",
        ) from None


def provider_for(wanted: str, record: Record | None) -> str:
    """The provider to use: the lab's own where it exists.

    Raises:
        Conflict: another one is asked for.
    """
    if record is None:
        return choose_provider(wanted)
    if wanted not in {"auto", record.provider}:
        raise Conflict(
            f"lab {record.name!r} exists on {record.provider}, not on {wanted}",
            hint=f"klab destroy {record.name} first, or choose another name with --name",
        )
    return record.provider


def _box(home: Home, plan: Plan, record: Record | None) -> Box:
    """The box to use: the one the lab was begun with, as long as it is there, else the newest that fits."""
    if record is not None and (box := box_of(home, record.box)):
        return box
    return find_box(home, plan.box, plan.kubernetes.version)


def speed(profile: HostProfile) -> str:
    """How quick guests are on this host, as a person is told."""
    if profile.accelerated:
        return "hardware virtualization"
    return f"emulated (no usable KVM), guests' clocks at {profile.dilation:g} of real speed"


def refuse_what_does_not_fit(home: Home, plan: Plan, others: Sequence[str], hint: str) -> None:
    """Make sure that a lab fits on this machine, and say what will be felt.

    Args:
        home: klab's folder.
        plan: the lab.
        others: what else keeps it from running, one line each.
        hint: what to do where something does.

    Raises:
        HostError: it does not fit.
    """
    facts = host_facts(home)
    problems = [*check_fits(plan, facts), *others]
    if plan.load_balancer is not None and (holder := answering(plan.load_balancer.vip)):
        problems.append(f"the virtual IP {plan.load_balancer.vip} is taken: {holder} answers there already")
    if problems:
        raise HostError(f"{plan.name} does not fit on this machine", details=problems, hint=hint)
    for line in warnings(plan, facts):
        note(line)


def _report(created: Created, *, as_json: bool) -> None:
    folder, plan = created.folder, created.plan
    phases = [s for s in spans(last_create(read_events(folder.events))) if s.done]
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
        note(f"{plan.name} was there already; checked in {elapsed(created.seconds)}")
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
