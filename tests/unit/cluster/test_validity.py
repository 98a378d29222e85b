"""How long certificates hold: nodes whose shells are real, servers on this machine."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from support.fake_lab import lab_on_disk, opener
from support.guests import NOW, Guest, GuestMachines
from support.lab_servers import LabServers

from lab.cluster.observe.collect import KUBELET_PORT
from lab.cluster.observe.validity import Entry, Survey, ask, survey
from lab.errors import HostError, MachineError
from lab.machines.protocol import NodeState
from lab.plan.model import API_PORT
from lab.process import Completed
from lab.store import Home

AHEAD = datetime.timedelta(days=400)
CRT = "/etc/kubernetes/pki/apiserver.crt"


class Lab:
    """A lab whose nodes' certificates hold for 100 days more, and what its servers show for a year."""

    def __init__(self, tmp_path: Path) -> None:
        self.home = Home(tmp_path)
        self.folder, self.plan = lab_on_disk(self.home, control_planes=1, workers=1, bootstrap="full")
        self.servers = LabServers(self.folder, self.plan)
        ends = NOW + datetime.timedelta(days=100)
        place = tmp_path / "guests"
        self.guests = {n.name: Guest(place / n.name, self.folder, self.plan, n, ends) for n in self.plan.nodes}

    def machines(self, base: type[GuestMachines] = GuestMachines, **attributes: Any) -> GuestMachines:
        make = opener(partial(base, guests=self.guests, told=[]), **attributes)
        machines: GuestMachines = make(self.home, self.folder, self.plan, self.folder.record(), None)
        return machines

    def look(self, machines: GuestMachines | None = None) -> Survey:
        record = self.folder.record()
        return survey(self.folder, self.plan, record, machines or self.machines(), reach=self.servers.reach)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.servers.close()


def at(seen: Survey, node: str, where: str) -> Entry:
    (found,) = [e for e in seen.entries if (e.node, e.where) == (node, where)]
    return found


def test_each_certificate_is_told_once_with_its_use(lab: Lab) -> None:
    seen = lab.look()
    assert seen.unseen == ()
    assert seen.expired == ()
    pki = lab.folder.path / "pki"
    own = {("", str(pki / f"{name}.crt")) for name in ("admin", "etcd-client", "ca", "front-proxy-ca", "etcd-ca")}
    places = [(e.node, e.where) for e in seen.entries]
    assert len(places) == len(set(places))
    assert own < set(places)
    assert {where for node, where in places if node == "w1"} == {
        f"port {KUBELET_PORT}",
        "/var/lib/kubelet/pki/kubelet-client-current.pem",
    }
    # Seven pairs, three CAs, three kubeconfigs, the kubelet's; and what three servers show.
    assert len([node for node, _ in places if node == "cp1"]) == 7 + 3 + 3 + 1 + 3
    assert not [e for e in seen.entries if e.use == "unknown" or e.days is None]
    assert at(seen, "cp1", CRT).use == at(seen, "cp1", f"port {API_PORT}").use == "API server, to its clients"


def test_days_are_by_the_guests_own_clocks(lab: Lab) -> None:
    seen = lab.look()
    assert at(seen, "cp1", CRT).days == pytest.approx(100, abs=0.1)
    assert at(seen, "cp1", f"port {API_PORT}").days == pytest.approx(365, abs=0.1)
    for guest in lab.guests.values():
        guest.clock = NOW + AHEAD
    seen = lab.look()
    assert seen.clock == NOW + AHEAD
    assert at(seen, "cp1", CRT).days == pytest.approx(-300, abs=0.1)
    assert at(seen, "cp1", f"port {API_PORT}").days == pytest.approx(-35, abs=0.1)
    assert at(seen, "cp1", f"port {API_PORT}").expires == at(lab.look(), "cp1", f"port {API_PORT}").expires
    own = at(seen, "", str(lab.folder.path / "pki" / "admin.crt"))
    assert own.days == pytest.approx(-35, abs=1)
    assert seen.soonest is not None
    assert seen.soonest.days == pytest.approx(-300, abs=0.1)
    expired = {(e.node, e.where) for e in seen.expired}
    assert ("cp1", CRT) in expired
    assert not [where for _, where in expired if where.endswith("ca.crt")]


def test_a_clock_that_is_a_nodes_alone_judges_that_node(lab: Lab) -> None:
    lab.guests["w1"].clock = NOW + AHEAD
    seen = lab.look()
    assert {e.node for e in seen.expired} == {"w1"}
    assert seen.clock == NOW


def test_what_a_server_does_not_show_and_what_is_damaged(lab: Lab) -> None:
    lab.servers.shut(lab.plan.nodes[0].address, API_PORT)
    lab.guests["cp1"].path(CRT).write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (lab.folder.path / "pki" / "front-proxy-ca.crt").unlink()
    seen = lab.look()
    shown = at(seen, "cp1", f"port {API_PORT}")
    assert (shown.days, shown.error) == (None, "connection refused")
    assert (at(seen, "cp1", CRT).days, at(seen, "cp1", CRT).error) == (None, "it is damaged")
    own = at(seen, "", str(lab.folder.path / "pki" / "front-proxy-ca.crt"))
    assert own.error.startswith("it cannot be read: ")
    assert seen.expired == ()


def test_what_others_have_put_beside_them_is_told_too(lab: Lab) -> None:
    guest = lab.guests["cp1"]
    guest.path("/etc/kubernetes/pki/jane.crt").write_text(guest.path(CRT).read_text())
    assert at(lab.look(), "cp1", "/etc/kubernetes/pki/jane.crt").use == "unknown"


def test_nodes_that_are_off_or_silent_are_named(lab: Lab) -> None:
    class Silent(GuestMachines):
        def ssh(self, node: str, *_: Any, **__: Any) -> Completed:
            raise MachineError("no ssh", details=["No route to host"])

    lab.machines().set_state("w1", NodeState.PAUSED)
    seen = lab.look(lab.machines(Silent))
    assert seen.unseen == ("w1: its machine is paused", "cp1: cp1 does not answer ssh (No route to host)")
    # By the API server's clock, then.
    assert at(seen, "cp1", f"port {API_PORT}").days == pytest.approx(365, abs=0.1)
    assert not [e for e in seen.entries if e.node == "w1"]


def test_a_provider_that_does_not_answer_is_an_error(lab: Lab) -> None:
    class Dead(GuestMachines):
        def states(self) -> dict[str, NodeState]:
            raise HostError("libvirtd does not answer")

    with pytest.raises(HostError, match="libvirtd"):
        lab.look(lab.machines(Dead))


@pytest.mark.parametrize("clock", ["", "x", "nan", "inf", "\u00b2", "9" * 30, "9" * 5000])
def test_a_node_whose_clock_shows_no_moment_is_named(clock: str) -> None:
    class Machines:
        def run(self, _name: str, command: list[str], _timeout: float) -> Completed:
            return Completed(tuple(command), 0, f"certificate=/a.crt AAAA\nnow={clock}\n", "")

    with pytest.raises(MachineError, match="cp1 did not list its certificates"):
        ask(cast(Any, Machines()), "cp1", 1.0)
