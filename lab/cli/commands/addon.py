"""klab addon: list, add, rm, fetch."""

from __future__ import annotations

import sys

import click

from lab.errors import RootNeeded, UsageError

_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")
_EVENTS = click.option(
    "--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line."
)
_TIMEOUT = click.option("--timeout", metavar="DURATION", help="Time limit, such as 20m.")


@click.group()
def command() -> None:
    """Bring well-known add-ons to a lab by their names: metrics, volumes, network policies and more.

    A scenario names them under addons, beside manifests of your own; here they come to a lab that
    runs. Their images come from their registries, or are compiled where these are not reached; this
    machine keeps them.

    \b
    Examples:
      klab addon list
      klab addon add metrics-server
      klab addon rm 1m2w metrics-server
    """


@command.command(name="list")
@click.argument("lab", required=False)
@_JSON
def list_(lab: str | None, as_json: bool) -> None:
    """List the add-ons that klab knows, and which of them a lab has and whether they work.

    \b
    Examples:
      klab addon list
      klab addon list 1m2w --json
    """
    from lab.cli.reports.addons import run_list

    run_list(lab, as_json=as_json)


@command.command()
@click.argument("lab_and_addons", nargs=-1, metavar="[LAB] ADDON...")
@_TIMEOUT
@_EVENTS
def add(lab_and_addons: tuple[str, ...], timeout: str | None, as_json: bool) -> None:
    """Bring add-ons to a lab, and wait until they work.

    What a lab has is not brought again: after a failure, or Ctrl-C, the same command continues.

    \b
    Examples:
      klab addon add metrics-server
      klab addon add 1m2w local-path network-policy
    """
    from lab.cli.reports.addons import run_add
    from lab.cli.terminal.words import lab_then

    lab, names = lab_then(lab_and_addons)
    if not names:
        raise UsageError("an add-on is needed", hint=f"klab addon list {lab.name} lists them")
    run_add(lab, names, timeout=timeout, as_json=as_json)


@command.command()
@click.argument("lab_and_addons", nargs=-1, metavar="[LAB] ADDON...")
@_TIMEOUT
@_EVENTS
def rm(lab_and_addons: tuple[str, ...], timeout: str | None, as_json: bool) -> None:
    """Remove add-ons from a lab, with everything that they have made in the cluster.

    Their images stay on the nodes; klab image rm removes them.

    \b
    Examples:
      klab addon rm metrics-server
      klab addon rm 1m2w local-path
    """
    from lab.cli.reports.addons import run_remove
    from lab.cli.terminal.words import lab_then

    lab, names = lab_then(lab_and_addons)
    if not names:
        raise UsageError("an add-on is needed", hint=f"klab addon list {lab.name} lists them")
    run_remove(lab, names, timeout=timeout, as_json=as_json)


@command.command()
@click.argument("addons", nargs=-1, required=True, metavar="ADDON...")
@_JSON
def fetch(addons: tuple[str, ...], as_json: bool) -> None:
    """Have the images of add-ons on this machine, for labs that are created later.

    They come from their registries. Where these are not reached they are compiled, which takes some
    minutes the first time, and root's rights, for which sudo asks.

    \b
    Examples:
      klab addon fetch metrics-server local-path
    """
    from lab.cli.reports.addons import run_fetch
    from lab.store import Home

    home = Home.default(gives_back=True)
    try:
        run_fetch(home, addons, as_json=as_json)
    except RootNeeded as needed:
        from lab.cli.terminal.sudo import again_as_root

        sys.exit(again_as_root(needed, home))
