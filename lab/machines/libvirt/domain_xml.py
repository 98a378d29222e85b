"""The definition of a machine that klab makes itself, because its disk is there already and not the box's.

It is the one that vagrant-libvirt makes from the lab's Vagrantfile, which comes from the same description: Vagrant then
takes the machine for its own. Each value is from the plan or from this host, none from a file of another person's.
Source: vagrant-libvirt 0.11, lib/vagrant-libvirt/templates/domain.xml.erb; libvirt.org/formatdomain.html.
"""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from lab.machines.libvirt.definitions import QEMU_NAMESPACE
from lab.machines.ownership import Owner
from lab.render.domain import DomainSpec, Hardware


def new_domain(spec: DomainSpec, owner: Owner, disk: str, seed: str | None = None) -> str:
    """A machine as libvirt's defineXML takes it.

    Args:
        spec: what the machine is.
        owner: the lab's mark.
        disk: path of the disk that it writes to.
        seed: path of the medium in its cdrom; None leaves that empty.
    """
    common = spec.hardware
    return f"""
<domain type={quoteattr(common.virtualization)} xmlns:qemu='{QEMU_NAMESPACE}'>
  <name>{escape(spec.name)}</name>
  <uuid>{escape(spec.uuid)}</uuid>
  <title>{escape(spec.title)}</title>
  <description>{escape(common.description)}</description>
  {owner.metadata_element}
  <memory unit='MiB'>{spec.memory}</memory>
  <vcpu>{spec.cpus}</vcpu>
  <os>
    <type arch={quoteattr(common.arch)} machine={quoteattr(common.machine_type)}>hvm</type>
    <boot dev='hd'/>
    <bootmenu enable='no'/>
  </os>
  <features><acpi/><apic/><pae/></features>
  {_cpu(spec)}
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache={quoteattr(common.disk_cache)} discard={quoteattr(common.disk_discard)}/>
      <source file={quoteattr(disk)}/>
      <target dev='vda' bus={quoteattr(common.disk_bus)}/>
      <alias name='ua-box-volume-0'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      {f"<source file={quoteattr(seed)}/>" if seed else ""}
      <target dev={quoteattr(common.cdrom_device)} bus={quoteattr(common.cdrom_bus)}/>
      <readonly/>
    </disk>
    <controller type='usb' model={quoteattr(common.usb_model)}/>
    {_interface(0, spec.management_mac, common.management_network, common)}
    {_interface(1, spec.lab_mac, common.lab_network, common)}
    <serial type='file'>
      <source path={quoteattr(spec.console)} append='on'/>
      <target port='0'/>
    </serial>
    <channel type='unix'><target type='virtio' name={quoteattr(common.channel)}/></channel>
    <rng model='virtio'><backend model={quoteattr(common.random_model)}>/dev/random</backend></rng>
  </devices>
  {_environment(common)}
</domain>"""


def _cpu(spec: DomainSpec) -> str:
    mode, model = quoteattr(spec.hardware.cpu_mode), spec.hardware.cpu_model
    topology = f"<topology sockets='{spec.cpus}' cores='1' threads='1'/>"
    if model is None:
        return f"<cpu mode={mode}>{topology}</cpu>"
    return f"<cpu mode={mode} match='exact'><model fallback='allow'>{escape(model)}</model>{topology}</cpu>"


def _interface(number: int, mac: str, network: str, common: Hardware) -> str:
    # By the alias vagrant-libvirt knows the interface again.
    return f"""<interface type='network'>
      <mac address={quoteattr(mac)}/>
      <source network={quoteattr(network)}/>
      <model type={quoteattr(common.nic_model)}/>
      <driver iommu='off'/>
      <alias name='ua-net-{number}'/>
    </interface>"""


def _environment(common: Hardware) -> str:
    """What QEMU gets in its environment."""
    if not common.environment:
        return ""
    lines = [f"<qemu:env name={quoteattr(n)} value={quoteattr(value)}/>" for n, value in common.environment.items()]
    return f"<qemu:commandline>{''.join(lines)}</qemu:commandline>"
