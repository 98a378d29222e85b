"""The slower clocks of a lab's machines, where the host has no hardware virtualization: given, and then looked at.

A library that the dynamic loader cannot load is left out without an error, and QEMU runs in real time: the guests then
miss every time-out, minutes later. So each start ends with a look at what QEMU's own clock shows.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.errors import HostError
from lab.guest_clock import GuestClock
from lab.machines.libvirt import definitions
from lab.machines.libvirt.connection import library, translate_errors

if TYPE_CHECKING:
    import libvirt

# The machine's clock shows whole seconds; so far apart its time and the host's cannot be mistaken for one another.
TELLING_SECONDS = 6.0


@dataclass(frozen=True, slots=True)
class SlowClocks:
    """What gives a lab's machines slower clocks. `library` is None for a lab in real time, to which nothing applies."""

    library: Path | None
    clock: GuestClock

    def fitted(self, domain_xml: str) -> str:
        """A machine's definition with them, whichever klab has made it."""
        return domain_xml if self.library is None else definitions.preloaded(domain_xml, str(self.library))

    def fit(self, connection: libvirt.virConnect, domains: Mapping[str, libvirt.virDomain]) -> None:
        """Let machines that are off have them from their next start on."""
        if self.library is None:
            return
        library_ = library()
        flags = library_.VIR_DOMAIN_XML_INACTIVE | library_.VIR_DOMAIN_XML_SECURE
        for name, domain in domains.items():
            with translate_errors(f"{name} cannot be given a slower clock"):
                there = domain.XMLDesc(flags)
                if not domain.isActive() and self.fitted(there) != there:
                    connection.defineXML(self.fitted(there))

    def check(self, domains: Mapping[str, libvirt.virDomain]) -> None:
        """Make sure that machines which run have them.

        Raises:
            HostError: one shows the host's time.
        """
        if self.library is None:
            return
        for name, domain in domains.items():
            shown, now = _machine_time(domain), time.time()
            wanted = self.clock.guest(now)
            if shown is None or abs(now - wanted) < TELLING_SECONDS or abs(shown - wanted) <= abs(shown - now):
                continue
            raise HostError(
                f"the clock of {name} runs in real time, although its guest is emulated",
                details=[f"QEMU did not load {self.library}"],
                hint=f"{self.library} must be readable for libvirt's QEMU user, and AppArmor must let QEMU map it: "
                "sudo dmesg | grep -i denied",
            )


def _machine_time(domain: libvirt.virDomain) -> float | None:
    """What the clock on a machine's mainboard shows, which follows QEMU's, in seconds since 1970; None if unknown.

    Source: QEMU, hw/rtc/mc146818rtc.c, property "date"; the month counts from 0 and the year from 1900, as in C.
    """
    import libvirt_qemu

    question = {"execute": "qom-get", "arguments": {"path": "/machine", "property": "rtc-time"}}
    try:
        return moment(libvirt_qemu.qemuMonitorCommand(domain, json.dumps(question), 0))
    except library().libvirtError:
        return None


def moment(answer: str) -> float | None:
    """The moment in QEMU's answer, in seconds since 1970; None where there is none."""
    try:
        told: dict[str, Any] = json.loads(answer)["return"]
        day = datetime.date(told["tm_year"] + 1900, told["tm_mon"] + 1, told["tm_mday"])
        clock = datetime.time(told["tm_hour"], told["tm_min"], told["tm_sec"], tzinfo=datetime.UTC)
        return datetime.datetime.combine(day, clock).timestamp()
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None
