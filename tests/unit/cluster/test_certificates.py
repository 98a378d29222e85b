"""Renew a lab's certificates: the flow over fake machines whose shells are real, the result judged by openssl."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from cryptography import x509
from support.cluster_server import ClusterServer, refusing
from support.fake_lab import lab_on_disk, opener
from support.guests import NOW, PKI, Guest, GuestMachines, inline, kubeconfig, signed
from support.lab_servers import LabServers, Server, tls

from lab.cluster import secrets as lab_secrets
from lab.cluster.acts import certificates
from lab.cluster.acts.certificates import RENEW_SECONDS, Renewed, renew
from lab.cluster.admin_kubeconfig import write_kubeconfig
from lab.cluster.clients.https import Answer, Https, UnreachableError
from lab.cluster.clients.reach import Reach
from lab.cluster.events import Event, Journal, read_events
from lab.cluster.lab import Lab as ClusterLab
from lab.cluster.pki import ca_hash, kubelet_client
from lab.cluster.secrets import admin_files, etcd_client_files, load_or_make
from lab.errors import ClusterError, Conflict, MachineError, NotReadyInTime
from lab.machines.protocol import NodeState
from lab.plan.model import API_PORT
from lab.process import Completed
from lab.render.renewal import KUBELET_CLIENT, RESTART, TELL
from lab.scenario.model import Bootstrap
from lab.store import Home, LabFolder

AHEAD = datetime.timedelta(days=400)
ADMIN = "/etc/kubernetes/admin.conf"
CRT = "/etc/kubernetes/pki/apiserver.crt"


pytestmark = pytest.mark.usefixtures("quick_watch")


class FakeHttps:
    """API servers that say what `status` says of their node: 200, another status, or nothing."""

    status: ClassVar[dict[str, int]]
    asked: ClassVar[list[str]]
    names: ClassVar[dict[IPv4Address, str]]

    def __init__(self, *_: object) -> None:
        pass

    def get(self, address: IPv4Address, port: int, path: str) -> Answer:
        assert (port, path) == (API_PORT, "/readyz")
        name = self.names[address]
        self.asked.append(name)
        if name not in self.status:
            raise UnreachableError("connection refused")
        return Answer(self.status[name], "")


class Lab:
    """A lab whose guests' clocks stand 400 days on: every certificate of theirs has expired."""

    def __init__(self, tmp_path: Path, planes: int, workers: int, bootstrap: Bootstrap = "full") -> None:
        self.home = Home(tmp_path)
        self.folder, self.plan = lab_on_disk(self.home, control_planes=planes, workers=workers, bootstrap=bootstrap)
        load_or_make(self.folder)
        write_kubeconfig(self.folder, self.plan)
        self.told: list[tuple[str, str]] = []
        self.reach: Reach = refusing
        ends = NOW + datetime.timedelta(days=365)
        places = ((n, tmp_path / "guests" / n.name) for n in self.plan.nodes)
        self.guests = {n.name: Guest(place, self.folder, self.plan, n, ends) for n, place in places}
        self.set_clocks(NOW + AHEAD)
        self.events: list[Event] = []

    def set_clocks(self, clock: datetime.datetime) -> None:
        for guest in self.guests.values():
            guest.clock = clock

    def renewal(self, base: type[GuestMachines] = GuestMachines, **attributes: Any) -> ClusterLab:
        machines = opener(partial(base, guests=self.guests, told=self.told), **attributes)
        return ClusterLab(self.home, self.folder, self.plan, machines, 600, self.events.append, reach=self.reach)

    def power_off(self, *names: str) -> None:
        machines = opener()(self.home, self.folder, self.plan, self.folder.record(), None)
        for name in names:
            machines.set_state(name, NodeState.STOPPED)

    @property
    def scripts(self) -> list[tuple[str, str]]:
        """Who was told to do what, in order."""

        def word(script: str) -> str:
            if script == RESTART:
                return "restart"
            return "files and restart" if "\nstop\n" in script else "files"

        return [(node, word(script)) for node, script in self.told if script != TELL]

    def everything(self) -> dict[str, object]:
        own = {str(file): file.read_text() for file in (self.folder.path / "pki").iterdir()}
        return {**own, **{name: guest.files() for name, guest in self.guests.items()}}


