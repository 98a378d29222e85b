"""klab status"""

from __future__ import annotations

from typing import Any

import click

from lab.errors import LabError


@click.command()
@click.argument("lab", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(lab: str | None, as_json: bool) -> None:
    """Show a lab's machines and whether its cluster is Ready. Exit code 9 when it is not.

    \b
    Examples:
      klab status
      klab status 1m2w --json
    """
    from lab.cli.opening import find_lab
    from lab.cli.output import echo_json, table

    found = find_lab(lab)
    found.enter()
    machines = found.machines()
    states = machines.states()
    cluster: dict[str, Any] = {"api": "", "nodes": {}}
    if found.plan.bootstrap == "full":
        from lab.cluster.api import Api
        from lab.cluster.ready import Readiness

        readiness = Readiness(found.plan, Api(found.folder, found.plan), machines, fresh=False)
        try:
            cluster["nodes"] = readiness.node_conditions()
            cluster["api"] = "ok"
        except LabError as error:
            cluster["api"] = error.message
    rows = []
    for node in found.plan.nodes:
        state = states.get(node.name)
        why = cluster["nodes"].get(node.name)
        kubernetes = "-" if why is None else "Ready" if not why else f"NotReady: {why}"
        rows.append([node.name, node.role, str(node.address), state.value if state else "absent", kubernetes])
    good = all(row[3] == "running" for row in rows)
    if found.plan.bootstrap == "full":
        good = good and all(row[4] == "Ready" for row in rows)
    if as_json:
        keys = ("name", "role", "address", "machine", "kubernetes")
        echo_json(
            {
                "lab": found.name,
                "phase": found.record.phase,
                "ready": good,
                "api": cluster["api"],
                "nodes": [dict(zip(keys, row, strict=True)) for row in rows],
            }
        )
    else:
        version = found.plan.kubernetes.version
        click.echo(
            f"{found.name}: {found.plan.scenario}, Kubernetes {version}, {found.record.provider}, {found.record.phase}"
        )
        click.echo(table(["node", "role", "address", "machine", "kubernetes"], rows))
        if cluster["api"] not in {"", "ok"}:
            click.echo(f"API server: {cluster['api']}")
    raise SystemExit(0 if good else 9)
