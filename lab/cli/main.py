"""Where the command `klab` begins: help at once, everything else in `lab.cli.app`.

Importing this module begins klab: from then on Ctrl-C, and each signal that is taken as Ctrl-C, ends the process.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

try:
    import contextlib
    import os
    import signal
    import stat
    import sys

    from lab.signals import ENDING, EXIT_INTERRUPTED, SIGNALLED

    _received = signal.SIGINT

    def _end_quietly(number: int, _: object) -> None:
        os._exit(SIGNALLED + number)

    def _interrupt(number: int, _: object) -> None:
        global _received
        _received = signal.Signals(number)
        if number == signal.SIGHUP:
            _leave_terminal()
        raise KeyboardInterrupt

    # Until klab has words for a Ctrl-C, and again when it is done, there is nothing to clean up and nothing to say.
    # Who started klab deaf to a signal (nohup, a shell's background) has meant it.
    _HEARD = [each for each in ENDING if signal.getsignal(each) != signal.SIG_IGN]
    for _each in _HEARD:
        signal.signal(_each, _end_quietly)
except KeyboardInterrupt:
    raise SystemExit(130) from None

NO_HOST = 5  # as lab.errors.HostError has it, which is not imported for it


def main() -> None:
    """Run klab with the command line's arguments and exit with the code that fits."""
    _refuse_other_systems()
    _open_closed_streams()
    if sys.argv[1:] in (["--help"], ["-h"]) and _help():
        return
    from lab.cli.app import run

    code = EXIT_INTERRUPTED
    try:
        _on_signals(_interrupt)
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        pass
    finally:
        _on_signals(_end_quietly)
    sys.exit(SIGNALLED + _received if code == EXIT_INTERRUPTED else code)


def _leave_terminal() -> None:
    """Write to nowhere what is meant for a terminal that has gone: a failed write would end the cleaning up."""
    for number in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(number).st_mode):
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _on_signals(handler: Callable[[int, object], None]) -> None:
    for each in _HEARD:
        signal.signal(each, handler)


def _refuse_other_systems() -> None:
    """Say where klab runs, before what exists on Linux alone is imported."""
    machine = os.uname().machine if hasattr(os, "uname") else "another processor"
    if (sys.platform, machine) != ("linux", "x86_64"):
        sys.stderr.write(
            f"error: klab runs on Linux on x86_64 only; this is {sys.platform} on {machine}\n"
            "hint: use a computer with Linux, or a virtual machine that offers its guests virtualization\n"
        )
        sys.exit(NO_HOST)


def _open_closed_streams() -> None:
    """Keep the numbers of closed standard streams from files of klab's: what prints there would write into them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _help() -> bool:
    """Print the help, four times as quickly as through click; False when it cannot be written."""
    from lab.cli.overview import HELP

    try:
        sys.stdout.write(HELP + "\n")
        sys.stdout.flush()
    except (OSError, AttributeError):
        return False  # no reader, a full disk, no standard output: the long way has words for it
    return True


if __name__ == "__main__":
    main()
