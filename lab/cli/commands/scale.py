"""klab scale"""

from __future__ import annotations

from functools import partial

import click

from lab.errors import UsageError


@click.command()
@click.argument("lab", required=False)
@click.option("--workers", type=click.IntRange(min=0), metavar="N", help="Number of workers the lab is to have.")
@click.option(
    "--control-planes", type=click.IntRange(min=1), metavar="N", help="Number of control planes: 1, 3, 5 or 7."
)
@click.option("--allow-even", is_flag=True, help="Allow an even number of control planes.")
@click.option("--timeout", metavar="DURATION", help="Time limit, such as 20m.")
@click.option("--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line.")
def command(
    lab: str | None,
    workers: int | None,
    control_planes: int | None,
    allow_even: bool,
    timeout: str | None,
    as_json: bool,
) -> None:
    """Add or remove nodes until a lab has the given number.

    New nodes join with a fresh token. Nodes that go are drained, leave etcd and the cluster,
    and are removed with their machine; the last ones go first.

    \b
    Examples:
      klab scale --workers 3
      klab scale ha-3m2w --control-planes 5 --workers 1
    """
    from lab.app.labs import Labs
    from lab.app.scale import scale
    from lab.cli.reports.scale import run_change

    if workers is None and control_planes is None:
        raise UsageError("klab scale needs a number of nodes", hint="klab scale --workers N, or --control-planes N")
    act = partial(scale, workers=workers, control_planes=control_planes, allow_even=allow_even)
    run_change(Labs().find(lab), act, timeout=timeout, as_json=as_json)
