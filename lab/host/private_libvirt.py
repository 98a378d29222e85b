"""The private libvirt: libvirtd in a network and mount namespace of its own.

klab uses it where no system libvirtd answers, and for labs that must not meet. Nothing of
it shows on the host: bridges, taps and firewall rules are in its network namespace, and its
own folders cover /run/libvirt, /var/lib/libvirt, /etc/libvirt, /var/log/libvirt and
/var/cache/libvirt. Its disks are files under `home.private_libvirt`.

    KLAB_HOME/realm/
    |-- run/ lib/ etc/ log/ cache/   what libvirt sees in place of the host's folders
    |-- start.log                    what its daemons printed
    `-- realm.json                   the namespaces, and the process that holds them

An anchor process holds the namespaces. When it has been killed, any process inside
(libvirtd, a QEMU) leads the way back in.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lab import locks, process, records
from lab.errors import HostError, Remedy
from lab.files import make_private, write_atomic
from lab.host import namespaces, subreaper
from lab.host.namespaces import Namespaces
from lab.host.visitors import WHAT, visitors
from lab.store import Home
from lab.waiting import Deadline, poll

_LOG = logging.getLogger("klab.host")
# What each of its folders covers. The order does not matter.
COVERED = {
    "run": "/run/libvirt",
    "lib": "/var/lib/libvirt",
    "etc": "/etc/libvirt",
    "log": "/var/log/libvirt",
    "cache": "/var/cache/libvirt",
}
# libvirt would ask the host's firewalld and machined over D-Bus to act on interfaces and
# processes that exist in the private libvirt only, so the bus is hidden.
HIDDEN = ("/run/dbus", "/run/systemd")
HERE = "thread-self"  # below /proc
START_SECONDS = 60.0
STOP_SECONDS = 20.0
DAEMONS = {"libvirtd", "virtlogd", "dnsmasq", subreaper.NAME}
# A wait for a guest to boot tries to connect so many times once a second, instead of after 7, 11, 19 and 35 seconds.
# Source: Linux, Documentation/networking/ip-sysctl.rst, tcp_syn_linear_timeouts (since 6.5; each network has its own).
LINEAR_SYN_RETRIES = 60
EMULATOR = "qemu-system"  # the kernel cuts names at 15 characters

CONFIG = {
    # QEMU runs as root: it exists for the root user of a machine, a container or a CI job,
    # and its disks lie in a folder that is root's alone.
    "qemu.conf": (
        'user = "root"\ngroup = "root"\ndynamic_ownership = 0\nremember_owner = 0\n'
        'security_driver = "none"\ncgroup_controllers = []\nnamespaces = []\n'
        # A core dump would hold a guest's whole RAM, and a root without CAP_SYS_RESOURCE cannot even allow one.
        "max_core = 0\n"
    ),
    "libvirtd.conf": 'auth_unix_ro = "none"\nauth_unix_rw = "none"\n',
    "virtlogd.conf": "",
}

# Runs as the first process of the new namespaces, with its folder as $1.
ANCHOR = """
set -e
ip link set lo up
umount -R -l /sys
mount -t sysfs sysfs /sys
syn=/proc/sys/net/ipv4/tcp_syn_linear_timeouts
if [ -w $syn ]; then echo {knocks} > $syn; fi
{binds}
: > "$1/ready"
exec sleep infinity
"""


@dataclass(frozen=True, slots=True)
class _State:
    """realm.json."""

    anchor: int
    started: int
    net: str
    mnt: str
    boot: str


@dataclass(frozen=True, slots=True)
class PrivateLibvirt:
    """The private libvirt of one KLAB_HOME. Two of them do not know of each other."""

    home: Home

    @property
    def folder(self) -> Path:
        return self.home.private_libvirt

    @property
    def running(self) -> bool:
        """Whether its namespaces exist and its libvirtd lives."""
        return self._way_in() is not None and self._daemon("libvirtd") is not None

    @property
    def holds_labs(self) -> bool:
        """Whether libvirt's books in it name a machine or a network, be it from before a restart of the host."""
        books = self.folder / "etc" / "qemu"
        return any(books.glob("*.xml")) or any(books.glob("networks/*.xml"))

    @property
    def inside(self) -> bool:
        """Whether the calling thread is in it."""
        state = self._state()
        if state is None:
            return False
        return Namespaces.of(HERE) == Namespaces(state.net, state.mnt) and self._seen_by(HERE)

    def uncovered(self, folder: Path) -> Path | None:
        """Where a folder that is seen inside lies on the host; None for one that is no part of it."""
        for name, target in COVERED.items():
            if folder.is_relative_to(target):
                return self.folder / name / folder.relative_to(target)
        return None

    def start(self) -> None:
        """Start whatever of it does not run. Idempotent; QEMUs that run are left alone.

        Raises:
            HostError: not root, or a program is missing or does not start.
        """
        if os.geteuid() != 0:
            raise HostError(
                "no system libvirtd answers, and a private one needs root",
                hint="sudo systemctl enable --now libvirtd; or run klab as root; or use --provider virtualbox",
            )
        for program in ("unshare", "nsenter", "ip", "libvirtd", "virtlogd", "dnsmasq"):
            process.find(program)
        with locks.locked(self._lock_file("start"), WHAT):
            if self._way_in() is None:
                _LOG.info("private libvirt in %s: its namespaces are made", self.folder)
                self._make_namespaces()
            self._start_daemons()

    def enter(self) -> None:
        """Put the calling thread in for good; from then on the system's libvirt is out of its sight.

        Threads and programs that it starts are in it, too. The working directory stays. The process counts as a
        user of it until it ends.

        Raises:
            HostError: it does not run, or klab may not enter.
        """
        visitors.stay(self._lock_file("users"))
        if not self.inside:
            namespaces.enter_namespaces(self._entrance())

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Have the calling thread in it, as `enter`; afterwards it is where it was, and a user no more.

        So one process can work in several of them, in a thread each.

        Raises:
            HostError: as `enter`.
        """
        file = self._lock_file("users")
        visitors.add(file)
        try:
            with contextlib.nullcontext() if self.inside else namespaces.entered(self._entrance()):
                yield
        finally:
            visitors.drop(file)

    def _entrance(self) -> int:
        """A process that is in it; raises HostError where there is none."""
        pid = self._way_in()
        if pid is None:
            raise HostError(
                "the private libvirt is not running",
                details=[str(self.folder)],
                hint=(Remedy("start"), " starts it with the lab"),
            )
        return pid

    def stop(self) -> bool:
        """End every process of it; the namespaces go with the last of them. Idempotent.

        Where it holds no lab any more its files go, too: a box's disk in it is a hard link, made
        again in no time. What libvirt found out about QEMU stays in `cache/`.

        Returns:
            Whether it is down: False when another klab is in it.
        """
        with locks.locked(self._lock_file("start"), WHAT):
            if not visitors.alone(self._lock_file("users"), inside=self.inside):
                return False
            state = self._state()
            if state is not None:
                self._end_members(state)
            for name in ("run",) if self.holds_labs else ("run", "lib", "etc", "log"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            for name in ("realm.json", "ready"):
                (self.folder / name).unlink(missing_ok=True)
        return True

    # --- namespaces -----------------------------------------------------------------------------

    def _make_namespaces(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder / "run", ignore_errors=True)
        binds = []
        for name, target in COVERED.items():
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            Path(target).mkdir(parents=True, exist_ok=True)
            binds.append(f'mount --bind "$1/{name}" {target}')
        binds += [f"mount -t tmpfs -o mode=0755 tmpfs {path}" for path in HIDDEN if Path(path).is_dir()]
        self.folder.chmod(0o700)
        for name, text in CONFIG.items():
            write_atomic(self.folder / "etc" / name, text)
        for part in ("images", "qemu", "boot"):
            (self.folder / "lib" / part).mkdir(exist_ok=True)
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        script = ANCHOR.format(binds="\n".join(binds), knocks=LINEAR_SYN_RETRIES)
        pid = process.spawn(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script, "klab-realm", self.folder],
            log=self.folder / "start.log",
        )
        poll(lambda: ready.exists() or namespaces.started(pid) is None, Deadline.after(START_SECONDS), every=0.05)
        spaces, began = Namespaces.of(pid), namespaces.started(pid)
        if not ready.exists() or spaces is None or began is None:
            raise HostError(
                "the private libvirt's namespaces cannot be made",
                details=self._log_tail(),
                hint="klab needs full root here: in a container, run it with --privileged",
            )
        state = _State(anchor=pid, started=began, net=spaces.net, mnt=spaces.mnt, boot=_boot_id())
        write_atomic(self.folder / "realm.json", json.dumps(asdict(state), indent=2) + "\n")

    def _state(self) -> _State | None:
        try:
            state = records.build(_State, records.parse((self.folder / "realm.json").read_text()), complete=True)
        except (OSError, ValueError):
            return None
        return state if state.boot == _boot_id() else None

    def _way_in(self) -> int | None:
        """A process in its namespaces: the anchor, else any that lives inside."""
        state = self._state()
        if state is None:
            return None
        spaces = Namespaces(state.net, state.mnt)
        if namespaces.started(state.anchor) == state.started and Namespaces.of(state.anchor) == spaces:
            return state.anchor
        return next(self._members(spaces), None)

    def _members(self, spaces: Namespaces) -> Iterator[int]:
        """The daemons and machines in the namespaces.

        The kernel gives the identity of a namespace away again once it is gone, to the next private libvirt for one:
        hence the look at what a process sees.
        """
        return (pid for pid in spaces.members() if _belongs(pid) and self._seen_by(pid))

    def _seen_by(self, pid: int | str) -> bool:
        """Whether a process sees these folders in place of the host's."""
        for name, target in COVERED.items():
            with contextlib.suppress(OSError):
                return (self.folder / name).samefile(f"/proc/{pid}/root{target}")
        return False

    # --- daemons --------------------------------------------------------------------------------

    def _start_daemons(self) -> None:
        def up() -> bool:
            # Checked each time: one that was just killed may still be dying at the first look.
            for name in ("virtlogd", "libvirtd"):
                if self._daemon(name) is None:
                    self._start_daemon(name)
            return self._answers()

        if poll(up, Deadline.after(START_SECONDS), every=0.1) is None:
            raise HostError(
                "the private libvirtd does not start", details=self._log_tail(), hint=f"its logs: {self.folder / 'log'}"
            )

    def _start_daemon(self, name: str) -> None:
        (self.folder / "run" / f"{name}.pid").unlink(missing_ok=True)
        process.run(
            [
                *("nsenter", "-t", str(self._way_in()), "-n", "-m", "--wd=/"),
                *(sys.executable, "-I", subreaper.__file__),
                *(process.find(name), "-d", "-p", f"/run/libvirt/{name}.pid", "-f", f"/etc/libvirt/{name}.conf"),
            ],
            timeout=START_SECONDS,
            log=self.folder / "start.log",
            hint=f"its log: {self.folder / 'log'}",
        )

    def _daemon(self, name: str) -> int | None:
        """The pid of one of its daemons while it lives."""
        try:
            pid = int((self.folder / "run" / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return None
        alive = namespaces.started(pid) is not None and namespaces.command(pid) == name
        return pid if alive and self._seen_by(pid) else None

    def _answers(self) -> bool:
        # Over a handle of the folder: the path of a socket may not be longer than 107 bytes (unix(7)).
        handle = os.open(self.folder / "run", os.O_PATH)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.connect(f"/proc/self/fd/{handle}/libvirt-sock")
        except OSError:
            return False
        finally:
            os.close(handle)
        return True

    def _end_members(self, state: _State) -> None:
        spaces = Namespaces(state.net, state.mnt)
        for sign in (signal.SIGTERM, signal.SIGKILL):
            members = list(self._members(spaces))
            if namespaces.started(state.anchor) == state.started:
                members.append(state.anchor)
            if not members:
                return
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
            poll(
                lambda: not any(namespaces.started(pid) is not None for pid in members),  # noqa: B023
                Deadline.after(STOP_SECONDS),
                every=0.1,
            )

    def _log_tail(self) -> list[str]:
        with contextlib.suppress(OSError):
            return (self.folder / "start.log").read_text(errors="replace").splitlines()[-process.TAIL_LINES :]
        return []

    def _lock_file(self, name: str) -> Path:
        make_private(self.home.root)
        return self.home.root / f".realm-{name}.lock"


def _belongs(pid: int) -> bool:
    """Whether a process in the namespaces is part of the private libvirt, not a visitor such as ssh or klab."""
    name = namespaces.command(pid)
    return name in DAEMONS or name.startswith(EMULATOR)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
