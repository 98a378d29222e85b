"""klab diff: which objects differ between two snapshots, or one and now; over real HTTPS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.ready_lab import ReadyLab, thing

from lab.cluster.clients.api import UnreachableError
from lab.errors import Conflict, LabError, NotFound, UsageError
from lab.snapshots.commands import restore, take
from lab.snapshots.compare import compare
from lab.snapshots.objects import Object

VALUE = "Z2VoZWlt"
OTHER = "aHVudGVyMg=="


@pytest.fixture
def ready(tmp_path: Path, no_pauses: None) -> Iterator[ReadyLab]:
    made = ReadyLab(tmp_path, planes=1, workers=1)
    yield made
    made.close()


def change(ready: ReadyLab) -> None:
    """A ConfigMap goes, another comes, the Secret gets another value."""
    ready.servers.answer("/api/v1/configmaps", 200, {"items": [thing("d", "web", data={"count": "1"})]})
    ready.servers.answer("/api/v1/secrets", 200, {"items": [thing("s", data={"password": OTHER})]})


def test_a_snapshot_and_now(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    assert compare(ready.lab, "first").none
    change(ready)
    found = compare(ready.lab, "first")
    assert found.added == (Object("web", "ConfigMap", "d"),)
    assert found.removed == (Object("default", "ConfigMap", "c"),)
    assert found.changed == (Object("default", "Secret", "s"),)


def test_two_snapshots(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    change(ready)
    take(ready.lab, "second")
    found = compare(ready.lab, "first", "second")
    back = compare(ready.lab, "second", "first")
    assert (found.added, found.removed, found.changed) == (back.removed, back.added, back.changed)
    assert len(found.added) == len(found.removed) == len(found.changed) == 1


def test_no_secrets_value_is_kept(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    change(ready)
    take(ready.lab, "second")
    for file in ready.folder.snapshots.iterdir():
        assert file.stat().st_mode & 0o077 == 0 or file.name == "stand"
        text = file.read_text()
        assert VALUE not in text
        assert OTHER not in text


def test_a_snapshot_without_a_list_says_why(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    auto = restore(ready.lab, "first").auto
    assert auto is not None
    with pytest.raises(Conflict, match="has no list of Kubernetes objects") as caught:
        compare(ready.lab, "first", auto.name)
    assert "automatic" in caught.value.hint


def test_a_list_that_is_damaged(ready: ReadyLab) -> None:
    taken = take(ready.lab, "first").manifest
    ready.snapshot_store.objects(taken.id).write_text("[[1]]")
    with pytest.raises(LabError, match="damaged"):
        compare(ready.lab, "first")


def test_no_such_snapshot(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    with pytest.raises(NotFound, match="no snapshot called 'nonsense'"):
        compare(ready.lab, "first", "nonsense")


def test_an_api_server_that_does_not_answer(ready: ReadyLab) -> None:
    take(ready.lab, "first")
    ready.servers.answer("/api/v1", 503, {"message": "etcd has no leader"})
    with pytest.raises(UnreachableError, match="etcd has no leader"):
        compare(ready.lab, "first")


def test_a_cluster_of_the_students_own_making(ready: ReadyLab) -> None:
    with pytest.raises(UsageError, match="no cluster that klab created"):
        compare(replace(ready.lab, plan=replace(ready.plan, bootstrap="prepared")), "first")
