"""klab scenarios"""

from __future__ import annotations

import click


@click.command()
@click.argument("scenario", required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(scenario: str | None, as_json: bool) -> None:
    """List the shipped scenarios with a picture of each and what it still needs here; or print the file of one.

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
                    "name": each.loaded.scenario.name,
                    "description": each.loaded.scenario.description,
                    "control_planes": len(each.plan.control_planes),
                    "workers": len(each.plan.workers),
                    "cpus": each.plan.cpus,
                    "memory": each.plan.memory,
                    "kubernetes": each.plan.box_kubernetes or None,
                    "bootstrap": each.plan.bootstrap,
                    "path": each.loaded.path,
                    "needs": each.needs,
                }
                for each in shipped
            ]
        )
        return
    for each in shipped:
        plan = each.plan
        echo(f"{plan.scenario}: {each.loaded.scenario.description}")
        inside = f"{each.image.system}, no Kubernetes" if each.image else f"Kubernetes {plan.kubernetes.version}"
        echo(f"  {plan.cpus} CPUs and {human(plan.memory)} RAM in all, {inside}")
        echo("".join(f"  missing: {line}\n" for line in each.needs))
        echo("\n".join(f"    {line}".rstrip() for line in picture(plan)) + "\n")
    echo("klab create NAME makes one; klab scenarios NAME prints its file.")
