"""One process, two private libvirts: labs whose names, addresses and MACs are the same work side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from contract.conftest import why_no_libvirt
from contract.labs import make_lab

from lab.host.network import host_network
from lab.host.private_libvirt import PrivateLibvirt
from lab.machines.libvirt.connection import connect
from lab.machines.protocol import NodeState
from lab.store import Home
from lab.waiting import Deadline

SECONDS = 600.0
pytestmark = pytest.mark.skipif(bool(why_no_libvirt()), reason=why_no_libvirt() or "can run")


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Home]]:
    monkeypatch.setenv("KLAB_LIBVIRT", "private")
    monkeypatch.setenv("VAGRANT_HOME", str(tmp_path / "vagrant.d"))
    made = [Home(tmp_path / name) for name in ("one", "two")]
    yield made
    for home in made:
        PrivateLibvirt(home).stop()


def spaces() -> list[str]:
    return [str(Path(f"/proc/thread-self/ns/{kind}").readlink()) for kind in ("net", "mnt")]


def test_labs_with_equal_addresses_in_one_process(homes: list[Home], tiny_box: Path) -> None:
    before, met = spaces(), threading.Barrier(len(homes), timeout=SECONDS)

    def live(home: Home) -> tuple[list[str], str, str]:
        with host_network(home):
            inside = spaces()
            lab = make_lab(home, "twin", nodes=1, provider="libvirt", box=tiny_box)
            machines = lab.open()
            machines.up(Deadline.after(SECONDS), lambda _line: None)
            machines.ssh("cp1", ["tee", "/tmp/mine"], SECONDS, stdin=home.root.name)
            met.wait()  # both run now, at the same address
            assert machines.states() == {"cp1": NodeState.RUNNING}
            connection = connect()
            assert len(connection.listAllDomains()) == 1
            connection.close()
            mine = machines.ssh("cp1", ["cat", "/tmp/mine"], SECONDS).stdout
            met.wait()
            machines.destroy(lambda _line: None)
            assert machines.leftovers() == []
        assert spaces() == before, "the thread is back where it was"
        return inside, mine, str(lab.plan.nodes[0].address)

    def lived(home: Home) -> tuple[list[str], str, str]:
        try:
            return live(home)
        except BaseException:
            met.abort()
            raise

    with ThreadPoolExecutor(max_workers=len(homes)) as pool:
        lives = [pool.submit(lived, home) for home in homes]
    failures = [error for each in lives if (error := each.exception()) is not None]
    assert not failures, failures
    (one, mine, address), (two, yours, same) = (each.result() for each in lives)
    assert (mine, yours, address) == ("one", "two", same)
    assert len({*one, *two, *before}) == 6, "namespaces of its own for each, and none of them is the host's"
    assert spaces() == before
