"""What a lab's servers answer: API server, kubelets, etcd, and the certificates they show."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography import x509
from fuzz.harness import Target
from fuzz.kinds.programs import whole_json
from fuzz.mutations import json_texts, octets, texts

from lab.cluster.clients import ntp
from lab.cluster.clients.api import Api
from lab.cluster.clients.etcd import Etcd
from lab.cluster.clients.https import Answer, Https, UnreachableError, _json, clock
from lab.cluster.observe import collect
from lab.cluster.secrets import load_or_make
from lab.cluster.wait.ready import Readiness
from lab.errors import ClusterError, LabError
from lab.machines.protocol import NodeState
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.process import Completed
from lab.scenario.catalog import load_catalog
from lab.scenario.model import Scenario, Topology
from lab.snapshots import expiry, objects
from lab.store import LabFolder, Record

RECORD = Record("id", "demo", "fake", "box", 0, "ready", 0.0)
READY = {"type": "Ready", "status": "True", "message": "kubelet is posting ready status"}
NODES = {
    "items": [
        {
            "metadata": {"name": "cp1"},
            "spec": {"unschedulable": True},
            "status": {
                "conditions": [READY, {"type": "DiskPressure", "status": "True"}],
                "nodeInfo": {"kubeletVersion": "v1.35.4"},
            },
        }
    ]
}
PODS = {
    "items": [
        {
            "metadata": {"name": "etcd-cp1", "namespace": "kube-system"},
            "spec": {"nodeName": "cp1", "containers": [{"name": "etcd"}]},
            "status": {
                "phase": "Pending",
                "conditions": [{"type": "Ready", "status": "False"}, {"type": "PodScheduled", "message": "no room"}],
                "containerStatuses": [
                    {"image": "x", "state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}}
                ],
            },
        }
    ]
}
SECRETS = {
    "items": [
        {
            "data": {
                key: base64.b64encode(value.encode()).decode()
                for key, value in {
                    "token-id": "abcdef",
                    "expiration": "2027-01-01T00:00:00Z",
                    "usage-bootstrap-authentication": "true",
                }.items()
            }
        },
        {"data": None},
    ]
}
MEMBERS = {
    "members": [
        {
            "ID": "7",
            "name": "cp1",
            "peerURLs": ["https://192.168.56.10:2380"],
            "clientURLs": ["https://192.168.56.10:2379"],
        },
        {"ID": "8", "peerURLs": ["https://192.168.56.99:2380"], "clientURLs": ["https://h:99999"], "isLearner": True},
    ]
}
STATUS = {
    "header": {"member_id": "7", "revision": "1234", "cluster_id": "1"},
    "version": "3.6.6",
    "dbSize": "5242880",
    "leader": "7",
    "raftIndex": "4321",
    "raftTerm": "2",
    "dbSizeInUse": "3145728",
    "dbSizeQuota": "2147483648",
    "errors": ["etcdserver: no leader"],
}
ALARMS = {"alarms": [{"memberID": "7", "alarm": "NOSPACE"}]}
NEIGHBOURS = [{"dst": "192.168.56.2", "lladdr": "52:54:00:d2:da:db", "state": ["REACHABLE"]}]
ALL = {
    "/api/v1/nodes": NODES,
    "/api/v1/pods": PODS,
    collect.TOKENS: SECRETS,
    "/readyz": "[+]ping ok\n[-]etcd failed: reason withheld\n",
    "/v3/cluster/member/list": MEMBERS,
    "/v3/maintenance/status": STATUS,
    "/v3/maintenance/alarm": ALARMS,
    "/health": '{"health":"true"}',
    "Date": "Sat, 21 Nov 2026 02:40:00 GMT",
    "neigh": NEIGHBOURS,
}
GROUPS = {
    "/apis": {"groups": [{"preferredVersion": {"groupVersion": "apps/v1"}}]},
    "/api/v1": {"resources": [{"kind": "ConfigMap", "name": "configmaps", "namespaced": True, "verbs": ["list"]}]},
    "/apis/apps/v1": {
        "resources": [{"kind": "Deployment", "name": "deployments", "namespaced": True, "verbs": ["list"]}]
    },
    "/api/v1/configmaps": {
        "items": [{"metadata": {"namespace": "default", "name": "a", "uid": "1"}, "data": {"a": "b"}}]
    },
    "/apis/apps/v1/deployments": {"items": None, "metadata": {"continue": ""}},
}


@cache
def plan() -> Plan:
    return decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=1)), load_catalog())


_KEYS: dict[str, bytes] = {}


def lab(folder: Path) -> LabFolder:
    """A lab's folder with its keys; they are made once."""
    found = LabFolder(folder / "demo")
    if not _KEYS:
        load_or_make(found)
        _KEYS.update({str(f.relative_to(found.path)): f.read_bytes() for f in found.path.rglob("*") if f.is_file()})
    for name, data in _KEYS.items():
        (found.path / name).parent.mkdir(parents=True, exist_ok=True)
        (found.path / name).write_bytes(data)
    return found


