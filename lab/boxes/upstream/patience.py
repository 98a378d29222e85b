"""Waiting for a busy or unreachable server: each pause is told and longer than the last; giving up has its reason."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from lab.errors import Advice, BoxError, Remedy

Tell = Callable[[str], None]
# What a person can do about a server that does not deliver.
ELSEWHERE: Advice = (
    "run the same command again later: it goes on where it stopped; ",
    Remedy("box build", options=("--source", "source")),
    " compiles instead, and --mirror names another server",
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long klab waits, in seconds.

    connect: for a connection. stall: for the next byte. give_up: for any progress at all, however often it tries.
    first: before the second trial; each further pause is twice as long, up to `longest`.
    """

    connect: float = 10.0
    stall: float = 60.0
    give_up: float = 300.0
    first: float = 2.0
    longest: float = 60.0


class Trials:
    """The trials of one act; `again` waits before the next one.

    Args:
        where: the server, for a person.
        patience: how long to wait.
        tell: told of each pause.
        clock: seconds on a monotonic clock.
        sleep: waits so many seconds.
        hint: what a person can do once patience is at its end.
    """

    def __init__(
        self,
        where: str,
        patience: Patience,
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        hint: Advice = ELSEWHERE,
    ) -> None:
        self._hint = hint
        self._where, self._patience, self._tell = where, patience, tell
        self._clock, self._sleep = clock, sleep
        self.progressed()

    def progressed(self) -> None:
        """Something has come: patience starts again."""
        self._since = self._clock()
        self._made = 0

    def again(self, why: str, asked: float | None = None) -> None:
        """Wait before the next trial.

        Args:
            why: what went wrong, in words.
            asked: seconds that the server asks to wait.

        Raises:
            BoxError: patience is at its end.
        """
        self._made += 1
        pause = min(self._patience.longest, self._patience.first * 2 ** (self._made - 1)) if asked is None else asked
        waited = self._clock() - self._since
        if waited + pause > self._patience.give_up:
            wants = [] if asked is None else [f"it asks to wait {asked:.0f} s; klab waits {self._patience.give_up:g} s"]
            raise BoxError(
                f"{self._where} does not deliver: {why}",
                details=[f"tried {self._made} times in {waited:.0f} s", *wants],
                hint=self._hint,
            )
        asks = "" if asked is None else "asks to wait; "
        self._tell(f"{self._where}: {why}; {asks}trying again in {pause:.0f} s")
        self._sleep(pause)


def parse_retry_after(text: str | None, now: float) -> float | None:
    """How many seconds a Retry-After header asks to wait; None where it says nothing sound (RFC 9110, 10.2.3).

    Args:
        text: the header: seconds, or a date.
        now: seconds since 1970.
    """
    said = (text or "").strip()
    if said.isascii() and said.isdecimal() and len(said) < 10:
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - now) if said else None
    except (ValueError, OverflowError):
        return None
