from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from xml.etree import ElementTree

import pytest

from lab.errors import UsageError
from lab.machines.libvirt import definitions
from lab.machines.ownership import Owner, owner_in_description, owner_in_metadata
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.scenario.catalog import load_catalog
from lab.scenario.model import Scenario, Topology

OWNER = Owner("cb7b241c-70ce-456d-a4d8-2e6b37ed0cff", 3, 1795229810.3049142)
DOMAIN = """
<domain type='qemu'>
  <description>klab lab cb7b241c-70ce-456d-a4d8-2e6b37ed0cff seat 3 epoch 1.5</description>
  <devices>
    <disk type='file' device='disk'><source file='/a.img'/><target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><source file='/cp1-seed.iso'/><target dev='sda' bus='sata'/></disk>
    <disk type='file' device='cdrom'><source index='4'/><target dev='sdb' bus='sata'/></disk>
    <interface type='network'><mac address='52:54:00:D2:da:db'/></interface>
  </devices>
</domain>"""


@pytest.fixture
def plan() -> Plan:
    scenario = Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=2))
    return decide(scenario, load_catalog())


def test_marks_are_read_back() -> None:
    assert owner_in_description(OWNER.description) == OWNER.lab_id
    assert owner_in_metadata(OWNER.metadata) == OWNER.lab_id
    assert owner_in_metadata(OWNER.metadata_element) == OWNER.lab_id


@pytest.mark.parametrize("text", ["", "Source: /home/me/Vagrantfile", "klab lab", "my klab laboratory seat"])
def test_other_descriptions_are_no_mark(text: str) -> None:
    assert owner_in_description(text) is None


def test_no_two_labs_share_a_pool_or_network() -> None:
    other = replace(OWNER, lab_id="00000000-70ce-456d-a4d8-2e6b37ed0cff")
    marks = {f(owner) for owner in (OWNER, other) for f in (_pool, lambda o: o.network_uuid("lab"), _management_uuid)}
    assert len(marks) == 6


def _pool(owner: Owner) -> str:
    return owner.pool_uuid


def _management_uuid(owner: Owner) -> str:
    return owner.network_uuid("management")


def test_lab_network_has_neither_dhcp_nor_a_way_out(plan: Plan) -> None:
    xml = ElementTree.fromstring(definitions.lab_network(plan.networks, OWNER))  # noqa: S314
    assert xml.findtext("name") == "klab-demo"
    assert xml.find("ip/dhcp") is None
    assert xml.find("forward") is None
    address = xml.find("ip")
    assert address is not None
    assert address.attrib == {"address": "192.168.56.1", "netmask": "255.255.255.0"}


def test_management_network_gives_each_node_its_address_for_good(plan: Plan) -> None:
    xml = ElementTree.fromstring(definitions.management_network(plan.networks, plan.nodes, OWNER))  # noqa: S314
    hosts = xml.findall("ip/dhcp/host")
    assert [(h.get("name"), h.get("mac")) for h in hosts] == [(n.name, n.management_mac) for n in plan.nodes]
    assert len({h.get("ip") for h in hosts}) == 3
    assert {lease.get("expiry") for lease in xml.iter("lease")} == {"0"}


def test_a_networks_hosts_are_read_back(plan: Plan) -> None:
    there = definitions.dhcp_hosts(definitions.management_network(plan.networks, plan.nodes, OWNER))
    assert there == definitions.management_hosts(plan.networks, plan.nodes)


def test_a_new_node_gets_an_address_that_no_other_has_wherever_it_stands(plan: Plan) -> None:
    first, second, third = plan.nodes
    there = definitions.management_hosts(plan.networks, [second, third])
    wanted = definitions.management_hosts(plan.networks, [first, second, third], there)
    assert wanted[1:] == there
    assert wanted[0].address not in {host.address for host in there}
    assert definitions.management_hosts(plan.networks, [first, second, third], wanted) == wanted


def test_the_address_of_a_node_that_is_gone_is_given_out_again(plan: Plan) -> None:
    first, second, third = plan.nodes
    there = definitions.management_hosts(plan.networks, [first, second])
    wanted = definitions.management_hosts(plan.networks, [second, third], there)
    assert [host.address for host in wanted] == [there[1].address, there[0].address]


def test_only_drives_with_a_medium_have_a_source() -> None:
    full, empty = definitions.cdroms(DOMAIN)
    assert (full.device, full.bus, full.source) == ("sda", "sata", "/cp1-seed.iso")
    assert empty.source is None
    assert "<source" not in full.ejected


def test_mac_addresses_are_compared_in_lower_case() -> None:
    assert definitions.mac_addresses(DOMAIN) == {"52:54:00:d2:da:db"}


def test_pool_path_is_read_back() -> None:
    xml = definitions.directory_pool("a & b", OWNER.pool_uuid, "/srv/a & b")
    assert definitions.pool_path(xml) == "/srv/a & b"
    assert definitions.pool_type(xml) == "dir"


def test_a_management_network_without_room_is_told(plan: Plan) -> None:
    small = replace(plan.networks, management_cidr=IPv4Network("172.28.0.0/28"))
    hosts = definitions.management_hosts(small, plan.nodes)
    assert [str(host.address) for host in hosts] == ["172.28.0.10", "172.28.0.11", "172.28.0.12"]
    for prefix in (30, 31, 32):
        smaller = replace(plan.networks, management_cidr=IPv4Network(f"172.28.0.0/{prefix}"))
        with pytest.raises(UsageError, match="has no address for cp1"):
            definitions.management_hosts(smaller, plan.nodes)


def test_the_cpu_models_that_libvirt_knows() -> None:
    answer = """<domainCapabilities><cpu>
    <mode name='host-passthrough'/><mode name='host-model'><model>EPYC</model></mode>
    <mode name='custom'><model usable='yes'>Haswell</model><model usable='no'>Skylake-Client</model></mode>
    </cpu></domainCapabilities>"""
    assert definitions.cpu_models(answer) == {"Haswell", "Skylake-Client"}
