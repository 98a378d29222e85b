"""Groups of commands with one that may be left out."""

from __future__ import annotations

from typing import Any

import click


class DefaultGroup(click.Group):
    """A group of which one subcommand may be left out: klab certs LAB is klab certs show LAB."""

    def __init__(self, *args: Any, default: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in {*self.commands, *ctx.help_option_names}
        # Tab after the group's name shows the subcommands.
        if not named and not (ctx.resilient_parsing and not args):
            args = [self.default, *args]
        return super().parse_args(ctx, args)
