"""libvirt's XML, both ways: the networks and pools klab defines, and what it reads in a domain.

Source: libvirt.org/formatnetwork.html, formatstorage.html, formatdomain.html.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from lab.errors import UsageError
from lab.machines.ownership import XML_NAMESPACE, XML_PREFIX, Owner
from lab.plan.model import Networks, Node
from lab.render.emulation import LIBRARY_VARIABLE

FIRST_MANAGEMENT_HOST = 10
_OWNER = re.compile(r"\+(?P<uid>[0-9]{1,10}):\+(?P<gid>[0-9]{1,10})")
# Where a definition has one of these in place of a model, the model follows from the host.
CPU_MODES = frozenset({"host-model", "host-passthrough", "maximum"})
# A domain's definition is read, changed and given back: its prefixes stay what they were.
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
ElementTree.register_namespace("qemu", QEMU_NAMESPACE)
ElementTree.register_namespace(XML_PREFIX, XML_NAMESPACE)
_QEMU = f"{{{QEMU_NAMESPACE}}}"
_SCRIPT = "/bin/qemu-dilated"


def lab_network(networks: Networks, owner: Owner) -> str:
    """The network of nodes and host: no DHCP, no DNS (cloud-init sets addresses), no way out."""
    return f"""
<network>
  <name>{escape(networks.name)}</name>
  <uuid>{owner.network_uuid("lab")}</uuid>
  {owner.metadata_element}
  <bridge stp='off' delay='0'/>
  <dns enable='no'/>
  {_address(networks.cidr)}</ip>
</network>"""


@dataclass(frozen=True, slots=True)
class DhcpHost:
    """A machine to which a network gives always the same address."""

    mac: str
    name: str
    address: IPv4Address

    @property
    def xml(self) -> str:
        """The entry. The lease never ends: a guest with a dilated clock would renew an ordinary one too late."""
        return (
            f"<host mac={quoteattr(self.mac)} name={quoteattr(self.name)} ip='{self.address}'>"
            f"<lease expiry='0'/></host>"
        )


def management_hosts(networks: Networks, nodes: Sequence[Node], there: Sequence[DhcpHost] = ()) -> list[DhcpHost]:
    """The entries that a management network shall have.

    Args:
        networks: the lab's.
        nodes: who shall have one.
        there: the entries it has. They keep their addresses, since machines that run hold them.

    Raises:
        UsageError: the network is too small.
    """
    kept = {host.mac: host for host in there}
    found = {node.name: kept[node.management_mac] for node in nodes if node.management_mac in kept}
    free = _unused(networks.management_cidr, {host.address for host in found.values()})
    missing = [node for node in nodes if node.name not in found]
    made = {
        node.name: DhcpHost(mac=node.management_mac, name=node.name, address=address)
        for node, address in zip(missing, free, strict=False)
    }
    if len(made) < len(missing):
        raise UsageError(
            f"Vagrant's own network {networks.management_cidr} has no address for {missing[len(made)].name}",
            hint="a lab of fewer nodes has room there",
        )
    return [(found | made)[node.name] for node in nodes]


def _unused(cidr: IPv4Network, taken: Collection[IPv4Address]) -> Iterator[IPv4Address]:
    return (cidr[i] for i in range(FIRST_MANAGEMENT_HOST, cidr.num_addresses - 1) if cidr[i] not in taken)


def management_network(networks: Networks, nodes: Sequence[Node], owner: Owner) -> str:
    """Vagrant's network: a fixed address for each node by DHCP, and a way out by NAT."""
    cidr = networks.management_cidr
    hosts = "".join(f"\n      {host.xml}" for host in management_hosts(networks, nodes))
    return f"""
<network>
  <name>{escape(networks.management_name)}</name>
  <uuid>{owner.network_uuid("management")}</uuid>
  {owner.metadata_element}
  <forward mode='nat'/>
  <bridge stp='off' delay='0'/>
  {_address(cidr)}
    <dhcp>
      <range start='{cidr[2]}' end='{cidr[-2]}'><lease expiry='0'/></range>{hosts}
    </dhcp>
  </ip>
</network>"""


def dhcp_hosts(network_xml: str) -> list[DhcpHost]:
    """The machines to which a network gives fixed addresses."""
    return [
        DhcpHost(host.get("mac", "").lower(), host.get("name", ""), IPv4Address(host.get("ip", "")))
        for host in _parse(network_xml).iterfind("ip/dhcp/host[@mac][@ip]")
    ]


def _address(cidr: IPv4Network) -> str:
    # A netmask, not a prefix: vagrant-libvirt compares it as text.
    return f"<ip address='{cidr[1]}' netmask='{cidr.netmask}'>"


