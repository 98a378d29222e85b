"""A lab whose certificates have expired meanwhile, started or created again: real shells, a fake cluster."""

from __future__ import annotations

import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.cluster_server import ClusterServer
from support.fake_lab import lab_on_disk, opener
from support.guests import NOW, Guest, GuestMachines, signed

from lab.cluster.acts.create import Created, CreateRequest, create
from lab.cluster.acts.power import PowerResult, reboot, start, stop
from lab.cluster.lab import Lab as ClusterLab
from lab.errors import ClusterError, MachineError, NotReadyInTime
from lab.host.profile import HostProfile
from lab.machines.protocol import NodeState
from lab.process import Completed
from lab.render.renewal import KUBELET_CLIENT, TELL
from lab.store import Home

pytestmark = pytest.mark.usefixtures("quick_watch")

DAY = datetime.timedelta(days=1)
YEAR = 365 * DAY
CRT = "/etc/kubernetes/pki/apiserver.crt"


class Lab:
    """A lab of one control plane and one worker. `age` is its own and its certificates', which hold for a year."""

    def __init__(self, tmp_path: Path, cluster: ClusterServer, age: datetime.timedelta) -> None:
        self.home = Home(tmp_path)
        self.folder, self.plan = lab_on_disk(self.home, control_planes=1, workers=1, bootstrap="full")
        self.reach = cluster.reach
        self.timeout = 600.0
        cluster.serve(self.folder, self.plan)
        self.ends = NOW - age + YEAR
        self.sign_admin(self.ends)
        self.folder.update_record(created=(NOW - age).timestamp())
        places = ((n, tmp_path / "guests" / n.name) for n in self.plan.nodes)
        self.guests = {n.name: Guest(place, self.folder, self.plan, n, self.ends) for n, place in places}
        self.told: list[tuple[str, str]] = []

    def lab(self, base: type[GuestMachines] = GuestMachines, **attributes: Any) -> ClusterLab:
        machines = opener(partial(base, guests=self.guests, told=self.told), **attributes)
        return ClusterLab(self.home, self.folder, self.plan, machines, timeout=self.timeout, reach=self.reach)

    def off_and_on(self, base: type[GuestMachines] = GuestMachines) -> PowerResult:
        stop(self.lab())
        return start(self.lab(base))

    def create(self) -> Created:
        """`klab create` once more."""
        profile = HostProfile(accelerated=True, dilation=1.0)
        return create(self.lab(), CreateRequest("", "fake", profile, "box", None))

    def sign_admin(self, ends: datetime.datetime) -> None:
        admin = signed(self.folder, "ca", "klab-admin", "system:masters", ends=ends)
        (self.folder.path / "pki" / "admin.crt").write_text(admin.public)
        (self.folder.path / "pki" / "admin.key").write_text(admin.private)

    def put(self, node: str, file: str, ends: datetime.datetime) -> None:
        pair = signed(self.folder, "ca", "made-by-the-test", ends=ends)
        self.guests[node].path(file).write_text(pair.public)


@pytest.fixture
def old(tmp_path: Path, cluster: ClusterServer) -> Lab:
    """A lab 400 days old: everything in it has expired."""
    return Lab(tmp_path, cluster, 400 * DAY)


@pytest.fixture
def renewed(tmp_path: Path, cluster: ClusterServer) -> Lab:
    """A lab 400 days old whose certificates are new."""
    lab = Lab(tmp_path, cluster, 0 * DAY)
    lab.folder.update_record(created=(NOW - 400 * DAY).timestamp())
    return lab


def test_an_expired_lab_says_so_at_once_and_names_what_helps(old: Lab, cluster: ClusterServer) -> None:
    with pytest.raises(ClusterError, match="certificates of lab 'demo' have expired") as caught:
        old.off_and_on()
    assert "klab certs renew demo" in caught.value.hint
    own, plane, worker = caught.value.details
    assert own.startswith(f"klab's own, {old.folder.path / 'pki' / 'admin.crt'}, on {old.ends:%Y-%m-%d}; ")
    assert plane.startswith("cp1: /etc/kubernetes/")
    assert f"on {old.ends:%Y-%m-%d}, and 7 more; by the clock that counts it is {NOW:%Y-%m-%d}" in plane
    assert worker.startswith(f"w1: {KUBELET_CLIENT} on {old.ends:%Y-%m-%d}; ")
    assert cluster.asked == [], "nothing is waited for"


def test_its_machines_run_then_since_a_renewal_needs_them(old: Lab) -> None:
    stop(old.lab())
    lab = old.lab()
    with pytest.raises(ClusterError):
        start(lab)
    machines = lab.machines(old.folder.record())
    assert set(machines.states().values()) == {NodeState.RUNNING}


