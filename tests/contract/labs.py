"""Small labs to try machines with: a folder with plan, record, key and seeds, as `klab create` leaves it."""

from __future__ import annotations

import subprocess
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path

from contract import tinybox
from contract.outside import Outside, outside

from lab.disks.seed_iso import write_iso
from lab.machines.protocol import Machines
from lab.machines.providers import open_machines
from lab.plan.decide import decide
from lab.plan.model import Node, Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.model import Scenario, Topology
from lab.store import Home, LabFolder, Record

DILATION = 0.5


@dataclass(frozen=True)
class Lab:
    """A lab that may or may not have machines yet."""

    home: Home
    folder: LabFolder
    plan: Plan
    box: Path | None

    @property
    def outside(self) -> Outside:
        """Failures of its machines that come from outside klab."""
        return outside(self.folder.record().provider)

    def open(self) -> Machines:
        """Its machines, as a new klab process would open them."""
        return open_machines(self.home, self.folder, self.plan, self.folder.record(), self.box)


def make_lab(home: Home, name: str, *, nodes: int, provider: str, box: Path | None, seat: int = 0) -> Lab:
    """A lab of tiny nodes, made on disk unless it is there."""
    lab = Lab(home, home.lab(name), decide(_scenario(name, nodes), load_catalog(), seat=seat), box)
    if not lab.folder.exists:
        lab.folder.logs.mkdir(parents=True)
        lab.folder.ssh_key.parent.mkdir()
        keygen = ["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(lab.folder.ssh_key)]
        subprocess.run(keygen, check=True)
        lab.folder.write_record(
            Record(
                id=str(uuid.uuid4()),
                name=name,
                provider=provider,
                box="tiny",
                seat=seat,
                phase="creating",
                created=time.time(),
                accelerated=False,
                dilation=DILATION,
                epoch=time.time(),
            )
        )
        for node in lab.plan.nodes:
            write_seed(lab, node)
    return lab


def with_another_worker(lab: Lab) -> Lab:
    """The same lab with a worker more, which has its seed but no machine yet.

    It stands before the others, as a control plane that is added stands before the workers.
    """
    name = f"w{len(lab.plan.workers) + 1}"
    more = decide(_scenario(lab.plan.name, len(lab.plan.nodes) + 1), load_catalog(), seat=lab.plan.seat)
    node = more.node(name)
    assert node is not None
    grown = replace(lab, plan=replace(lab.plan, nodes=(node, *lab.plan.nodes)))
    write_seed(grown, node)
    return grown


def _scenario(name: str, nodes: int) -> Scenario:
    return Scenario(
        version=1,
        name=name,
        topology=Topology(control_planes=1, workers=nodes - 1),
        cpus=1,
        memory=192,
        disk=1,
        bootstrap="none",
    )


def write_seed(lab: Lab, node: Node) -> None:
    """Give a node the seed that its first boot needs."""
    key = lab.folder.ssh_key.with_suffix(".pub").read_text()
    address = f"{node.address}/{lab.plan.networks.cidr.prefixlen}"
    write_iso(tinybox.seed(node.name, address, node.mac, key), lab.folder.seeds / f"{node.name}.iso")
