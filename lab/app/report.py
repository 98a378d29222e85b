"""What somebody who is to help needs to know of this machine and its labs, as text without secrets.

Nothing is changed. Each section is bounded in time and size; one that fails tells why, and the rest is there.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab import process
from lab.app.anonymous import anonymous, own_names
from lab.app.consoles import last_lines
from lab.app.doctor import examine_host, examine_lab
from lab.app.labs import Labs
from lab.cluster.lab import Lab
from lab.errors import Conflict, LabError, Remedy, UsageError
from lab.files import write_outside
from lab.host.private_libvirt import PrivateLibvirt
from lab.log import command_line
from lab.machines.providers import entered
from lab.machines.vagrant.command import ENVIRONMENT
from lab.store import Home
from lab.waiting import thread

PROGRAM_SECONDS = 30.0
SECTION_SECONDS = 180.0  # the first probe of hardware virtualization takes a minute on a machine without it
MOST = 60_000  # characters of a section
MOST_LABS = 10
LOG_LINES, CONSOLE_LINES = 80, 120
_SYSTEM = "qemu:///system"
_VARIABLES = ("KLAB_", "LIBVIRT_", "VAGRANT_", "VBOX_", "XDG_DATA_", "LANG", "LC_", "PATH", "KUBECONFIG")
_PACKAGES = (
    *("libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "qemu-utils", "vagrant", "vagrant-libvirt"),
    *("virtualbox*", "dnsmasq-base", "iptables", "nftables", "ufw", "firewalld", "apparmor", "docker.io", "docker-ce"),
    *("openssh-client", "xorriso", "mmdebstrap", "golang-go"),
)
_UNITS = (
    *("libvirtd.service", "libvirtd.socket", "virtqemud.socket", "virtlogd.socket", "apparmor", "ufw", "firewalld"),
    *("nftables", "docker"),
)
ANOTHER = Remedy("doctor", options=("--report", "OTHER.txt"))
ELSEWHERE = (Remedy("doctor", options=("--report", "FILE")), " with a file in another folder")
# What `virsh capabilities` says in few words.
_CAPABILITIES = ("<arch", "<model", "<vendor", "<domain ", "<emulator", "<doi", "<microcode")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report."""

    title: str
    text: str


def refuse_existing(file: Path) -> None:
    """Make sure that a report can be written there, before a minute is spent on it.

    Raises:
        Conflict: something is there.
        UsageError: its folder does not exist.
    """
    if file.exists() or file.is_symlink():
        raise Conflict(f"{file} exists", hint=ANOTHER)
    if not file.parent.is_dir():
        raise UsageError(f"the folder {file.parent} does not exist", hint=ELSEWHERE)


def write(file: Path, text: str) -> None:
    """Write a report, for its owner alone.

    Raises:
        Conflict: something is there.
        UsageError: it cannot be written.
    """
    try:
        write_outside(file, text, replaces=False)
    except FileExistsError:
        refuse_existing(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}", hint=ELSEWHERE) from error


def sections(lab: Lab | None = None, home: Home | None = None) -> Iterator[Section]:
    """Look at this machine and all its labs; with a lab also at what is wrong with it and what its nodes print."""
    home = home or Home.default()
    names = own_names()
    for title, look in _looks(home, lab):
        yield Section(title, _cut(anonymous(_bounded(look), names)))


def _cut(text: str) -> str:
    if len(text) <= MOST:
        return text
    half = MOST // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"


def _bounded(look: Callable[[], str]) -> str:
    """What a look saw, or why it saw nothing; it is left alone when it takes too long."""
    said: list[str] = []

    def run() -> None:
        try:
            said.append(look())
        except LabError as error:
            said.append("\n".join(("not available: " + error.message, *error.details)))
        except Exception as error:  # a report of what is broken must not break with it
            said.append(f"not available: {type(error).__name__}: {error}")

    worker: threading.Thread = thread(run, "report", daemon=True)
    worker.start()
    worker.join(SECTION_SECONDS)
    return said[0] if said else f"not available: it took longer than {SECTION_SECONDS:g} s"