class _Answers:
    """In place of `Https._ask` and `Https.peer_certificate`: every server answers what the input says."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.said = said

    def ask(self, _https: Https, _method: str, _address: object, _port: int, path: str, *_: object) -> Answer:
        found = self.said.get(path)
        text = found if isinstance(found, str) else json.dumps(found)
        date = self.said.get("Date")
        return Answer(200, text, clock(date if isinstance(date, str) else None))


class _Machines:
    def states(self) -> dict[str, NodeState]:
        return {node.name: NodeState.RUNNING for node in plan().nodes}


def gathered(text: str, folder: Path) -> None:
    answers = _Answers(json.loads(text))
    certificate = _KEYS["pki/ca.crt"] if lab(folder) else b""
    der = x509.load_pem_x509_certificate(certificate).public_bytes(_DER)
    neigh = Completed(("ip",), 0, json.dumps(answers.said.get("neigh")), "")
    with (
        mock.patch.object(Https, "_ask", lambda *a: answers.ask(*a)),
        mock.patch.object(Https, "peer_certificate", return_value=der),
        mock.patch.object(collect.process, "run", return_value=neigh),
        mock.patch.object(collect, "WORKERS", 2),
        mock.patch.object(collect.ntp, "ask", return_value=ntp.NtpAnswer(b"PHC0")),
    ):
        found = collect.collect_facts(lab(folder), plan(), RECORD, _Machines(), seconds=1.0)  # type: ignore[arg-type]
    json.dumps(asdict(found))
    from lab.cluster.observe.facts import certificate_line, endpoint_line, etcd_line, pod_line, time_line, token_line

    for line in (certificate_line, endpoint_line, etcd_line, pod_line, time_line, token_line):
        assert isinstance(line(found), str)


from cryptography.hazmat.primitives.serialization import Encoding  # noqa: E402

_DER = Encoding.DER


def time_told(data: bytes, _folder: Path) -> None:
    assert len(ntp.parse(data, bytes(8)).reference) in {0, 4}


def members(text: str, folder: Path) -> None:
    answers = _Answers(json.loads(text))
    with mock.patch.object(Https, "_ask", lambda *a: answers.ask(*a)):
        etcd = Etcd(lab(folder), plan())
        for act in (etcd.members, lambda: etcd.status("cp1"), etcd.alarms, lambda: etcd.refuse_loss("cp1")):
            try:
                act()
            except ClusterError as error:
                assert error.message


def date(text: str, _folder: Path) -> None:
    found = clock(text)
    assert found is None or found.timestamp() < float("inf")


def answer(text: str, _folder: Path) -> None:
    assert isinstance(_json(Answer(200, text)), dict)
    try:
        _json(Answer(500, text))
    except UnreachableError as error:
        assert error.status == 500


@cache
def _api(place: Path) -> Api:
    return Api(lab(place), plan())


def _asked(text: str, folder: Path, act: Callable[[Api], object]) -> None:
    api = _api(folder)
    with mock.patch.object(Https, "_ask", return_value=Answer(200, text, clock(text))):
        api._kinds.clear()
        act(api)


def got(text: str, folder: Path) -> None:
    _asked(text, folder, lambda api: api.get("/version"))


def applied(text: str, folder: Path) -> None:
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    _asked(text, folder, lambda api: api.apply(manifest))


def api_clock(text: str, folder: Path) -> None:
    _asked(text, folder, lambda api: api.clock().timestamp())


class _Paths:
    """In place of an Api: answers by path, without the query."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.said = said
        self.asked = 0

    def get(self, path: str, *, seconds: float = 0) -> Any:
        self.asked += 1
        assert self.asked < 100, "it asks without end"
        return self.said.get(path, self.said.get(path.partition("?")[0]))

    def text(self, path: str, **_: object) -> str:
        return "ok"


def collected(text: str, _folder: Path) -> None:
    found = objects.collect(_Paths(json.loads(text)))
    for each in sorted(found):
        assert all(isinstance(part, str) for part in (each.namespace, each.kind, each.name))


