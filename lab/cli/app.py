"""The command `klab`: finds the module of a subcommand, runs it, and words what goes wrong.

Each subcommand is a module of this package with an attribute `command` (or one named like
the module). It is imported when it is invoked and not before.
"""

from __future__ import annotations

import contextlib
import keyword
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lab import log
from lab.cli.overview import ALIASES, COMMANDS, HELP
from lab.cli.terminal.log import hide_log, show_log
from lab.cli.terminal.output import note, show_error
from lab.errors import HostError, LabError, UsageError, refusal
from lab.locks import tell_of_waits
from lab.signals import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXIT_BUG = 70  # EX_SOFTWARE of sysexits.h
EXIT_BROKEN_PIPE = 141
REFUSED_HINT = "free space or change the permissions there; KLAB_HOME sets where klab keeps its files"


@dataclass(slots=True)
class Settings:
    """What holds for the whole run."""

    debug: bool = False


class Commands(click.Group):
    """A group that knows its subcommands' names and imports only the one that is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        import importlib

        module = importlib.import_module(f"lab.cli.commands.{module_of(cmd_name)}")
        command = getattr(module, "command", None) or getattr(module, cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101 - a defect of klab's, found by every test
        command.name = cmd_name
        return _prepared(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in ALIASES:
            name = ALIASES[args[0]]
            if not ctx.resilient_parsing:  # as it is while a shell completes
                note(f"klab {args[0]} is called klab {name} now")
            args = [name, *args[1:]]
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f"did you mean klab {close[0]}?" if close else "klab --help lists the commands"
            raise UsageError(f"klab has no command {args[0]!r}", hint=hint)
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        return HELP

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(n, help=text) for n, text in COMMANDS.items() if n.startswith(incomplete)]


def module_of(name: str) -> str:
    """The module of a command: called as the command, with an underscore where Python reserves the word."""
    return f"{name}_" if keyword.iskeyword(name) else name


def _set_debug(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and isinstance(ctx.obj, Settings):
        ctx.obj.debug = True
        show_log(logging.DEBUG)


def _set_verbose(_ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        show_log(logging.INFO)


def _debug_option(*, hidden: bool) -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=_set_debug,
        hidden=hidden,
        help="Show tracebacks, and what klab logs (also: KLAB_DEBUG=1).",
    )


def _verbose_option(*, hidden: bool) -> click.Option:
    return click.Option(
        ["-v", "--verbose"],
        is_flag=True,
        expose_value=False,
        callback=_set_verbose,
        hidden=hidden,
        help="Show each program that klab runs.",
    )


def _prepared(command: click.Command) -> click.Command:
    """Add what every subcommand has: --debug and --verbose, which people append, and completion of its names."""
    for each in (command, *(command.commands.values() if isinstance(command, click.Group) else ())):
        taken = {word for param in each.params for word in param.opts}
        if "--debug" not in taken:
            each.params.append(_debug_option(hidden=True))
        # Where words are another program's, -v among them may be its own.
        if not taken & {"-v", "--verbose"} and not each.context_settings.get("ignore_unknown_options"):
            each.params.append(_verbose_option(hidden=True))
        if "_KLAB_COMPLETE" in os.environ:
            from lab.cli.terminal.completion import complete_names

            complete_names(each)
    return command


@click.group(
    cls=Commands,
    params=[_verbose_option(hidden=False), _debug_option(hidden=False)],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="klab", message="klab %(version)s")
def cli() -> None:
    """What every command shares; `klab --help` is the text in lab.cli.overview."""


def run(arguments: Sequence[str]) -> int:
    """Run klab and return its exit code; every failure is worded on standard error."""
    tell_of_waits(note)
    settings = Settings(debug=os.environ.get("KLAB_DEBUG", "0") not in {"", "0"})
    if settings.debug:
        show_log(logging.DEBUG)
    try:
        log.begin(arguments)
        code = cli.main(args=list(arguments), prog_name="klab", standalone_mode=False, obj=settings)
        _flush()
    except SystemExit as error:
        return _exit_code(error)
    except BaseException as error:
        return _explain(error, settings, arguments)
    finally:
        hide_log()
    return code if isinstance(code, int) else 0


def _exit_code(error: SystemExit) -> int:
    if isinstance(error.code, str):
        note(error.code)
        return 1
    # Click ends so when the reader of its output has gone; the class is not part of its interface.
    if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):
        return EXIT_BROKEN_PIPE
    try:
        _flush()
    except BrokenPipeError:
        return _broken_pipe()
    return error.code or 0


def _flush() -> None:
    if sys.stdout is not None:  # klab ... >&-
        sys.stdout.flush()


def _explain(error: BaseException, settings: Settings, arguments: Sequence[str]) -> int:
    """Word an exception; returns the exit code."""
    if isinstance(error, BrokenPipeError) and _reader_is_gone():
        return _broken_pipe()
    if settings.debug and sys.stderr is not None and not isinstance(error, (click.ClickException, click.Abort)):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, LabError):
        show_error(error)
        return error.exit_code
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        note(error.format_message())
        return error.exit_code
    if isinstance(error, click.ClickException):
        show_error(_from_click(error))
        return error.exit_code
    if isinstance(error, KeyboardInterrupt) or isinstance(error.__cause__, KeyboardInterrupt):
        note("stopped")
        return EXIT_INTERRUPTED
    if isinstance(error, click.Abort):
        note("nothing was done")
        return 1
    if (refused := refusal(error, hint=_way_back(error) or REFUSED_HINT)) is not None:
        show_error(refused)
        return refused.exit_code
    if isinstance(error, FileNotFoundError) and _has_no_working_directory():
        gone = HostError("the working directory no longer exists", hint="cd to another folder, and try again")
        show_error(gone)
        return gone.exit_code
    return _bug(error, arguments)


def _way_back(error: BaseException) -> str:
    from lab.store import Home

    with contextlib.suppress(LabError):
        return Home.default().way_back(error)
    return ""


def _from_click(error: click.ClickException) -> LabError:
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "klab"
    message = error.format_message().strip().rstrip(".")
    return UsageError(message[:1].lower() + message[1:], hint=f"{path} --help shows how it is used")


def _has_no_working_directory() -> bool:
    """Whether the working directory was deleted, as that of a lab is with the lab."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _reader_is_gone() -> bool:
    try:
        _flush()
    except BrokenPipeError:
        return True
    return False


def _broken_pipe() -> int:
    """The reader of our output (head, less) has gone: say nothing, not even when Python flushes at exit."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE


def _bug(error: BaseException, arguments: Sequence[str]) -> int:
    from lab.cli.terminal.crash import write_crash

    file = write_crash(error, arguments)
    summary = f"{type(error).__name__}: {error}".splitlines()[0]
    note(f"this is a bug in klab ({summary}); please report it with the file {file}")
    return EXIT_BUG
