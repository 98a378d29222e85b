"""klab doctor"""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from lab.errors import HostError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(as_json: bool) -> None:
    """Check whether this machine can run labs. Exit code 5 when something needed is missing.

    Nothing is changed. Hardware virtualization is tried with a small guest, which
    takes up to a minute the first time where there is none.

    \b
    Examples:
      klab doctor
      klab doctor --json
    """
    from lab.cli.output import echo_json, table
    from lab.machines.doctor import examine
    from lab.store import Home

    findings = list(examine(Home.default()))
    if as_json:
        echo_json([asdict(finding) for finding in findings])
    else:
        words = {(True, True): "ok", (True, False): "ok", (False, True): "MISSING", (False, False): "note"}
        rows = [[finding.name, words[finding.ok, finding.fatal], finding.seen] for finding in findings]
        click.echo(table(["check", "result", "seen"], rows))
        for finding in findings:
            if finding.hint:
                click.echo(f"\n{finding.name}: {finding.hint}")
    if any(finding.fatal and not finding.ok for finding in findings):
        sys.exit(HostError.exit_code)