@pytest.fixture
def https(monkeypatch: pytest.MonkeyPatch) -> type[FakeHttps]:
    kind: type[FakeHttps] = type("Kind", (FakeHttps,), {"status": {}, "asked": [], "names": {}})
    monkeypatch.setattr(certificates, "Https", kind)
    return kind


@pytest.fixture
def make(tmp_path: Path, cluster: ClusterServer, https: type[FakeHttps]) -> Callable[..., Lab]:
    def make(planes: int, workers: int, *answering: str, bootstrap: Bootstrap = "full") -> Lab:
        lab = Lab(tmp_path, planes, workers, bootstrap)
        cluster.serve(lab.folder, lab.plan)
        lab.reach = cluster.reach
        https.names.update({n.address: n.name for n in lab.plan.control_planes})
        https.status.update(dict.fromkeys(answering, 200))
        return lab

    return make


@pytest.fixture
def revived(https: type[FakeHttps]) -> type[GuestMachines]:
    """Machines whose API servers come back as soon as their node has its files."""

    class Revived(GuestMachines):
        def ssh(self, node: str, *args: Any, **more: Any) -> Completed:
            done = super().ssh(node, *args, **more)
            if more.get("stdin") not in {None, TELL} and done.code == 0:
                https.status[node] = 200
            return done

    return Revived


def verify(folder: LabFolder, ca: str, text: str, at: datetime.datetime, purpose: str, place: Path) -> str:
    """What openssl says of a certificate at a moment."""
    place.write_text(text)
    bundle = folder.path / "pki" / f"{ca}.crt"
    argv = ["openssl", "verify", "-x509_strict", "-CAfile", bundle, "-attime", str(int(at.timestamp()))]
    done = subprocess.run([*argv, "-purpose", purpose, place], capture_output=True, text=True)
    return "OK" if done.returncode == 0 else done.stderr


def in_config(text: str) -> str:
    (user,) = yaml.safe_load(text)["users"]
    return certificate_of(user["user"]["client-certificate-data"])


def certificate_of(data: str) -> str:
    import base64

    return base64.b64decode(data).decode()


def all_of(lab: Lab, name: str) -> list[tuple[str, str, str]]:
    """A node's certificates: CA, purpose, text."""
    guest = lab.guests[name]
    found = [("ca", "sslclient", guest.path(KUBELET_CLIENT).read_text())]
    if guest.node.is_control_plane:
        files = guest.files()
        for file, (ca, *_, usage) in PKI.items():
            purpose = "sslserver" if usage == x509.ExtendedKeyUsageOID.SERVER_AUTH else "sslclient"
            found.append((ca, purpose, files[f"/etc/kubernetes/pki/{file}.crt"]))
        configs = (files[f"/etc/kubernetes/{name}.conf"] for name in ("admin", "controller-manager", "scheduler"))
        found += [("ca", "sslclient", in_config(text)) for text in configs]
    return found


# --- a lab that answers nobody ----------------------------------------------------------------


def test_a_node_is_given_its_own_time(make: Callable[..., Lab], revived: type[GuestMachines]) -> None:
    """Programs end by the guests' clocks: where those are slower, that takes longer."""
    given: list[float] = []

    class Timed(revived):  # type: ignore[misc,valid-type]
        def ssh(self, node: str, command: Any, timeout: float, *args: Any, **more: Any) -> Completed:
            if more.get("stdin") not in {None, TELL}:
                given.append(timeout)
            return super().ssh(node, command, timeout, *args, **more)

    lab = make(1, 0)
    renew(lab.renewal(Timed))
    lab.folder.update_record(dilation=0.2)
    renew(replace(lab.renewal(Timed), timeout=10 * RENEW_SECONDS))
    # The first time its API server was dead: it took its files and ended what ran at once.
    assert given == [RENEW_SECONDS, 5 * RENEW_SECONDS, 5 * RENEW_SECONDS]


