"""The providers there are, and from a lab's record to the machines that belong to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lab.errors import HostError, LabError
from lab.host.network import enter_host_network, host_network
from lab.machines.features import Provider
from lab.machines.libvirt.provider import LibvirtProvider
from lab.machines.protocol import Machines
from lab.machines.virtualbox.provider import VirtualBoxProvider
from lab.plan.model import Plan
from lab.store import Home, LabFolder, Record

UNKNOWN_HINT = "use the klab that made the lab"


# By name, in the order in which `auto` tries them.
PROVIDERS: dict[str, Provider] = {each.name: each for each in (LibvirtProvider(), VirtualBoxProvider())}


def provider_named(name: str) -> Provider:
    """The provider of that name.

    Raises:
        LabError: klab has none of that name.
    """
    try:
        return PROVIDERS[name]
    except KeyError:
        raise LabError(
            f"provider {name!r} is unknown", details=[f"klab has {', '.join(PROVIDERS)}"], hint=UNKNOWN_HINT
        ) from None


def open_machines(home: Home, folder: LabFolder, plan: Plan, record: Record, box: Path | None) -> Machines:
    """The machines of one lab, by the provider that its record names; arguments as `Provider.open`.

    Raises:
        LabError: the provider is unknown.
    """
    return provider_named(record.provider).open(home, folder, plan, record, box)


def choose_provider(wanted: str) -> str:
    """The name of the provider to use: `wanted` itself, or for `auto` the first that is installed.

    Raises:
        HostError: none is installed.
    """
    if wanted != "auto":
        return wanted
    for each in PROVIDERS.values():
        if each.installed():
            return each.name
    raise HostError(
        f"neither {' nor '.join(each.title for each in PROVIDERS.values())} is installed",
        hint="make install, in a clone of klab; or the commands in docs/how-to/providers.md",
    )


def enter_host(name: str, home: Home) -> str:
    """Get to where the machines of that provider and their networks are.

    Returns:
        Where that is, for messages.

    Raises:
        LabError: the provider is unknown.
        HostError: as `enter_host_network`.
    """
    found = provider_named(name)
    return enter_host_network(home) if found.features.private_host else found.title


@contextlib.contextmanager
def entered(name: str, home: Home) -> Iterator[str]:
    """Have the calling thread where the machines of that provider are, as `enter_host`; afterwards it is back.

    Raises:
        LabError: the provider is unknown.
        HostError: as `host_network`.
    """
    found = provider_named(name)
    with host_network(home) if found.features.private_host else contextlib.nullcontext(found.title) as where:
        yield where
