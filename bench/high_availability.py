"""`klab create ha-3m2w` against `klab create 1m2w`, one after the other on the same machine.

    .venv/bin/python -m bench.high_availability [--keep NAME]

Takes some 25 minutes under emulation.
"""

from __future__ import annotations

import os
import shutil

import click

from bench.create import NAME, Run, bench_home, run_klab, say
from bench.measure import HEADER, Pair

# Five nodes for three, three API servers and etcd members for one: what the processors have to do.
AT_MOST = 3.0


@click.command()
@click.option("--keep", metavar="NAME", help="Leave ha-3m2w under this name, in the KLAB_HOME of this environment.")
def main(keep: str | None) -> None:
    home = None if keep else bench_home()
    small, large = measured("1m2w"), measured("ha-3m2w", keep)
    print(HEADER)
    print(Pair("create ha-3m2w to Ready / create 1m2w", large.returned, small.returned, AT_MOST).row())
    print(Pair("its CPU seconds / those of 1m2w", large.cpu, small.cpu, AT_MOST).row())
    if home:
        shutil.rmtree(home.root, ignore_errors=True)


def measured(scenario: str, keep: str | None = None) -> Run:
    """Create a lab, and tell how long it took."""
    say(f"klab create {scenario}")
    run = run_klab(scenario, name=keep or NAME, keep=bool(keep))
    say(f"{scenario}: verified after {run.returned:.0f} s; {run.cpu:.0f} CPU seconds on {os.cpu_count()} cores")
    return run


if __name__ == "__main__":
    main()
