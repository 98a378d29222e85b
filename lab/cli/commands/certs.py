"""klab certs: show, renew."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from lab.cli.terminal.groups import DefaultGroup
from lab.errors import ClusterError

if TYPE_CHECKING:
    from lab.cluster.acts.certificates import Renewed
    from lab.cluster.lab import Lab
    from lab.cluster.observe.validity import Entry, Survey


@click.group(cls=DefaultGroup, default="show")
def command() -> None:
    """Show the certificates of a lab, or renew them all. Without a subcommand they are shown.

    A lab's certificates hold for a year. Where they have expired, its API server refuses every
    client and its kubelets do not start: klab certs renew repairs that.

    \b
    Examples:
      klab certs
      klab certs ha-3m2w --json
      klab certs renew ha-3m2w
    """


@command.command()
@click.argument("lab", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(lab: str | None, as_json: bool) -> None:
    """Show each certificate, what it is for and how long it holds.

    klab reads the files on the running nodes and in the lab's folder, and the certificates that
    servers present on their ports; days are counted by the guests' clocks. Exit code 9 when a certificate has expired.

    \b
    Examples:
      klab certs show
      klab certs ha-3m2w --json
    """
    from dataclasses import asdict

    from lab.app.certificates import survey
    from lab.cli.terminal.output import echo, echo_json

    found = _open(lab, "on the student's control plane: kubeadm certs check-expiration")
    seen = survey(found)
    if as_json:
        certificates = [{**asdict(e), "expires": e.expires.isoformat() if e.expires else None} for e in seen.entries]
        clock = seen.clock.isoformat()
        echo_json({"lab": found.name, "guest_time": clock, "certificates": certificates, "unseen": list(seen.unseen)})
    else:
        echo(_text(found, seen))
    if seen.expired:
        raise SystemExit(ClusterError.exit_code)


@command.command()
@click.argument("lab", required=False)
@click.option("--timeout", metavar="DURATION", help="Time limit, such as 20m.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line.")
def renew(lab: str | None, timeout: str | None, as_json: bool) -> None:
    """Renew every certificate and wait until the lab is Ready.

    The new ones hold for a year, by the guests' clocks and by this machine's. The kubelets and
    the control planes' programs are restarted; API servers that work restart one at a time.
    Pods keep running. CAs stay as they are. Nodes that are off are left out.

    \b
    Examples:
      klab certs renew
      klab certs renew ha-3m2w --timeout 20m
    """
    from lab.app import certificates
    from lab.cli.terminal.output import echo, note
    from lab.cli.terminal.progress import show as progress
    from lab.cli.terminal.words import seconds_in

    limit = seconds_in(timeout)
    found = _open(lab, "on the student's control plane: kubeadm certs renew all", changes=True)
    with progress(found.plan, as_json=as_json) as listener:
        done = certificates.renew(found, timeout=limit, listener=listener)
    if as_json:
        result = {"renewed": done.nodes, "off": done.off, "left": done.left, "lost_quorum": done.lost_quorum}
        until = done.until.isoformat()
        echo(json.dumps({"lab": found.name, **result, "until": until, "seconds": round(done.seconds, 1)}))
    else:
        for line in _report(found, done):
            note(line)


def _open(lab: str | None, hint: str, *, changes: bool = False) -> Lab:
    from lab.app.certificates import refuse_students
    from lab.app.labs import Labs, enter
    from lab.cli.terminal.output import note

    found = Labs().find(lab)
    refuse_students(found, hint)
    enter(found, changes=changes, note=note)
    return found


def _text(lab: Lab, seen: Survey) -> str:
    from lab.cli.terminal.output import table

    rows = [[e.node or "this machine", e.where, e.use, _left(e)] for e in seen.entries]
    lines = [table(["node", "where", "what for", "left"], rows)]
    lines += [f"not seen: {line}" for line in seen.unseen]
    lines.append(_verdict(lab, seen))
    return "\n".join(lines)


def _left(entry: Entry) -> str:
    if entry.days is None:
        return f"not seen: {entry.error}"
    return f"EXPIRED {-entry.days:.0f} days ago" if entry.days <= 0 else f"{entry.days:.0f} days"


def _verdict(lab: Lab, seen: Survey) -> str:
    when = f"it is {seen.clock:%Y-%m-%d} by the guests' clocks"
    if seen.expired:
        count = len(seen.expired)
        subject = "1 certificate has" if count == 1 else f"{count} certificates have"
        return f"{when}; {subject} expired: klab certs renew {lab.name} renews them all"
    soonest = seen.soonest
    if soonest is None or soonest.expires is None:
        return f"{when}; no certificate could be seen"
    return f"{when}; the first certificate expires on {soonest.expires:%Y-%m-%d}"


def _report(lab: Lab, done: Renewed) -> list[str]:
    from lab.app.kubeconfig import merged_into
    from lab.cli.terminal.phases import elapsed
    from lab.text import visible

    lines = [
        f"{lab.name}: new certificates on {', '.join(done.nodes)} after {elapsed(done.seconds)}, "
        f"which hold until {done.until:%Y-%m-%d}"
    ]
    lines += [f"left as it was: {line}" for line in done.left]
    if done.off:
        are, run = ("is", "it runs") if len(done.off) == 1 else ("are", "they run")
        lines.append(f"{', '.join(done.off)} {are} off and left out: when {run}, klab certs renew {lab.name} again")
    if done.lost_quorum:
        lines.append(
            "too few control planes run for etcd's quorum, so the API server cannot answer: "
            f"klab start {lab.name} starts the others"
        )
    merged = merged_into(lab.folder)
    if merged:
        lines.append(
            f"{visible(str(merged))} has the lab's old certificate: "
            f"klab kubeconfig {lab.name} --merge puts in the new one"
        )
    return lines
