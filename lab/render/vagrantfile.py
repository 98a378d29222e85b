"""The Vagrantfile of a lab, for libvirt or VirtualBox, from the one template Vagrantfile.j2.

Source: developer.hashicorp.com/vagrant/docs/vagrantfile, vagrant-libvirt.github.io
(0.11, "Configuration") and the VirtualBox manual, chapter VBoxManage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jinja2

from lab import resources
from lab.errors import HostError
from lab.plan.model import Node, Plan
from lab.plan.names import USER, console_file, domain_name, domain_title, seed_volume
from lab.render.domain import DomainSpec, LibvirtFacts, domain_spec
from lab.render.emulation import PATIENCE
from lab.text import visible

BOOT_TIMEOUT = 600  # seconds until ssh answers, with hardware virtualization
# What VirtualBox calls the AHCI controller of an imported OVF (src/VBox/Main/src-server/ApplianceImplImport.cpp).
CONTROLLER = "SATA"
# A name that may be the beginning of a machine's id in Vagrant's index, and the method of Vagrant's
# that the Vagrantfile of a lab with such a name keeps from taking it for one.
ID_BEGINNING = re.compile(r"[0-9a-f]+")
GUARD = "find_by_prefix"
_MARKUP = re.compile(r"[<>&'\"\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class VirtualBoxFacts:
    """What a Vagrantfile for VirtualBox holds beyond the plan; see `lab.render.domain.LibvirtFacts`.

    `boxes`: the name of the box with a disk of so many GiB, for each size.
    """

    boxes: Mapping[int, str]
    description: str


def render_libvirt(plan: Plan, facts: LibvirtFacts) -> str:
    """The Vagrantfile for vagrant-libvirt.

    Raises:
        HostError: vagrant-libvirt would put a value into the machine's XML that is markup there.
    """
    _refuse_markup(facts)
    return render_domains(plan, facts, [domain_spec(plan, node, facts) for node in plan.nodes])


def render_domains(plan: Plan, facts: LibvirtFacts, specs: Sequence[DomainSpec]) -> str:
    """The same of machines that are described already, one for each node of the plan."""
    return _render(
        plan,
        nodes=[
            {"spec": spec, "seed_volume": f"{facts.seed_folder}/{seed_volume(node.name)}", **_node(plan, node)}
            for node, spec in zip(plan.nodes, specs, strict=True)
        ],
        provider="libvirt",
        hardware=specs[0].hardware,
        box=facts.box,
        box_version=facts.box_version,
        box_pool=facts.box_pool,
        lab_pool=facts.lab_pool,
        boot_timeout=BOOT_TIMEOUT * (1 if facts.accelerated else PATIENCE),
        management_cidr=str(plan.networks.management_cidr),
    )


def _refuse_markup(facts: LibvirtFacts) -> None:
    # vagrant-libvirt 0.11 escapes nothing (templates/domain.xml.erb). What a plan holds is of checked types.
    values = asdict(facts)
    values |= values.pop("slow_clock") or {}
    for name, value in values.items():
        if isinstance(value, str) and _MARKUP.search(value):
            raise HostError(
                f"{name.replace('_', ' ')} {visible(value)} cannot be given to Vagrant",
                details=["it holds markup of libvirt's XML: < > & ' \" or a control character"],
                hint="move klab's folder (KLAB_HOME) or the storage pool to a path without it",
            )


def render_virtualbox(plan: Plan, facts: VirtualBoxFacts) -> str:
    """The Vagrantfile for VirtualBox."""
    return _render(
        plan,
        nodes=[{"box": facts.boxes[node.disk], **_node(plan, node)} for node in plan.nodes],
        provider="virtualbox",
        boot_timeout=BOOT_TIMEOUT,
        linked_clone=plan.linked_clone,
        controller=CONTROLLER,
        description=facts.description,
    )


def _node(plan: Plan, node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "title": domain_title(plan, node.name),
        "domain": domain_name(plan, node.name),
        "cpus": node.cpus,
        "memory": node.memory,
        "disk": node.disk,
        "uuid": node.uuid,
        "address": str(node.address),
        "mac": node.mac,
        "management_mac": node.management_mac,
        "console": f"logs/{console_file(node.name)}",
        "seed": f"seeds/{node.name}.iso",
    }


def _render(plan: Plan, **values: Any) -> str:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701  (Ruby, not HTML: every value goes through the filter `ruby`)
    )
    environment.filters["ruby"] = ruby_literal
    environment.filters["mac"] = lambda mac: mac.replace(":", "").upper()  # as VBoxManage takes it
    template = environment.from_string(resources.path("Vagrantfile.j2").read_text(encoding="utf-8"))
    return template.render(
        name=plan.name,
        user=USER,
        netmask=str(plan.networks.cidr.netmask),
        misread=[node.name for node in plan.nodes if ID_BEGINNING.fullmatch(node.name)],
        **values,
    )


def ruby_literal(value: str | int | bool | None) -> str:
    """A value as Ruby writes it. Strings are single-quoted: Ruby interpolates nothing in them.

    Raises:
        TypeError: there is no literal for a value of that type.
    """
    match value:
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    raise TypeError(f"no Ruby literal for {value!r}")
