"""New certificates for a whole lab.

klab has the lab's CAs and signs the new ones itself. `kubeadm certs renew` dates them from the
guest's clock: where that is ahead, the host, and so kubectl there, would take them for not yet
valid. It also asks the API server how, which is dead when it matters, and takes RSA keys then.

    ask every node -> klab's own -> files and kubelets, side by side -> API servers, one by one -> Ready

Each step may be repeated: after a kill the same command continues.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from lab.cluster.acts.on_node import ROOT_SHELL, failure
from lab.cluster.acts.power import await_ready
from lab.cluster.admin_kubeconfig import write_kubeconfig
from lab.cluster.clients.https import Https, UnreachableError
from lab.cluster.lab import Lab
from lab.cluster.observe.validity import TELL_SECONDS, Reply, ask, line
from lab.cluster.pki import kubelet_client, kubelet_server, reissue
from lab.cluster.secrets import admin_files, authorities, renew_clients
from lab.cluster.wait.ready import Requirement
from lab.cluster.wait.standing import Standing, standing
from lab.cluster.wait.watch import Watch
from lab.errors import ClusterError, Conflict, LabError, MachineError, Remedy
from lab.machines.protocol import NodeState
from lab.plan.model import API_PORT, Node
from lab.render.renewal import CONTROL_PLANE, KUBELET, PERHAPS, RESTART, Held, Replacement, render_renewal
from lab.render.secrets import KeyPair
from lab.scenario.rules import quorum
from lab.waiting import outcomes

YEAR = datetime.timedelta(days=365)
# For a node to take its certificates and to end what had the old ones: that waits by the guest's clock.
RENEW_SECONDS = 300.0
# A slow guest's API server is not a dead one.
ASK_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Renewed:
    """What became of it.

    `nodes` have new certificates, which hold `until` then; `off` have not, since their machines
    do not run. `left` tells of single certificates why they are as they were. `lost_quorum` tells
    that too few control planes run for etcd, and so for the cluster, to work. `seconds` it took.
    """

    nodes: tuple[str, ...]
    off: tuple[str, ...]
    left: tuple[str, ...]
    until: datetime.datetime
    lost_quorum: bool
    seconds: float


def renew(lab: Lab) -> Renewed:
    """Renew the certificates of every node that runs, and klab's own, and wait until those nodes are Ready.

    Raises:
        Conflict: another klab works on the lab, it is half made or destroyed, not klab's to bootstrap, or off.
        MachineError: a node does not answer; nothing has been changed then.
        ClusterError, NotReadyInTime: a CA has expired; a node fails; the lab does not become Ready.
    """
    with lab.folder.lock():
        return renew_locked(lab)


def renew_locked(lab: Lab) -> Renewed:
    """As `renew`, for a caller that holds the lab's lock."""
    return _Renewal(lab).renew()


@dataclass(frozen=True, slots=True)
class _Certificates:
    """New certificates of one node: those that take another's place, and its kubelet's as a client and as a server."""

    replacements: list[Replacement]
    client: KeyPair | None = None
    server: KeyPair | None = None


