"""Where the command `klab` begins: help at once, everything else in `lab.cli.app`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run klab with the command line's arguments and exit with the code that fits."""
    try:
        if sys.argv[1:] in (["--help"], ["-h"]) and _help():
            return
        from lab.cli.app import run
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(sys.argv[1:]))


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
