"""How long the certificates of a lab hold: in files on its nodes, in the lab's folder, and as servers show them.

By the guests' clocks, asked of the guests themselves: they are the ones who judge.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from lab.cluster.clients.etcd import CLIENT_PORT
from lab.cluster.clients.reach import Reach, direct
from lab.cluster.observe.collect import KUBELET_PORT, collect_facts
from lab.cluster.secrets import admin_files
from lab.errors import LabError, MachineError, Remedy
from lab.machines.protocol import Machines, NodeState
from lab.plan.model import API_PORT, Plan
from lab.render.renewal import TELL, USES
from lab.store import LabFolder, Record
from lab.waiting import outcomes

DAY = 24 * 3600.0
TELL_SECONDS = 120.0
ASK = ("sudo", "sh", "-c", TELL)
# By what `lab.cluster.observe.collect` calls a certificate that it was shown: where it is shown, and by whom to whom.
SHOWN = {
    "API server": (API_PORT, "API server, to its clients"),
    "etcd": (CLIENT_PORT, "etcd, to its clients"),
    "kubelet": (KUBELET_PORT, "kubelet, to the API server"),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A certificate in a file on a node: `text` is how the node told it, `certificate` None where that is damaged."""

    file: str
    text: str
    certificate: x509.Certificate | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What one node told: its clock, and the certificates in its files, in their order."""

    clock: datetime.datetime
    found: tuple[Found, ...]

    def of(self, file: str) -> tuple[Found, ...]:
        """Those in one file."""
        return tuple(each for each in self.found if each.file == file)


def ask(machines: Machines, name: str, seconds: float = TELL_SECONDS) -> Reply:
    """Ask one node for its clock and its certificates; keys stay where they are.

    Raises:
        MachineError: it does not answer, or not in full.
    """
    try:
        done = machines.run(name, ASK, seconds)
    except LabError as error:
        raise MachineError(
            f"{name} does not answer ssh",
            details=[error.message, *error.details],
            hint=(
                Remedy("logs", node=name),
                " shows its console; ",
                Remedy("reboot", node=name, options=("--force",)),
                " may help",
            ),
        ) from error
    clock = ""
    found = []
    for said in done.stdout.splitlines():
        key, _, value = said.partition("=")
        if key == "now":
            clock = value
        elif key == "certificate":
            file, _, text = value.partition(" ")
            found.append(Found(file, text, parsed(text)))
    try:
        moment = datetime.datetime.fromtimestamp(float(clock), datetime.UTC)
    except (ValueError, OverflowError, OSError):
        raise MachineError(
            f"{name} did not list its certificates",
            details=done.tail,
            hint=(Remedy("ssh", node=name), " shows whether it is well"),
        ) from None
    return Reply(moment, tuple(found))


def parsed(text: str) -> x509.Certificate | None:
    """DER in base64 as in a .crt, or a whole PEM in base64 as in a kubeconfig; None where that is damaged."""
    try:
        raw = base64.b64decode(text)
        return x509.load_pem_x509_certificate(raw) if raw.startswith(b"-----") else x509.load_der_x509_certificate(raw)
    except (binascii.Error, ValueError, x509.InvalidVersion):
        return None


@dataclass(frozen=True, slots=True)
class Entry:
    """One certificate. `node` is empty on this machine; `days` are left by the guests' clocks, None when unseen.

    `where` is a file, or the port at which a server shows it.
    """

    node: str
    where: str
    use: str
    expires: datetime.datetime | None
    days: float | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """All certificates of a lab. `clock` is the guests'; `unseen` tells what could not be seen, one line each."""

    clock: datetime.datetime
    entries: tuple[Entry, ...]
    unseen: tuple[str, ...]

    @property
    def soonest(self) -> Entry | None:
        """The certificate that ends first, or ended."""
        return min((e for e in self.entries if e.days is not None), key=lambda e: e.days or 0.0, default=None)

    @property
    def expired(self) -> tuple[Entry, ...]:
        return tuple(e for e in self.entries if e.days is not None and e.days <= 0)


def survey(folder: LabFolder, plan: Plan, record: Record, machines: Machines, *, reach: Reach = direct) -> Survey:
    """Look at every certificate: in the files of the nodes that run and of the lab, and as servers show them.

    Raises:
        HostError: the provider does not answer.
    """
    states = machines.states()
    running = [n.name for n in plan.nodes if states[n.name] == NodeState.RUNNING]
    answers = outcomes(lambda name: ask(machines, name), running)
    told = {name: answer for name, answer in answers.items() if isinstance(answer, Reply)}
    facts = collect_facts(folder, plan, record, machines, reach=reach)
    # A node judges by the clock that it tells itself; the look has counted days by one for all.
    counted = datetime.datetime.fromtimestamp(facts.guest_time, datetime.UTC)
    lab_clock = next((answer.clock for answer in told.values()), counted)
    entries = []
    for name in running:
        clock = told[name].clock if name in told else lab_clock
        for shown in (c for c in facts.certificates if c.node == name):
            port, use = SHOWN[shown.what]
            expires = None if shown.days is None else counted + datetime.timedelta(days=shown.days)
            entries.append(_entry(name, f"port {port}", use, expires, clock, shown.error))
        for found in told[name].found if name in told else ():
            expires = found.certificate.not_valid_after_utc if found.certificate else None
            entries.append(_entry(name, found.file, USES.get(found.file, "unknown"), expires, clock, "it is damaged"))
    entries += [_own(file, use, lab_clock) for file, use in _own_files(folder)]
    unseen = [f"{n}: its machine is {s.value}" for n, s in states.items() if n not in running]
    unseen += [line(f"{name}:", error) for name, error in answers.items() if isinstance(error, LabError)]
    return Survey(lab_clock, tuple(entries), tuple(unseen))


def _entry(
    node: str, where: str, use: str, expires: datetime.datetime | None, clock: datetime.datetime, error: str
) -> Entry:
    if expires is None:
        return Entry(node, where, use, None, None, error)
    return Entry(node, where, use, expires, (expires - clock).total_seconds() / DAY)


def _own_files(folder: LabFolder) -> Iterator[tuple[Path, str]]:
    """klab's own certificates and CAs, and what they are for."""
    pki = folder.pki
    yield admin_files(folder).certificate, "klab and kubectl, as clients of the API"
    yield pki / "etcd-client.crt", "klab, as a client of etcd"
    yield pki / "ca.crt", "CA of the cluster"
    yield pki / "front-proxy-ca.crt", "CA of the API server's extensions"
    yield pki / "etcd-ca.crt", "CA of etcd"


def _own(file: Path, use: str, clock: datetime.datetime) -> Entry:
    try:
        expires = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        return _entry("", str(file), use, None, clock, f"it cannot be read: {error}")
    return _entry("", str(file), use, expires, clock, "")


def line(head: str, error: LabError) -> str:
    """An error in one line."""
    return " ".join([head, error.message, *(f"({detail})" for detail in error.details[-1:])])
