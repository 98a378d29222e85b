"""klab's log on the terminal, for `--verbose` and `--debug`."""

from __future__ import annotations

import contextlib
import logging

from lab.cli.terminal.output import echo

_KLAB = logging.getLogger("klab")


class TerminalLog(logging.Handler):
    """Prints what is logged to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):  # standard error may be closed or full: that ends no command
            echo(f"{record.name}: {record.getMessage()}", err=True)


_HANDLER = TerminalLog()


def show_log(level: int) -> None:
    """Print what is logged from now on at this level or above."""
    _HANDLER.setLevel(min(level, _HANDLER.level) if _HANDLER in _KLAB.handlers else level)
    _KLAB.addHandler(_HANDLER)


def hide_log() -> None:
    """Print nothing of the log any more."""
    _KLAB.removeHandler(_HANDLER)