def directory_pool(name: str, uuid: str | None, path: str, *, owner: tuple[int, int] = (0, 0)) -> str:
    """A storage pool that is a folder; only its owner, by user and group, may list it, QEMU may walk through."""
    identity = f"<uuid>{uuid}</uuid>" if uuid else ""
    return f"""
<pool type='dir'>
  <name>{escape(name)}</name>{identity}
  <target><path>{escape(path)}</path><permissions><mode>0711</mode>{_owned(owner)}</permissions></target>
</pool>"""


def _owned(owner: tuple[int, int]) -> str:
    return f"<owner>{owner[0]}</owner><group>{owner[1]}</group>"


def raw_volume(name: str, *, mode: str = "0600") -> str:
    """A volume that takes a file's bytes as they are, and grows with them: its size tells how many have arrived."""
    return f"""
<volume>
  <name>{escape(name)}</name>
  <capacity unit='bytes'>1</capacity>
  <allocation unit='bytes'>0</allocation>
  <target><format type='raw'/><permissions><mode>{mode}</mode></permissions></target>
</volume>"""


def folder_volume(name: str, user: int, group: int) -> str:
    """A volume that is a folder, which belongs to a user."""
    return f"""
<volume>
  <name>{escape(name)}</name>
  <capacity unit='bytes'>1</capacity>
  <target>
    <format type='dir'/>
    <permissions><mode>0700</mode><owner>{user}</owner><group>{group}</group></permissions>
  </target>
</volume>"""


def pool_path(xml: str) -> str:
    """The folder of a directory pool."""
    return _parse(xml).findtext("target/path") or ""


def pool_type(xml: str) -> str:
    return _parse(xml).get("type", "")


@dataclass(frozen=True, slots=True)
class Cdrom:
    """A cdrom of a domain: its target device and bus, and the image in it."""

    device: str
    bus: str
    source: str | None

    @property
    def ejected(self) -> str:
        """The definition of the same drive without a medium."""
        return (
            f"<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>"
            f"<target dev={quoteattr(self.device)} bus={quoteattr(self.bus)}/><readonly/></disk>"
        )


def cdroms(domain_xml: str) -> list[Cdrom]:
    """The cdroms of a domain."""
    found = []
    for disk in _parse(domain_xml).iterfind("devices/disk[@device='cdrom']"):
        target, source = disk.find("target"), disk.find("source")
        if target is not None:
            image = None if source is None else source.get("file") or source.get("volume")
            found.append(Cdrom(target.get("dev", ""), target.get("bus", ""), image))
    return found


def mac_addresses(domain_xml: str) -> set[str]:
    """The MAC addresses of a domain's network interfaces."""
    return {mac.get("address", "").lower() for mac in _parse(domain_xml).iterfind("devices/interface/mac")}


@dataclass(frozen=True, slots=True)
class Disk:
    """A domain's disk: its target device and the file that it writes to."""

    device: str
    path: str


def disk(domain_xml: str) -> Disk | None:
    """The disk of a domain; None where it has none yet."""
    found = _disk(_parse(domain_xml))
    source, target = (None, None) if found is None else (found.find("source"), found.find("target"))
    if source is None or target is None:
        return None
    return Disk(target.get("dev", ""), source.get("file", ""))


def with_disk(domain_xml: str, path: str) -> str:
    """The same domain on another file; libvirt finds its backing files out by itself."""
    tree = _parse(domain_xml)
    found = _disk(tree)
    source = None if found is None else found.find("source")
    if found is not None and source is not None:
        source.attrib.clear()
        source.set("file", path)
        for chain in found.findall("backingStore"):
            found.remove(chain)
    return ElementTree.tostring(tree, encoding="unicode")


def with_console(domain_xml: str, path: str) -> str:
    """The same domain with its serial console in that file, appended to it; unchanged where it is so already."""
    tree, wanted, changed = _parse(domain_xml), {"path": path, "append": "on"}, False
    # libvirt shows the first serial port as the console, too.
    for source in tree.iterfind("devices/*[@type='file']/source[@path]"):
        changed = changed or source.attrib != wanted
        source.attrib.clear()
        source.attrib.update(wanted)
    return ElementTree.tostring(tree, encoding="unicode") if changed else domain_xml


def _disk(tree: ElementTree.Element) -> ElementTree.Element | None:
    return tree.find("devices/disk[@device='disk'][source][target]")


def preloaded(domain_xml: str, library: str) -> str:
    """The same domain whose QEMU gets a library of slower clocks; unchanged where it does already.

    Older klabs had a script in QEMU's place for that, which goes: libvirt then takes its own.
    """
    tree = _parse(domain_xml)
    devices, emulator = tree.find("devices"), tree.find("devices/emulator")
    scripted = emulator is not None and (emulator.text or "").endswith(_SCRIPT)
    line = tree.find(f"{_QEMU}commandline")
    there = [] if line is None else line.findall(f"{_QEMU}env[@name='{LIBRARY_VARIABLE}']")
    if not scripted and [variable.get("value") for variable in there] == [library]:
        return domain_xml
    if devices is not None and emulator is not None and scripted:
        devices.remove(emulator)
    if line is None:
        line = ElementTree.SubElement(tree, f"{_QEMU}commandline")
    for variable in there:
        line.remove(variable)
    ElementTree.SubElement(line, f"{_QEMU}env", name=LIBRARY_VARIABLE, value=library)
    return ElementTree.tostring(tree, encoding="unicode")


