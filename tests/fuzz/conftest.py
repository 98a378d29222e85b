"""The table at the end of a fuzz run, and a folder of its own for each target."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import pytest

COLUMNS = ("inputs", "accepted", "refused", "defects")


def pytest_configure(config: pytest.Config) -> None:
    # Workers of pytest-xdist inherit it.
    if "KLAB_FUZZ_EXAMPLES" in os.environ:
        os.environ.setdefault("KLAB_FUZZ_SEED", str(secrets.randbelow(10**9)))


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the labs or the kubeconfig of the person who runs it, or waits for the disk."""
    monkeypatch.setenv("KLAB_HOME", str(tmp_path / "klab-home"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(os, "fsync", lambda _file: None)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ())]
    rows = [dict(r.user_properties)["fuzz"] for r in reports if "fuzz" in dict(r.user_properties)]
    if not rows:
        return
    rows.sort(key=lambda row: row["target"])
    total = {"target": f"{len(rows)} targets", **{c: sum(row[c] for row in rows) for c in COLUMNS}}
    write = terminalreporter.write_line
    terminalreporter.section("fuzz")
    write(f"{'target':28}" + "".join(f"{c:>10}" for c in COLUMNS))
    for row in (*rows, total):
        write(f"{row['target']:28}" + "".join(f"{row[c]:>10}" for c in COLUMNS))
    seed = os.environ.get("KLAB_FUZZ_SEED")
    write(
        f"the same again: KLAB_FUZZ_SEED={seed} make fuzz"
        if seed
        else "the same inputs every time; make fuzz tries others"
    )
