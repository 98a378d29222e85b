"""`klab create ha-3m2w` against `klab create 1m2w`, one after the other on the same machine.

    .venv/bin/python -m bench.high_availability

Takes some 25 minutes under emulation.
"""

from __future__ import annotations

import os
import shutil

from bench.create import bench_home, run_klab, say
from bench.measure import HEADER, Pair

# Five nodes for three, three API servers and etcd members for one: what the processors have to do.
AT_MOST = 3.0


def main() -> None:
    home = bench_home()
    cores = os.cpu_count() or 1
    figures = {}
    for scenario in ("1m2w", "ha-3m2w"):
        say(f"klab create {scenario}")
        run = figures[scenario] = run_klab(scenario)
        say(f"{scenario}: verified after {run.returned:.0f} s; {run.cpu:.0f} CPU seconds on {cores} cores")
    print(HEADER)
    large, small = figures["ha-3m2w"], figures["1m2w"]
    print(Pair("create ha-3m2w to Ready / create 1m2w", large.returned, small.returned, AT_MOST).row())
    print(Pair("its CPU seconds / those of 1m2w", large.cpu, small.cpu, AT_MOST).row())
    shutil.rmtree(home.root, ignore_errors=True)


if __name__ == "__main__":
    main()
