"""How long klab takes to start, against Python doing nothing.

.venv/bin/python -m bench.startup
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.measure import HEADER, in_turn

RUNS = 15


def main() -> None:
    klab = str(Path(sys.executable).parent / "klab")
    nothing = [sys.executable, "-c", "pass"]
    print(HEADER)
    print(in_turn("`klab --help` / `python -c pass`", [klab, "--help"], nothing, at_most=5, runs=RUNS).row())
    print(in_turn("`klab plan 1m2w` / `python -c pass`", [klab, "plan", "1m2w"], nothing, at_most=12, runs=RUNS).row())


if __name__ == "__main__":
    main()
