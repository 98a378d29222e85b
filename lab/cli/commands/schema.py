"""klab schema"""

from __future__ import annotations

import click


@click.command()
def command() -> None:
    """Print the JSON Schema of scenario files, for editors.

    \b
    Examples:
      klab schema > scenario.schema.json
    """
    from lab.cli.terminal.output import echo_json
    from lab.scenario.model import json_schema

    echo_json(json_schema())
