"""Where a port of a node is reached from here."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

# A test has its servers elsewhere.
Reach = Callable[[IPv4Address, int], tuple[str, int]]


def direct(address: IPv4Address, port: int) -> tuple[str, int]:
    """The port at the node's own address."""
    return str(address), port
