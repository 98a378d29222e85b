"""The definition of a machine that klab makes itself, because its disk is there already and not the box's.

It is the one that vagrant-libvirt makes from the lab's Vagrantfile, whose facts it shares: Vagrant then takes the
machine for its own. Nothing in it comes from a file that somebody else may have written but what the plan says.
Source: vagrant-libvirt 0.11, lib/vagrant-libvirt/templates/domain.xml.erb; libvirt.org/formatdomain.html.
"""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from lab.machines.libvirt.ownership import Owner
from lab.plan.model import Node, Plan
from lab.plan.names import domain_name
from lab.render.vagrantfile import EPOCH_VARIABLE, RATE_VARIABLE, LibvirtFacts, cpu_model

QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"


def new_domain(plan: Plan, node: Node, facts: LibvirtFacts, owner: Owner, disk: str, console: str) -> str:
    """A machine as libvirt's defineXML takes it.

    Args:
        plan: the lab's.
        node: whose machine it is.
        facts: what the lab's Vagrantfile says.
        owner: the lab's mark.
        disk: path of the disk that it writes to.
        console: path of the file that its serial port writes to.
    """
    emulator = f"<emulator>{escape(facts.emulator)}</emulator>" if facts.emulator else ""
    return f"""
<domain type='{"kvm" if facts.accelerated else "qemu"}' xmlns:qemu='{QEMU_NAMESPACE}'>
  <name>{escape(domain_name(plan, node.name))}</name>
  <uuid>{escape(node.uuid)}</uuid>
  <title>{escape(f"{plan.name} {node.name}")}</title>
  <description>{escape(facts.description)}</description>
  {owner.metadata_element}
  <memory unit='MiB'>{node.memory}</memory>
  <vcpu>{node.cpus}</vcpu>
  <os>
    <type arch='x86_64' machine={quoteattr(facts.machine_type)}>hvm</type>
    <boot dev='hd'/>
    <bootmenu enable='no'/>
  </os>
  <features><acpi/><apic/><pae/></features>
  {_cpu(plan, node, facts)}
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    {emulator}
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='writeback' discard='unmap'/>
      <source file={quoteattr(disk)}/>
      <target dev='vda' bus='virtio'/>
      <alias name='ua-box-volume-0'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <target dev='sda' bus='sata'/>
      <readonly/>
    </disk>
    <controller type='usb' model='none'/>
    {_interface(0, node.management_mac, plan.networks.management_name)}
    {_interface(1, node.mac, plan.networks.name)}
    <serial type='file'>
      <source path={quoteattr(console)}/>
      <target port='0'/>
    </serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <rng model='virtio'><backend model='random'>/dev/random</backend></rng>
  </devices>
  {_clock(facts)}
</domain>"""


def _cpu(plan: Plan, node: Node, facts: LibvirtFacts) -> str:
    model = cpu_model(plan, facts)
    topology = f"<topology sockets='{node.cpus}' cores='1' threads='1'/>"
    if model is None:
        return f"<cpu mode='host-model'>{topology}</cpu>"
    return f"<cpu mode='custom' match='exact'><model fallback='allow'>{escape(model)}</model>{topology}</cpu>"


def _interface(number: int, mac: str, network: str) -> str:
    # The alias is by which vagrant-libvirt knows the interface again.
    return f"""<interface type='network'>
      <mac address={quoteattr(mac)}/>
      <source network={quoteattr(network)}/>
      <model type='virtio'/>
      <driver iommu='off'/>
      <alias name='ua-net-{number}'/>
    </interface>"""


def _clock(facts: LibvirtFacts) -> str:
    """What the emulator with the slower clock is told, where there is one."""
    if facts.emulator is None:
        return ""
    told = {EPOCH_VARIABLE: facts.epoch, RATE_VARIABLE: facts.rate}
    lines = [f"<qemu:env name={quoteattr(name)} value={quoteattr(value)}/>" for name, value in told.items()]
    return f"<qemu:commandline>{''.join(lines)}</qemu:commandline>"
