"""Which clock a node's NTP server follows (RFC 5905): one datagram there, one back."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address

from lab.cluster.clients.https import UnreachableError
from lab.cluster.clients.reach import Reach, direct

NTP_PORT = 123
TRIES = 3  # datagrams get lost
_LENGTH = 48  # bytes of a header, figure 8
_CLIENT, _SERVER = 0x23, 4  # version 4, mode 3; mode 4
_UNKNOWN = 3  # leap indicator of a clock that is not synchronized
_MOST_STRATUM = 15


@dataclass(frozen=True, slots=True)
class NtpAnswer:
    """What a server says of its clock.

    `reference` is what it follows: four bytes, an IPv4 address or the name of a clock of its machine; empty when
    it is not synchronized.
    """

    reference: bytes


def ask(address: IPv4Address, *, seconds: float, reach: Reach = direct) -> NtpAnswer:
    """Ask a node's NTP server.

    Raises:
        UnreachableError: no answer in so many seconds, or none of an NTP server's.
    """
    mark = os.urandom(8)  # which it has to repeat
    question = bytes([_CLIENT]) + bytes(_LENGTH - 9) + mark
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(seconds / TRIES)
        try:
            channel.connect(reach(address, NTP_PORT))
            for _ in range(TRIES):
                channel.send(question)
                with contextlib.suppress(TimeoutError):
                    return parse(channel.recv(1024), mark)
        except ValueError as error:
            raise UnreachableError(f"its NTP server's answer is invalid: {error}") from error
        except OSError as error:
            raise UnreachableError(f"its NTP server does not answer: {error.strerror}") from error
    raise UnreachableError(f"its NTP server does not answer within {seconds:g} s")


def parse(data: bytes, mark: bytes) -> NtpAnswer:
    """Read a server's answer to the question with that mark.

    Raises:
        ValueError: it is not one.
    """
    if len(data) < _LENGTH:
        raise ValueError(f"it has {len(data)} bytes instead of {_LENGTH}")
    leap, mode, stratum = data[0] >> 6, data[0] & 7, data[1]
    if mode != _SERVER:
        raise ValueError(f"its mode is {mode} instead of {_SERVER}")
    if data[24:32] != mark:
        raise ValueError("it answers another question")
    synchronized = leap != _UNKNOWN and 1 <= stratum <= _MOST_STRATUM
    return NtpAnswer(data[12:16] if synchronized else b"")
