"""etcd's JSON, read and acted on. Real members: tests/integration/test_etcd.py."""

from __future__ import annotations

import datetime
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from support.authority import LOOPBACK, server_files
from support.lab_servers import LabServers, Server, etcd_answers, members_of, tls

from lab.cluster.clients import etcd as module
from lab.cluster.clients.etcd import CLIENT_PORT, Etcd
from lab.cluster.clients.etcd_answers import Alarm, EtcdMember
from lab.cluster.clients.https import Https, UnreachableError
from lab.cluster.secrets import etcd_client_files, load_or_make
from lab.errors import ClusterError
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.scenario.catalog import Catalog
from lab.scenario.parser import parse_scenario
from lab.store import LabFolder


@pytest.fixture
def plan(catalog: Catalog) -> Plan:
    return decide(parse_scenario("version: 1\nname: three\ntopology: {control_planes: 3}\n", catalog), catalog)


@pytest.fixture
def folder(tmp_path: Path) -> LabFolder:
    return LabFolder(tmp_path / "lab")


@pytest.fixture
def servers(folder: LabFolder, plan: Plan) -> Iterator[LabServers]:
    found = LabServers(folder, plan)
    yield found
    found.close()


@pytest.fixture
def etcd(folder: LabFolder, plan: Plan, servers: LabServers) -> Etcd:
    return Etcd(folder, plan, reach=servers.reach)


def everywhere(servers: LabServers, path: str, status: int, body: Any) -> None:
    for (_, port), server in servers.doors.items():
        if port == CLIENT_PORT:
            server.answers[path] = (status, body)


def requests(servers: LabServers, path: str) -> list[str]:
    """The nodes that were asked for a path."""
    return [n.name for n in servers.plan.control_planes for a in asked_of(servers, n.name) if a.startswith(path)]


def asked_of(servers: LabServers, name: str) -> list[str]:
    found = servers.plan.node(name)
    assert found is not None
    door = servers.doors.get((found.address, CLIENT_PORT))
    return door.asked if door else []


def shut(servers: LabServers, name: str) -> None:
    found = servers.plan.node(name)
    assert found is not None
    servers.shut(found.address, CLIENT_PORT)


# --- reading ----------------------------------------------------------------------------------


def test_members(etcd: Etcd, plan: Plan) -> None:
    address = plan.control_planes[0].address
    assert etcd.members()[0] == EtcdMember(1, "cp1", (f"https://{address}:2380",), (f"https://{address}:2379",), False)
    assert [m.name for m in etcd.members()] == ["cp1", "cp2", "cp3"]


def test_status(etcd: Etcd) -> None:
    status = etcd.status("cp2")
    assert (status.id, status.leader, status.revision, status.raft_index, status.raft_term) == (2, 1, 1234, 4321, 2)
    assert (status.db_size, status.db_in_use, status.quota) == (5 << 20, 3 << 20, 2 << 30)
    assert (status.version, status.learner, status.errors) == ("3.6.6", False, ())
    assert status.healthy
    assert status.votes


def test_a_status_without_a_leader(etcd: Etcd, servers: LabServers) -> None:
    said = etcd_answers(servers.plan, 2)["/v3/maintenance/status"][1]
    everywhere(servers, "/v3/maintenance/status", 200, said | {"leader": "0", "errors": ["etcdserver: no leader"]})
    everywhere(servers, "/health", 503, '{"health":"false","reason":"RAFT NO LEADER"}')
    status = etcd.status("cp2")
    assert not status.healthy
    assert not status.votes
    assert status.errors == ("etcdserver: no leader",)


def test_an_unhealthy_member_without_errors_tells_its_health(etcd: Etcd, servers: LabServers) -> None:
    everywhere(servers, "/health", 503, '{"health":"false","reason":"QGET ERROR"}')
    assert "QGET ERROR" in etcd.status("cp1").errors[0]


