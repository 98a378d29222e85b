"""Repair what has expired between a snapshot and its restore: certificates are renewed, a bootstrap token is made."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from lab.cluster.acts import certificates
from lab.cluster.clients.api import Api, UnreachableError
from lab.cluster.tokens import fresh_token
from lab.snapshots.expiry import CERTIFICATE, TOKEN, expired, first_certificate
from lab.snapshots.session import Session
from lab.waiting import Deadline, poll

TOKEN_SECONDS = 120.0
RENEWED = "certificates had expired and have been renewed"


def announcements(days: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    """What will be repaired, as phase and text: it takes time.

    Args:
        days: what will have expired, with the days since, as `expired` returns it.
    """
    for what, text in (
        (CERTIFICATE, "they expired {days:.0f} days ago by the nodes' clocks: they will be renewed"),
        (TOKEN, "the last bootstrap token expired {days:.0f} days ago: there will be a new one"),
    ):
        if what in days:
            yield f"{what}s", text.format(days=days[what])


def repair_certificates(
    session: Session, running: Sequence[str], noted: Collection[str], days: Mapping[str, float]
) -> bool:
    """Renew certificates that have expired: no node becomes Ready with them.

    Args:
        session: the lab's; its nodes run.
        running: those nodes.
        noted: what the snapshot's manifest knows an end of.
        days: what of that has expired.

    Returns:
        Whether any had.
    """
    known = CERTIFICATE in noted
    if known and CERTIFICATE not in days:
        return False
    # The manifest may know the end of certificates that have been renewed since.
    end = first_certificate(session.machines, running)
    host = session.lab.clock()
    if end is None and not known:
        return False
    if end is not None and not expired({CERTIFICATE: end}, guests=session.guest_time(host), host=host):
        return False
    certificates.renew_locked(session.lab)
    return True


def repair_token(api: Api) -> str:
    """Make a bootstrap token in place of one that has expired; returns what a person is told."""
    why = ""

    def made() -> bool:
        nonlocal why
        try:
            fresh_token(api)
        except UnreachableError as error:
            why = error.message
            return False
        return True

    if poll(made, Deadline.after(TOKEN_SECONDS)):
        return "the bootstrap token had expired; klab token prints the command that joins with a new one"
    return f"the bootstrap token had expired, and no new one could be made ({why}); klab token makes one"
