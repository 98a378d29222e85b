"""klab's view of etcd before real etcd: three members on this machine, with the lab's own certificates."""

from __future__ import annotations

import base64
import shlex
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from support.authority import LOOPBACK, server_files
from support.compiled import default_box_program

from lab.cluster.clients.etcd import CLIENT_PORT, Etcd
from lab.cluster.clients.etcd_answers import MemberStatus
from lab.cluster.clients.https import Https
from lab.cluster.diagnostics import CheckContext, diagnose
from lab.cluster.diagnostics.repair import ENDPOINT
from lab.cluster.observe.facts import ClusterFacts, EtcdFacts, MemberFacts, NodeFacts
from lab.cluster.secrets import etcd_client_files, load_or_make
from lab.errors import ClusterError
from lab.plan.decide import decide
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario
from lab.store import LabFolder

WAIT_SECONDS = 120.0
QUOTA = 3 * 1024 * 1024
KEY = base64.b64encode(b"key").decode()


def free_ports(count: int) -> list[int]:
    opened = [socket.create_server((LOOPBACK, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in opened]
    for each in opened:
        each.close()
    return ports


class Members:
    """The etcd of a lab with three control planes, its members as processes of this machine."""

    def __init__(self, folder: Path) -> None:
        catalog = load_catalog()
        text = "version: 1\nname: members\ntopology: {control_planes: 3}\n"
        self.folder = LabFolder(folder / "lab")
        self.plan = decide(parse_scenario(text, catalog), catalog)
        load_or_make(self.folder)
        self.names = [node.name for node in self.plan.control_planes]
        ports = free_ports(6)
        self.clients = dict(zip(self.names, ports[:3], strict=True))
        self.peers = dict(zip(self.names, ports[3:], strict=True))
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.etcd = Etcd(self.folder, self.plan, reach=self.reach)
        certificate, key = server_files(self.folder, "etcd-ca", folder)
        # As kubeadm lays them out on a node.
        self.pki = folder / "pki"
        self.pki.mkdir()
        for name, file in (("ca.crt", self.folder.path / "pki" / "etcd-ca.crt"), ("server.crt", certificate)):
            (self.pki / name).write_bytes(file.read_bytes())
        (self.pki / "server.key").write_bytes(key.read_bytes())
        for name in self.names:
            self._start(name, folder, certificate, key)

    def reach(self, address: IPv4Address, port: int) -> tuple[str, int]:
        assert port == CLIENT_PORT
        node = next(n for n in self.plan.control_planes if n.address == address)
        return LOOPBACK, self.clients[node.name]

    def _start(self, name: str, folder: Path, certificate: Path, key: Path) -> None:
        client, peer = f"https://{LOOPBACK}:{self.clients[name]}", f"http://{LOOPBACK}:{self.peers[name]}"
        options = {
            "name": name,
            "data-dir": folder / name,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": ",".join(f"{n}=http://{LOOPBACK}:{self.peers[n]}" for n in self.names),
            "client-cert-auth": "true",
            "trusted-ca-file": self.folder.path / "pki" / "etcd-ca.crt",
            "cert-file": certificate,
            "key-file": key,
            "quota-backend-bytes": QUOTA,
            "heartbeat-interval": 200,
            "election-timeout": 2000,
            "unsafe-no-fsync": "true",
        }
        with (folder / f"{name}.log").open("wb") as log:
            self.children[name] = subprocess.Popen(
                [default_box_program("etcd"), *(f"--{option}={value}" for option, value in options.items())],
                stdout=log,
                stderr=log,
            )

    def kill(self, name: str) -> None:
        self.children[name].kill()
        self.children[name].wait()

    def end(self) -> None:
        for name in self.children:
            self.kill(name)

    def statuses(self) -> dict[str, MemberStatus]:
        return {name: self.etcd.status(name) for name in self.names if self.children[name].poll() is None}

    def all_agree(self) -> bool:
        """Whether every member that lives is healthy, and all name the same leader."""
        found = self.statuses().values()
        return all(each.healthy for each in found) and len({each.leader for each in found} - {0}) == 1

    def leader(self) -> str:
        return next(name for name, status in self.statuses().items() if status.id == status.leader)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, however busy the machine is."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            if holds():
                return
            last = "it does not hold"
        except ClusterError as error:
            last = str(error)
        assert time.monotonic() < deadline, last
        time.sleep(0.2)


@pytest.fixture
def members(tmp_path: Path) -> Iterator[Members]:
    found = Members(tmp_path)
    try:
        until(found.all_agree)
        yield found
    finally:
        found.end()


def fill(members: Members) -> None:
    """Write one key until etcd refuses: it is the old revisions that fill the database."""
    https = Https(etcd_client_files(members.folder), members.reach)
    address = members.plan.control_planes[0].address
    value = base64.b64encode(bytes(512 * 1024)).decode()
    with pytest.raises(ClusterError, match="database space exceeded"):  # noqa: PT012 - which write is refused is etcd's
        for _ in range(100):
            https.post_json(address, CLIENT_PORT, "/v3/kv/put", {"key": KEY, "value": value}, seconds=60)


def test_members_status_and_leader(members: Members) -> None:
    found = members.etcd.members()
    assert [m.name for m in found] == members.names
    assert found == members.etcd.members(agreed=True)
    assert [m.client_urls for m in found] == [(f"https://{LOOPBACK}:{p}",) for p in members.clients.values()]
    assert not any(m.learner for m in found)
    statuses = members.statuses()
    assert {m.name: m.id for m in found} == {name: status.id for name, status in statuses.items()}
    for status in statuses.values():
        assert status.version == members.plan.kubernetes.versions.etcd
        assert status.revision >= 1
        assert status.raft_index > 0
        assert status.db_size > 0
        assert status.quota == QUOTA
        assert status.errors == ()
    assert members.leader() in members.names
    assert members.etcd.alarms() == ()


def test_a_full_database_raises_an_alarm(members: Members) -> None:
    fill(members)
    until(lambda: all(not status.healthy for status in members.statuses().values()))
    alarms = members.etcd.alarms()
    assert {alarm.kind for alarm in alarms} == {"NOSPACE"}
    assert {alarm.member for alarm in alarms} <= {m.id for m in members.etcd.members()}
    for status in members.statuses().values():
        assert any("NOSPACE" in error for error in status.errors)
        assert status.votes
    # Full is not dead: the quorum stands, so a member can still go.
    assert members.etcd.remove_member(members.names[2])


def test_the_repair_of_a_full_database_repairs_it(members: Members) -> None:
    fill(members)
    until(lambda: members.etcd.alarms() != ())
    facts = ClusterFacts(
        lab=members.plan.name,
        guest_time=0.0,
        nodes=tuple(NodeFacts(n.name, n.role, str(n.address), "running", "") for n in members.plan.nodes),
        etcd=EtcdFacts(
            tuple(
                MemberFacts(m.name, planned=True, joined=True, id=m.id, status=members.etcd.status(m.name))
                for m in members.etcd.members()
            ),
            members.etcd.alarms(),
        ),
    )
    results = diagnose(CheckContext(members.plan, facts, {}, {}, Path("scenario.yaml")))
    (finding,) = next(result.findings for result in results if result.check == "etcd")
    _, _, line = finding.repair.partition(" -- ")
    (text,) = shlex.split(line)
    # As on a node, but for where etcd and its files are.
    text = text.replace("sudo etcdctl", str(default_box_program("etcdctl"))).replace(
        "/etc/kubernetes/pki/etcd", str(members.pki)
    )
    text = text.replace(ENDPOINT, f"https://{LOOPBACK}:{members.clients['cp1']}")
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert members.etcd.alarms() == ()
    until(members.all_agree)
    https = Https(etcd_client_files(members.folder), members.reach)
    put = {"key": KEY, "value": KEY}
    https.post_json(members.plan.nodes[0].address, CLIENT_PORT, "/v3/kv/put", put, seconds=60)


def test_one_member_lost(members: Members) -> None:
    lost, *left = [members.leader(), *(n for n in members.names if n != members.leader())]
    members.kill(lost)
    until(members.all_agree)
    assert members.leader() in left
    assert len(members.etcd.members(agreed=True)) == 3
    with pytest.raises(ClusterError, match="connection refused"):
        members.etcd.status(lost)
    with pytest.raises(
        ClusterError, match="would cost etcd its quorum: 1 of the 2 members left answer, 2 are needed"
    ) as e:
        members.etcd.remove_member(left[0])
    assert e.value.details == (f"{lost} does not answer",)
    assert members.etcd.remove_member(lost)
    assert not members.etcd.remove_member(lost)
    assert sorted(m.name for m in members.etcd.members()) == sorted(left)
    assert members.all_agree()


def test_the_quorum_lost(members: Members) -> None:
    survivor, *lost = members.names
    for name in lost:
        members.kill(name)
    until(lambda: members.etcd.status(survivor).leader == 0)
    status = members.etcd.status(survivor)
    assert not status.healthy
    assert not status.votes
    assert status.errors
    # The membership as it knows it a member tells without the others; nothing that wants them.
    assert [m.name for m in members.etcd.members()] == members.names
    with pytest.raises(ClusterError, match="no etcd member answers"):
        members.etcd.alarms()
    with pytest.raises(ClusterError, match="lost its quorum and can remove no member: 0 of 3 answer") as caught:
        members.etcd.remove_member(lost[0])
    assert "klab start" in caught.value.hint


def test_removing_one_after_another_ends_before_the_last(members: Members) -> None:
    first, second, last = members.names
    for name in (first, second):
        assert members.etcd.remove_member(name)
        members.kill(name)
        until(members.all_agree)
    assert [m.name for m in members.etcd.members(agreed=True)] == [last]
    with pytest.raises(ClusterError, match="cp3 is etcd's last member"):
        members.etcd.remove_member(last)


def test_strangers_are_refused(members: Members, tmp_path: Path) -> None:
    """The members above ask for the lab's certificate, and klab asks for theirs."""
    other = LabFolder(tmp_path / "other")
    load_or_make(other)
    with pytest.raises(ClusterError, match="certificate"):
        Etcd(other, members.plan, reach=members.reach).status(members.names[0])
