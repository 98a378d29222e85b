"""The definition of a machine that comes from a bundle: of the plan, and of this host, alone."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import libvirt
import pytest

from lab.machines.libvirt import definitions
from lab.machines.libvirt.domain_xml import new_domain
from lab.machines.libvirt.ownership import Owner, owner_in_description
from lab.plan.model import Node, Plan, decide
from lab.render.vagrantfile import EMULATED_CPU, LibvirtFacts
from lab.scenario.catalog import Catalog
from lab.scenario.model import Scenario, Topology

OWNER = Owner("cb7b241c-70ce-456d-a4d8-2e6b37ed0cff", 0, 12.5)
FACTS = LibvirtFacts("box", "1", OWNER.description, "default", "klab-x", "/pool", "pc-q35-10.0", accelerated=True)
SLOW = replace(FACTS, accelerated=False, emulator="/home/a b/qemu-dilated", epoch="12.5", rate="0.25")
QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"


@pytest.fixture
def plan(catalog: Catalog) -> Plan:
    return decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=1)), catalog)


def made(plan: Plan, facts: LibvirtFacts = FACTS) -> tuple[ElementTree.Element, Node, str]:
    node = plan.known("w1")
    xml = new_domain(plan, node, facts, OWNER, "/pool/it's.img", "/labs/demo/logs/console-w1.log")
    return ElementTree.fromstring(xml), node, xml  # noqa: S314 - it is klab's own


def test_it_is_the_nodes_machine(plan: Plan) -> None:
    tree, node, xml = made(plan)
    assert tree.get("type") == "kvm"
    assert [tree.findtext(tag) for tag in ("name", "uuid", "title")] == ["klab-demo_w1", node.uuid, "demo w1"]
    assert owner_in_description(tree.findtext("description") or "") == OWNER.lab_id
    assert OWNER.lab_id in ElementTree.tostring(tree.find("metadata") or tree, encoding="unicode")
    assert (tree.findtext("memory"), tree.findtext("vcpu")) == (str(node.memory), str(node.cpus))
    assert definitions.disk(xml) == definitions.Disk("vda", "/pool/it's.img")
    assert definitions.hardware(xml) == definitions.Hardware("kvm", "pc-q35-10.0", "host-model")
    nics = [(i.find("mac").get("address"), i.find("source").get("network")) for i in tree.iter("interface")]  # type: ignore[union-attr]
    # eth0 is Vagrant's, eth1 the lab's.
    assert nics == [(node.management_mac, "klab-demo-mgmt"), (node.mac, "klab-demo")]
    assert tree.find("devices/serial/source").get("path") == "/labs/demo/logs/console-w1.log"  # type: ignore[union-attr]
    assert tree.find("devices/emulator") is None
    assert tree.find(f"{QEMU}commandline") is None


def test_without_hardware_virtualization_it_has_the_slower_clock(plan: Plan) -> None:
    tree, _, xml = made(plan, SLOW)
    assert tree.get("type") == "qemu"
    assert tree.findtext("devices/emulator") == "/home/a b/qemu-dilated"
    assert definitions.hardware(xml).cpu == EMULATED_CPU
    told = {env.get("name"): env.get("value") for env in tree.iter(f"{QEMU}env")}
    assert told == {"KLAB_EPOCH": "12.5", "KLAB_RATE": "0.25"}


def test_a_cpu_model_of_the_scenarios(plan: Plan) -> None:
    assert definitions.hardware(made(replace(plan, cpu_model="EPYC"))[2]).cpu == "EPYC"


def test_libvirt_takes_it(plan: Plan) -> None:
    """Its test driver reads definitions like any other, of machines of its own type."""
    _, node, xml = made(plan)
    text = xml.replace("<domain type='kvm'", "<domain type='test'").replace('machine="pc-q35-10.0"', "")
    connection = libvirt.open("test:///default")
    try:
        found = connection.defineXML(text)
        assert definitions.mac_addresses(found.XMLDesc()) == {node.mac, node.management_mac}
        found.undefine()
    finally:
        connection.close()
