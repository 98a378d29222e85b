"""A restore brings back which Kubernetes the lab had, and whether an upgrade was unfinished."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.desk import Desk, killed_at
from support.fake_lab import opener

from lab.cluster.lab import Lab
from lab.errors import LabError, MachineError
from lab.files import write_atomic
from lab.machines.fake.captures import FakeCaptures
from lab.plan.file import from_json, to_json
from lab.plan.versions import with_version
from lab.scenario.catalog import load_catalog
from lab.snapshots.commands import restore, take
from lab.snapshots.recover import recover

BEFORE, AFTER = "1.34.4", "1.35.4"


def has(desk: Desk, version: str, **record: str) -> Lab:
    """Let the lab have this Kubernetes from now on."""
    plan = with_version(desk.lab.plan, load_catalog().kubernetes[version])
    write_atomic(desk.lab.folder.plan_file, to_json(plan))
    desk.lab.folder.update_record(**{"upgrading_to": "", **record})
    desk.lab = desk.of(plan=plan)
    return desk.lab


def version_of(desk: Desk) -> tuple[str, str]:
    folder = desk.lab.folder
    return from_json(folder.plan_text()).kubernetes.version, folder.record().upgrading_to


@pytest.fixture
def upgraded(desk: Desk) -> Desk:
    """A lab with a snapshot "before" an upgrade, one from the "midst" of it, and its Kubernetes of afterwards."""
    take(has(desk, BEFORE), "before")
    take(has(desk, BEFORE, upgrading_to=AFTER), "midst")
    has(desk, AFTER)
    return desk


def test_back_before_the_upgrade_and_forth_again(upgraded: Desk) -> None:
    auto = restore(upgraded.lab, "before").auto
    assert version_of(upgraded) == (BEFORE, "")
    assert auto is not None
    restore(has(upgraded, BEFORE), auto.name)
    assert version_of(upgraded) == (AFTER, "")


def test_in_the_midst_of_the_upgrade_it_can_be_continued(upgraded: Desk) -> None:
    restore(upgraded.lab, "midst")
    assert version_of(upgraded) == (BEFORE, AFTER)


def test_versions_that_are_damaged_are_refused_before_anything_is_touched(upgraded: Desk) -> None:
    store = upgraded.snapshot_store
    store.write(replace(store.pick("before"), kubernetes={"version": "new"}))
    with pytest.raises(LabError, match="the versions of snapshot 'before' are damaged"):
        restore(upgraded.lab, "before")
    assert version_of(upgraded) == (AFTER, "")
    assert upgraded.names == ["before", "midst"]


def test_a_worker_alone_is_not_the_lab(upgraded: Desk) -> None:
    restore(upgraded.lab, "before", node="w1")
    assert version_of(upgraded) == (AFTER, "")


def test_a_restore_that_fails_leaves_the_version_as_it_was(upgraded: Desk) -> None:
    calls: list[Any] = []

    def fail(self: FakeCaptures, *words: Any) -> Any:
        calls.append(words)
        if len(calls) == 1:
            raise MachineError("load of migration failed")
        return FakeCaptures.resume(self, *words)

    with pytest.raises(MachineError):
        restore(upgraded.of(open_machines=opener(resume=fail)), "before")
    assert version_of(upgraded) == (AFTER, "")


@pytest.mark.parametrize(
    ("step", "version"), [("save", AFTER), ("revert", BEFORE), ("resume", BEFORE), ("keep", BEFORE)]
)
def test_a_restore_that_was_killed_is_finished_with_the_version_that_the_machines_have(
    upgraded: Desk, step: str, version: str
) -> None:
    killed_at(step, lambda: restore(upgraded.lab, "before"))
    recover(upgraded.lab)
    assert version_of(upgraded) == (version, "")