def live_chain(domain_xml: str) -> list[str]:
    """The files that a running domain's disk consists of, the one that it writes to first."""
    found = _disk(_parse(domain_xml))
    chain = []
    while found is not None and (source := found.find("source")) is not None:
        chain.append(source.get("file", ""))
        found = found.find("backingStore")
    return chain


def capture(disk: Disk, overlay: str, memory: str | None) -> str:
    """What libvirt is told to keep of a domain: its disk becomes read-only below `overlay`, its RAM goes to `memory`.

    Source: libvirt.org/formatsnapshot.html, "external".
    """
    ram = f"<memory snapshot='external' file={quoteattr(memory)}/>" if memory else "<memory snapshot='no'/>"
    return f"""
<domainsnapshot>
  {ram}
  <disks>
    <disk name={quoteattr(disk.device)} snapshot='external' type='file'>
      <driver type='qcow2'/><source file={quoteattr(overlay)}/>
    </disk>
  </disks>
</domainsnapshot>"""


def disk_opener(owner: Owner, disk: str) -> str:
    """A machine that is never to run: it has the disk with the path `disk` open, and is as small as can be.

    It does not carry the lab's mark, being none of the lab's machines.
    """
    return f"""
<domain type='qemu'>
  <name>{escape(owner.pool_name)}-layers</name>
  <uuid>{owner.opener_uuid}</uuid>
  <description>klab merges disk layers of a lab; this machine never runs, and ends by itself</description>
  <memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file={quoteattr(disk)}/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>"""


def overlay_volume(name: str, capacity: int, backing: str, *, owner: tuple[int, int] = (0, 0)) -> str:
    """A volume that holds what is written over the file `backing`; `capacity` in bytes, `owner` by user and group."""
    return f"""
<volume>
  <name>{escape(name)}</name>
  <capacity unit='bytes'>{capacity}</capacity>
  <target><format type='qcow2'/><permissions><mode>0600</mode>{_owned(owner)}</permissions></target>
  <backingStore><path>{escape(backing)}</path><format type='qcow2'/></backingStore>
</volume>"""


def backing_path(volume_xml: str) -> str | None:
    """The file below a volume; None where there is none."""
    return _parse(volume_xml).findtext("backingStore/path")


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a domain's saved RAM depends on: kvm or qemu, versioned machine type, CPU model."""

    virtualization: str
    machine: str
    cpu: str


def hardware(domain_xml: str) -> Hardware:
    tree = _parse(domain_xml)
    kind, cpu = tree.find("os/type"), tree.find("cpu")
    model = None if cpu is None else cpu.findtext("model") or cpu.get("mode")
    return Hardware(tree.get("type", ""), "" if kind is None else kind.get("machine", ""), model or "")


def cpu(domain_xml: str) -> str:
    """The CPU of a domain as its definition has it; of one that runs, each feature by name. Empty without one."""
    found = _parse(domain_xml).find("cpu")
    return "" if found is None else ElementTree.tostring(found, encoding="unicode").strip()


def without_features(cpu_xml: str, names: Collection[str]) -> str:
    """The CPU of a domain without features that it may have by its model."""
    found = _parse(cpu_xml)
    for feature in [each for each in found.iterfind("feature") if each.get("name") in names]:
        found.remove(feature)
    for name in names:
        ElementTree.SubElement(found, "feature", policy="disable", name=name)
    return ElementTree.tostring(found, encoding="unicode")


def description(domain_xml: str) -> str:
    return _parse(domain_xml).findtext("description") or ""


def machine_type(capabilities_xml: str) -> str:
    """The versioned machine type behind an alias, from domain capabilities."""
    return _parse(capabilities_xml).findtext("machine") or "q35"


def cpu_models(capabilities_xml: str) -> frozenset[str]:
    """The named CPU models that machines can have, from domain capabilities."""
    models = _parse(capabilities_xml).iterfind("cpu/mode[@name='custom']/model")
    return frozenset(model.text for model in models if model.text)


def emulator_owner(capabilities_xml: str) -> tuple[int, int] | None:
    """Uid and gid of the processes of a libvirt's machines, from the host's capabilities; None where it names none."""
    for model in _parse(capabilities_xml).iterfind("host/secmodel"):
        if model.findtext("model") == "dac" and (label := _OWNER.fullmatch(model.findtext("baselabel") or "")):
            return int(label["uid"]), int(label["gid"])
    return None


def _parse(xml: str) -> ElementTree.Element:
    return ElementTree.fromstring(xml)  # noqa: S314  (it comes from libvirt, over its own socket)
