"""How klab prints: text, tables, notes, JSON and errors. Nothing here imports more than click.

All that klab prints passes here, since much of it was not written by klab: text of a file, a guest, another program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click

from lab.errors import LabError
from lab.text import MOST_CHARACTERS, shortened, visible

MOST_IN_MESSAGE = 1000  # characters


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print text that klab may not have written.

    On a terminal, and on standard error, characters that would drive a terminal are written out; a file or another
    program gets standard output as it is.

    Args:
        text: anything; it may have line ends and tabs.
        err: to standard error.
        nl: end the line.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # klab ... >&-
        return
    shown = visible(str(text), keep="\n\t") if err or stream.isatty() else _encodable(str(text), stream)
    click.echo(shown, err=err, nl=nl, color=True)


def _encodable(text: str, stream: TextIO) -> str:
    """The text, with what the stream cannot encode written out, such as half a character of a file's name."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def echo_json(value: Any) -> None:
    """Print a value as indented JSON on standard output; what JSON does not know (addresses, paths) as text."""
    import json

    echo(json.dumps(value, indent=2, default=str))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows in aligned columns under their headers; no trailing blanks, no frame, so that programs can cut it."""
    lines = [[header.upper() for header in headers], *([visible(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(headers))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def note(text: str) -> None:
    """Tell the person something that is not the command's result: to standard error."""
    echo(text, err=True)


def coloured(stream: TextIO | None) -> bool:
    """Whether to colour: on a terminal that can, unless NO_COLOR (no-color.org) is set to something."""
    if stream is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()


def show_error(error: LabError) -> None:
    """Print message, details and hint to standard error; long text is cut."""
    if sys.stderr is None:  # klab ... 2>&-
        return
    colour = coloured(sys.stderr)

    def styled(text: str, **style: Any) -> str:
        return click.style(text, **style) if colour else text

    lines = [f"{styled('error:', fg='red', bold=True)} {_text(error.message)}"]
    lines += [f"  {_text(line, MOST_CHARACTERS)}" for detail in error.details for line in _lines(detail)]
    if error.hint:
        lines.append(f"{styled('hint:', fg='cyan')} {_text(error.hint)}")
    click.echo("\n".join(lines), err=True, color=colour)


def _text(text: str, most: int = MOST_IN_MESSAGE) -> str:
    return visible(shortened(text, most), keep="\n\t")


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").rstrip("\n").split("\n")
