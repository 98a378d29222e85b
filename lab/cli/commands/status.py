"""klab status"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click

from lab.cli.terminal.numbers import Number
from lab.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from lab.app.status import Look
    from lab.cluster.observe.facts import ClusterFacts, NodeFacts

INTERVAL = 2.0
# A kubelet explains itself at length; --json and klab doctor have all of it.
WHY_WIDTH = 60


@click.command()
@click.argument("lab", required=False)
@click.option("--watch", is_flag=True, help="Repeat until Ctrl-C.")
@click.option(
    "--interval",
    type=Number(min=0.1, max=3600),
    metavar="SECONDS",
    help=f"Time between two updates of --watch; {INTERVAL:g} when left out.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON; with --watch one line per update.")
def command(lab: str | None, watch: bool, interval: float | None, as_json: bool) -> None:
    """Show a lab's machines and how its cluster is. Exit code 9 when it is not Ready.

    The cluster is asked from this machine: the API through its endpoint and on each control
    plane, etcd member by member, the certificates in use, the bootstrap token, and over NTP which
    clock the lab follows. Machines that do not run are not asked. klab doctor LAB shows what is
    wrong and what repairs it.

    \b
    Examples:
      klab status
      klab status ha-3m2w --watch
      klab status 1m2w --json
    """
    from lab.app.labs import Labs
    from lab.app.status import watch as look_again
    from lab.cli.terminal.output import echo, echo_json, note

    if interval is not None and not watch:
        raise UsageError("--interval needs --watch", hint="klab status --watch --interval 5")
    looks = look_again(Labs().open(lab, changes=False, note=note), interval or INTERVAL)
    seen = next(looks)
    if not watch:
        if as_json:
            echo_json(_everything(seen))
        else:
            echo(_text(seen))
        raise SystemExit(_code(seen.facts))
    with _screen(as_json=as_json) as show:
        try:
            while True:
                show(seen)
                seen = next(looks)
        except KeyboardInterrupt:
            pass
    raise SystemExit(_code(seen.facts))


def _code(facts: ClusterFacts) -> int:
    return 0 if facts.ready else ClusterError.exit_code


# --- words ------------------------------------------------------------------------------------


def _text(seen: Look) -> str:
    from lab.cli.terminal.output import table
    from lab.cli.terminal.words import unenforced
    from lab.cluster.observe.facts import (
        certificate_line,
        endpoint_line,
        etcd_line,
        no_member,
        pod_line,
        policies_enforced,
        time_line,
        token_line,
    )

    lab, record, facts = seen.lab, seen.record, seen.facts
    version = lab.plan.box_kubernetes
    inside = f"Kubernetes {version}" if version else f"box {lab.plan.box}"
    lines = [f"{lab.name}: {lab.plan.scenario}, {inside}, {record.provider}, {record.phase}"]
    if record.upgrading_to:
        to = record.upgrading_to
        lines.append(f"half upgraded to Kubernetes {to}; klab upgrade {lab.name} --to {to} continues")
    if facts.endpoint is None:
        rows = [[n.name, n.role, n.address, n.machine, "-"] for n in facts.nodes]
        lines.append(table(["node", "role", "address", "machine", "kubernetes"], rows))
    else:
        headers = ["node", "role", "address", "machine", "api", "etcd", "kubelet", "kubernetes"]
        lines.append(table(headers, [_row(n, facts) for n in facts.nodes]))
    if facts.stopped:
        lines.append(f"every machine is off; klab start {lab.name} starts the lab")
    elif facts.endpoint is not None:
        words = (endpoint_line, etcd_line, certificate_line, token_line, pod_line)
        names = ("endpoint", "etcd", "certificates", "bootstrap token", "system pods")
        lines += [_line(name, say(facts)) for name, say in zip(names, words, strict=True)]
        if facts.pods is not None and not policies_enforced(lab.plan, facts):
            lines.append(_line("policies", unenforced(lab.plan.kubernetes.cni)))
    if record.phase == "ready":
        lines += [no_member(lab.name, n.name) for n in facts.nodes if n.runs and n.registered is False]
    if facts.clocks and not facts.stopped:
        lines.append(_line("time", time_line(facts)))
    lines += [f"not seen: {line}" for line in facts.unseen]
    return "\n".join(lines)


def _line(name: str, says: str) -> str:
    return f"{name.ljust(len('bootstrap token'))}  {says}"


def _row(node: NodeFacts, facts: ClusterFacts) -> list[str]:
    api = "-" if node.api is None or not node.runs else "ok" if not node.api else "down"
    return [
        node.name,
        node.role,
        node.address,
        node.machine,
        api,
        _member(node, facts),
        node.kubelet or "-",
        shorten(_kubernetes(node), width=WHY_WIDTH, placeholder="..."),
    ]


def _kubernetes(node: NodeFacts) -> str:
    if not node.registered:
        return "-" if node.registered is None else "no member"
    return "Ready" + (", cordoned" if node.cordoned else "") if node.ready else f"NotReady: {node.why}"


def _member(node: NodeFacts, facts: ClusterFacts) -> str:
    etcd = facts.etcd
    member = next((m for m in etcd.members if m.name == node.name), None) if etcd else None
    if etcd is None or member is None or not node.runs:
        return "-"
    if member.status is None:
        return "lost"
    if member.joined is False:
        return "no member"
    if not member.status.healthy:
        return "unhealthy"
    return "leader" if node.name == etcd.leader else "learner" if member.learner else "member"


# --- JSON -------------------------------------------------------------------------------------


def _everything(seen: Look) -> dict[str, Any]:
    """A look as plain data; etcd's ids as etcdctl writes them, since not every JSON reader takes 64-bit numbers."""
    facts = seen.facts
    etcd: dict[str, Any] | None = None
    if facts.etcd is not None:
        etcd = {
            "quorum": facts.etcd.has_quorum,
            "answering": len(facts.etcd.answering),
            "voters": len(facts.etcd.voters),
            "needed": facts.etcd.needed,
            "leader": facts.etcd.leader,
            "error": facts.quorum_lost or facts.etcd.error,
            "alarms": [{"member": f"{a.member:x}", "kind": a.kind} for a in facts.etcd.alarms],
            "members": [_member_json(asdict(m)) for m in facts.etcd.members],
        }
    soonest, token = facts.soonest, facts.token
    return {
        "lab": seen.lab.name,
        "phase": seen.record.phase,
        "kubernetes": seen.lab.plan.box_kubernetes or None,
        "upgrading_to": seen.record.upgrading_to,
        "ready": facts.ready,
        "api": "" if facts.endpoint is None else facts.endpoint.error or "ok",
        "nodes": [{**asdict(n), "kubernetes": _kubernetes(n)} for n in facts.nodes],
        "guest_time": facts.guest_time,
        "endpoint": asdict(facts.endpoint) if facts.endpoint else None,
        "etcd": etcd,
        "certificates": [asdict(c) for c in facts.certificates],
        "soonest_certificate_days": soonest.days if soonest else None,
        "tokens": None if facts.tokens is None else [{**asdict(t), "valid": t.valid} for t in facts.tokens],
        "token_hours": token.hours if token else None,
        "pods": None if facts.pods is None else [asdict(p) for p in facts.pods],
        "time_source": facts.time_source,
        "clocks": [asdict(c) for c in facts.clocks],
        "unseen": list(facts.unseen),
    }


def _member_json(member: dict[str, Any]) -> dict[str, Any]:
    status = member["status"]
    if status is not None:
        status |= {"id": f"{status['id']:x}", "leader": f"{status['leader']:x}"}
    return member | {"id": f"{member['id']:x}"}


# --- watching ---------------------------------------------------------------------------------


@contextmanager
def _screen(*, as_json: bool) -> Iterator[Callable[[Look], None]]:
    """Where the updates go: in place on a terminal, one after another elsewhere."""
    import sys

    from lab.cli.terminal.output import echo
    from lab.text import visible

    if as_json:
        yield lambda seen: echo(json.dumps(_everything(seen), default=str))
    elif sys.stdout is None or not sys.stdout.isatty():
        yield lambda seen: echo(_text(seen) + "\n")
    else:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        with Live(console=Console(highlight=False), auto_refresh=False) as live:
            yield lambda seen: live.update(Text(visible(f"{_text(seen)}\n{_clock()}", keep="\n")), refresh=True)


def _clock() -> str:
    return f"seen at {time.strftime('%H:%M:%S')}; Ctrl-C ends"
