"""Write docs/reference from the commands' own help and the scenario's own schema.

python docs/generate.py            writes
python docs/generate.py --check    exits 1 and names what is out of date
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import click

from lab.cli.app import cli
from lab.cli.overview import COMMANDS, HELP
from lab.errors import LabError
from lab.scenario.model import SCENARIO, json_schema
from lab.scenario.schema import ListOf, MapOf, Section, ShortOr

REFERENCE = Path(__file__).parent / "reference"
WIDTH = 96
NOTE = "<!-- Written by docs/generate.py from the source; change it there and run `make docs`. -->\n"


def pages() -> dict[str, str]:
    """Every file of the reference by name."""
    return {
        "commands.md": _commands(),
        "scenario.md": _scenario(),
        "exit-codes.md": _exit_codes(),
        "scenario.schema.json": json.dumps(json_schema(), indent=2) + "\n",
    }


def _commands() -> str:
    parts = [NOTE, "# Commands\n", f"```\n{HELP}\n```\n"]
    root = click.Context(cli, info_name="klab", max_content_width=WIDTH, terminal_width=WIDTH)
    for name in COMMANDS:
        command = cli.get_command(root, name)
        if command is None:
            raise LookupError(name)
        parts += _command(command, root, f"klab {name}")
    return "\n".join(parts)


def _command(command: click.Command, parent: click.Context, path: str) -> Iterator[str]:
    name = path.rsplit(" ", 1)[-1]
    context = click.Context(command, parent=parent, info_name=name, max_content_width=WIDTH, terminal_width=WIDTH)
    yield f"## {path}\n"
    yield f"```\n{command.get_help(context).strip()}\n```\n"
    if isinstance(command, click.Group):
        for inner in sorted(command.commands):
            yield from _command(command.commands[inner], context, f"{path} {inner}")


def _scenario() -> str:
    lines = [NOTE, "# Scenario file, version 1\n"]
    lines.append("The same as JSON Schema, for editors: [scenario.schema.json](scenario.schema.json).\n")
    lines += _section("", SCENARIO)
    return "\n".join(lines) + "\n"


def _section(path: str, section: Section) -> Iterator[str]:
    if path:
        yield f"\n## {path}\n"
        yield f"{(section.model.__doc__ or '').strip()}\n"
    yield "| key | what | default |"
    yield "| --- | --- | --- |"
    inner = []
    for field in dataclasses.fields(section.model):
        kind = field.metadata["kind"]
        here = f"{path}.{field.name}".removeprefix(".")
        if isinstance(kind, Section):
            inner.append((here, kind))
        elif isinstance(kind, ListOf) and isinstance(kind.item, Section):
            inner.append((f"{here}[]", kind.item))
        elif isinstance(kind, MapOf) and isinstance(kind.item, ShortOr):
            inner.append((f"{here}.NAME", kind.item.section))
        yield f"| `{field.name}` | {_what(field)} | {_default(field)} |"
    for here, kind in inner:
        yield from _section(here, kind)


def _what(field: dataclasses.Field[object]) -> str:
    kind = field.metadata["kind"]
    allowed = kind.schema().get("enum")
    words = f" One of {', '.join(f'`{word}`' for word in allowed)}." if allowed else ""
    return (field.metadata["description"] + words).replace("|", "\\|")


def _default(field: dataclasses.Field[object]) -> str:
    default = field.default
    if default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "**required**"
    if isinstance(default, (bool, int)):
        return f"`{str(default).lower()}`"
    if isinstance(default, (str, IPv4Network)) and str(default):
        return f"`{default}`"
    return ""


def _exit_codes() -> str:
    lines = [NOTE, "# Exit codes\n", "| code | meaning |", "| --- | --- |", "| 0 | done |"]
    seen: dict[int, str] = {}
    for error in (LabError, *_below(LabError)):
        seen.setdefault(error.exit_code, (error.__doc__ or "").strip().splitlines()[0])
    seen[1] = "Any other failure that klab can explain; or the question was answered with no."
    seen |= {70: "A bug in klab; the message names the file to report.", 141: "The reader of the output went away."}
    lines += [f"| {code} | {text} |" for code, text in sorted(seen.items())]
    return "\n".join(lines) + "\n"


def _below(error: type[LabError]) -> Iterator[type[LabError]]:
    for each in error.__subclasses__():
        yield each
        yield from _below(each)


def main() -> int:
    """Write the pages, or compare them with what is there."""
    stale = []
    for name, text in pages().items():
        file = REFERENCE / name
        if "--check" in sys.argv[1:]:
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    if stale:
        sys.stderr.write(f"out of date in docs/reference: {', '.join(stale)}; run make docs\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
