"""The way to a lab's things in libvirt: renewed when it is lost, ended with the last lab of a private libvirt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.errors import Conflict, MachineError
from lab.machines.libvirt import session as module
from lab.machines.libvirt.domains import Domains
from lab.machines.libvirt.networks import LabNetworks
from lab.machines.libvirt.pools import LabPool
from lab.machines.libvirt.resources import Resources
from lab.machines.libvirt.session import Session
from lab.machines.ownership import Owner
from lab.store import Home

OWNER = Owner("cb7b241c-70ce-456d-a4d8-2e6b37ed0cff", 0, 1.0)


@dataclass
class Connection:
    alive: bool = True
    domains: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)

    def isAlive(self) -> bool:  # noqa: N802 - libvirt's name
        return self.alive

    def listAllDomains(self) -> list[str]:  # noqa: N802
        return self.domains

    def listAllNetworks(self) -> list[str]:  # noqa: N802
        return self.networks

    def close(self) -> None:
        self.alive = False


@dataclass
class PrivateLibvirt:
    """In the private libvirt's place; `lone` says that no other klab is in it."""

    inside: bool = True
    lone: bool = True
    done: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.done.append("start")

    def stop(self) -> bool:
        self.done.append("stop")
        return self.lone


Open = Callable[..., tuple[Session, PrivateLibvirt, list[Connection]]]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """A session, the private libvirt it is in, and the connections that it has opened."""

    def make(private: PrivateLibvirt, **connection: Any) -> tuple[Session, PrivateLibvirt, list[Connection]]:
        connections: list[Connection] = []

        def connect() -> Connection:
            connections.append(Connection(**connection))
            return connections[-1]

        monkeypatch.setattr(module, "connect", connect)
        session = Session(Home(tmp_path), OWNER)
        session.private_libvirt = private  # type: ignore[assignment]
        return session, private, connections

    return make


def test_a_connection_is_kept_as_long_as_it_is_alive(opened: Open) -> None:
    session, private, connections = opened(PrivateLibvirt(inside=False))
    assert session.resources().connection is session.resources().connection
    connections[0].alive = False
    assert session.resources().connection is connections[1]
    assert private.done == []


def test_a_libvirtd_that_was_killed_is_started_first(opened: Open) -> None:
    session, private, connections = opened(PrivateLibvirt())
    session.resources()
    connections[0].alive = False
    session.resources()
    assert private.done == ["start", "start"]


def test_the_private_libvirt_ends_with_its_last_lab(opened: Open) -> None:
    session, private, connections = opened(PrivateLibvirt())
    session.end_if_empty()
    assert session.over
    assert private.done == ["start", "stop"]
    assert not connections[0].alive


@pytest.mark.parametrize("left", [{"domains": ["another lab's"]}, {"networks": ["another lab's"]}])
def test_it_stays_for_another_lab(opened: Open, left: dict[str, list[str]]) -> None:
    session, private, _ = opened(PrivateLibvirt(), **left)
    session.end_if_empty()
    assert not session.over
    assert "stop" not in private.done


def test_it_stays_while_another_klab_is_in_it_and_the_systems_always(opened: Open) -> None:
    session, _, _ = opened(PrivateLibvirt(lone=False))
    session.end_if_empty()
    assert not session.over
    session, private, connections = opened(PrivateLibvirt(inside=False))
    session.end_if_empty()
    assert (session.over, private.done, connections) == (False, [], [])


def test_one_thing_that_cannot_be_removed_does_not_keep_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []

    def remove(_domains: Domains, domain: str) -> None:
        if domain == "cp1":
            raise MachineError("cp1 stays")
        removed.append(domain)

    def stays(_networks: LabNetworks) -> None:
        raise Conflict("so does the network")

    monkeypatch.setattr(Domains, "all", lambda _domains: ["cp1", "w1"])
    monkeypatch.setattr(Domains, "remove", remove)
    monkeypatch.setattr(LabNetworks, "remove", stays)
    monkeypatch.setattr(LabPool, "remove", lambda _pool: removed.append("pool"))
    with pytest.raises(MachineError, match="cp1 stays"):
        Resources(Connection(), OWNER).remove_all()  # type: ignore[arg-type]
    assert removed == ["w1", "pool"]
