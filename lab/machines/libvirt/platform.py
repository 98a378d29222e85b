"""What saved RAM depends on: noted of the machine that was saved, judged before anything of a restore begins.

QEMU loads what an older one has saved, for any machine type that it still offers (QEMU, docs/devel/migration/
compatibility.rst). What it loads is what may be restored: an upgrade of QEMU makes no snapshot useless.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lab.machines.libvirt import definitions
from lab.machines.libvirt.connection import library

if TYPE_CHECKING:
    import libvirt

QEMU, VIRTUALIZATION, MACHINE, MODEL, CPU = "QEMU", "virtualization", "machine type", "CPU model", "CPU"
_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})")
# libvirt, src/cpu/cpu_x86.c, x86Compute.
_LACKING = re.compile(r"does not provide required features: ([\w.-]{1,40}(?:, [\w.-]{1,40}){0,500})$")
_log = logging.getLogger("klab.libvirt")


def installed(connection: libvirt.virConnect) -> str:
    """The version of the QEMU that a machine would be started with now."""
    version = connection.getVersion()
    return f"{version // 1000000}.{version // 1000 % 1000}.{version % 1000}"


def describe(connection: libvirt.virConnect, domain: libvirt.virDomain) -> dict[str, str]:
    """What a machine's RAM, were it saved now, depends on.

    QEMU's version is that of the machine's process, which an upgrade leaves as it is. With `host-model` only the
    definition of the running machine says which CPU it has.
    """
    hardware = definitions.hardware(domain.XMLDesc(library().VIR_DOMAIN_XML_INACTIVE))
    found = {
        QEMU: installed(connection),
        VIRTUALIZATION: hardware.virtualization,
        MACHINE: hardware.machine,
        MODEL: hardware.cpu,
    }
    if domain.isActive():
        found[QEMU] = _running(domain) or found[QEMU]
        if cpu := _judged(connection, hardware, definitions.cpu(domain.XMLDesc())):
            found[CPU] = cpu
    return found


def _judged(connection: libvirt.virConnect, hardware: definitions.Hardware, cpu: str) -> str:
    """What of a running machine's CPU tells whether a host has it; empty where nothing does.

    KVM gives its machines features that no processor has to have, such as topoext, and of these libvirt says that the
    host lacks them. The host that runs the machine lacks nothing: what is said to lack there does not count.
    """
    if hardware.virtualization != "kvm" or not cpu:
        return cpu
    lacking = _LACKING.search(_incompatible(connection, hardware.machine, cpu))
    if lacking is not None:
        cpu = definitions.without_features(cpu, lacking[1].split(", "))
    return "" if _incompatible(connection, hardware.machine, cpu) else cpu


def _incompatible(connection: libvirt.virConnect, machine: str | None, cpu: str) -> str:
    """Why libvirt refuses a CPU on this host's KVM; empty where it does not, or cannot compare."""
    flags = library().VIR_CONNECT_COMPARE_CPU_FAIL_INCOMPATIBLE
    try:
        connection.compareHypervisorCPU(None, "x86_64", machine, "kvm", cpu, flags)
    except library().libvirtError as error:
        if error.get_error_code() == library().VIR_ERR_CPU_INCOMPATIBLE:
            return str(error)
        _log.warning("libvirt does not compare a CPU: %s", error)
    return ""


def _running(domain: libvirt.virDomain) -> str | None:
    """The version of a machine's QEMU as its monitor tells it; None where it does not."""
    import libvirt_qemu

    try:
        return version_told(libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-version"}', 0))
    except library().libvirtError as error:
        _log.debug("%s does not tell its version: %s", domain.name(), error)
        return None


def version_told(answer: str) -> str | None:
    """The version in QEMU's answer to query-version; None where there is none.

    Source: QEMU, qapi/control.json, VersionInfo.
    """
    try:
        told = json.loads(answer)["return"]["qemu"]
        return "{:d}.{:d}.{:d}".format(*(told[part] for part in ("major", "minor", "micro")))
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def problems(connection: libvirt.virConnect, node: str, saved: Mapping[str, str]) -> list[str]:
    """Why RAM that was saved on such a platform cannot be loaded here, one line each.

    Args:
        connection: to the libvirt that is to load it.
        node: whose it is.
        saved: what `describe` told, by this klab or an older one.
    """
    ram, here = f"the RAM of {node} was saved with", installed(connection)
    found = []
    if _number(here) < _number(saved.get(QEMU, "")):
        found.append(f"{ram} QEMU {saved[QEMU]}, here it is {here}, which is older")
    kind, machine = saved.get(VIRTUALIZATION, "qemu"), saved.get(MACHINE) or None
    try:
        capabilities = connection.getDomainCapabilities(arch="x86_64", machine=machine, virttype=kind)
    except library().libvirtError as error:
        return [*found, f"{ram} virtualization {kind} and machine type {machine}, which are not offered here: {error}"]
    model = saved.get(MODEL, "")
    offered = definitions.cpu_models(capabilities)
    if model and offered and model not in definitions.CPU_MODES and model not in offered:
        found.append(f"{ram} CPU model {model}, which QEMU does not offer here")
    # An emulated CPU has what its model says; one of KVM only what this processor has.
    if kind == "kvm" and CPU in saved and (why := _incompatible(connection, machine, saved[CPU])):
        found.append(f"{ram} a CPU that this host does not have: {why}")
    return found


def _number(version: str) -> tuple[int, ...]:
    found = _VERSION.match(version)
    return tuple(int(part) for part in found.groups()) if found else (0,)
