from __future__ import annotations

from pathlib import Path

import pytest

from lab.app import plans
from lab.errors import HostError
from lab.host.capacity import DiskRoom
from lab.machines import providers
from lab.machines.fake.provider import FakeProvider
from lab.store import Home


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "choose_provider", lambda _wanted: "fake")


def room(free: int) -> DiskRoom:
    return DiskRoom(Path("/var/lib/libvirt/images"), free, "provider.libvirt.pool names a pool on another disk")


def test_disk_is_looked_for_where_the_machines_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(FakeProvider, "disk_room", lambda _self, _home, pool: asked.append(pool) or room(1 << 29))
    planned = plans.plan("1m2w", home=Home(tmp_path))
    assert asked == ["default"]
    assert [line for line in planned.problems if "disk" in line] == [
        "needs 6.0 GiB disk to begin with, 0.5 GiB are free in /var/lib/libvirt/images; "
        "provider.libvirt.pool names a pool on another disk"
    ]


def test_a_libvirt_that_does_not_answer_is_why_nothing_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> DiskRoom:
        raise HostError("libvirt does not let this user in", details=["Permission denied"], hint="join the group")

    monkeypatch.setattr(FakeProvider, "disk_room", closed)
    assert plans.plan("1m2w", home=Home(tmp_path)).problems == ["libvirt does not let this user in; Permission denied"]
