"""Show and renew the certificates of a lab."""

from __future__ import annotations

from lab.app.interruption import interruptible
from lab.cluster.acts import certificates
from lab.cluster.acts.certificates import Renewed
from lab.cluster.events import Listener
from lab.cluster.lab import Lab
from lab.cluster.observe import validity
from lab.cluster.observe.validity import Survey
from lab.errors import Advice, UsageError


def refuse_students(lab: Lab, hint: Advice) -> None:
    """Make sure that klab has bootstrapped the lab's cluster.

    Raises:
        UsageError: the student does that; `hint` is what the student can do.
    """
    if lab.plan.bootstrap != "full":
        raise UsageError(f"klab did not bootstrap the cluster of lab {lab.name!r}", hint=hint)


def survey(lab: Lab) -> Survey:
    """Every certificate of an entered lab, as files and servers show it."""
    record = lab.record
    return validity.survey(lab.folder, lab.plan, record, lab.machines(record), reach=lab.reach)


def renew(lab: Lab, *, timeout: float | None = None, listener: Listener | None = None) -> Renewed:
    """Renew every certificate of an entered lab, and wait until it is Ready.

    Raises:
        LabError: as `lab.cluster.acts.certificates.renew`; `Interrupted` on Ctrl-C.
    """
    with interruptible("stopped half-way", "run the same command again to continue"):
        return certificates.renew(lab.watched_by(listener, timeout))
