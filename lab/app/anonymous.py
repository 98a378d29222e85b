"""Text that a person may send to others: without secrets, and without who and where that person is."""

from __future__ import annotations

import os
import platform
import pwd
import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path

from lab.log import REMOVED, redacted
from lab.text import visible

USER, HOST, ADDRESS = "USER", "HOST", "PUBLIC-ADDRESS"
# Names that thousands have: they tell nothing, and are words of other things.
GENERIC = frozenset(
    (
        *("root", "user", "student", "teacher", "admin", "vagrant", "klab", "lab", "libvirt", "kvm", "host", "node"),
        *("localhost", "debian", "ubuntu", "linux", "laptop", "pc", "desktop", "workstation", "server", "home"),
    )
)
# Colours and movements on a terminal (ECMA-48, CSI): written out, they would be a part of the word behind them.
_TERMINAL = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")
_USER_OF_URL = re.compile(r"(?<=://)[^\s/]*@")
# The end of a key whose beginning was cut off.
_END_OF_KEY = re.compile(r"\A[^-]*-----END [A-Z ]*PRIVATE KEY-----")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{48,}={0,2}")
_MAC = re.compile(r"(?<![\w:])([0-9A-Fa-f]{2})((?::[0-9A-Fa-f]{2}){2})(?::[0-9A-Fa-f]{2}){3}(?![\w:])")
_IPV4 = re.compile(r"(?<![\w.])[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![\w.])")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]{3,45}(?![\w:])")
_LOCALLY_ADMINISTERED = 2  # IEEE 802: made up by a program, as those of all virtual machines are


def anonymous(text: str, names: Mapping[str, str]) -> str:
    """The text without what looks like a secret or tells who somebody is.

    Private keys, tokens, passwords, certificates, the data of a kubeconfig and the user of a URL are removed; public IP
    addresses and the second halves of network cards' addresses are replaced, private and made-up ones stay.

    Args:
        text: any text; what a terminal would act on is written out.
        names: what stands in place of each name; see `own_names`.
    """
    text = redacted(visible(_TERMINAL.sub("", text), keep="\n\t"))
    text = _END_OF_KEY.sub(REMOVED, text)
    text = _USER_OF_URL.sub(f"{REMOVED}@", text)
    text = _BASE64.sub(_encoded, text)
    text = _MAC.sub(_card, text)
    text = _IPV6.sub(_address, _IPV4.sub(_address, text))
    for name in sorted(names, key=len, reverse=True):
        word = re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", re.IGNORECASE)
        text = word.sub(names[name], text)
    return text


def own_names() -> dict[str, str]:
    """The names of this person and of this machine, and what to write instead."""
    users = {os.environ.get(variable, "") for variable in ("SUDO_USER", "LOGNAME", "USER")} | {Path.home().name}
    try:
        account = pwd.getpwuid(os.getuid())
        users |= {account.pw_name, account.pw_gecos.partition(",")[0]}
    except KeyError:
        pass  # an account that no directory knows
    whole = platform.node()
    return {**_replaced(users, USER), **_replaced((whole, whole.partition(".")[0]), HOST)}


def _replaced(names: Iterable[str], by: str) -> dict[str, str]:
    return {name: by for name in names if len(name) > 1 and name.lower() not in GENERIC}


def _encoded(found: re.Match[str]) -> str:
    """Digests and most paths are of lower case alone; data of that length never is."""
    return found[0] if found[0] in {found[0].lower(), found[0].upper()} else REMOVED


def _card(found: re.Match[str]) -> str:
    made_up = int(found[1], 16) & _LOCALLY_ADMINISTERED or not found[0].strip("0:")
    return found[0] if made_up else f"{found[1]}{found[2]}:xx:xx:xx"


def _address(found: re.Match[str]) -> str:
    try:
        return ADDRESS if ip_address(found[0]).is_global else found[0]
    except ValueError:
        return found[0]
