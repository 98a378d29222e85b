"""What a person is told after Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lab.errors import Advice, Interrupted


@contextmanager
def interruptible(message: str, hint: Advice) -> Iterator[None]:
    """Turn a Ctrl-C into an error that tells what it has left.

    Raises:
        Interrupted: with this message and hint.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(message, hint=hint) from None
