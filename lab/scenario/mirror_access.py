"""What a mirror of a registry wants to be asked with: the CA that signs its certificate, and a login. Pure.

Both are files beside the scenario, whose text goes into a lab's folder and into bundles.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

MOST_BYTES = 64 * 1024
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----")
# What HTTP's Basic scheme can carry (RFC 7617), less what a line of a file could hide.
_LOGIN = re.compile(r"([!-9;-~]{1,200}):([ -~]{1,1000})")


@dataclass(frozen=True, slots=True)
class MirrorAccess:
    """`ca` is one certificate or more in PEM, `login` is USER:PASSWORD; empty where a mirror wants none."""

    ca: str = ""
    login: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The login as HTTP's Basic scheme and auth.json have it."""
        return base64.b64encode(self.login.encode()).decode()


def parse_ca(text: str) -> str:
    """The certificates of a PEM file, without what stands between them.

    Raises:
        ValueError: it holds none, or a private key.
    """
    if "PRIVATE KEY-----" in text:
        raise ValueError("it holds a private key; a CA's certificate is enough, and nodes must not have more")
    found = []
    for match in _CERTIFICATE.finditer(text):
        try:
            der = base64.b64decode("".join(match[1].split()), validate=True)
        except ValueError:
            raise ValueError("a certificate in it is damaged") from None
        if not der.startswith(b"\x30"):  # ASN.1's SEQUENCE (RFC 5280)
            raise ValueError("a certificate in it is damaged")
        body = base64.encodebytes(der).decode().replace("\n", "")
        lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
        found.append(f"-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
    if not found:
        raise ValueError("it holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")
    return "".join(found)


def parse_login(text: str) -> str:
    """The one line of a login's file: USER:PASSWORD.

    Raises:
        ValueError: it is something else.
    """
    line = text.removesuffix("\n").removesuffix("\r")
    if _LOGIN.fullmatch(line) is None:
        raise ValueError("it needs one line, USER:PASSWORD, in ASCII; the user without a colon or a blank")
    return line
