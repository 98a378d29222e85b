"""The definition of a machine that comes from a bundle: of the plan, and of this host, alone."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any
from xml.etree import ElementTree

import libvirt
import pytest

from lab.machines.libvirt import definitions
from lab.machines.libvirt.domain_xml import new_domain
from lab.machines.ownership import Owner, owner_in_description
from lab.plan.decide import decide
from lab.plan.model import Node, Plan
from lab.render.domain import DomainSpec, Hardware, LibvirtFacts, domain_spec
from lab.render.emulation import EMULATED_CPU, SlowClock
from lab.render.vagrantfile import render_domains
from lab.scenario.catalog import Catalog
from lab.scenario.model import Scenario, Topology

OWNER = Owner("cb7b241c-70ce-456d-a4d8-2e6b37ed0cff", 0, 12.5)
FACTS = LibvirtFacts(
    "box", "1", OWNER.description, "default", "klab-x", "/pool", "/pool/consoles", "pc-q35-10.0", accelerated=True
)
SLOW = replace(FACTS, accelerated=False, slow_clock=SlowClock("/usr/lib/klab/slow_clock.so", "12.5", "0.25"))
QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"


@pytest.fixture
def plan(catalog: Catalog) -> Plan:
    return decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=1)), catalog)


def made(plan: Plan, facts: LibvirtFacts = FACTS) -> tuple[ElementTree.Element, Node, str]:
    node = plan.known("w1")
    xml = new_domain(domain_spec(plan, node, facts), OWNER, "/pool/it's.img")
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
    console = tree.find("devices/serial/source")
    assert console is not None
    assert console.attrib == {"path": "/pool/consoles/console-w1.log", "append": "on"}, "else virtlogd makes it root's"
    assert definitions.with_console(xml, "/pool/consoles/console-w1.log") == xml
    assert tree.find("devices/emulator") is None
    assert tree.find(f"{QEMU}commandline") is None


def test_without_hardware_virtualization_it_has_the_slower_clock(plan: Plan) -> None:
    tree, _, xml = made(plan, SLOW)
    assert tree.get("type") == "qemu"
    assert tree.find("devices/emulator") is None, "libvirt takes its own"
    assert definitions.hardware(xml).cpu == EMULATED_CPU
    told = {env.get("name"): env.get("value") for env in tree.iter(f"{QEMU}env")}
    assert told == {"LD_PRELOAD": "/usr/lib/klab/slow_clock.so", "KLAB_EPOCH": "12.5", "KLAB_RATE": "0.25"}


def test_a_cpu_model_of_the_scenarios(plan: Plan) -> None:
    assert definitions.hardware(made(replace(plan, cpu_model="EPYC"))[2]).cpu == "EPYC"


def test_libvirt_takes_it(plan: Plan) -> None:
    """Its test driver reads definitions like any other, of machines of its own type."""
    _, node, xml = made(plan)
    text = xml.replace('<domain type="kvm"', '<domain type="test"').replace('machine="pc-q35-10.0"', "")
    connection = libvirt.open("test:///default")
    try:
        found = connection.defineXML(text)
        assert definitions.mac_addresses(found.XMLDesc()) == {node.mac, node.management_mac}
        found.undefine()
    finally:
        connection.close()


# --- one description, two ways of making a machine ----------------------------------------------------


def both(plan: Plan, spec: DomainSpec) -> dict[str, str]:
    """What Vagrant and libvirt are told of a machine, in a lab of its own."""
    lab = replace(plan, nodes=(plan.known(spec.node),)) if plan.node(spec.node) else replace(plan, nodes=plan.nodes[:1])
    return {
        "Vagrantfile": render_domains(lab, SLOW, [spec]),
        "definition": new_domain(spec, OWNER, "/disk"),
    }


OTHER: dict[str, object] = {"cpus": 7, "memory": 4321, "cpu_mode": "host-passthrough", "environment": {"KLAB_X": "7"}}


@pytest.mark.parametrize("field", [f.name for f in fields(DomainSpec) if f.name != "hardware"])
def test_each_value_of_a_machine_is_in_both(plan: Plan, field: str) -> None:
    spec = domain_spec(plan, plan.known("w1"), SLOW)
    other = replace(spec, **{field: OTHER.get(field, "another")})  # type: ignore[arg-type]
    before, after = both(plan, spec), both(plan, other)
    assert [name for name in before if before[name] == after[name]] == []


@pytest.mark.parametrize("field", [f.name for f in fields(Hardware)])
def test_each_value_that_all_machines_have_is_in_both(plan: Plan, field: str) -> None:
    spec = domain_spec(plan, plan.known("w1"), SLOW)
    other = replace(spec, hardware=replace(spec.hardware, **{field: OTHER.get(field, "another")}))  # type: ignore[arg-type]
    before, after = both(plan, spec), both(plan, other)
    assert [name for name in before if before[name] == after[name]] == []


@pytest.mark.parametrize(
    ("field", "value", "nothing"), [("cpu_model", EMULATED_CPU, None), ("environment", "slow_clock.so", {})]
)
def test_what_a_lab_may_do_without_is_in_neither(plan: Plan, field: str, value: str, nothing: Any) -> None:
    spec = domain_spec(plan, plan.known("w1"), SLOW)
    assert all(value in text for text in both(plan, spec).values())
    without = replace(spec, hardware=replace(spec.hardware, **{field: nothing}))
    assert not any(value in text for text in both(plan, without).values())
