"""klab create"""

from __future__ import annotations

from pathlib import Path

import click

from lab.errors import UsageError


@click.command()
@click.argument("scenario", required=False)
@click.option("--name", help="Name of the lab; the scenario's own when left out.")
@click.option(
    "--provider",
    type=click.Choice(["auto", "libvirt", "virtualbox"]),
    default="auto",
    show_default=True,
    help="The provider that runs the machines. virtualbox is experimental: no machine has been started with it yet.",
)
@click.option("--seat", type=click.IntRange(min=0), default=0, help="The student's number: addresses derive from it.")
@click.option("--timeout", metavar="DURATION", help="Time limit, such as 20m or 1h30m.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line.")
# What klab import was called in version 0.1.
@click.option("--from", "source", type=click.Path(path_type=Path), hidden=True)
@click.option("--digest", hidden=True)
@click.option("--allowed-signers", type=click.Path(path_type=Path), hidden=True)
def command(
    scenario: str | None,
    name: str | None,
    provider: str,
    seat: int,
    timeout: str | None,
    as_json: bool,
    source: Path | None,
    digest: str | None,
    allowed_signers: Path | None,
) -> None:
    """Create a lab from a scenario and wait until it is Ready.

    SCENARIO is the name of a shipped scenario (klab scenarios lists them) or a path.
    Running it again continues where an earlier run stopped.

    klab import makes a lab from a bundle instead, with the disks of one that others have set up.

    \b
    Examples:
      klab create 1m2w
      klab create ./lesson3.yaml --name lesson3
      klab create 1m2w --timeout 20m --json
    """
    if source is not None:
        _import(source, scenario, name, provider, seat, digest, allowed_signers, timeout, as_json=as_json)
        return
    if scenario is None:
        raise UsageError(
            "which scenario?",
            hint="klab create 1m2w; klab scenarios lists scenarios; klab import FILE makes a lab from a bundle",
        )
    if digest or allowed_signers:
        raise UsageError("only bundles have a digest and a signature", hint="klab import lesson-3.klab")
    from lab.cli.reports.create import run_create

    run_create(scenario, name=name, provider=provider, seat=seat, timeout=timeout, as_json=as_json)


def _import(
    source: Path,
    scenario: str | None,
    name: str | None,
    provider: str,
    seat: int,
    digest: str | None,
    allowed_signers: Path | None,
    timeout: str | None,
    *,
    as_json: bool,
) -> None:
    """klab create --from, as klab import was called in version 0.1."""
    from lab.app.bundles import Request
    from lab.cli.reports.bundles import run_import
    from lab.cli.terminal.output import note

    note("klab create --from is called klab import now")
    if scenario is not None:
        raise UsageError("a scenario or a bundle, not both", hint="klab create 1m2w, or klab import lesson-3.klab")
    if seat:
        raise UsageError("a bundle has its seat already", hint="leave --seat out")
    run_import(Request(source, name, provider, digest, allowed_signers), timeout=timeout, as_json=as_json)
