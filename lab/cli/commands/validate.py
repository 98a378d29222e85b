"""klab validate"""

from __future__ import annotations

import click


@click.command()
@click.argument("scenarios", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(scenarios: tuple[str, ...], as_json: bool) -> None:
    """Check scenario files and report every problem in each. Exit code 2 when there is one.

    What no box holds is told and is no problem of the scenario: klab create refuses it, and names what is missing.
    Images that this machine does not keep are told as well: klab create fetches them.

    \b
    Examples:
      klab validate lesson3.yaml
      klab validate scenarios/*.yaml --json
    """
    from lab.app import plans
    from lab.cli.terminal.output import echo, echo_json, show_error
    from lab.errors import LabError

    results = []
    for name in scenarios:
        try:
            plan = plans.check(name)
        except LabError as error:
            problems = list(error.details) or [error.message]
            results.append({"file": name, "ok": False, "message": error.message, "problems": problems, "lacking": []})
            if not as_json:
                show_error(error)
        else:
            lacks, images = plans.lacks(plan), plans.to_fetch(plan)
            result = {"file": name, "ok": True, "message": "", "problems": [], "lacking": lacks}
            results.append({**result, "images_to_fetch": images} if plan.images else result)
            if not as_json:
                echo(
                    f"{name}: good, {len(plan.nodes)} nodes"
                    + ("; klab create refuses it, since no box has:" if lacks else "")
                )
                for line in lacks:
                    echo(f"  {line}")
                if images:
                    echo(f"  not on this machine, and fetched by klab create: {', '.join(images)}")
    if as_json:
        echo_json(results)
    raise SystemExit(0 if all(result["ok"] for result in results) else 2)
