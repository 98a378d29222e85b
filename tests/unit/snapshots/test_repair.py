"""Bringing back what is older than a certificate or a token: said before, repaired after, by klab's real scripts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from support.lab_servers import token
from support.ready_lab import ReadyLab

from lab.cluster.clients.api import UnreachableError
from lab.cluster.lab import Lab
from lab.cluster.observe.collect import TOKENS
from lab.cluster.tokens import fresh_token
from lab.errors import ClusterError, MachineError
from lab.machines.protocol import NodeState
from lab.process import Completed
from lab.render.renewal import KUBELET_CLIENT
from lab.snapshots import repair as module
from lab.snapshots.commands import restore, take
from lab.snapshots.expiry import CERTIFICATE, TOKEN, expired
from lab.snapshots.manifest import Manifest

DAY = 24 * 3600.0
SECRETS = TOKENS.partition("?")[0]
API_SERVER = "/etc/kubernetes/pki/apiserver.crt"


@pytest.fixture
def ready(tmp_path: Path, no_pauses: None) -> Iterator[ReadyLab]:
    made = ReadyLab(tmp_path, planes=1, workers=1)
    yield made
    made.close()


def later(ready: ReadyLab, days: float, **changes: Any) -> Lab:
    """The lab, so many days later."""
    return ready.impatient(timeout=60, clock=lambda: time.time() + days * DAY, **changes)


def end(ready: ReadyLab, node: str, file: str) -> float:
    text = ready.guests[node].path(file).read_text()
    return x509.load_pem_x509_certificate(text.encode()).not_valid_after_utc.timestamp()


def ends(ready: ReadyLab) -> dict[str, float]:
    return {
        "API server": end(ready, "cp1", API_SERVER),
        "kubelet of cp1": end(ready, "cp1", KUBELET_CLIENT),
        "kubelet of w1": end(ready, "w1", KUBELET_CLIENT),
    }


def renewals(ready: ReadyLab) -> list[str]:
    return [node for node, script in ready.told if "certificate=" not in script]


def tokens_made(ready: ReadyLab) -> list[dict[str, Any]]:
    changed = [json.loads(body) for method, path, body in ready.endpoint.changed if path.startswith(SECRETS)]
    return [manifest["stringData"] for manifest in changed]


# --- what is noted with a snapshot ---------------------------------------------------------------------


def test_a_snapshot_knows_when_its_certificates_and_tokens_end(ready: ReadyLab) -> None:
    items = [token("abcdef", hours=12), token("fedcba", hours=2), token("000000", hours=90, usage="false")]
    ready.servers.answer(SECRETS, 200, {"items": items})
    taken = take(ready.lab, "first")
    assert taken.warnings == ()
    assert taken.manifest.expires[CERTIFICATE] == end(ready, "cp1", API_SERVER)
    assert abs(taken.manifest.expires[TOKEN] - (time.time() + 12 * 3600)) < 60


@pytest.mark.parametrize(
    "items",
    [
        [token("abcdef", hours=12), token("forever", hours=None)],
        [],
    ],
)
def test_a_token_that_never_ends_or_is_not_there_is_no_matter(ready: ReadyLab, items: list[Any]) -> None:
    ready.servers.answer(SECRETS, 200, {"items": items})
    assert TOKEN not in take(ready.lab, "first").manifest.expires


@pytest.mark.parametrize("data", [{"expiration": "c29vbg=="}, {"expiration": "not base64!"}])
def test_a_token_that_is_damaged_is_none(ready: ReadyLab, data: dict[str, str]) -> None:
    damaged = token("abcdef", hours=12)
    damaged["data"] |= data
    ready.servers.answer(SECRETS, 200, {"items": [damaged]})
    taken = take(ready.lab, "first")
    assert TOKEN not in taken.manifest.expires


def test_what_cannot_be_seen_is_said_and_no_reason_to_fail(ready: ReadyLab) -> None:
    def deaf(*_: object, **__: object) -> Completed:
        raise MachineError("it does not answer ssh")

    ready.servers.answer("/api/v1", 503, {"message": "etcd has no leader"})
    taken = take(ready.impatient(open_machines=ready.opener(ssh=deaf)), "first")
    assert taken.manifest.expires == {}
    first, second = taken.warnings
    assert first == "no node said when its certificates expire"
    assert "klab diff will not know them" in second
    assert "etcd has no leader" in second


# --- what has ended -----------------------------------------------------------------------------------------


def test_certificates_are_judged_by_both_clocks_and_tokens_by_the_guests() -> None:
    expires = {CERTIFICATE: 10 * DAY, TOKEN: 5 * DAY}
    assert expired(expires, guests=4 * DAY, host=9 * DAY) == {}
    assert expired(expires, guests=6 * DAY, host=9 * DAY) == {TOKEN: 1.0}
    # A guest's clock may run at a third of the host's; klab itself has the host's.
    assert expired(expires, guests=4 * DAY, host=12 * DAY) == {CERTIFICATE: 2.0}


def test_a_month_later_nothing_has_to_be_renewed(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    ready.told.clear()
    done = restore(later(ready, 30), "first")
    assert renewals(ready) == []
    assert "certificates" not in done.seconds
    assert done.verification.full


def test_more_than_a_year_later_everything_is_renewed(ready: ReadyLab) -> None:
    ready.servers.answer(SECRETS, 200, {"items": [token("abcdef", hours=12)]})
    take(ready.lab, "first")
    before = ends(ready)
    ready.told.clear()
    done = restore(later(ready, 400), "first")
    assert done.verification.full
    assert done.warnings == (
        "certificates had expired and have been renewed",
        "the bootstrap token had expired; klab token prints the command that joins with a new one",
    )
    assert done.seconds["certificates"] > 0
    for what, was in before.items():
        assert ends(ready)[what] > was + 364 * DAY, what
    (made,) = tokens_made(ready)
    assert made["usage-bootstrap-authentication"] == "true"


def test_it_is_said_before_anything_is_touched(ready: ReadyLab) -> None:
    ready.servers.answer(SECRETS, 200, {"items": [token("abcdef", hours=12)]})
    take(ready.lab, "first")
    ready.events.clear()
    restore(later(ready, 400), "first")
    phases = [e.phase for e in ready.events]
    assert phases.index("certificates") < phases.index("freeze")
    certificates, tokens, _ = ready.notes
    assert certificates == ("certificates: they expired 35 days ago by the nodes' clocks: they will be renewed")
    assert tokens == "tokens: the last bootstrap token expired 400 days ago: there will be a new one"


def test_what_was_renewed_since_it_was_noted_is_left(ready: ReadyLab) -> None:
    noted(ready, take(ready.lab, "first").manifest, {CERTIFICATE: time.time() - DAY})
    ready.told.clear()
    done = restore(later(ready, 1), "first")
    assert renewals(ready) == []
    assert done.warnings == ()


def test_where_nothing_was_noted_the_nodes_are_asked(ready: ReadyLab) -> None:
    noted(ready, take(ready.lab, "first").manifest, {})
    done = restore(later(ready, 400), "first")
    assert done.warnings == ("certificates had expired and have been renewed",)
    assert [note for note in ready.notes if not note.startswith("back: ")] == []


def noted(ready: ReadyLab, manifest: Manifest, expires: dict[str, float]) -> None:
    ready.snapshot_store.write(replace(manifest, expires=expires))


def test_a_renewal_that_fails_leads_back(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    ready.guests["w1"].programs["systemctl"] = "exit 1"
    with pytest.raises(ClusterError, match="w1 cannot take its new certificates") as caught:
        restore(later(ready, 400), "first")
    assert caught.value.details[-1] == "the lab is as it was before"
    assert [m.name for m in ready.snapshot_store.manifests()] == ["first"]
    assert set(ready.machines.states().values()) == {NodeState.RUNNING}


def test_nodes_that_do_not_tell_are_no_reason_to_wait_for_what_cannot_be(ready: ReadyLab) -> None:
    """What was noted has ended: without a renewal nothing would become Ready."""
    take(ready.lab, "first")

    def silent(machines: Any, node: str, *_: Any, **__: Any) -> Completed:
        raise MachineError(f"{node} does not answer ssh")

    lab = later(ready, 400)
    with pytest.raises(MachineError, match="does not answer ssh") as caught:
        restore(replace(lab, open_machines=ready.opener(ssh=silent)), "first")
    assert caught.value.details[-1] == "the lab is as it was before"


def test_a_token_is_asked_for_again_while_the_api_server_hesitates(
    ready: ReadyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted(ready, take(ready.lab, "first").manifest, {TOKEN: time.time() - DAY})
    failed: list[str] = []

    def hesitant(api: Any) -> str:
        if not failed:
            failed.append("no answer")
            raise UnreachableError("the API server does not answer: timed out")
        return fresh_token(api)

    monkeypatch.setattr(module, "fresh_token", hesitant)
    done = restore(ready.lab, "first")
    assert "klab token prints the command" in done.warnings[0]
    assert len(tokens_made(ready)) == 1


def test_a_token_that_cannot_be_made_is_no_reason_to_take_all_back(
    ready: ReadyLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted(ready, take(ready.lab, "first").manifest, {TOKEN: time.time() - DAY})

    def refused(api: Any) -> str:
        raise UnreachableError("PATCH: 403 forbidden", status=403)

    monkeypatch.setattr(module, "fresh_token", refused)
    done = restore(ready.lab, "first")
    assert done.warnings == (
        "the bootstrap token had expired, and no new one could be made (PATCH: 403 forbidden); klab token makes one",
    )
    assert done.verification.full


def test_a_lab_that_was_off_is_left_as_it_was(ready: ReadyLab) -> None:
    ready.machines.power_off(["cp1", "w1"])
    take(ready.lab, "off")
    ready.machines.start(["cp1", "w1"])
    done = restore(later(ready, 400), "off")
    assert done.running == ()
    assert renewals(ready) == []
    assert ready.notes == []