def test_a_member_that_follows_but_only_learns_has_no_vote(etcd: Etcd, servers: LabServers) -> None:
    said = etcd_answers(servers.plan, 2)["/v3/maintenance/status"][1]
    everywhere(servers, "/v3/maintenance/status", 200, said | {"isLearner": True})
    assert not etcd.status("cp2").votes


def test_alarms(etcd: Etcd, servers: LabServers) -> None:
    assert etcd.alarms() == ()
    everywhere(servers, "/v3/maintenance/alarm", 200, {"alarms": [{"memberID": "2", "alarm": "NOSPACE"}]})
    assert etcd.alarms() == (Alarm(2, "NOSPACE"),)


def test_dead_members_are_passed_over(etcd: Etcd, servers: LabServers) -> None:
    shut(servers, "cp1")
    assert len(etcd.members()) == 3
    with pytest.raises(ClusterError, match="connection refused"):
        etcd.status("cp1")


def test_when_none_answers_each_reason_is_told(etcd: Etcd, servers: LabServers, plan: Plan) -> None:
    for node in plan.control_planes:
        shut(servers, node.name)
    with pytest.raises(ClusterError, match="no etcd member answers") as caught:
        etcd.members()
    assert caught.value.details == tuple(f"{n.address}: connection refused" for n in plan.control_planes)
    assert "klab start" in caught.value.hint


def test_only_the_nodes_named_are_asked(folder: LabFolder, plan: Plan, servers: LabServers) -> None:
    Etcd(folder, plan, nodes=["cp3"], reach=servers.reach).members()
    assert {address for address, _ in servers.knocked} == {plan.control_planes[2].address}


def test_a_worker_runs_no_etcd(etcd: Etcd) -> None:
    with pytest.raises(ClusterError, match="w1 is not a control plane"):
        etcd.status("w1")


def test_a_refusal_is_not_silence(etcd: Etcd, servers: LabServers) -> None:
    everywhere(servers, "/v3/cluster/member/list", 503, {"code": 14, "message": "etcdserver: too busy"})
    with pytest.raises(ClusterError, match="etcd refuses to list its members") as caught:
        etcd.members()
    assert "503 etcdserver: too busy" in caught.value.details[0]


def test_an_answer_that_is_none(etcd: Etcd, servers: LabServers) -> None:
    everywhere(servers, "/v3/cluster/member/list", 200, "<html>")
    with pytest.raises(ClusterError) as caught:
        etcd.members()
    assert "not a JSON object" in caught.value.details[0]


# --- removing ---------------------------------------------------------------------------------


def test_a_member_is_removed_by_one_that_stays(etcd: Etcd, servers: LabServers) -> None:
    assert etcd.remove_member("cp1")
    assert requests(servers, "/v3/cluster/member/remove") == ["cp2"]
    assert '/v3/cluster/member/remove {"ID": "1"}' in asked_of(servers, "cp2")


def test_what_is_no_member_needs_no_removal(etcd: Etcd, servers: LabServers) -> None:
    assert not etcd.remove_member("cp9")
    etcd.refuse_loss("cp9")
    assert requests(servers, "/v3/cluster/member/remove") == []


def test_a_member_that_never_started_goes_by_its_address(etcd: Etcd, servers: LabServers, plan: Plan) -> None:
    """A join that was cut off: announced, but without a name."""
    members = members_of(plan)
    members[2] |= {"name": "", "clientURLs": [], "isLearner": True}
    everywhere(servers, "/v3/cluster/member/list", 200, {"members": members})
    shut(servers, "cp3")
    assert etcd.remove_member("cp3")
    assert '/v3/cluster/member/remove {"ID": "3"}' in asked_of(servers, "cp1")


@pytest.mark.parametrize("act", ["remove_member", "refuse_loss"])
def test_a_removal_that_would_cost_the_quorum_is_refused(etcd: Etcd, servers: LabServers, act: str) -> None:
    shut(servers, "cp3")
    with pytest.raises(
        ClusterError, match="would cost etcd its quorum: 1 of the 2 members left answer, 2 are"
    ) as caught:
        getattr(etcd, act)("cp1")
    assert caught.value.details == ("cp3 does not answer",)
    assert requests(servers, "/v3/cluster/member/remove") == []


