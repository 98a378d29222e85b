"""Inputs that a fuzz run has once found a defect with, and what becomes of them since."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fuzz.harness import Input, Outcome, judged
from fuzz.kinds import cluster, disks, files
from fuzz.mutations import DEEP
from fuzz.registry import TARGETS

BY_NAME = {target.name: target for target in TARGETS}
NINES = "9" * 400


def snapshot(**changes: object) -> str:
    return json.dumps({**json.loads(files.snapshots(Path())[0]), **changes})


def node(**changes: object) -> str:
    data = json.loads(files.snapshots(Path())[0])
    data["nodes"][0].update(changes)
    return json.dumps(data)


def attempt(**changes: object) -> str:
    return json.dumps({**json.loads(files.attempts(Path())[0]), **changes})


def answers(path: str, said: object) -> str:
    return json.dumps({**cluster.ALL, path: said})


def event(**changes: object) -> str:
    return json.dumps({"time": 1.5, "node": "", "phase": "box", "state": "begin", "text": "", **changes})


FOUND: tuple[tuple[str, Input, str], ...] = (
    ("source of images", "~g", "refused"),
    ("archive of images", b"\x1f\x8b\x08", "refused"),
    ("archive of images", b"\x1f\x8b\x08\x95\x8ds7\xfd\x8b[\xbfy(\xdc\xd1\xb2y", "refused"),
    ("snapshot manifest", node(name={"": ""}), "refused"),
    ("snapshot manifest", node(running="no"), "refused"),
    ("snapshot manifest", node(platform={"cpu": 5}), "refused"),
    ("snapshot manifest", snapshot(created=float("nan")), "refused"),
    ("snapshot manifest", snapshot(created=True), "refused"),
    ("snapshot manifest", snapshot(versions={"klab": None}), "refused"),
    ("snapshot manifest", DEEP, "refused"),
    ("snapshot stand", b"\xb2", "accepted"),
    ("attempt.json", attempt(id=False), "refused"),
    ("attempt.json", attempt(data=[]), "refused"),
    ("attempt.json", attempt(process="7"), "refused"),
    ("attempt.json", DEEP, "refused"),
    ("objects.json", DEEP, "refused"),
    ("capture index", '{"made": 1, "nodes": {"": {"disk": {}, "memory": "", "definition": ""}}}', "refused"),
    ("capture index", f'{{"made": {NINES}, "nodes": {{}}}}', "refused"),
    ("capture index", DEEP, "refused"),
    ("kubeconfig", "x:\n    y: {z: [a\ufeffb]}\ncontexts:", "accepted"),
    ("merge marker", DEEP, "accepted"),
    ("events.jsonl", event(time=10**400), "accepted"),
    ("events.jsonl", f"{event(time=1)}\n{event(time=2**35, state='done')}", "accepted"),
    ("events.jsonl", event(time="x") + "\n" + event(node=[]), "accepted"),
    ("host.json", '{"boot": "", "qemu": "", "accelerated": {}, "factor": "", "why": ""}', "accepted"),
    ("realm.json", DEEP, "accepted"),
    ("SSH key", b"", "refused"),
    ("known_hosts", b"demo-cp1 \xff", "accepted"),
    ("certificates on a node", "now=18446744073709551616", "refused"),
    ("certificates on a node", "now=\u00b2", "refused"),
    ("date over ssh", "\u00b2", "refused"),
    ("date over ssh", NINES, "refused"),
    ("name of a process", "\udcff", "accepted"),
    ("vagrant", "V", "refused"),
    ("vagrant", "Vagrant", "refused"),
    ("ip route", "d", "refused"),
    ("ip route", "9", "refused"),
    ("ip route", '[{"dst": "0.9.0.0/"}]', "refused"),
    ("ip neigh", '{"way": [4], "there": []}', "refused"),
    ("ip neigh", '{"way": [{"dst": ""}], "there": [1]}', "refused"),
    ("ip neigh of a VIP", "[1]", "accepted"),
    ("qemu-img info", "[]", "refused"),
    ("qemu-img info", '{"virtual-size": 1, "format-specific": 5}', "refused"),
    ("etcd", answers("/v3/maintenance/alarm", {"alarms": None}), "accepted"),
    ("etcd", answers("/v3/cluster/member/list", {"members": [5]}), "accepted"),
    ("etcd", answers("/v3/cluster/member/list", {"members": [{"peerURLs": ["https://[1"]}]}), "accepted"),
    ("etcd", answers("/v3/maintenance/status", {"header": 5}), "accepted"),
    ("a look at a lab", answers("/api/v1/pods", {"items": [{"spec": None, "status": None}]}), "accepted"),
    ("a look at a lab", answers("/api/v1/pods", {"items": [5]}), "accepted"),
    ("a look at a lab", answers("/api/v1/nodes", {"items": [{"metadata": {"name": "cp1"}, "status": 5}]}), "accepted"),
    ("nodes and pods", answers("/api/v1/nodes", {"items": [{}]}), "accepted"),
    ("Date of an answer", "1 Nov 6 2:4999999999", "accepted"),
    ("API server's clock", "1 Nov 6 2:4999999999", "refused"),
    ("API server's clock", "", "refused"),
    ("API answer", "", "refused"),
    ("API answer", DEEP, "refused"),
    ("API resources", '{"resources": 1}', "refused"),
    ("API resources", '{"resources": [{"kind": 1}]}', "refused"),
    ("bootstrap tokens", "{}", "refused"),
    ("bootstrap tokens", json.dumps({cluster.collect.TOKENS: {"items": [9]}}), "refused"),
    ("head of a RAM image", disks.OLDER[:20] + b"\xff\xff\xff\x7f" + disks.OLDER[24:], "refused"),
)


@pytest.mark.parametrize(("name", "data", "expected"), FOUND, ids=lambda value: repr(value)[:40])
def test_found_once(name: str, data: Input, expected: str, tmp_path: Path) -> None:
    target, outcome = BY_NAME[name], Outcome()
    (tmp_path / "seeds").mkdir()
    target.seeds(tmp_path / "seeds")
    assert judged(target, data, tmp_path / "work", outcome) == ""
    assert getattr(outcome, expected) == 1
