"""klab import"""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--digest", metavar="SHA256", help="Import the bundle only if this is its digest.")
@click.option(
    "--allowed-signers",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Import the bundle only if one of these signers signed it (ssh-keygen(1), ALLOWED SIGNERS).",
)
@click.option("--name", help="Name of the lab; the bundle's own when left out.")
@click.option(
    "--provider",
    type=click.Choice(["auto", "libvirt", "virtualbox"]),
    default="auto",
    show_default=True,
    help="The provider that runs the machines. virtualbox, which is experimental, cannot import yet.",
)
@click.option("--timeout", metavar="DURATION", help="Time limit, such as 20m or 1h30m.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line.")
def command(
    file: Path,
    digest: str | None,
    allowed_signers: Path | None,
    name: str | None,
    provider: str,
    timeout: str | None,
    as_json: bool,
) -> None:
    """Create a lab from a bundle (see klab export) and wait until it is Ready.

    The lab has the disks, keys and addresses of the original; every byte of the file is verified
    first. FILE may also be the name of a bundle that klab bundles lists. Running it again
    continues where an earlier run stopped.

    The author of the file holds the lab's keys. klab shows who signed it; if
    KLAB_HOME/allowed_signers exists, klab accepts only files that a signer in it signed.

    \b
    Examples:
      klab import lesson-3.klab
      klab import lesson-3.klab --name lesson-3 --timeout 20m
      klab import lesson-3.klab --allowed-signers course/allowed_signers
    """
    from lab.app.bundles import Request
    from lab.cli.reports.bundles import run_import

    run_import(Request(file, name, provider, digest, allowed_signers), timeout=timeout, as_json=as_json)