def test_a_reboot_says_so_too(old: Lab) -> None:
    with pytest.raises(ClusterError, match="have expired"):
        reboot(old.lab())


@pytest.mark.parametrize("off", [False, True])
def test_a_second_create_says_so_at_once(old: Lab, cluster: ClusterServer, off: bool) -> None:
    if off:
        stop(old.lab())
    with pytest.raises(ClusterError, match="certificates of lab 'demo' have expired") as caught:
        old.create()
    assert "klab certs renew demo" in caught.value.hint
    assert cluster.asked == [], "nothing is waited for"
    machines = opener()(old.home, old.folder, old.plan, old.folder.record(), None)
    assert set(machines.states().values()) == {NodeState.RUNNING}


@pytest.mark.parametrize("off", [False, True])
def test_a_second_create_goes_on_where_they_hold(renewed: Lab, cluster: ClusterServer, off: bool) -> None:
    if off:
        stop(renewed.lab())
    assert renewed.create().already
    assert {name for name, script in renewed.told if script == TELL} == {"cp1", "w1"}
    assert cluster.asked


def test_a_lab_that_is_still_being_made_is_not_asked(old: Lab, cluster: ClusterServer) -> None:
    """Its nodes have no certificates to renew yet, and `certs renew` would not touch it."""
    old.folder.update_record(phase="creating")
    old.sign_admin(NOW + YEAR)
    old.create()
    assert old.told == []
    assert cluster.asked


def test_a_node_that_was_off_at_the_last_renewal_is_named_alone(renewed: Lab) -> None:
    renewed.put("w1", KUBELET_CLIENT, NOW - DAY)
    with pytest.raises(ClusterError) as caught:
        renewed.off_and_on()
    assert [line.partition(" ")[0] for line in caught.value.details] == ["w1:"]


def test_what_no_node_waits_for_keeps_no_lab_from_starting(renewed: Lab) -> None:
    for file in ("front-proxy-client", "etcd/healthcheck-client", "jane"):
        renewed.put("cp1", f"/etc/kubernetes/pki/{file}.crt", NOW - DAY)
    assert not renewed.off_and_on().lost_quorum


def test_a_young_lab_is_not_asked(tmp_path: Path, cluster: ClusterServer) -> None:
    lab = Lab(tmp_path, cluster, 300 * DAY)
    assert lab.off_and_on().running == ("cp1", "w1")
    assert lab.told == []


def test_nodes_are_judged_by_their_own_clocks(renewed: Lab) -> None:
    renewed.guests["w1"].clock = NOW + 366 * DAY
    with pytest.raises(ClusterError) as caught:
        renewed.off_and_on()
    assert [line.partition(" ")[0] for line in caught.value.details] == ["w1:"]


def test_in_a_lab_with_slower_clocks_klab_is_the_one_who_refuses_its_api_server(tmp_path: Path, cluster: Any) -> None:
    """By the guests' clocks 40 days have passed, by the host's 400."""
    lab = Lab(tmp_path, cluster, 400 * DAY)
    lab.folder.update_record(dilation=0.1, epoch=(NOW - 400 * DAY).timestamp())
    for guest in lab.guests.values():
        guest.clock = NOW - 360 * DAY
    with pytest.raises(ClusterError) as caught:
        lab.off_and_on()
    (line,) = caught.value.details
    assert line.startswith(f"cp1: {CRT} on ")
    assert line.endswith(f"it is {NOW:%Y-%m-%d}")


def test_nodes_that_do_not_tell_are_waited_for_as_ever(renewed: Lab, cluster: ClusterServer) -> None:
    class Mute(GuestMachines):
        def ssh(self, node: str, *args: Any, **more: Any) -> Completed:
            if more.get("stdin") == TELL:
                raise MachineError("no ssh")
            return super().ssh(node, *args, **more)

    assert renewed.off_and_on(Mute).running == ("cp1", "w1")
    assert cluster.asked


def test_klabs_own_certificate_is_judged_where_no_node_tells(old: Lab) -> None:
    class Mute(GuestMachines):
        def ssh(self, node: str, *args: Any, **more: Any) -> Completed:
            if more.get("stdin") == TELL:
                raise MachineError("no ssh")
            return super().ssh(node, *args, **more)

    with pytest.raises(ClusterError) as caught:
        old.off_and_on(Mute)
    (line,) = caught.value.details
    assert line.startswith("klab's own, ")
    (old.folder.path / "pki" / "admin.crt").write_text("damaged")
    old.timeout = 0.5
    with pytest.raises(NotReadyInTime):  # and not because it has expired
        old.off_and_on(Mute)
