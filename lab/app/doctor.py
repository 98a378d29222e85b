"""Whether this machine can run labs, and what is wrong with a lab."""

from __future__ import annotations

from collections.abc import Sequence

from lab.cluster import diagnostics
from lab.cluster.diagnostics import Result
from lab.cluster.lab import Lab
from lab.machines import doctor
from lab.machines.doctor import Finding
from lab.store import Home


def examine_host(home: Home | None = None) -> list[Finding]:
    """What this machine has and lacks. A small guest tries hardware virtualization: up to a minute the first time."""
    return list(doctor.examine(doctor.Probes(home or Home.default())))


def examine_lab(lab: Lab) -> Sequence[Result]:
    """What is wrong with an entered lab, each finding with the command that repairs it. Changes nothing."""
    record = lab.record
    return diagnostics.examine(lab.folder, lab.plan, record, lab.machines(record), reach=lab.reach)
