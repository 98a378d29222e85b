"""When a lab's certificates and bootstrap tokens expire, by the guests' clocks: noted with a snapshot, judged before
one is restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lab.cluster.clients.api import UnreachableError
from lab.cluster.clients.resources import bootstrap_token
from lab.cluster.observe.collect import TOKENS
from lab.cluster.observe.validity import Reply, ask
from lab.machines.protocol import Machines
from lab.snapshots.objects import Asked
from lab.waiting import outcomes

CERTIFICATE = "certificate"
TOKEN = "token"  # noqa: S105 - the name of a kind of thing
ASK_SECONDS = 60.0
DAY = 24 * 3600.0


def first_certificate(machines: Machines, nodes: Sequence[str]) -> float | None:
    """When the first certificate in a file on these nodes ends, in seconds since 1970; None where none was seen."""
    told = outcomes(lambda name: ask(machines, name, ASK_SECONDS), nodes)
    ends = [
        found.certificate.not_valid_after_utc.timestamp()
        for answer in told.values()
        if isinstance(answer, Reply)
        for found in answer.found
        if found.certificate is not None
    ]
    return min(ends, default=None)


def last_token(api: Asked) -> float | None:
    """When the last bootstrap token ends, in seconds since 1970; None where there is none, or one that never ends.

    Raises:
        UnreachableError: the API server does not answer, or not with a list.
    """
    try:
        ends = [_end(item) for item in api.get(TOKENS)["items"] or ()]
    except (LookupError, TypeError, AttributeError) as error:
        raise UnreachableError("the API server's answer about bootstrap tokens is malformed", status=200) from error
    return None if None in ends else max((end for end in ends if end), default=None)


def _end(item: Mapping[str, Any]) -> float | None:
    """When a token ends; 0 for an unusable one, None for one that never does."""
    try:
        token = bootstrap_token(item)
    except (ValueError, OverflowError):
        return 0.0
    return token.expires if token else 0.0


def expired(expires: Mapping[str, float], *, guests: float, host: float) -> dict[str, float]:
    """What will have ended, with the days since, by the clock that judges it.

    Args:
        expires: when what ends, in seconds since 1970.
        guests: what the guests' clocks will show.
        host: what this machine's shows: klab judges the API servers' certificates by it, too.
    """
    clocks = {CERTIFICATE: max(guests, host), TOKEN: guests}
    return {what: (clocks[what] - end) / DAY for what, end in expires.items() if end <= clocks[what]}
