"""What a workstation shows from outside klab, looked at before and after: by virsh, by the kernel, by the files."""

from __future__ import annotations

import re
from dataclasses import dataclass

from support.workstation import KLAB, USER, Machine

# The repair that `klab doctor` prints where guests are emulated.
SLOW_CLOCK = re.compile(r"sudo install -D -m 644 \S+ \S+\.so")
VIRSH = "virsh --quiet --connect qemu:///system"


@dataclass(frozen=True)
class View:
    """Libvirt's machines, networks and pools; network links, firewall rules, sockets; the pool's and foreign files."""

    domains: tuple[str, ...]
    networks: tuple[str, ...]
    links: tuple[str, ...]
    rules: tuple[str, ...]
    listening: tuple[str, ...]
    guests: tuple[str, ...]
    volumes: tuple[str, ...]
    foreign: tuple[str, ...]


def look(machine: Machine) -> View:
    """The workstation as it is now."""

    def lines(command: str, user: str = "root") -> tuple[str, ...]:
        shown = machine.run(command, user=user, check=False).stdout
        return tuple(sorted(line.strip() for line in shown.splitlines() if line.strip()))

    return View(
        domains=lines(f"{VIRSH} list --all --name"),
        networks=lines(f"{VIRSH} net-list --all --name"),
        links=lines("ls /sys/class/net"),
        # Counters of packets change by themselves.
        rules=lines(
            "(iptables-save; nft --stateless list ruleset) 2>/dev/null | grep -v '^#' | sed 's/\\[[0-9:]*\\]//'"
        ),
        listening=lines("ss -Hltnp | awk '{print $4, $6}' | sed 's/pid=[0-9]*,fd=[0-9]*//g'"),
        guests=lines("pgrep --list-name '^qemu-system'"),
        # The box's own disk stays until the box is removed.
        volumes=lines("find /var/lib/libvirt/images -type f -printf '%f\\n' | grep -v '_box.img$'"),
        foreign=lines(f"find /home/{USER} -not -user {USER} -printf '%u %p\\n'"),
    )


def first_look(machine: Machine) -> View:
    """The workstation before klab's first lab.

    libvirtd makes its chains of firewall rules with the first network that starts, whoever's it is, and keeps them.
    """
    machine.run(f"{VIRSH} net-start default && {VIRSH} net-destroy default", user="root")
    return look(machine)


def klab(machine: Machine, *words: str, check: bool = True, seconds: float = 5400) -> str:
    """What klab prints for the user on the workstation; its messages come with a failure."""
    return machine.run(f"{KLAB} {' '.join(words)}", check=check, seconds=seconds).stdout


def act(machine: Machine, *words: str) -> None:
    """Let the user run a klab that takes minutes, its messages passed on as progress."""
    code = machine.follow(f"{KLAB} {' '.join(words)}", seconds=5400)
    assert code == 0, f"klab {' '.join(words)} ended with {code}; its words are above"


def repair(machine: Machine, user: str = USER) -> str:
    """Do what `klab doctor` says a person has to do, and return what it says then; it must find labs possible."""
    before = machine.run(f"{KLAB} doctor", user=user, check=False).stdout
    for command in SLOW_CLOCK.findall(before):
        machine.run(command, user=user)
    return machine.run(f"{KLAB} doctor", user=user).stdout