def test_one_command_repairs_a_lab_whose_certificates_have_expired(
    make: Callable[..., Lab], revived: type[GuestMachines], cluster: ClusterServer, tmp_path: Path
) -> None:
    lab, then = make(1, 1), NOW + AHEAD
    place = tmp_path / "judged.pem"
    before = [each for name in lab.guests for each in all_of(lab, name)]
    assert all("expired" in verify(lab.folder, ca, text, then, use, place) for ca, use, text in before)
    done = renew(lab.renewal(revived))
    after = [each for name in lab.guests for each in all_of(lab, name)]
    assert len(after) == 12
    # By the guests' clocks, on the day and nearly a year on; and by this machine's.
    for at in (then, then + datetime.timedelta(days=364), NOW):
        assert {verify(lab.folder, ca, text, at, use, place) for ca, use, text in after} == {"OK"}
    assert "expired" in verify(lab.folder, *after[0][::2], then + datetime.timedelta(days=366), after[0][1], place)
    assert (done.nodes, done.off, done.left, done.lost_quorum) == (("cp1", "w1"), (), (), False)
    assert abs(done.until - (then + datetime.timedelta(days=365))) < datetime.timedelta(days=1)
    assert lab.guests["w1"].log == ["systemctl restart kubelet"]
    assert [path for path in cluster.asked if "leases" in path], "Ready, and not from memory"


def test_they_say_of_whom_they_are_what_they_said_before(
    make: Callable[..., Lab], revived: type[GuestMachines]
) -> None:
    lab = make(1, 1)

    def said() -> list[tuple[object, ...]]:
        loaded = [
            x509.load_pem_x509_certificate(text.encode()) for name in lab.guests for _, _, text in all_of(lab, name)
        ]
        kinds = (x509.SubjectAlternativeName, x509.ExtendedKeyUsage)
        return [(c.subject, c.issuer, [e.value for e in c.extensions if isinstance(e.value, kinds)]) for c in loaded]

    keys = {file: text for file, text in lab.guests["cp1"].files().items() if file.endswith(".key")}
    before = said()
    renew(lab.renewal(revived))
    assert said() == before
    after = lab.guests["cp1"].files()
    cas = {"ca.key", "sa.key", "front-proxy-ca.key"}
    assert {Path(file).name for file, text in keys.items() if after.get(file) == text} == cas
    (kubelet,) = [c for _, _, c in all_of(lab, "w1")]
    subject = x509.load_pem_x509_certificate(kubelet.encode()).subject.rfc4514_string()
    assert subject == "CN=system:node:w1,O=system:nodes"


def test_klabs_own_and_the_kubeconfig_are_new_too(
    make: Callable[..., Lab], revived: type[GuestMachines], tmp_path: Path
) -> None:
    lab, then = make(1, 0), NOW + AHEAD
    before = admin_files(lab.folder).certificate.read_text()
    secrets = load_or_make(lab.folder)
    renew(lab.renewal(revived))
    admin = admin_files(lab.folder).certificate.read_text()
    etcd = etcd_client_files(lab.folder).certificate.read_text()
    for ca, text in (("ca", admin), ("etcd-ca", etcd)):
        assert verify(lab.folder, ca, text, then, "sslclient", tmp_path / "judged.pem") == "OK"
    assert admin != before
    assert x509.load_pem_x509_certificate(admin.encode()).subject.rfc4514_string() == "CN=klab-admin,O=system:masters"
    assert in_config(lab.folder.kubeconfig.read_text()) == admin
    # Nothing else of the lab's secrets is touched.
    assert load_or_make(lab.folder) == secrets
    assert ca_hash(secrets.ca.public) == secrets.ca_hash


