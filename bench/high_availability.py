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
        wall, cpu, _result = run_klab(scenario)
        say(f"{scenario}: Ready after {wall:.0f} s; {cpu:.0f} CPU seconds on {cores} cores")
        figures[scenario] = (wall, cpu)
    print(HEADER)
    print(Pair("create ha-3m2w to Ready / create 1m2w", figures["ha-3m2w"][0], figures["1m2w"][0], AT_MOST).row())
    print(Pair("its CPU seconds / those of 1m2w", figures["ha-3m2w"][1], figures["1m2w"][1], AT_MOST).row())
    shutil.rmtree(home.root, ignore_errors=True)


if __name__ == "__main__":
    main()
