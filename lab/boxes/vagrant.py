"""A disk as the box files that Vagrant's providers want.

libvirt: a tar of metadata.json, Vagrantfile and box.img (vagrant-libvirt's documentation,
"Box Format"). VirtualBox: a tar with an OVF machine and its VMDK, as `VBoxManage import`
takes it (Vagrant's documentation, "VirtualBox: Creating a Base Box"; OVF: DMTF DSP0243).
Not compressed: Vagrant would unpack them on every host, for minutes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from string import Template

_LIBVIRT = """Vagrant.configure("2") do |config|
  config.vm.provider :libvirt do |libvirt|
    libvirt.disk_bus = "virtio"
  end
end
"""

# The cloud kernel has no driver for VirtualBox's default network card.
_VIRTUALBOX = """Vagrant.configure("2") do |config|
  config.vm.provider :virtualbox do |virtualbox|
    virtualbox.default_nic_type = "virtio"
    virtualbox.check_guest_additions = false
    virtualbox.functional_vboxsf = false
  end
end
"""

# The numbers are CIM's resource types: 3 processor, 4 memory, 10 Ethernet, 17 disk, 20 SATA controller.
_OVF = Template("""<?xml version="1.0"?>
<Envelope ovf:version="1.0" xml:lang="en-US" xmlns="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
    xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
    xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData">
  <References>
    <File ovf:href="$disk" ovf:id="file1"/>
  </References>
  <DiskSection>
    <Info>The box's disk</Info>
    <Disk ovf:capacity="$bytes" ovf:diskId="vmdisk1" ovf:fileRef="file1"
        ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <NetworkSection>
    <Info>Vagrant's way in</Info>
    <Network ovf:name="NAT"/>
  </NetworkSection>
  <VirtualSystem ovf:id="klab">
    <Info>A klab node; Vagrant sets its real size</Info>
    <OperatingSystemSection ovf:id="96">
      <Info>Debian, 64 bit</Info>
      <Description>Debian_64</Description>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Info>Hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>klab</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>virtualbox-2.2</vssd:VirtualSystemType>
      </System>
      <Item>
        <rasd:ElementName>processors</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>2</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits>
        <rasd:ElementName>memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>2048</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:ElementName>sata</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>AHCI</rasd:ResourceSubType>
        <rasd:ResourceType>20</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AddressOnParent>0</rasd:AddressOnParent>
        <rasd:ElementName>disk</rasd:ElementName>
        <rasd:HostResource>/disk/vmdisk1</rasd:HostResource>
        <rasd:InstanceID>4</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
      <Item>
        <rasd:AutomaticAllocation>true</rasd:AutomaticAllocation>
        <rasd:Connection>NAT</rasd:Connection>
        <rasd:ElementName>network</rasd:ElementName>
        <rasd:InstanceID>5</rasd:InstanceID>
        <rasd:ResourceType>10</rasd:ResourceType>
      </Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
""")


def write_libvirt_box(disk: Path, target: Path, virtual_mib: int) -> None:
    """Write the box file for libvirt.

    Args:
        disk: a qcow2 without a backing file.
        target: the file to write.
        virtual_mib: the disk's size as the guest sees it, whole GiB.
    """
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": virtual_mib // 1024}
    _write(target, {"metadata.json": json.dumps(metadata) + "\n", "Vagrantfile": _LIBVIRT, "box.img": disk})


def write_virtualbox_box(vmdk: Path, target: Path, virtual_mib: int) -> None:
    """Write the box file for VirtualBox; arguments as `write_libvirt_box`, with a VMDK."""
    members: dict[str, str | Path] = {
        "metadata.json": json.dumps({"provider": "virtualbox"}) + "\n",
        "Vagrantfile": _VIRTUALBOX,
        "box.ovf": _OVF.substitute(disk=vmdk.name, bytes=virtual_mib << 20),
        vmdk.name: vmdk,
    }
    _write(target, members)


def _write(target: Path, members: Mapping[str, str | Path]) -> None:
    """Write a tar of these members, in their order: texts, and what files hold."""
    # No dates: equal content makes an equal file.
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as box:
        for name, source in members.items():
            with io.BytesIO(source.encode()) if isinstance(source, str) else source.open("rb") as content:
                member = tarfile.TarInfo(name)
                member.size = content.seek(0, io.SEEK_END)
                content.seek(0)
                box.addfile(member, content)
