"""klab token"""

from __future__ import annotations

import click

from lab.cli.terminal.numbers import Number
from lab.errors import UsageError

TEN_YEARS = 10 * 365 * 24


@click.command()
@click.argument("lab", required=False)
@click.option("--hours", type=Number(min=0, min_open=True, max=TEN_YEARS), default=24, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(lab: str | None, hours: float, as_json: bool) -> None:
    """Make a fresh bootstrap token and print the kubeadm command that joins with it.

    \b
    Examples:
      klab token
      klab token 1m2w --hours 2
    """
    from lab.cli.opening import find_lab
    from lab.cli.terminal.output import echo, echo_json
    from lab.cluster.clients.api import Api
    from lab.cluster.secrets import load_or_make
    from lab.cluster.tokens import fresh_token

    found = find_lab(lab)
    if found.plan.bootstrap != "full":
        raise UsageError(
            f"lab {found.name!r} has no cluster of klab's making",
            hint="on the student's control plane: kubeadm token create --print-join-command",
        )
    found.enter(changes=True)
    token = fresh_token(Api(found.folder, found.plan), hours=hours)
    address, port = found.plan.api_endpoint
    digest = load_or_make(found.folder).ca_hash
    if as_json:
        echo_json(
            {"lab": found.name, "token": token, "hours": hours, "endpoint": f"{address}:{port}", "ca_hash": digest}
        )
    else:
        echo(f"kubeadm join {address}:{port} --token {token} --discovery-token-ca-cert-hash {digest}")
