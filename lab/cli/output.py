"""How klab prints: tables, notes, JSON and errors. Nothing here imports more than click."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click

from lab.errors import LabError


def echo_json(value: Any) -> None:
    """Print a value as indented JSON on standard output; what JSON does not know (addresses, paths) as text."""
    import json

    click.echo(json.dumps(value, indent=2, default=str))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows in aligned columns under their headers; no trailing blanks, no frame, so that programs can cut it."""
    lines = [[header.upper() for header in headers], *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def note(text: str) -> None:
    """Tell the person something that is not the command's result: to standard error."""
    click.echo(text, err=True)


def coloured(stream: TextIO) -> bool:
    """Whether to colour: on a terminal that can, unless NO_COLOR (no-color.org) is set to something."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def show_error(error: LabError) -> None:
    """Print message, details and hint to standard error."""
    colour = coloured(sys.stderr)

    def styled(text: str, **style: Any) -> str:
        return click.style(text, **style) if colour else text

    lines = [f"{styled('error:', fg='red', bold=True)} {error.message}"]
    lines += [f"  {line}" for detail in error.details for line in detail.splitlines() or [""]]
    if error.hint:
        lines.append(f"{styled('hint:', fg='cyan')} {error.hint}")
    click.echo("\n".join(lines), err=True, color=colour)