Look = tuple[str, Callable[[], str]]


def _looks(home: Home, lab: Lab | None) -> Iterator[Look]:
    yield "klab", lambda: _klab(home)
    yield "system", _system
    yield "processor, memory, disks", lambda: _processor(home)
    yield "groups", lambda: _commands(["id"])
    yield "klab doctor", lambda: _doctor(home)
    yield (
        "packages",
        lambda: _commands(["dpkg-query", "-W", "-f=${Package} ${Version} ${db:Status-Abbrev}\\n", *_PACKAGES]),
    )
    yield "services", _services
    yield "libvirt", _libvirt
    yield "private libvirt", lambda: _private(home)
    yield "Vagrant", lambda: _commands(["vagrant", "--version"], ["vagrant", "plugin", "list"])
    yield (
        "VirtualBox",
        lambda: _commands(*(["VBoxManage", *words] for words in (["--version"], ["list", "hostonlyifs"]))),
    )
    yield "network", _network
    yield "firewall", lambda: _commands(["nft", "list", "tables"], ["iptables", "-S"], ["ufw", "status"])
    yield "boxes", lambda: "\n".join(sorted(folder.name for folder in home.boxes.glob("*@*"))) or "none"
    labs = Labs(home)
    found = sorted(labs.summaries(), key=lambda each: each.created, reverse=True)
    yield "labs", lambda: "\n".join(f"{each.name}: {each.phase}" for each in found) or "none"
    for each in found[:MOST_LABS]:
        yield f"lab {each.name}", partial(_lab, labs, each.name)
    if lab is not None:
        yield f"klab doctor {lab.name}", lambda: _diagnosis(lab)
        for node in lab.plan.nodes:
            yield f"console of {node.name} of {lab.name}", partial(_console, lab, node.name)


# --- this machine -----------------------------------------------------------------------------


def _commands(*commands: Sequence[str]) -> str:
    """What programs print, each below its command line; of one that is not installed that it is not."""
    return "\n".join(_command(command) for command in commands)


def _command(command: Sequence[str], keep: Callable[[str], bool] = lambda _line: True) -> str:
    line = f"$ {command_line(command)}"
    try:
        done = process.run(command, timeout=PROGRAM_SECONDS, check=False, env={**ENVIRONMENT, "LC_ALL": "C"})
    except LabError as error:
        return f"{line}\n{error.message}"
    printed = "\n".join(each for each in (done.stdout + done.stderr).splitlines() if keep(each))
    return "\n".join((line, *filter(None, (printed, f"exit code {done.code}" if done.code else ""))))


def _klab(home: Home) -> str:
    lines = [
        f"klab {importlib.metadata.version('klab')}, Python {platform.python_version()}, {sys.executable}",
        f"KLAB_HOME {home.root}",
    ]
    lines += [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith(_VARIABLES) or name.lower().endswith("_proxy")
    ]
    return "\n".join(lines)


def _files(*files: str) -> Iterator[str]:
    for file in files:
        try:
            yield f"{file}: {' '.join(Path(file).read_text(encoding='utf-8', errors='replace').split())}"
        except OSError as error:
            yield f"{file}: {error.strerror}"


def _system() -> str:
    release = platform.freedesktop_os_release()
    lines = [release.get("PRETTY_NAME", "unknown"), *_files("/proc/uptime", "/sys/kernel/security/lsm")]
    clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    return "\n".join((*lines, *_files(clock), _commands(["uname", "-srvm"], ["systemd-detect-virt"])))


def _processor(home: Home) -> str:
    nested = (str(file) for file in Path("/sys/module").glob("kvm_*/parameters/nested"))
    folders = [str(folder) for folder in (home.root, Path("/var/lib/libvirt")) if folder.is_dir()]
    shown = _commands(["lscpu"], ["free", "-m"], ["df", "-hT", *folders], ["ls", "-l", "/dev/kvm"])
    modules = _command(["lsmod"], lambda line: line.startswith(("kvm", "vbox", "ptp")))
    return "\n".join((shown, modules, *_files(*nested)))


