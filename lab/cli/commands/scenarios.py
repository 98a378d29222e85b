"""klab scenarios"""

from __future__ import annotations

import click


@click.command()
@click.argument("scenario", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(scenario: str | None, as_json: bool) -> None:
    """List the shipped scenarios with a picture of each; or print the file of one.

    \b
    Examples:
      klab scenarios
      klab scenarios ha-3m2w
      klab scenarios 1m2w > mine.yaml     a start for your own
    """
    from lab.app import plans
    from lab.cli.terminal.output import echo, echo_json
    from lab.cli.terminal.picture import picture
    from lab.scenario.library import find_scenario, read_text
    from lab.scenario.sizes import human

    if scenario is not None:
        echo(read_text(find_scenario(scenario)), nl=False)
        return
    shipped = plans.shipped()
    if as_json:
        echo_json(
            [
                {
                    "name": plan.name,
                    "description": each.scenario.description,
                    "control_planes": len(plan.control_planes),
                    "workers": len(plan.workers),
                    "cpus": plan.cpus,
                    "memory": plan.memory,
                    "kubernetes": plan.kubernetes.version,
                    "bootstrap": plan.bootstrap,
                    "path": each.path,
                }
                for each, plan in shipped
            ]
        )
        return
    for each, plan in shipped:
        echo(f"{plan.name}: {each.scenario.description}")
        echo(f"  {plan.cpus} CPUs and {human(plan.memory)} RAM in all, Kubernetes {plan.kubernetes.version}\n")
        echo("\n".join(f"    {line}".rstrip() for line in picture(plan)) + "\n")
    echo("klab create NAME makes one; klab scenarios NAME prints its file.")
