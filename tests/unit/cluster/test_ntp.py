"""What a lab's clocks follow: real datagrams, to servers of this machine that answer as chronyd does.

The references are chronyd's (4.6): "PHC0" for a PTP device, 127.127.1.1 under `local`, a server's address.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from typing import Any

import pytest
from support.authority import LOOPBACK

from lab.cluster.clients import ntp
from lab.cluster.clients.https import UnreachableError
from lab.cluster.observe.collect import collect_facts
from lab.cluster.observe.facts import ClockFacts, ClusterFacts, TimeSource, time_line
from lab.machines.protocol import NodeState
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.scenario.catalog import Catalog
from lab.scenario.parser import parse_scenario
from lab.store import LabFolder, Record

HOST = bytes([0x24, 3]) + bytes(10) + b"PHC0"  # leap 0, version 4, mode 4; stratum 3
OWN = bytes([0x24, 8]) + bytes(10) + bytes([127, 127, 1, 1])
LOST = bytes([0xE4, 0]) + bytes(14)
CP1 = IPv4Address("192.168.56.11")


def following(address: str) -> bytes:
    return bytes([0x24, 4]) + bytes(10) + IPv4Address(address).packed


def whole(start: bytes, question: bytes) -> bytes:
    """A server's header that begins so; the mark is where a client finds it again (RFC 5905, figure 8)."""
    return start + bytes(8) + question[40:48] + bytes(16)


Server = Callable[..., int]


@pytest.fixture
def serve() -> Iterator[Server]:
    """Starts an NTP server on the loopback whose header begins as told, which leaves some questions unanswered."""
    with ExitStack() as stack:

        def serve(start: bytes, *, silent: int = 0, answer: Callable[[bytes, bytes], bytes] = whole) -> int:
            channel = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            channel.bind((LOOPBACK, 0))

            address = channel.getsockname()

            def work() -> None:
                asked = 0
                while (received := channel.recvfrom(1024))[0]:  # an empty datagram ends it
                    if (asked := asked + 1) > silent:
                        channel.sendto(answer(start, received[0]), received[1])

            def end() -> None:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                    last.sendto(b"", address)
                worker.join()

            worker = threading.Thread(target=work)
            worker.start()
            stack.callback(end)
            return int(address[1])

        yield serve


def ask(port: int, seconds: float = 30.0) -> bytes:
    return ntp.ask(CP1, seconds=seconds, reach=lambda _address, _port: (LOOPBACK, port)).reference


@pytest.mark.parametrize(
    ("start", "reference"),
    [(HOST, b"PHC0"), (OWN, b"\x7f\x7f\x01\x01"), (following("192.168.56.12"), b"\xc0\xa8\x38\x0c"), (LOST, b"")],
)
def test_a_server_says_what_it_follows(serve: Server, start: bytes, reference: bytes) -> None:
    assert ask(serve(start)) == reference


def test_a_datagram_that_is_lost_is_sent_again(serve: Server) -> None:
    assert ask(serve(HOST, silent=2), seconds=1.5) == b"PHC0"


def test_a_silent_server_is_given_up_in_time(serve: Server) -> None:
    with pytest.raises(UnreachableError, match=r"does not answer within 0\.3 s"):
        ask(serve(HOST, silent=9), seconds=0.3)


def test_a_closed_port_is_no_wait() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind((LOOPBACK, 0))
        port = closed.getsockname()[1]
    with pytest.raises(UnreachableError, match="Connection refused"):
        ask(port)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda start, _: start, "16 bytes instead of 48"),
        (lambda start, question: b"\x23" + whole(start, question)[1:], "mode is 3"),
        (lambda start, _: whole(start, bytes(48)), "another question"),
    ],
)
def test_what_is_no_answer_is_refused(serve: Server, answer: Any, why: str) -> None:
    with pytest.raises(UnreachableError, match=why):
        ask(serve(HOST, answer=answer))


# --- a lab's ----------------------------------------------------------------------------------


class Machines:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def states(self) -> dict[str, NodeState]:
        return {node.name: NodeState.RUNNING for node in self.plan.nodes}


def look(serve: Server, catalog: Catalog, folder: LabFolder, *starts: bytes) -> ClusterFacts:
    """A lab without Kubernetes whose control planes' servers begin so."""
    text = f"version: 1\nname: demo\nbootstrap: none\ntopology: {{control_planes: {len(starts)}, workers: 1}}\n"
    plan = decide(parse_scenario(text, catalog), catalog)
    ports = {node.address: serve(start) for node, start in zip(plan.control_planes, starts, strict=True)}
    machines: Any = Machines(plan)
    record = Record("id", "demo", "fake", "box", 0, "ready", 0.0)
    return collect_facts(
        folder, plan, record, machines, seconds=60, reach=lambda address, _port: (LOOPBACK, ports[address])
    )


def test_a_lab_that_follows_the_host(serve: Server, catalog: Catalog, tmp_path: Any) -> None:
    facts = look(serve, catalog, LabFolder(tmp_path), HOST, HOST, HOST)
    assert facts.time_source == TimeSource.HOST
    assert time_line(facts) == "this machine's clock"


def test_a_lab_that_is_on_its_own_says_so(serve: Server, catalog: Catalog, tmp_path: Any) -> None:
    facts = look(serve, catalog, LabFolder(tmp_path), OWN, following("192.168.56.11"), following("192.168.56.11"))
    assert facts.clocks[1:] == (
        ClockFacts("cp2", TimeSource.NODE, "cp1"),
        ClockFacts("cp3", TimeSource.NODE, "cp1"),
    )
    assert facts.time_source == TimeSource.OWN
    assert time_line(facts) == "cp1's own clock, which drifts from this machine's: the hypervisor offers no other"


def test_a_lab_whose_nodes_do_not_agree(serve: Server, catalog: Catalog, tmp_path: Any) -> None:
    facts = look(serve, catalog, LabFolder(tmp_path), HOST, LOST, following("192.0.2.1"))
    assert facts.time_source == TimeSource.HOST
    assert time_line(facts) == ("this machine's clock, followed by cp1; cp3 follows 192.0.2.1; cp2 is not synchronized")


def test_what_cannot_be_seen_is_said() -> None:
    unseen = ClockFacts("cp1", TimeSource.UNSEEN, error="its NTP server does not answer within 2 s")
    facts = ClusterFacts("demo", 0.0, (), clocks=(unseen,))
    assert facts.time_source == TimeSource.UNSEEN
    assert time_line(facts) == "cp1: its NTP server does not answer within 2 s"
    around = tuple(ClockFacts(f"cp{n}", TimeSource.NODE, "cp1") for n in (2, 3))
    assert time_line(ClusterFacts("demo", 0.0, (), clocks=around)) == "the control planes follow one another"
