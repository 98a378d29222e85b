"""A workstation with KVM and AppArmor: a whole machine, emulated, whose processor has hardware virtualization.

QEMU emulates AMD's SVM with nested paging, so that the Linux inside loads kvm_amd and its /dev/kvm really runs guests.
Its disk is the root of the workstation in namespaces (support/workstation.py) with a kernel of Debian's. All of it
lives on one slower clock (docs/decisions/0202), so that nothing inside sees how slow it is.

An emulated processor that runs guests of its own is at the edge of what QEMU does: where the machine's own kernel
panics or hangs, `MachineDied` says so, and nothing is learned about klab.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.host.emulation.slow_clock import ensure_library
from lab.render.emulation import SlowClock
from lab.store import Home
from support import workstation
from support.real_lab import say
from support.workstation import INSTALL_SECONDS, MASKED, USER, Machine, Workstation

# What makes the root in namespaces a machine that boots.
PACKAGES = ("linux-image-amd64", "initramfs-tools", "zstd", "apparmor", "apparmor-utils")
SETUP = f"""
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -q -y --no-install-recommends {" ".join(PACKAGES)}
apt-get clean
rm -rf /var/lib/apt/lists/*
systemctl enable systemd-networkd ssh
printf '[Match]\\nName=eth*\\n[Network]\\nDHCP=yes\\n' > /etc/systemd/network/10-dhcp.network
"""
# Another QEMU than the installed one may emulate SVM better.
QEMU = os.environ.get("KLAB_TEST_QEMU", "qemu-system-x86_64")
DISK = "24G"
# What has lasted: one processor, no 5-level paging, no pku; see docs/decisions/0502.
CPU = os.environ.get("KLAB_TEST_CPU", "EPYC-Rome")
ACCELERATOR = os.environ.get("KLAB_TEST_ACCEL", "tcg,thread=multi,tb-size=1024")
CPUS = os.environ.get("KLAB_TEST_CPUS", "1")
MEMORY = "12G"
RATE = float(os.environ.get("KLAB_TEST_RATE", "0.2"))
APPEND = (
    "root=LABEL=root rw console=ttyS0 net.ifnames=0 mitigations=off tsc=reliable clocksource=tsc panic=5 "
    "apparmor=1 security=apparmor " + os.environ.get("KLAB_TEST_APPEND", "")
)
BOOT_SECONDS = 1800
PANIC = re.compile(r"Kernel panic|Oops:|BUG: |soft lockup|rcu_preempt detected stalls")
LOST = 255  # ssh(1): an error of ssh's own


class MachineDied(AssertionError):
    """The emulated machine itself panicked or hangs; klab has not been found at fault."""


@dataclass
class KvmWorkstation(Machine):
    """One that runs: its QEMU, the folder with its disk and console, and where its ssh answers."""

    folder: Path
    _qemu: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _port: int = 0

    @property
    def console(self) -> str:
        """What its kernel and systemd have printed."""
        file = self.folder / "console.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start(self) -> None:
        """Boot it, and wait until systemd has started everything."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        clock = SlowClock(str(ensure_library(Home.default())), repr(time.time()), repr(RATE))
        words = [QEMU, "-machine", "q35", "-accel", ACCELERATOR, "-cpu", CPU]
        words += ["-smp", CPUS, "-m", MEMORY]
        words += ["-kernel", self.folder / "vmlinuz", "-initrd", self.folder / "initrd", "-append", APPEND]
        words += ["-drive", f"file={self.folder / 'disk.raw'},format=raw,if=virtio,cache=unsafe,discard=unmap"]
        words += ["-netdev", f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{self._port}-:22"]
        words += ["-device", "virtio-net-pci,netdev=n", "-device", "virtio-rng-pci", "-display", "none", "-no-reboot"]
        words += ["-serial", f"file:{self.folder / 'console.log'}"]
        with (self.folder / "qemu.log").open("ab") as log:
            self._qemu = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | clock.environment
            )
        end = time.monotonic() + BOOT_SECONDS
        state = ""
        while state not in {"running", "degraded"}:
            self.check_alive()
            if time.monotonic() > end:
                raise MachineDied(f"not up within {BOOT_SECONDS} s ({state}): {self.console[-2000:]}")
            time.sleep(2)
            state = self._ask("systemctl", "is-system-running")
        failed = self._ask("systemctl", "--failed", "--plain", "--no-legend")
        assert state == "running", f"{state}: {failed}"

    def stop(self) -> None:
        """Cut its power."""
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
            self._qemu = None

    def check_alive(self) -> None:
        """Raise `MachineDied` if its kernel has said its last words."""
        assert self._qemu is not None
        found = PANIC.search(self.console)
        if found or self._qemu.poll() is not None:
            place = max(0, found.start() - 500) if found else -2000
            raise MachineDied(f"{self.console[place:][:3000]}\n{(self.folder / 'qemu.log').read_text()}")

    def follow(self, command: str, *, seconds: float, user: str = USER) -> int:
        code = super().follow(command, seconds=seconds, user=user)
        self.check_alive()
        return code

    def _ask(self, *words: str) -> str:
        """What a program prints; empty where ssh does not answer yet."""
        done = subprocess.run(self._argv(*words), capture_output=True, text=True, timeout=300, check=False)
        return "" if done.returncode == LOST else done.stdout.strip()

    def _enter(
        self, *words: str, check: bool = True, seconds: float = 900, stdin: str | bytes = ""
    ) -> subprocess.CompletedProcess[str]:
        try:
            done = super()._enter(*words, check=False, seconds=seconds, stdin=stdin)
        except subprocess.TimeoutExpired:
            self.check_alive()
            raise
        if done.returncode == LOST:
            self.check_alive()
            raise MachineDied(f"its ssh does not answer any more: {done.stderr}\n{self.console[-2000:]}")
        if check:
            assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def _argv(self, *words: str) -> list[str]:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=60")
        alive = ("ServerAliveInterval=60", "ServerAliveCountMax=10", "BatchMode=yes")
        start = ["ssh", "-i", str(self.folder / "key"), "-p", str(self._port)]
        start += [word for option in (*options, *alive) for word in ("-o", option)]
        return [*start, "root@127.0.0.1", shlex.join(words)]


@contextlib.contextmanager
def kvm_workstation(folder: Path) -> Iterator[KvmWorkstation]:
    """One that runs, on which the user has run `make install` and has klab's boxes; gone without a trace afterwards.

    Args:
        folder: for its disk (some 10 GiB).
    """
    machine = KvmWorkstation(folder)
    try:
        _make_disk(folder)
        say(f"workstation with KVM: boots (rate {RATE}, {CPU}, {ACCELERATOR}, {CPUS} CPUs)")
        machine.start()
        yield machine
    finally:
        machine.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _make_disk(folder: Path) -> None:
    layers = bootable()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
    made = Workstation(layers, folder / "last")
    try:
        made.start()
        made.put_clone()
        made.put_boxes()
        script = "mkdir -p -m 700 /root/.ssh; cat > /root/.ssh/authorized_keys"
        made.run(script, user="root", stdin=(folder / "key.pub").read_text())
        # From its next boot on it has a kernel of its own.
        made.run(f"systemctl unmask {' '.join(MASKED)}", user="root")
    finally:
        made.stop()
    say("workstation with KVM: making its disk")
    script = """
        mkdir "$1/merged"; mount -t overlay overlay -o "ro,lowerdir=$2" "$1/merged"
        cp "$1/merged"/boot/vmlinuz-* "$1/vmlinuz"; cp "$1/merged"/boot/initrd.img-* "$1/initrd"
        mke2fs -q -t ext4 -L root -d "$1/merged" "$1/disk.raw" "$3"
    """
    lower = ":".join(str(layer) for layer in (made.upper, *layers))
    subprocess.run(["unshare", "--mount", "sh", "-euc", script, "sh", folder, lower, DISK], check=True, timeout=1800)
    shutil.rmtree(folder / "last")


def bootable() -> Sequence[Path]:
    """The root of a Debian 13 on which the user has run `make install`, with a kernel, as layers; made once."""
    below = workstation.installed("trixie")

    def make(made: Workstation) -> None:
        say("workstation with KVM: installing a kernel")
        with made.online():
            made.run(SETUP, user="root", seconds=INSTALL_SECONDS)

    return workstation.layer("bootable", below, (SETUP,), make)
