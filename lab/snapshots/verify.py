"""Verification after a restore: ask everything that could seem to work and does not.

A node's Ready condition may be as old as the snapshot; an answer of its kubelet through the API
server, after the clocks were set, is not. Leases come afterwards: each is renewed within ten
seconds of the guests' time, and to wait for that would be most of a restore.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import replace

from lab.cluster.clients.api import Api, UnreachableError
from lab.cluster.clients.etcd import Etcd
from lab.cluster.clients.etcd_answers import MemberStatus
from lab.cluster.wait.ready import Readiness, Requirement
from lab.cluster.wait.watch import Watch
from lab.errors import LabError, NotReadyInTime, Remedy
from lab.scenario.rules import quorum
from lab.snapshots.session import Session
from lab.waiting import Deadline, map_parallel, thread, workers

SSH_SECONDS = 60.0
WARM_UP_SECONDS = 5.0
# A lease is renewed every 10 seconds of the guests' time; a kubelet that has just found its clock ahead may miss some.
LEASE_SECONDS = 90.0
POLL_SECONDS = 0.5


class Verification:
    """The verification of one lab after a restore.

    `nodes` are those that run. `ready`: whether they can be Ready; a lab that was not Ready when its
    snapshot was taken is not Ready after the restore.
    """

    def __init__(self, session: Session, nodes: Sequence[str], *, ready: bool = True) -> None:
        self._session = session
        self._nodes = tuple(nodes)
        self._planes = [n.name for n in session.plan.control_planes if n.name in nodes]
        full = session.plan.bootstrap == "full"
        self._full = full and ready and len(self._planes) >= quorum(len(session.plan.control_planes))
        self._api: Api | None = None
        self._warming_up: threading.Thread | None = None
        self._readiness: Readiness | None = None

    def warm_up(self) -> None:
        """Open a first connection to the API server in the background: a slow guest takes seconds to accept it."""
        if self._full:
            self._warming_up = thread(self._warm_up, "warm-up")
            self._warming_up.start()

    def _warm_up(self) -> None:
        with contextlib.suppress(LabError):
            self._api = self._session.lab.api()
            self._api.text("/readyz", seconds=WARM_UP_SECONDS)

    @property
    def full(self) -> bool:
        """Whether the whole cluster is verified; otherwise only that every machine answers ssh."""
        return self._full

    def wait(self) -> dict[str, float]:
        """Wait until every requirement holds, leases apart.

        Returns:
            By requirement after how many seconds it held; they are probed in parallel, so they do not add up.

        Raises:
            MachineError, ClusterError, NotReadyInTime: one does not hold in time.
        """
        if not self._nodes:
            return {}
        lab = self._session.lab
        watch = self._watch(lab.deadline(self._session.record))
        if not self._full:
            return together(
                watch, [Requirement("every machine answers ssh", self._silent, Remedy("logs", options=("NODE",)))]
            )
        began = time.monotonic()
        if self._warming_up is not None:
            self._warming_up.join()
        api = self._api or lab.api()
        readiness = Readiness(lab.plan, api, self._session.machines, nodes=self._nodes)
        first, *others = readiness.requirements()

        def answers() -> list[str]:
            missing = first.probe()
            if not missing:
                # The first look: renewals are judged against it.
                readiness.leases()
            return missing

        together(watch, [replace(first, probe=answers)])
        took = {first.name: time.monotonic() - began}
        self._readiness = readiness
        etcd = Etcd(lab.folder, lab.plan, nodes=self._planes, reach=lab.reach)
        agreement = Agreement(etcd, [name for name in self._planes if name not in readiness.outside]).missing
        took |= together(watch, [*others, Requirement("etcd's members agree", agreement, Remedy("status"))])
        for name in self._nodes:
            if name not in readiness.outside:
                self._session.events.add(name, "ready", "done")
        return took

    def leases(self) -> list[str]:
        """Wait until every lease is renewed and all nodes are still Ready, which proves that their kubelets work.

        Returns:
            What is missing when time is up, one line each.
        """
        if self._readiness is None:
            return []
        readiness = self._readiness
        missing: list[str] = []

        def probe() -> list[str]:
            nonlocal missing
            try:
                missing = [*readiness.leases(), *readiness.nodes()]
            except LabError as error:
                missing = [error.message]
            return missing

        try:
            watch = self._watch(Deadline.after(self._session.record.guest_clock.host_seconds(LEASE_SECONDS)))
            watch.require(Requirement("every node's lease is renewed", probe, ""))
        except NotReadyInTime:
            return missing
        except LabError as error:
            return [error.message]
        return []

    def _watch(self, limit: Deadline) -> Watch:
        lab, session = self._session.lab, self._session
        return Watch(lab.folder, lab.plan, session.machines, session.events, limit, self._nodes)

    def _silent(self) -> list[str]:
        missing = []
        for name in self._nodes:
            try:
                self._session.machines.ssh(name, ["true"], timeout=SSH_SECONDS)
            except LabError as error:
                missing.append(f"{name}: {error.message}")
        return missing


def together(watch: Watch, requirements: Sequence[Requirement]) -> dict[str, float]:
    """Wait for all of these in parallel: in a restored lab none depends on another.

    Each is probed again as soon as it has answered: none waits for the slowest of the others.

    Returns:
        By name after how many seconds each held.

    Raises:
        MachineError, ClusterError, NotReadyInTime: as `Watch.until`; with the hint of the first that is missing.
    """
    began = time.monotonic()
    missing = {each.name: ["not asked yet"] for each in requirements}
    took: dict[str, float] = {}
    over = threading.Event()

    def ask(requirement: Requirement) -> None:
        while not over.is_set():
            try:
                missing[requirement.name] = requirement.probe()
            except UnreachableError as error:
                missing[requirement.name] = [error.message]
            if not missing[requirement.name]:
                took[requirement.name] = time.monotonic() - began
                watch.journal.add("", requirement.name, "done")
                return
            over.wait(POLL_SECONDS)

    def hold() -> bool:
        ended, asking = wait(asked, timeout=POLL_SECONDS, return_when=FIRST_EXCEPTION)
        for each in ended:
            each.result()
        return not asking

    for each in requirements:
        watch.journal.add("", each.name, "begin")
    with workers(len(requirements)) as pool:
        asked = [pool.submit(ask, each) for each in requirements]
        try:
            watch.until(
                hold,
                "the lab is verified",
                every=0,
                missing=lambda: [f"{name}: {line}" for name, lines in missing.items() for line in lines],
            )
        except NotReadyInTime as error:
            error.advise(next(each.hint for each in requirements if missing[each.name]))
            raise
        finally:
            over.set()
    return {each.name: took[each.name] for each in requirements}


class Agreement:
    """Whether etcd's members agree: each is healthy, all follow one leader, and each has every write that any had.

    A cluster at work is never at one revision for long. So the highest one at the first look is
    noted, and waited for with each member.
    """

    def __init__(self, etcd: Etcd, nodes: Sequence[str]) -> None:
        self._etcd = etcd
        self._nodes = tuple(nodes)
        self._wanted: int | None = None

    def missing(self) -> list[str]:
        """Why they do not agree, one line each; [] when they do."""
        found: dict[str, MemberStatus] = {}
        missing = self._ask(self._nodes, found)
        if missing:
            return missing
        missing = [f"etcd on {n} is not healthy: {'; '.join(s.errors)}" for n, s in found.items() if not s.healthy]
        if len({status.leader for status in found.values()}) > 1:
            missing += [f"etcd on {name} follows {status.leader:x}" for name, status in found.items()]
        if self._wanted is None:
            self._wanted = max((status.revision for status in found.values()), default=0)
            # The members asked first lack what was written since.
            missing += self._ask(self._behind(found), found)
        return missing + [
            f"etcd on {name} is at revision {found[name].revision}, another was at {self._wanted}"
            for name in self._behind(found)
        ]

    def _behind(self, found: dict[str, MemberStatus]) -> list[str]:
        return [name for name, status in found.items() if status.revision < (self._wanted or 0)]

    def _ask(self, nodes: Sequence[str], found: dict[str, MemberStatus]) -> list[str]:
        """Ask these members in parallel: a slow guest takes seconds to accept a connection."""

        def ask(name: str) -> MemberStatus | str:
            try:
                return self._etcd.status(name)
            except LabError as error:
                return f"etcd on {name}: {error.message}"

        said = map_parallel(ask, nodes)
        found |= {name: status for name, status in said.items() if isinstance(status, MemberStatus)}
        return [why for why in said.values() if isinstance(why, str)]
