"""klab timeline"""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from lab.errors import UsageError


@click.command()
@click.argument("lab", required=False)
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Write the chart to this file as SVG.")
@click.option("--json", "as_json", is_flag=True, help="Print the spans as JSON.")
def command(lab: str | None, svg: Path | None, as_json: bool) -> None:
    """Show where the time of a create went.

    \b
    Examples:
      klab timeline
      klab timeline 1m2w --svg timeline.svg
    """
    from dataclasses import asdict

    from lab.app.labs import Labs
    from lab.app.timeline import timeline
    from lab.cli.terminal.output import echo, echo_json, note
    from lab.cluster.timeline import draw_svg, draw_text
    from lab.files import write_outside
    from lab.text import visible

    found = Labs().find(lab)
    chart = timeline(found.folder)
    if as_json:
        echo_json([asdict(span) for span in chart])
        return
    if svg is not None:
        try:
            write_outside(svg, draw_svg(chart, title=f"klab create {found.plan.scenario}"), mode=0o666)
        except OSError as error:
            raise UsageError(
                f"{visible(str(svg))} cannot be written",
                details=[error.strerror or str(error)],
                hint="name a file in a folder that exists",
            ) from error
        note(f"written: {visible(str(svg))}")
        return
    echo(draw_text(chart, width=max(40, min(100, shutil.get_terminal_size().columns - 14))))