def test_this_machine_takes_the_api_server_for_valid_although_its_clock_is_another(
    make: Callable[..., Lab], revived: type[GuestMachines]
) -> None:
    """And the API server takes klab for an admin: a real handshake, both ways."""
    lab = make(1, 0)
    renew(lab.renewal(revived))
    guest, answers = lab.guests["cp1"], {"/readyz": (200, "ok")}
    file = guest.path(CRT)
    server = Server(tls(file, file.with_suffix(".key"), guest.path("/etc/kubernetes/pki/ca.crt")), answers)
    try:
        there = Https(admin_files(lab.folder), lambda *_: ("127.0.0.1", server.port), 20)
        assert there.get(lab.plan.nodes[0].address, API_PORT, "/readyz").status == 200
    finally:
        server.close()


def test_an_api_server_that_does_not_answer_starts_anew_together_with_its_files(
    make: Callable[..., Lab], revived: type[GuestMachines]
) -> None:
    lab = make(1, 1)
    renew(lab.renewal(revived))
    assert sorted(lab.scripts) == [("cp1", "files and restart"), ("w1", "files")]
    phases = [(e.node, e.state) for e in lab.events if e.phase == "renew"]
    assert sorted(phases) == [("cp1", "begin"), ("cp1", "done"), ("w1", "begin"), ("w1", "done")]
    assert [e for e in read_events(lab.folder.events) if e.phase == "renew"]


def test_doing_it_twice_is_no_harm(make: Callable[..., Lab], revived: type[GuestMachines], tmp_path: Path) -> None:
    lab = make(1, 1)
    renew(lab.renewal(revived))
    first = lab.everything()
    done = renew(lab.renewal(revived))
    assert done.left == ()
    assert lab.everything() != first
    then = NOW + AHEAD
    for ca, use, text in all_of(lab, "cp1"):
        assert verify(lab.folder, ca, text, then, use, tmp_path / "judged.pem") == "OK"


# --- a lab that works -------------------------------------------------------------------------


