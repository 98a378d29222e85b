"""klab create"""

from __future__ import annotations

from pathlib import Path

import click

from lab.errors import UsageError


@click.command()
@click.argument("scenario", required=False)
@click.option(
    "--from",
    "source",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Make the lab from a checkpoint (klab checkpoint) instead of a scenario.",
)
@click.option("--digest", metavar="SHA256", help="Take the checkpoint only if this is its digest.")
@click.option(
    "--allowed-signers",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Take the checkpoint only if one of these has signed it (ssh-keygen(1), ALLOWED SIGNERS).",
)
@click.option("--name", help="Name of the lab; the scenario's or the checkpoint's own when left out.")
@click.option("--provider", type=click.Choice(["auto", "libvirt", "virtualbox"]), default="auto", show_default=True)
@click.option("--seat", type=click.IntRange(min=0), default=0, help="The student's number: addresses derive from it.")
@click.option("--timeout", metavar="DURATION", help="How long it may take, such as 20m or 1h30m.")
@click.option("--json", "as_json", is_flag=True, help="Events and result as JSON, one object a line.")
def command(
    scenario: str | None,
    source: Path | None,
    digest: str | None,
    allowed_signers: Path | None,
    name: str | None,
    provider: str,
    seat: int,
    timeout: str | None,
    as_json: bool,
) -> None:
    """Create a lab from a scenario and wait until it is Ready.

    SCENARIO is the name of a shipped scenario (klab scenarios lists them) or a path.
    Running it again continues where an earlier run stopped.

    With --from FILE the lab is the one that klab checkpoint wrote, with its disks, keys and
    addresses; every byte of the file is verified first. FILE may also be the name of one that
    klab checkpoints lists. The author of the file holds the lab's keys. klab says who has signed
    it; where KLAB_HOME/allowed_signers exists, only files that one of those has signed are taken.

    \b
    Examples:
      klab create 1m2w
      klab create ./lesson3.yaml --name lesson3
      klab create 1m2w --timeout 20m --json
      klab create --from lesson-3.klab
      klab create --from lesson-3.klab --allowed-signers course/allowed_signers
    """
    if (scenario is None) == (source is None):
        raise UsageError(
            "a scenario, or --from a checkpoint: one of both",
            hint="klab create 1m2w, or klab create --from lesson-3.klab; klab scenarios lists scenarios",
        )
    if source is not None:
        from lab.cli.checkpoint_flow import Demands, run_create_from

        if seat:
            raise UsageError("a checkpoint has its seat already", hint="leave --seat out")
        demands = Demands(digest, allowed_signers)
        run_create_from(source, demands, name=name, provider=provider, timeout=timeout, as_json=as_json)
    elif scenario is not None:
        if digest or allowed_signers:
            raise UsageError("only checkpoints have a digest and a signature", hint="klab create --from lesson-3.klab")
        from lab.cli.reports.create import run_create

        run_create(scenario, name=name, provider=provider, seat=seat, timeout=timeout, as_json=as_json)
