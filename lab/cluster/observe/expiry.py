"""Certificates that expired while a lab was off: said at once, since no waiting makes such a lab Ready."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping, Sequence

from cryptography import x509

from lab.cluster.observe.validity import TELL_SECONDS, Reply, ask
from lab.cluster.secrets import CLIENT_VALIDITY, admin_files
from lab.errors import ClusterError, Remedy
from lab.machines.protocol import Machines
from lab.plan.model import Plan
from lab.render.renewal import CONTROL_PLANE, KUBELET, KUBERNETES, PKI
from lab.store import LabFolder, Record
from lab.waiting import Deadline, outcomes

API_SERVER = f"{PKI}/apiserver.crt"
# What kubectl and kubeadm on the node, and the API server's extensions, need is not among it: no node waits for that.
_NEEDED = {held.file for held in (*CONTROL_PLANE, KUBELET)} - {
    f"{KUBERNETES}/admin.conf",
    f"{PKI}/etcd/healthcheck-client.crt",
    f"{PKI}/front-proxy-client.crt",
}
# Signers count back a few minutes, against clocks that differ.
_DOUBT = datetime.timedelta(days=1)


def refuse_expired(
    folder: LabFolder, plan: Plan, record: Record, machines: Machines, nodes: Sequence[str], deadline: Deadline
) -> None:
    """Make sure that what these nodes need to become Ready has not expired, by the clocks of those who judge it.

    A lab younger than its certificates' first year is not asked. A node that does not tell is
    passed over: the wait for it tells why.

    Args:
        folder: the lab's folder.
        plan: the lab's plan.
        record: for the lab's age, and for the guests' clocks where none tells.
        machines: the lab's machines.
        nodes: names of nodes that run.
        deadline: until when they may be asked.

    Raises:
        ClusterError: something has expired; `details` has a line for each place.
    """
    now = datetime.datetime.now(datetime.UTC)
    expected = _moment(record.guest_clock.guest(time.time()))
    if max(now, expected) < _moment(record.created) + CLIENT_VALIDITY - _DOUBT:
        return
    limit = deadline.at_most(TELL_SECONDS)
    answers = outcomes(lambda name: ask(machines, name, limit), nodes)
    told = {name: answer for name, answer in answers.items() if isinstance(answer, Reply)}
    clocks = [told[n.name].clock for n in plan.control_planes if n.name in told]
    lines = [*_own(folder, max(clocks, default=expected)), *_on_nodes(told, now)]
    if lines:
        raise ClusterError(
            f"certificates of lab {folder.name!r} have expired",
            details=lines,
            hint=(
                "its machines run now: ",
                Remedy("certs renew", lab=folder.name),
                " makes new ones and waits until it is Ready",
            ),
        )


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _own(folder: LabFolder, clock: datetime.datetime) -> Iterator[str]:
    """klab's own, which the API servers judge; one that cannot be read does not count as expired."""
    file = admin_files(folder).certificate
    try:
        end = x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return
    if end <= clock:
        yield f"klab's own, {file}, on {end:%Y-%m-%d}; for the lab it is {clock:%Y-%m-%d}"


def _on_nodes(told: Mapping[str, Reply], now: datetime.datetime) -> Iterator[str]:
    for name, each in told.items():
        ended = []
        for found in each.found:
            # An API server is judged by klab too, which has this machine's clock.
            clock = max(each.clock, now) if found.file == API_SERVER else each.clock
            if found.file in _NEEDED and found.certificate and found.certificate.not_valid_after_utc <= clock:
                ended.append((found.certificate.not_valid_after_utc, found.file, clock))
        if ended:
            end, file, clock = min(ended)
            others = f", and {len(ended) - 1} more" if len(ended) > 1 else ""
            yield f"{name}: {file} on {end:%Y-%m-%d}{others}; by the clock that counts it is {clock:%Y-%m-%d}"