def test_api_servers_that_work_start_anew_one_by_one(
    make: Callable[..., Lab], https: type[FakeHttps], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make(3, 1, "cp1", "cp2", "cp3")

    class Slow(GuestMachines):
        """Each restarted API server is asked in vain twice; nobody else may be restarted meanwhile."""

        def ssh(self, node: str, *args: Any, **more: Any) -> Completed:
            if more.get("stdin") == RESTART:
                assert set(https.status.values()) == {200}, "another one is still down"
                https.status[node] = 500
                https.asked.clear()
            return super().ssh(node, *args, **more)

    ask = FakeHttps.get

    def get(self: FakeHttps, address: IPv4Address, port: int, path: str) -> Answer:
        answer = ask(self, address, port, path)
        if len(https.asked) >= 2:
            https.status[https.names[address]] = 200
        return answer

    monkeypatch.setattr(https, "get", get)
    renew(lab.renewal(Slow))
    files, restarts = lab.scripts[:4], lab.scripts[4:]
    assert sorted(files) == [("cp1", "files"), ("cp2", "files"), ("cp3", "files"), ("w1", "files")]
    assert restarts == [("cp1", "restart"), ("cp2", "restart"), ("cp3", "restart")]
    done = [e.node for e in lab.events if (e.phase, e.state) == ("renew", "done")]
    assert done == ["w1", "cp1", "cp2", "cp3"]


def test_one_that_is_down_is_revived_before_those_that_work(
    make: Callable[..., Lab], revived: type[GuestMachines]
) -> None:
    lab = make(3, 0, "cp1", "cp3")
    renew(lab.renewal(revived))
    assert sorted(lab.scripts[:3]) == [("cp1", "files"), ("cp2", "files and restart"), ("cp3", "files")]
    assert lab.scripts[3:] == [("cp1", "restart"), ("cp3", "restart")]


def test_which_ones_work_is_asked_with_the_new_certificate(tmp_path: Path, cluster: ClusterServer) -> None:
    """Real servers on this machine: the one of cp2 is shut."""
    lab = Lab(tmp_path, 3, 0)
    cluster.serve(lab.folder, lab.plan)
    servers = LabServers(lab.folder, lab.plan)
    address = lab.plan.control_planes[1].address
    door = servers.doors.pop((address, API_PORT))

    class Revived(GuestMachines):
        def ssh(self, node: str, *args: Any, **more: Any) -> Completed:
            if node == "cp2" and more.get("stdin") not in {None, TELL}:
                servers.doors[address, API_PORT] = door
            return super().ssh(node, *args, **more)

    def reach(address: IPv4Address, port: int) -> tuple[str, int]:
        through = cluster.reach if (address, port) == lab.plan.api_endpoint else servers.reach
        return through(address, port)

    # Nobody could be asked with what was there before.
    admin_files(lab.folder).certificate.write_text("")
    try:
        renew(replace(lab.renewal(Revived), reach=reach))
    finally:
        servers.close()
    assert sorted(lab.scripts[:3]) == [("cp1", "files"), ("cp2", "files and restart"), ("cp3", "files")]
    assert lab.scripts[3:] == [("cp1", "restart"), ("cp3", "restart")]


# --- what goes wrong --------------------------------------------------------------------------


def test_a_node_that_does_not_answer_is_named_and_nothing_is_changed(make: Callable[..., Lab]) -> None:
    lab = make(1, 2)

    class Silent(GuestMachines):
        def ssh(self, node: str, *args: Any, **more: Any) -> Completed:
            if node != "cp1":
                raise MachineError(f"{node} is silent", details=["No route to host"])
            return super().ssh(node, *args, **more)

    before = lab.everything()
    with pytest.raises(MachineError, match="w1 does not answer ssh") as caught:
        renew(lab.renewal(Silent))
    details = ("w1 is silent", "No route to host", "also: w2 does not answer ssh (No route to host)")
    assert caught.value.details == (*details, "nothing has been changed")
    assert "klab logs w1" in caught.value.hint
    assert lab.everything() == before


def test_a_node_that_answers_nonsense_is_named(make: Callable[..., Lab]) -> None:
    lab = make(1, 0)
    lab.guests["cp1"].programs = {"date": "echo 'date: No space left on device' >&2; exit 1"}
    with pytest.raises(MachineError, match="cp1 did not list its certificates") as caught:
        renew(lab.renewal())
    assert "date: No space left on device" in caught.value.details


def test_a_node_that_fails_is_named_with_its_last_words_and_the_same_command_goes_on(
    make: Callable[..., Lab], revived: type[GuestMachines], tmp_path: Path
) -> None:
    lab = make(1, 1)
    lab.guests["w1"].programs = {"systemctl": "echo 'Failed to restart kubelet.service' >&2; exit 4"}
    with pytest.raises(ClusterError, match="w1 cannot take its new certificates") as caught:
        renew(lab.renewal(revived))
    assert caught.value.details == ("exit code 4", "Failed to restart kubelet.service")
    assert "run the same command again to continue" in caught.value.hint
    failed = [e for e in lab.events if e.state == "failed"]
    assert [(e.node, e.phase, e.text) for e in failed] == [("w1", "renew", "Failed to restart kubelet.service")]
    lab.guests["w1"].programs = {}
    assert renew(lab.renewal(revived)).nodes == ("cp1", "w1")


def test_after_ctrl_c_the_same_command_goes_on(make: Callable[..., Lab], tmp_path: Path) -> None:
    lab = make(3, 0, "cp1", "cp2", "cp3")
    pressed: list[str] = []

    class Pressed(GuestMachines):
        def ssh(self, node: str, *args: Any, **more: Any) -> Completed:
            if more.get("stdin") == RESTART and node == "cp2" and not pressed:
                pressed.append(node)
                raise KeyboardInterrupt
            return super().ssh(node, *args, **more)

    with pytest.raises(KeyboardInterrupt):
        renew(lab.renewal(Pressed))
    assert renew(lab.renewal(Pressed)).nodes == ("cp1", "cp2", "cp3")
    for ca, use, text in all_of(lab, "cp2"):
        assert verify(lab.folder, ca, text, NOW + AHEAD, use, tmp_path / "judged.pem") == "OK"


def test_an_api_server_that_never_comes_is_named(
    make: Callable[..., Lab], https: type[FakeHttps], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make(1, 0)
    https.status["cp1"] = 500
    Journal(lab.folder.events).add("cp1", "clean", "done")

    class Patience:
        """Ends with the fifth question."""

        def at_most(self, seconds: float) -> float:
            return seconds

        @property
        def passed(self) -> bool:
            return len(https.asked) > 4

    monkeypatch.setattr(ClusterLab, "deadline", lambda *_: Patience())
    with pytest.raises(NotReadyInTime) as caught:
        renew(lab.renewal())
    assert "cp1: not ready (500)" in caught.value.details
    assert "klab ssh cp1" in caught.value.hint


def test_a_node_that_is_off_is_left_out_and_named(
    make: Callable[..., Lab], revived: type[GuestMachines], cluster: ClusterServer
) -> None:
    lab = make(3, 1)
    lab.power_off("cp3", "w1")
    cluster.not_ready = {"cp3", "w1"}
    before = lab.guests["w1"].files()
    done = renew(lab.renewal(revived))
    assert (done.nodes, done.off, done.lost_quorum) == (("cp1", "cp2"), ("cp3", "w1"), False)
    assert lab.guests["w1"].files() == before
    said = [(e.node, e.text) for e in lab.events if e.state == "failed"]
    assert said == [("cp3", "its machine is stopped"), ("w1", "its machine is stopped")]


def test_without_a_quorum_nobody_waits_for_the_cluster(
    make: Callable[..., Lab], revived: type[GuestMachines], cluster: ClusterServer
) -> None:
    lab = make(3, 1)
    lab.power_off("cp2", "cp3")
    done = renew(lab.renewal(revived))
    assert (done.nodes, done.lost_quorum) == (("cp1", "w1"), True)
    assert cluster.asked == []
    lab.power_off("cp1")
    assert renew(lab.renewal(revived)).nodes == ("w1",)


def test_where_no_machine_runs_there_is_nothing_to_renew(make: Callable[..., Lab]) -> None:
    lab = make(1, 1)
    lab.power_off("cp1", "w1")
    with pytest.raises(Conflict, match="no machine of lab 'demo' runs") as caught:
        renew(lab.renewal())
    assert "klab start demo" in caught.value.hint


def test_a_half_made_lab_and_a_students_cluster_are_refused(make: Callable[..., Lab], tmp_path: Path) -> None:
    lab = make(1, 0)
    lab.folder.update_record(phase="creating")
    with pytest.raises(Conflict, match="half made") as caught:
        renew(lab.renewal())
    assert "klab create" in caught.value.hint
    student = Lab(tmp_path / "student", 1, 0, "prepared")
    with pytest.raises(Conflict, match="no cluster that klab created") as caught:
        renew(student.renewal())
    assert "kubeadm certs renew all" in caught.value.hint


def test_one_klab_at_a_time(make: Callable[..., Lab]) -> None:
    lab = make(1, 0)
    with lab.folder.lock(), pytest.raises(Conflict, match="worked on by another klab"):
        renew(lab.renewal())


# --- CAs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "says", "detail"),
    [(3660, "has expired", "on cp1 it is 20"), (-10, "is not valid yet", "on cp1 it is 20")],
)
def test_a_ca_that_does_not_hold_is_said_and_nothing_is_changed(
    make: Callable[..., Lab], days: int, says: str, detail: str
) -> None:
    lab = make(1, 1)
    lab.set_clocks(NOW + datetime.timedelta(days=days))
    before = lab.everything()
    with pytest.raises(ClusterError, match=f"a CA of lab 'demo' {says}") as caught:
        renew(lab.renewal())
    (line,) = caught.value.details
    assert line.startswith("ca holds from 20")
    assert detail in line
    assert "klab destroy demo, then klab create demo" in caught.value.hint
    assert lab.everything() == before


def test_no_certificate_outlives_its_ca(make: Callable[..., Lab], revived: type[GuestMachines], tmp_path: Path) -> None:
    lab = make(1, 0)
    end = x509.load_pem_x509_certificate(load_or_make(lab.folder).ca.public.encode()).not_valid_after_utc
    lab.set_clocks(end - datetime.timedelta(days=100))
    done = renew(lab.renewal(revived))
    ends = {x509.load_pem_x509_certificate(text.encode()).not_valid_after_utc for _, _, text in all_of(lab, "cp1")}
    assert max(ends) <= end + datetime.timedelta(minutes=1)
    assert done.until <= end
    place = tmp_path / "judged.pem"
    for ca, use, text in all_of(lab, "cp1"):
        assert verify(lab.folder, ca, text, end - datetime.timedelta(days=1), use, place) == "OK"


def test_nor_does_one_that_is_wanted_for_longer(tmp_path: Path) -> None:
    folder = LabFolder(tmp_path / "lab")
    load_or_make(folder)
    ca = lab_secrets.authorities(folder)["ca"]
    made = kubelet_client(ca, "w1", NOW + datetime.timedelta(days=9999))
    ends = [x509.load_pem_x509_certificate(text.encode()).not_valid_after_utc for text in (made.public, ca.public)]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("damage", ["", "-----BEGIN", None, "another"])
def test_a_ca_that_is_damaged_is_said_with_what_to_put_back(
    make: Callable[..., Lab], tmp_path: Path, damage: str | None
) -> None:
    lab = make(1, 0)
    key = lab.folder.path / "pki" / "etcd-ca.key"
    if damage is None:
        key.unlink()
    else:
        key.write_text(load_or_make(lab.folder).ca.private if damage == "another" else damage)
    with pytest.raises(ClusterError, match="a CA of lab 'demo' cannot be used") as caught:
        renew(lab.renewal())
    assert caught.value.hint.startswith("put back etcd-ca.crt and etcd-ca.key in ")


# --- what is not as kubeadm left it -----------------------------------------------------------


def left(lab: Lab, machines: type[GuestMachines]) -> Renewed:
    done = renew(lab.renewal(machines))
    assert [f"{e.node}: {e.text}" for e in lab.events if (e.phase, e.state) == ("renew", "note")] == list(done.left)
    return done


def test_what_is_missing_or_damaged_is_left_and_said(make: Callable[..., Lab], revived: type[GuestMachines]) -> None:
    lab = make(1, 0)
    guest = lab.guests["cp1"]
    guest.path("/etc/kubernetes/scheduler.conf").unlink()
    guest.path(CRT).write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    guest.path("/etc/kubernetes/pki/etcd/peer.crt").write_text("")
    assert left(lab, revived).left == (
        f"cp1: {CRT} is damaged",
        "cp1: /etc/kubernetes/pki/etcd/peer.crt is missing",
        "cp1: /etc/kubernetes/scheduler.conf is missing",
    )


def test_a_kubelets_certificate_is_made_whatever_became_of_the_old_one(
    make: Callable[..., Lab], revived: type[GuestMachines], tmp_path: Path
) -> None:
    lab = make(1, 2)
    lab.guests["w1"].path(KUBELET_CLIENT).unlink()
    lab.guests["w2"].path(KUBELET_CLIENT).write_text("")
    assert left(lab, revived).left == ()
    for name in ("w1", "w2"):
        ((ca, use, text),) = all_of(lab, name)
        assert verify(lab.folder, ca, text, NOW + AHEAD, use, tmp_path / "judged.pem") == "OK"


def test_what_another_ca_has_signed_is_left_and_said(
    make: Callable[..., Lab], revived: type[GuestMachines], tmp_path: Path
) -> None:
    """As after a lesson in which the CA was replaced."""
    lab = make(1, 1)
    other = LabFolder(tmp_path / "other")
    load_or_make(other)
    foreign = signed(other, "ca", "system:node:w1", "system:nodes", ends=NOW)
    lab.guests["w1"].path(KUBELET_CLIENT).resolve().write_text(foreign.public + foreign.private)
    lab.guests["cp1"].path(CRT).write_text(foreign.public)
    assert left(lab, revived).left == (
        f"cp1: {CRT} is signed by another CA than the lab's",
        f"w1: {KUBELET_CLIENT} is signed by another CA than the lab's",
    )
    assert lab.guests["cp1"].path(CRT).read_text() == foreign.public
    assert lab.guests["w1"].path(KUBELET_CLIENT).read_text() == foreign.public + foreign.private
    assert lab.guests["w1"].log == ["systemctl restart kubelet"]


def test_every_user_of_a_kubeconfig_keeps_a_certificate_of_their_own(
    make: Callable[..., Lab], revived: type[GuestMachines], tmp_path: Path
) -> None:
    lab = make(1, 0)
    guest, ends = lab.guests["cp1"], NOW
    jane, admin = signed(lab.folder, "ca", "jane", ends=ends), signed(lab.folder, "ca", "kubernetes-admin", ends=ends)
    guest.path(ADMIN).write_text(kubeconfig(jane=jane, admin=admin))
    assert left(lab, revived).left == ()
    found = {each["name"]: each["user"] for each in yaml.safe_load(guest.files()[ADMIN])["users"]}
    for name, subject in (("jane", "CN=jane"), ("admin", "CN=kubernetes-admin")):
        text = certificate_of(found[name]["client-certificate-data"])
        certificate = x509.load_pem_x509_certificate(text.encode())
        assert certificate.subject.rfc4514_string() == subject
        assert verify(lab.folder, "ca", text, NOW + AHEAD, "sslclient", tmp_path / "judged.pem") == "OK"
        assert found[name]["client-key-data"] not in {inline(jane.private), inline(admin.private)}


def test_super_admin_is_renewed_where_there_is_one(make: Callable[..., Lab], revived: type[GuestMachines]) -> None:
    lab = make(1, 0)
    file = lab.guests["cp1"].path("/etc/kubernetes/super-admin.conf")
    old = signed(lab.folder, "ca", "kubernetes-super-admin", "system:masters", ends=NOW)
    file.write_text(kubeconfig(super=old))
    assert left(lab, revived).left == ()
    new = x509.load_pem_x509_certificate(in_config(file.read_text()).encode())
    assert new.subject.rfc4514_string() == "CN=kubernetes-super-admin,O=system:masters"
    assert new.not_valid_after_utc > NOW + AHEAD


def test_certificates_in_the_lab_are_for_the_owner_alone(
    make: Callable[..., Lab], revived: type[GuestMachines]
) -> None:
    lab = make(1, 0)
    renew(lab.renewal(revived))
    modes = {file.name: file.stat().st_mode & 0o777 for file in (lab.folder.path / "pki").iterdir()}
    assert set(modes.values()) == {0o600}
    assert lab_secrets.authorities(lab.folder).keys() == {"ca", "front-proxy-ca", "etcd-ca"}