def test_the_dead_one_may_go(etcd: Etcd, servers: LabServers) -> None:
    shut(servers, "cp3")
    etcd.refuse_loss("cp3")
    assert etcd.remove_member("cp3")


def test_with_the_quorum_lost_nothing_is_tried(etcd: Etcd, servers: LabServers) -> None:
    shut(servers, "cp2")
    shut(servers, "cp3")
    with pytest.raises(
        ClusterError, match="lost its quorum and can remove no member: 1 of 3 answer, 2 are needed"
    ) as e:
        etcd.remove_member("cp3")
    assert e.value.details == ("cp2 does not answer", "cp3 does not answer")
    assert requests(servers, "/v3/cluster/member/remove") == []


def test_a_full_database_keeps_no_member_from_going(etcd: Etcd, servers: LabServers) -> None:
    everywhere(servers, "/health", 503, '{"health":"false","reason":"ALARM NOSPACE"}')
    assert etcd.remove_member("cp3")


def test_the_last_member_stays(etcd: Etcd, servers: LabServers, plan: Plan) -> None:
    everywhere(servers, "/v3/cluster/member/list", 200, {"members": members_of(plan)[:1]})
    with pytest.raises(ClusterError, match="cp1 is etcd's last member"):
        etcd.remove_member("cp1")


def test_a_member_of_no_node_is_asked_where_it_says(etcd: Etcd, servers: LabServers, plan: Plan) -> None:
    stray = {"ID": "9", "name": "gone", "peerURLs": ["https://10.9.9.9:2380"], "clientURLs": ["https://10.9.9.9:2379"]}
    everywhere(servers, "/v3/cluster/member/list", 200, {"members": [*members_of(plan), stray]})
    assert etcd.remove_member("gone")
    assert ("10.9.9.9", CLIENT_PORT) in {(str(address), port) for address, port in servers.knocked}


def test_etcd_is_given_time_to_settle(etcd: Etcd, servers: LabServers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that have just found each other refuse at first."""
    everywhere(servers, "/v3/cluster/member/remove", 503, {"message": "etcdserver: unhealthy cluster"})
    pauses = []

    def finalize(seconds: float) -> None:
        pauses.append(seconds)
        everywhere(servers, "/v3/cluster/member/remove", 200, {"members": []})

    monkeypatch.setattr(module.time, "sleep", finalize)
    assert etcd.remove_member("cp3")
    assert len(pauses) == 1


def test_but_not_for_ever(etcd: Etcd, servers: LabServers, monkeypatch: pytest.MonkeyPatch) -> None:
    everywhere(servers, "/v3/cluster/member/remove", 503, {"message": "etcdserver: unhealthy cluster"})
    monkeypatch.setattr(module, "Deadline", _Passed)
    with pytest.raises(ClusterError, match="etcd refuses to remove cp3"):
        etcd.remove_member("cp3")


class _Passed:
    passed, left = True, 0.0

    @classmethod
    def after(cls, _seconds: float) -> _Passed:
        return cls()


# --- who asks ---------------------------------------------------------------------------------


def test_the_client_certificate_is_etcds_own(folder: LabFolder) -> None:
    secrets = load_or_make(folder)
    files = etcd_client_files(folder)
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    ca = x509.load_pem_x509_certificate(secrets.etcd_ca.public.encode())
    certificate.verify_directly_issued_by(ca)
    assert certificate.subject.rfc4514_string() == "CN=klab-etcd-client"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600


def test_a_lab_of_an_older_klab_gets_one(folder: LabFolder) -> None:
    load_or_make(folder)
    files = etcd_client_files(folder)
    files.certificate.unlink()
    files.key.unlink()
    etcd_client_files(folder)
    assert files.certificate.exists()
    kept = files.certificate.read_bytes()
    etcd_client_files(folder)
    assert files.certificate.read_bytes() == kept


def test_the_guests_need_not_have_reached_today(folder: LabFolder) -> None:
    """On an emulated host the guests' clocks are days behind; a certificate made today must hold there."""
    load_or_make(folder)
    files = etcd_client_files(folder)
    files.certificate.unlink()
    etcd_client_files(folder)
    ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
    made = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    assert made.not_valid_before_utc == ca.not_valid_before_utc


@pytest.mark.parametrize("damage", ["key", "certificate", "other ca"])
def test_one_that_is_of_no_use_is_made_anew(folder: LabFolder, tmp_path: Path, damage: str) -> None:
    load_or_make(folder)
    files = etcd_client_files(folder)
    if damage == "other ca":
        other = LabFolder(tmp_path / "other")
        load_or_make(other)
        files.certificate.write_bytes(etcd_client_files(other).certificate.read_bytes())
    else:
        getattr(files, damage).write_text("no PEM")
    etcd_client_files(folder)
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    assert certificate.public_key() == key.public_key()
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(files.ca.read_bytes()))
    assert certificate.not_valid_after_utc > datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=300)


