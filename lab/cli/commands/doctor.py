"""klab doctor"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lab.errors import ClusterError, HostError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.cluster.diagnostics import Finding, Result
    from lab.machines.doctor import Finding as HostFinding

APT = "sudo apt-get install "


@click.command()
@click.argument("lab", required=False)
@click.option(
    "--report",
    metavar="[FILE]",
    is_flag=False,
    flag_value="",
    help="Write all of it, and more, into a text file for somebody who helps; klab-report-DATE.txt when left out.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(lab: str | None, report: str | None, as_json: bool) -> None:
    """Check whether this machine can run labs; with LAB what is broken in that lab.

    Exit code 5 when this machine lacks something, 9 when something is wrong with the lab.
    Nothing is changed. A small guest shows whether hardware virtualization works; without it
    the first run takes up to a minute longer. klab asks a lab's nodes over ssh, and prints with
    each finding the command that repairs it.

    A report has this machine's system, programs, libvirt, networks and labs with the ends of their
    logs; with LAB also what is wrong with that lab and what its nodes print. Secrets, your name and
    this machine's are removed. It is text: read it before you send it.

    \b
    Examples:
      klab doctor
      klab doctor ha-3m2w
      klab doctor --report
      klab doctor ha-3m2w --report ha.txt
      klab doctor --json
    """
    if report is not None:
        from lab.cli.reports.doctor import run_report

        run_report(lab, report, as_json=as_json)
    elif lab is None:
        _host(as_json=as_json)
    else:
        _lab(lab, as_json=as_json)


def _host(*, as_json: bool) -> None:
    from lab.app.doctor import examine_host
    from lab.cli.terminal.output import echo, echo_json, table

    findings = examine_host()
    if as_json:
        echo_json([asdict(finding) for finding in findings])
    else:
        words = {(True, True): "ok", (True, False): "ok", (False, True): "MISSING", (False, False): "note"}
        rows = [[finding.name, words[finding.ok, finding.fatal], finding.seen] for finding in findings]
        echo(table(["check", "result", "seen"], rows))
        for names, hint in _hints(findings):
            echo(f"\n{', '.join(names)}: {hint}")
        echo(f"\n{_verdict(findings)}")
    if any(finding.fatal and not finding.ok for finding in findings):
        sys.exit(HostError.exit_code)


def _hints(findings: Sequence[HostFinding]) -> Iterator[tuple[list[str], str]]:
    """What to do, without which no lab runs first: the names of what it is about, and how. One line installs it all."""
    lacking = sorted((each for each in findings if each.hint), key=lambda each: not each.fatal)
    packaged = [each for each in lacking if each.hint.startswith(APT) and not set(each.hint) & set(";,()")]
    if packaged:
        packages = dict.fromkeys(name for each in packaged for name in each.hint.removeprefix(APT).split())
        yield [each.name for each in packaged], APT + " ".join(packages)
    yield from (([each.name], each.hint) for each in lacking if each not in packaged)


def _verdict(findings: Sequence[HostFinding]) -> str:
    missing = [each.name for each in findings if each.fatal and not each.ok]
    if missing:
        return f"no lab can run on this machine yet; it lacks: {', '.join(missing)}"
    return "this machine can run labs"


def _lab(name: str, *, as_json: bool) -> None:
    from lab.app.doctor import examine_lab
    from lab.app.labs import Labs
    from lab.cli.terminal.output import echo, echo_json, note, table

    found = Labs().open(name, changes=False, note=note)
    results = examine_lab(found)
    healthy = all(result.well for result in results)
    if as_json:
        echo_json({"lab": found.name, "healthy": healthy, "checks": [asdict(result) for result in results]})
    else:
        echo(table(["check", "result", "seen"], [_row(result) for result in results]))
        echo(_advice(found.name, results))
    if not healthy:
        sys.exit(ClusterError.exit_code)


def _row(result: Result) -> list[str]:
    if result.findings:
        where = list(dict.fromkeys(finding.node for finding in result.findings if finding.node))
        return [result.check, "WRONG", f"on {', '.join(where)}" if where else result.findings[0].what]
    return [result.check, "not seen" if result.unseen else "ok", result.unseen or result.says]


def _advice(lab: str, results: Sequence[Result]) -> str:
    """The findings, causes first, each with what shows it and what repairs it."""
    findings = [finding for result in results for finding in result.findings]
    if findings:
        return "\n".join(_words(finding) for finding in findings)
    if all(result.well for result in results):
        return f"\n{lab} is healthy"
    return f"\nno problem was found in {lab}, but not everything could be checked"


def _words(finding: Finding) -> str:
    where = f"{finding.node}: " if finding.node else ""
    return f"\n{where}{finding.what}\n  seen: {finding.evidence}\n  repair: {finding.repair}"
