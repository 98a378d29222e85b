"""klab's look at a lab before a real API server and a real etcd on this machine, with the lab's own certificates."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import pytest
from support.control_plane import ControlPlane


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    found = ControlPlane(tmp_path_factory.mktemp("plane"))
    try:
        found.wait(lambda facts: facts.endpoint is not None and not facts.endpoint.error)
        yield found
    finally:
        found.close()


NODE = """
apiVersion: v1
kind: Node
metadata: {name: cp1}
spec: {unschedulable: true}
"""
SECRETS = """
apiVersion: v1
kind: Secret
metadata: {{name: bootstrap-token-abcdef, namespace: kube-system}}
type: bootstrap.kubernetes.io/token
stringData: {{token-id: abcdef, expiration: "{ends}", usage-bootstrap-authentication: "true"}}
---
apiVersion: v1
kind: Secret
metadata: {{name: other, namespace: kube-system}}
stringData: {{token-id: other, usage-bootstrap-authentication: "true"}}
"""
PODS = """
apiVersion: v1
kind: Pod
metadata: {name: coredns-1, namespace: kube-system}
spec: {nodeName: cp1, containers: [{name: c, image: none}]}
"""


def test_a_look_at_what_really_runs(plane: ControlPlane) -> None:
    ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=7)
    plane.apply(NODE)
    plane.apply(SECRETS.format(ends=ends.strftime("%Y-%m-%dT%H:%M:%SZ")))
    plane.apply(PODS)
    facts = plane.look()
    assert facts.unseen == ()
    (node,) = facts.nodes
    assert (node.api, node.registered, node.ready, node.cordoned) == ("", True, False, True)
    # Only Secrets of the tokens' type are tokens.
    assert facts.tokens is not None
    assert [t.id for t in facts.tokens] == ["abcdef"]
    assert facts.token is not None
    assert facts.token.hours == pytest.approx(7, abs=0.2)
    assert facts.pods is not None
    assert [(p.name, p.node, p.ready, p.why) for p in facts.pods] == [("coredns-1", "cp1", False, "Pending")]
    assert facts.etcd is not None
    assert (facts.etcd.leader, facts.etcd.has_quorum, facts.etcd.error) == ("cp1", True, "")
    days = {c.what: c.days for c in facts.certificates if c.days is not None}
    assert set(days) == {"API server", "etcd", "klab's admin"}


def test_an_api_server_without_etcd_says_so(plane: ControlPlane) -> None:
    plane.end("etcd")
    # It may believe for a moment what it has asked last.
    facts = plane.wait(lambda facts: facts.endpoint is not None and "etcd" in facts.endpoint.error)
    assert facts.quorum_lost.startswith(
        "etcd has lost its quorum: 0 of 1 members answer, 1 are needed; klab doctor look"
    )