def test_without_a_ca_there_is_an_error_with_a_hint(folder: LabFolder, plan: Plan) -> None:
    with pytest.raises(ClusterError, match="the etcd CA of lab 'lab' cannot be used") as caught:
        Etcd(folder, plan)
    assert "etcd-ca.key" in caught.value.hint


def test_a_server_of_another_ca_is_refused(folder: LabFolder, plan: Plan, servers: LabServers, tmp_path: Path) -> None:
    load_or_make(LabFolder(tmp_path / "other"))
    stranger = Etcd(LabFolder(tmp_path / "other"), plan, reach=servers.reach)
    with pytest.raises(ClusterError, match="its certificate is refused: "):
        stranger.status("cp1")


def test_a_server_with_another_nodes_certificate_is_refused(folder: LabFolder, plan: Plan, tmp_path: Path) -> None:
    load_or_make(folder)
    files = server_files(folder, "etcd-ca", tmp_path, address="127.0.0.2")
    server = Server(tls(*files, folder.path / "pki" / "etcd-ca.crt"), etcd_answers(plan, 1))
    with pytest.raises(ClusterError, match="its certificate is refused: IP address mismatch"):
        Etcd(folder, plan, reach=lambda *_: (LOOPBACK, server.port)).status("cp1")
    server.close()


def test_a_server_that_says_nothing(folder: LabFolder, plan: Plan) -> None:
    import socket

    load_or_make(folder)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        https = Https(etcd_client_files(folder), lambda *_: ("127.0.0.1", port), seconds=0.2)
        with pytest.raises(UnreachableError, match=r"no answer within 0\.2 s"):
            https.get(plan.nodes[0].address, CLIENT_PORT, "/health")
        with pytest.raises(UnreachableError, match=r"no answer within 0\.2 s"):
            https.peer_certificate(plan.nodes[0].address, CLIENT_PORT)


def test_a_server_that_speaks_no_tls(folder: LabFolder, plan: Plan) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    load_or_make(folder)
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    Thread(target=server.handle_request, daemon=True).start()
    https = Https(etcd_client_files(folder), lambda *_: ("127.0.0.1", server.server_address[1]), seconds=5)
    with pytest.raises(UnreachableError):
        https.get(plan.nodes[0].address, CLIENT_PORT, "/health")
    server.server_close()


def test_a_clients_missing_certificate_is_told(folder: LabFolder, plan: Plan, servers: LabServers) -> None:
    https = Https(etcd_client_files(folder), servers.reach)
    etcd_client_files(folder).certificate.unlink()
    with pytest.raises(UnreachableError, match="no such file"):
        https.get(plan.nodes[0].address, CLIENT_PORT, "/health")
