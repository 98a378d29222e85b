"""A libvirt with one lab in it: libvirt's own test driver, its objects and rules, with machines that do nothing
(libvirt.org/drvtest.html). What machines really do: tests/contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import libvirt
import pytest

from lab.machines.libvirt import definitions, pools, session
from lab.machines.libvirt.connection import library
from lab.machines.libvirt.consoles import FOLDER, ConsoleFiles
from lab.machines.libvirt.machines import LibvirtMachines
from lab.machines.libvirt.pools import LabPool
from lab.machines.ownership import Owner
from lab.machines.protocol import NodeState
from lab.machines.vagrant import provider
from lab.plan.decide import decide
from lab.plan.model import Node, Plan
from lab.plan.names import domain_name
from lab.process import Completed
from lab.scenario.catalog import Catalog
from lab.scenario.model import Scenario, Topology
from lab.store import Home, LabFolder, Record

NAMESPACE = "http://libvirt.org/schemas/domain/test/1.0"
# virDomainState, as the test driver's `runstate` takes it (include/libvirt/libvirt-domain.h).
WORDS = {"running": 1, "paused": 3, "off": 5, "crashed": 6}
RECORD = Record(
    id="cb7b241c-70ce-456d-a4d8-2e6b37ed0cff",
    name="demo",
    provider="libvirt",
    box="box",
    seat=0,
    phase="ready",
    created=1.0,
)
OWNER = Owner(RECORD.id, RECORD.seat, RECORD.epoch)


def plan_of(workers: int, catalog: Catalog) -> Plan:
    return decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=workers)), catalog)


def domain_xml(plan: Plan, node: Node, state: int) -> str:
    nics = "".join(
        f"<interface type='network'><mac address='{mac}'/><source network='{plan.networks.name}'/></interface>"
        for mac in (node.mac, node.management_mac)
    )
    return (
        f"<domain type='test' xmlns:test='{NAMESPACE}'><name>{domain_name(plan, node.name)}</name>"
        f"<uuid>{node.uuid}</uuid><description>{OWNER.description}</description><memory>8192</memory>"
        f"<os><type>hvm</type></os><devices>{nics}</devices>"
        f"<test:runstate>{state}</test:runstate></domain>"
    )


class Vagrant:
    """In Vagrant's place: makes and starts domains, and remembers what it was told."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.up_names: list[Sequence[str]] = []
        self.destroyed: list[Sequence[str]] = []

    def up(self, provider: str, timeout: float, on_line: Callable[[str], None], names: Sequence[str]) -> Completed:
        self.up_names.append(names)
        for name in names:
            node = self.host.plan.node(name)
            assert node is not None
            self.host.connection.defineXML(domain_xml(self.host.plan, node, 5)).create()
        return Completed(("vagrant", "up"), 0, "", "")

    def destroy(self, timeout: float, on_line: Callable[[str], None], names: Sequence[str]) -> Completed:
        self.destroyed.append(names)
        return Completed(("vagrant", "destroy"), 1, "", "no such machine")


@dataclass
class Host:
    """A libvirt with one lab in it."""

    home: Home
    plan: Plan
    connection: libvirt.virConnect
    presses: list[tuple[str, NodeState]] = field(default_factory=list)
    deaf: int = 0  # how many presses of the power button are lost

    @property
    def folder(self) -> LabFolder:
        return self.home.lab("demo")

    def machines(self, plan: Plan | None = None, **changes: object) -> LibvirtMachines:
        return LibvirtMachines(self.home, self.folder, plan or self.plan, replace(RECORD, **changes), None)

    def domain(self, node: str) -> libvirt.virDomain:
        return self.connection.lookupByName(domain_name(self.plan, node))

    def runs(self) -> dict[str, int]:
        """By machine, which of its runs this is: the driver gives each start a new number."""
        return {domain.name(): domain.ID() for domain in self.connection.listAllDomains()}

    def hosts(self) -> list[definitions.DhcpHost]:
        """The management network's entries."""
        network = self.connection.networkLookupByName(self.plan.networks.management_name)
        return definitions.dhcp_hosts(network.XMLDesc())

    def volumes(self) -> set[str]:
        return set(LabPool(self.connection, OWNER).volumes())

    def consoles(self) -> ConsoleFiles:
        """The console files of the lab, which has a pool."""
        pool = LabPool(self.connection, OWNER).find()
        assert pool is not None
        folder = Path(definitions.pool_path(pool.XMLDesc())) / FOLDER
        return ConsoleFiles(pool, folder, folder, self.folder.logs)

    def add_volumes(self, *names: str) -> None:
        pool = LabPool(self.connection, OWNER).find()
        assert pool is not None
        for name in names:
            pool.createXML(definitions.raw_volume(name))


@pytest.fixture
def make_host(tmp_path: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Host]]:
    """Makes a host from the state of each node's machine: `make_host(cp1="running", w1="off")`."""
    library()  # silences libvirt
    create = libvirt.virStoragePool.createXML
    open_: list[libvirt.virConnect] = []

    def make(**states: str) -> Host:
        plan = plan_of(2, catalog)
        domains = [domain_xml(plan, node, WORDS[states[node.name]]) for node in plan.nodes if node.name in states]
        file = tmp_path / "node.xml"
        file.write_text(f"<node>{''.join(domains)}</node>")
        connection = libvirt.open(f"test://{file}")
        open_.append(connection)
        host = Host(Home(tmp_path), plan, connection)
        monkeypatch.setattr(session, "connect", lambda: connection)
        monkeypatch.setattr(pools, "DEFAULT_FOLDER", tmp_path / "images")
        monkeypatch.setattr(provider, "OFF_POLL_SECONDS", 0.01)
        monkeypatch.setattr(provider, "PRESS_SECONDS", 0.0)

        def press(domain: libvirt.virDomain, flags: int) -> None:
            assert flags == libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
            node = domain.name().rpartition("_")[2]
            host.presses.append((node, host.machines().states()[node]))
            if len(host.presses) > host.deaf:
                domain.shutdown()

        def create_volume(pool: libvirt.virStoragePool, xml: str, flags: int = 0) -> libvirt.virStorageVol:
            volume = create(pool, xml, flags)
            if "type='dir'" in xml:
                Path(volume.path()).mkdir(parents=True, exist_ok=True)
            return volume

        # Three things that the drivers of QEMU and of folders know and the test driver does not.
        monkeypatch.setattr(libvirt.virStoragePool, "createXML", create_volume)
        monkeypatch.setattr(libvirt.virDomain, "shutdownFlags", press)
        monkeypatch.setattr(libvirt.virDomain, "undefineFlags", lambda domain, _flags: domain.undefine())
        return host

    yield make
    for connection in open_:
        connection.close()