class _Renewal:
    """One renewal of one lab."""

    def __init__(self, lab: Lab) -> None:
        record, folder, plan = lab.finished(), lab.folder, lab.plan
        if plan.bootstrap != "full":
            raise Conflict(
                f"lab {folder.name!r} has no cluster that klab created",
                hint="on the student's control plane: kubeadm certs renew all",
            )
        self.began = time.monotonic()
        self.lab = lab
        self.folder, self.plan, self.reach = folder, plan, lab.reach
        self.machines = lab.machines(record)
        self.journal = lab.journal()
        self.deadline = lab.deadline(record)
        self.node_seconds = record.guest_clock.host_seconds(RENEW_SECONDS)
        states = self.machines.states()
        running = [n.name for n in plan.nodes if states[n.name] == NodeState.RUNNING]
        found = outcomes(lambda name: standing(self.machines, name), running)
        outside = [name for name, stands in found.items() if stands is Standing.OUTSIDE]
        self.nodes = [n for n in plan.nodes if n.name in running and n.name not in outside]
        self.off = {n.name: states[n.name].value for n in plan.nodes if n.name not in running}
        self.left: list[str] = []
        if not self.nodes:
            raise Conflict(
                f"no machine of lab {folder.name!r} runs",
                hint=(
                    Remedy("start", lab=folder.name),
                    "; its machines run then, though it ends with their having expired",
                ),
            )

    def renew(self) -> Renewed:
        told = self._told()
        cas = authorities(self.folder)
        until = self._until(told, cas)
        new = {n.name: self._new(n, told[n.name], cas, until) for n in self.nodes}
        renew_clients(self.folder, until)
        write_kubeconfig(self.folder, self.plan)
        https = Https(admin_files(self.folder), self.reach, ASK_SECONDS)
        planes = [n for n in self.nodes if n.is_control_plane]
        silent = self._silent(https, planes)
        answering = [n for n in planes if not silent[n.name]]
        for name, state in self.off.items():
            self.journal.add(name, "renew", "failed", f"its machine is {state}")
        self._put(new, answering)
        watch = Watch(self.folder, self.plan, self.machines, self.journal, self.deadline, [n.name for n in self.nodes])
        for node in answering:
            self._restart(node, https, watch)
        lost = len(planes) < quorum(len(self.plan.control_planes))
        if not lost:
            watch.require(self._every_api_server(https, planes))
            await_ready(watch, self.lab.api(), watch.nodes)
        nodes, off = watch.nodes, tuple(self.off)
        return Renewed(nodes, off, tuple(self.left), until, lost, time.monotonic() - self.began)

    # --- before anything is changed -------------------------------------------------------------

    def _told(self) -> dict[str, Reply]:
        limit = self.deadline.at_most(TELL_SECONDS)
        answers = outcomes(lambda name: ask(self.machines, name, limit), [n.name for n in self.nodes])
        errors = [answer for answer in answers.values() if isinstance(answer, LabError)]
        if errors:
            details = [*_details(errors), "nothing has been changed"]
            raise MachineError(errors[0].message, details=details, hint=errors[0].hint) from errors[0]
        return {name: answer for name, answer in answers.items() if isinstance(answer, Reply)}

    def _until(self, told: Mapping[str, Reply], cas: Mapping[str, KeyPair]) -> datetime.datetime:
        """A year from the latest clock, the nodes' and the host's: each of them judges certificates.

        Raises:
            ClusterError: by one of them a CA does not hold; what it signs would not either.
        """
        clocks = {f"on {name}": each.clock for name, each in told.items()}
        clocks["on this machine"] = datetime.datetime.now(datetime.UTC)
        until = max(clocks.values()) + YEAR
        for name, pair in cas.items():
            ca = x509.load_pem_x509_certificate(pair.public.encode())
            since, end = ca.not_valid_before_utc, ca.not_valid_after_utc
            until = min(until, end)
            for where, clock in clocks.items():
                if since <= clock < end:
                    continue
                raise ClusterError(
                    f"a CA of lab {self.folder.name!r} {'has expired' if clock >= end else 'is not valid yet'}",
                    details=[f"{name} holds from {since:%Y-%m-%d} to {end:%Y-%m-%d}; {where} it is {clock:%Y-%m-%d}"],
                    hint=(
                        "where that clock is wrong, set it; else recreate the lab: ",
                        Remedy("destroy", lab=self.folder.name),
                        ", then ",
                        Remedy("create", options=(self.plan.scenario,)),
                    ),
                )
        return until

    def _new(self, node: Node, told: Reply, cas: Mapping[str, KeyPair], until: datetime.datetime) -> _Certificates:
        """The new certificates of a node; notes which cannot be renewed."""
        replacements = []
        for held in (*(CONTROL_PLANE if node.is_control_plane else ()), *PERHAPS):
            found = told.of(held.file)
            if not found and held not in PERHAPS:
                self._leave(node, f"{held.file} is missing")
            # In a .crt the CA's certificate may follow.
            for each in found if held.file.endswith(".conf") else found[:1]:
                if each.certificate is None:
                    self._leave(node, f"{held.file} is damaged")
                elif self._ours(node, held, each.certificate, cas):
                    new = reissue(cas[held.ca], each.certificate, until)
                    replacements.append(Replacement(held.file, each.text, new))
        # Whose the kubelet's is, is known without the old one.
        old = next((each.certificate for each in told.of(KUBELET.file)), None)
        if old is not None and not self._ours(node, KUBELET, old, cas):
            return _Certificates(replacements)
        ca = cas[KUBELET.ca]
        return _Certificates(
            replacements, kubelet_client(ca, node.name, until), kubelet_server(ca, node.name, node.address, until)
        )

    def _ours(self, node: Node, held: Held, old: x509.Certificate, cas: Mapping[str, KeyPair]) -> bool:
        """Whether the lab's CA has signed a certificate: what another has signed, the lab's would break."""
        try:
            old.verify_directly_issued_by(x509.load_pem_x509_certificate(cas[held.ca].public.encode()))
        except (ValueError, TypeError, InvalidSignature):
            self._leave(node, f"{held.file} is signed by another CA than the lab's")
            return False
        return True

    def _leave(self, node: Node, why: str) -> None:
        self.left.append(f"{node.name}: {why}")
        self.journal.add(node.name, "renew", "note", why)

    # --- on the nodes ---------------------------------------------------------------------------

    def _put(self, new: Mapping[str, _Certificates], answering: Sequence[Node]) -> None:
        """Put the files in place everywhere, before any API server that works is restarted.

        An etcd member whose certificate has expired is found by the others as soon as its file is
        new; so no API server has to wait for a quorum that comes only after its turn.
        """
        gently = {n.name for n in answering}
        planes = {n.name for n in self.plan.control_planes}

        def put(name: str) -> None:
            self.journal.add(name, "renew", "begin")
            made = new[name]
            script = render_renewal(made.replacements, made.client, made.server, restart=name in planes - gently)
            self._run(name, script)
            if name not in gently:
                self.journal.add(name, "renew", "done")

        errors = [e for e in outcomes(put, list(new)).values() if isinstance(e, LabError)]
        if errors:
            raise ClusterError(errors[0].message, details=_details(errors), hint=errors[0].hint) from errors[0]

    def _restart(self, node: Node, https: Https, watch: Watch) -> None:
        """Restart a control plane's programs, and wait for its API server: the others serve meanwhile."""
        self._run(node.name, RESTART)
        watch.require(self._every_api_server(https, [node]))
        self.journal.add(node.name, "renew", "done")

    def _run(self, name: str, script: str) -> None:
        seconds = self.deadline.at_most(self.node_seconds)
        if seen := failure(self.machines, name, ROOT_SHELL, seconds, script):
            self.journal.add(name, "renew", "failed", seen[-1])
            raise ClusterError(
                f"{name} cannot take its new certificates",
                details=seen,
                hint=(Remedy("ssh", node=name), " shows whether it works; run the same command again to continue"),
            )

    def _every_api_server(self, https: Https, nodes: Sequence[Node]) -> Requirement:
        def probe() -> list[str]:
            return [f"{name}: {why}" for name, why in self._silent(https, nodes).items() if why]

        names = ", ".join(n.name for n in nodes)
        return Requirement(
            f"the API server answers on {names}", probe, f"klab ssh {nodes[0].name} -- sudo journalctl -u kubelet -n 50"
        )

    def _silent(self, https: Https, nodes: Sequence[Node]) -> dict[str, str]:
        """By node why its own API server is not ready; empty where it is."""
        addresses = {n.name: n.address for n in nodes}

        def why(name: str) -> str:
            try:
                answer = https.get(addresses[name], API_PORT, "/readyz")
            except UnreachableError as error:
                return error.message
            return "" if answer.status == 200 else f"not ready ({answer.status})"

        return {name: str(found) for name, found in outcomes(why, list(addresses)).items()}


def _details(errors: Sequence[LabError]) -> list[str]:
    """The details of the first error, and a line for each of the others."""
    return [*errors[0].details, *(line("also:", other) for other in errors[1:])]