def _doctor(home: Home) -> str:
    lines = []
    for each in examine_host(home):
        lines.append(f"{'ok' if each.ok else 'MISSING' if each.fatal else 'note'}  {each.name}: {each.seen}")
        lines += [f"    {line}" for line in str(each.hint).splitlines()]
    return "\n".join(lines)


def _services() -> str:
    return _commands(["systemctl", "show", "--property=Id,LoadState,ActiveState,UnitFileState", *_UNITS])


def _libvirt() -> str:
    virsh = ("virsh", "-r", "-c", _SYSTEM)
    shown = _commands(
        *((*virsh, *words) for words in (["version", "--daemon"], ["list", "--all"], ["net-list", "--all"])),
        (*virsh, "pool-list", "--all", "--details"),
    )
    return f"{shown}\n{_command([*virsh, 'capabilities'], lambda line: line.strip().startswith(_CAPABILITIES))}"


def _private(home: Home) -> str:
    private = PrivateLibvirt(home)
    if not private.folder.is_dir():
        return "none"
    log = private.folder / "start.log"
    state = "it runs" if private.running else "it does not run"
    return f"{state}\n{log}:\n{last_lines(log, LOG_LINES)}" if log.is_file() else state


def _network() -> str:
    shown = _commands(
        ["ip", "-br", "link"], ["ip", "-br", "-4", "address"], ["ip", "-4", "route"], ["ip", "-4", "rule"]
    )
    return "\n".join((shown, *_files("/proc/sys/net/ipv4/ip_forward")))


# --- labs -------------------------------------------------------------------------------------


def _lab(labs: Labs, name: str) -> str:
    """A lab's record, plan and machines, and the end of its log."""
    log = labs.home.lab(name).log
    shown = [_known(labs, name)]
    if log.is_file():
        shown.append(f"the end of {log}:\n{last_lines(log, LOG_LINES)}")
    return "\n".join(shown)


def _known(labs: Labs, name: str) -> str:
    try:
        lab = labs.find(name)
        record, plan = lab.record, lab.plan
    except LabError as error:
        return "\n".join((error.message, *error.details))
    k = plan.kubernetes
    lines = [
        f"{record.provider}, {record.phase}, box {record.box}, scenario {plan.scenario}, seat {plan.seat}, "
        f"accelerated {record.accelerated}, dilation {record.dilation:g}, from a bundle {bool(record.checkpoint)}",
        f"Kubernetes {k.version}, {k.runtime}, {k.cni}, bootstrap {plan.bootstrap}, cloud image {plan.cloud_image}; "
        f"networks {plan.networks.cidr}, {plan.networks.management_cidr}",
        *(f"{n.name} {n.role} {n.address} {n.cpus} CPUs {n.memory} MiB {n.disk} GiB {n.mac}" for n in plan.nodes),
        f"snapshots: {' '.join(sorted(f.name for f in lab.folder.snapshots.glob('*'))) or 'none'}",
    ]
    try:
        with entered(record.provider, labs.home):
            states = lab.machines(record).states()
        lines.append("machines: " + ", ".join(f"{node} {state}" for node, state in states.items()))
    except LabError as error:
        lines.append(f"machines: {error.message}")
    return "\n".join(lines)


def _diagnosis(lab: Lab) -> str:
    with entered(lab.record.provider, lab.home):
        results = examine_lab(lab)
    lines = []
    for result in results:
        state = "WRONG" if result.findings else "not seen" if result.unseen else "ok"
        lines.append(f"{state}  {result.check}: {result.unseen or result.says}")
        lines += [f"    {f.node}: {f.what}; seen: {f.evidence}; repair: {f.repair}" for f in result.findings]
    return "\n".join(lines)


def _console(lab: Lab, node: str) -> str:
    with entered(lab.record.provider, lab.home):
        file = lab.machines().consoles()[node]
        return last_lines(file, CONSOLE_LINES) if file.exists() else "it has printed nothing yet"
