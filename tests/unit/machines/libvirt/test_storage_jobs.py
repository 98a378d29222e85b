"""A pool that somebody is at work on is waited for; any other refusal is told at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import libvirt
import pytest

from lab.errors import MachineError
from lab.machines.libvirt import storage_jobs
from lab.machines.libvirt.pools import LabPool
from lab.machines.libvirt.volumes import LayerStore

STORAGE, QEMU = libvirt.VIR_FROM_STORAGE, libvirt.VIR_FROM_QEMU
# As libvirt 11.3 refuses: storagePoolRefresh with asyncjobs, storageVolDelete with in_use.
REFRESH = (libvirt.VIR_ERR_INTERNAL_ERROR, STORAGE, "internal error: pool 'p' has asynchronous jobs running.")
DELETE = (libvirt.VIR_ERR_OPERATION_INVALID, STORAGE, "Requested operation is not valid: volume 'v' is still in use.")
OTHER = (libvirt.VIR_ERR_INTERNAL_ERROR, QEMU, "internal error: qemu unexpectedly closed the monitor")
GONE = (libvirt.VIR_ERR_NO_STORAGE_VOL, STORAGE, "Storage volume not found")


def refusal(code: int, domain: int, text: str) -> libvirt.libvirtError:
    error = libvirt.libvirtError(text)
    error.err = (code, domain, text, 2, text, None, None, -1, -1)
    return error


class Pool:
    """Refuses a step so many times."""

    def __init__(self, times: int, why: tuple[int, int, str], *, active: bool = True) -> None:
        self.times, self.why, self.active = times, why, active

    def name(self) -> str:
        return "klab-demo"

    def isActive(self) -> bool:  # noqa: N802 - libvirt's name
        return self.active

    def step(self) -> None:
        self.times -= 1
        if self.times >= 0:
            raise refusal(*self.why)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_jobs, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(storage_jobs, "PATIENCE_SECONDS", 0.1)


def do(pool: Pool) -> None:
    storage_jobs.when_idle(pool, pool.step)  # type: ignore[arg-type]


@pytest.mark.parametrize("why", [REFRESH, DELETE])
def test_a_busy_pool_is_waited_for(why: tuple[int, int, str]) -> None:
    pool = Pool(3, why)
    do(pool)
    assert pool.times == -1, "done once, after three refusals"


@pytest.mark.parametrize("why", [OTHER, GONE])
def test_another_refusal_is_told_at_once(why: tuple[int, int, str]) -> None:
    pool = Pool(1, why)
    with pytest.raises(libvirt.libvirtError, match=why[2]):
        do(pool)
    assert pool.times == 0


def test_a_pool_that_has_been_stopped_is_not_waited_for() -> None:
    with pytest.raises(libvirt.libvirtError):
        do(Pool(1, DELETE, active=False))


def test_a_pool_that_stays_busy_is_named_with_what_libvirt_says() -> None:
    with pytest.raises(MachineError, match="the storage pool klab-demo has been busy") as caught:
        do(Pool(10**9, REFRESH))
    assert caught.value.details == (REFRESH[2],)
    assert "run the same command again" in str(caught.value.hint)


def test_what_is_looked_up_by_name_reads_no_pool_again(
    make_host: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a file of the pool is streamed, libvirt refuses to read the pool again."""
    host = make_host(cp1="off")
    machines = host.machines()
    resources = machines._resources()
    resources.pool.ensure(resources.pool.box_pool("default"))
    host.add_volumes("klab-demo_cp1.img")

    def refresh(_pool: LabPool) -> None:
        raise AssertionError("the pool is read again")

    store = LayerStore(resources)
    monkeypatch.setattr(LabPool, "volumes", refresh)
    assert store.size("klab-demo_cp1.img") >= 0
    store.add_layer("klab-demo_cp1.two.img", "klab-demo_cp1.img")
    assert LayerStore(resources).size("klab-demo_cp1.two.img") >= 0
    with pytest.raises(AssertionError, match="read again"):
        LayerStore(resources).size("unknown.img")