def token(text: str, _folder: Path) -> None:
    found = expiry.last_token(_Paths(json.loads(text)))
    assert found is None or found < float("inf")


def readiness(text: str, _folder: Path) -> None:
    ready = Readiness(plan(), _Paths(json.loads(text)), _Machines())  # type: ignore[arg-type]
    for requirement in ready.requirements():
        if requirement.name not in {"every kubelet answers", "cluster DNS answers on every node"}:
            assert all(isinstance(line, str) for line in requirement.probe())


def refused(text: str, folder: Path) -> None:
    api = _api(folder)
    with mock.patch.object(Https, "_ask", return_value=Answer(500, text)):
        try:
            api.get("/version")
        except LabError as error:
            assert len(error.message) < 500


def holder(text: str, _folder: Path) -> None:
    seen = collect._Collector.__new__(collect._Collector)
    seen.planes, seen.seconds = list(plan().control_planes), 1.0
    with mock.patch.object(collect.process, "run", return_value=Completed(("ip",), 0, text, "")):
        assert isinstance(seen._holder("192.168.56.2", answered=True), str)


def certificates(folder: Path) -> list[bytes]:
    lab(folder)
    return [x509.load_pem_x509_certificate(_KEYS[f"pki/{name}.crt"]).public_bytes(_DER) for name in ("ca", "admin")]


def shown(data: bytes, _folder: Path) -> None:
    class Shows:
        def peer_certificate(self, *_: object) -> bytes:
            return data

    node, _what, expires, error = collect._server_certificate(plan().nodes[0], "kubelet", Shows(), 1)  # type: ignore[arg-type]
    assert bool(error) == (expires is None)
    assert node


def _of(*samples: Any) -> Callable[[Path], list[str]]:
    return lambda _folder: [sample if isinstance(sample, str) else json.dumps(sample) for sample in samples]


def _everything(folder: Path) -> list[str]:
    lab(folder)
    return [json.dumps(ALL)]


TARGETS = (
    Target(
        "a look at a lab",
        (
            "lab.cluster.observe.collect:collect_facts",
            "lab.cluster.observe.collect:_Collector._tokens",
            "lab.cluster.clients.resources:_decoded",
            "lab.cluster.observe.api_objects:read_all",
            "lab.cluster.observe.collect:_Collector._own",
        ),
        _everything,
        json_texts,
        whole_json(gathered),
        share=0.5,
    ),
    Target(
        "etcd",
        ("lab.cluster.clients.etcd_answers:read_member", "lab.cluster.clients.etcd_answers:read_status"),
        _everything,
        json_texts,
        whole_json(members),
        share=0.5,
    ),
    Target(
        "Date of an answer", ("lab.cluster.clients.https:clock",), _of("Sat, 21 Nov 2026 02:40:00 GMT"), texts, date
    ),
    Target(
        "JSON of an answer", ("lab.cluster.clients.https:_json",), _of(MEMBERS, {"message": "no"}), json_texts, answer
    ),
    Target("API answer", ("lab.cluster.clients.api:Api.get",), _of({"gitVersion": "v1.35.4"}), json_texts, got),
    Target("API refusal", ("lab.cluster.clients.https:refuse_failure",), _of({"message": "no"}), json_texts, refused),
    Target(
        "ip neigh of a VIP", ("lab.cluster.observe.collect:_Collector._holder",), _of(NEIGHBOURS), json_texts, holder
    ),
    Target("API resources", ("lab.cluster.clients.api:Api._kind",), _of(GROUPS["/api/v1"]), json_texts, applied),
    Target(
        "API server's clock",
        ("lab.cluster.clients.api:Api.clock",),
        _of("Sat, 21 Nov 2026 02:40:00 GMT"),
        texts,
        api_clock,
    ),
    Target("Kubernetes objects", ("lab.snapshots.objects:collect",), _of(GROUPS), json_texts, whole_json(collected)),
    Target(
        "bootstrap tokens",
        ("lab.cluster.clients.resources:bootstrap_token",),
        _of({collect.TOKENS: SECRETS}),
        json_texts,
        whole_json(token),
    ),
    Target("nodes and pods", ("lab.cluster.wait.ready:Readiness.nodes",), _of(ALL), json_texts, whole_json(readiness)),
    Target(
        "NTP answer",
        ("lab.cluster.clients.ntp:parse",),
        lambda _: [bytes([0x24, 3]) + bytes(10) + b"PHC0" + bytes(32)],
        octets,
        time_told,
        refuses=(ValueError,),
    ),
    Target("a shown certificate", ("lab.cluster.observe.collect:_parse",), certificates, octets, shown),
)
