"""A workstation as klab's users have it: Debian with systemd, the system's libvirtd, and an ordinary user with sudo.

systemd is PID 1 in namespaces of its own: mounts, processes, users' sessions, network. Its files are an overlay over a
root that mmdebstrap made, so a workstation starts in seconds and is thrown away without a trace; nothing of it shows on
the machine. It lacks what belongs to a kernel: AppArmor, kernel modules, a clock of its own.

Roots are kept in the person's cache folder, for as long as the packages and requirements in this repository stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab import locks
from lab.boxes.debian import sources
from lab.components.kubernetes import DEFAULT
from lab.store import Home
from support.real_lab import say

REPOSITORY = Path(__file__).parents[2]
# The releases of Debian that are tried, by codename.
SUITES = os.environ.get("KLAB_TEST_SUITES", "trixie").split()
USER = "teacher"
CLONE = f"/home/{USER}/klab"
PYTHON = f"{CLONE}/.venv/bin/python"
KLAB = f"{CLONE}/.venv/bin/klab"
BOXES = f"/home/{USER}/.local/share/klab/boxes"
NEEDED = ("mmdebstrap", "slirp4netns", "unshare", "nsenter", "setpriv")
# Beside what tools/setup installs: what a Debian with systemd has when it is new.
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "dbus-user-session", "libpam-systemd", "polkitd", "udev", "sudo", "kmod"),
    *("ca-certificates", "iproute2", "iputils-ping", "procps", "git", "make", "python3", "less"),
    *("openssh-client", "openssh-server", "netbase", "ufw"),
)
# They act on devices and on the kernel, which are the machine's.
MASKED = (
    *("systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket"),
    *("systemd-udev-trigger.service", "systemd-modules-load.service", "systemd-sysctl.service"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount"),
)
ACCOUNT = f"""
useradd --create-home --shell /bin/bash --groups sudo {USER}
chmod 700 /home/{USER}
echo '{USER} ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/{USER}
echo workstation > /etc/hostname
echo '127.0.1.1 workstation' >> /etc/hosts
: > /etc/machine-id
echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/quick
systemctl mask {" ".join(MASKED)}
"""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# How this machine's pip and programs reach their registries.
PASSED_ON = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
RESOLVER = "10.0.2.3"  # slirp4netns(1)
INSTALL_SECONDS = 3600
START_SECONDS = 300
STOP_SECONDS = 90


def registries() -> str:
    """What a shell command begins with so that programs reach their package registries as they do on this machine."""
    passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    return " ".join(["env", *(shlex.quote(f"{name}={value}") for name, value in passed.items())])


def why_not() -> str:
    """Why there can be no workstation here; empty when there can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    return f"needs {', '.join(missing)}" if missing else ""


class Machine(ABC):
    """A computer that klab's users may have, wherever it runs."""

    def run(
        self, command: str, *, user: str = USER, check: bool = True, seconds: float = 900, stdin: str | bytes = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command in a login session of a user, in the folder of klab's clone where there is one."""
        words = ("runuser", "--login", user, "--command", f"cd ~/klab 2>/dev/null; {command}")
        return self._enter(*words, check=check, seconds=seconds, stdin=stdin)

    def follow(self, command: str, *, seconds: float, user: str = USER) -> int:
        """As `run`, its output line by line as progress; returns the exit code."""
        words = ("runuser", "--login", user, "--command", f"cd {CLONE} && {command}")
        argv = self._argv("timeout", str(seconds), *words)
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if text := line.decode(errors="replace").rstrip():
                    say(f"workstation: {text[:200]}")
        return child.returncode

    def put(self, source: Path, names: Sequence[str], target: str, *, owner: str = USER) -> None:
        """Copy files of this machine, named from a folder, into a folder there."""
        listed = "\0".join(names)
        pack = ["tar", "-C", str(source), "--create", "--sparse", "--null", "--files-from", "-"]
        with subprocess.Popen(pack, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as packer:
            assert packer.stdin is not None
            packer.stdin.write(listed.encode())
            packer.stdin.close()
            script = f"mkdir -p {target} && tar -C {target} --extract --no-same-owner"
            subprocess.run(
                self._argv("runuser", "--login", owner, "--command", script), stdin=packer.stdout, check=True
            )
        assert packer.returncode == 0

    def put_clone(self, user: str = USER) -> None:
        """Copy what git has of this repository, as it is in the work tree, into a user's home."""
        words = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(words, check=True, capture_output=True, text=True).stdout.split("\0")
        self.put(
            REPOSITORY,
            [name for name in names if name and (REPOSITORY / name).exists()],
            f"/home/{user}/klab",
            owner=user,
        )

    def put_boxes(self, target: str = BOXES) -> list[str]:
        """Copy this computer's boxes of the default Kubernetes into a store of the user's; returns their names."""
        boxes = Home.default().boxes
        names = [path.name for path in boxes.glob(f"*-k8s-{DEFAULT}@*")]
        assert names, "no box here: klab box build"
        self.put(boxes, names, target)
        return names

    def _enter(
        self, *words: str, check: bool = True, seconds: float = 900, stdin: str | bytes = ""
    ) -> subprocess.CompletedProcess[str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(self._argv(*words), input=data, capture_output=True, timeout=seconds, check=False)
        text = subprocess.CompletedProcess(
            words, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check:
            assert done.returncode == 0, f"{words}: {done.returncode}\n{text.stdout}\n{text.stderr}"
        return text

    @abstractmethod
    def _argv(self, *words: str) -> list[str]:
        """The command of this computer that runs a program as root on that one."""


@dataclass
class Workstation(Machine):
    """One that runs, or may: its root's layers, the uppermost first, and a folder for what it writes."""

    layers: Sequence[Path]
    folder: Path
    _anchor: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _pid: int = 0

    @property
    def upper(self) -> Path:
        """What it has written."""
        return self.folder / "upper"

    def start(self) -> None:
        """Boot it, and wait until systemd has started everything."""
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        spaces = ("--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net")
        script = Path(__file__).with_suffix(".sh")
        words = [
            "unshare",
            *spaces,
            "--fork",
            "--kill-child",
            "sh",
            script,
            ":".join(map(str, self.layers)),
            self.folder,
        ]
        with (self.folder / "boot.log").open("ab") as log:
            self._anchor = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        state = ""
        while state not in {"running", "degraded"}:
            assert self._anchor.poll() is None, (self.folder / "boot.log").read_text()
            assert time.monotonic() < end, f"systemd is {state}: {(self.folder / 'boot.log').read_text()}"
            time.sleep(0.3)
            children = Path(f"/proc/{self._anchor.pid}/task/{self._anchor.pid}/children").read_text().split()
            self._pid = int(children[0]) if children else 0
            if self._pid and Path(f"/proc/{self._pid}/comm").read_text() == "systemd\n":
                state = self._enter("systemctl", "is-system-running", check=False).stdout.strip()
        assert state == "running", self._enter("systemctl", "--failed", "--no-pager", check=False).stdout

    def stop(self) -> None:
        """Shut it down as a power button does; what it wrote stays."""
        if self._anchor is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGRTMIN + 4)  # systemd(1): starts poweroff.target
        try:
            self._anchor.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._anchor.kill()
            self._anchor.wait()
        self._anchor = None

    def install(self, *targets: str) -> None:
        """Let the user run `make` with the way to the package registries that this machine has."""
        with self.online():
            self._enter("apt-get", "update", "-q", seconds=INSTALL_SECONDS)
            code = self.follow(f"{registries()} make {' '.join(targets)}", seconds=INSTALL_SECONDS)
            assert code == 0, f"make {' '.join(targets)} ended with {code}; its words are above"

    @contextlib.contextmanager
    def online(self) -> Iterator[None]:
        """Give it a way to the networks that this machine reaches, by user-mode networking: nothing is routed."""
        words = ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", str(self._pid), "tap0"]
        with (self.folder / "slirp.log").open("ab") as log, subprocess.Popen(words, stdout=log, stderr=log) as network:
            try:
                end = time.monotonic() + START_SECONDS
                while "tap0" not in self._enter("ip", "-brief", "address", "show").stdout:
                    assert network.poll() is None, (self.folder / "slirp.log").read_text()
                    assert time.monotonic() < end, (self.folder / "slirp.log").read_text()
                    time.sleep(0.1)
                self._enter("sh", "-c", f"echo nameserver {RESOLVER} > /etc/resolv.conf")
                yield
            finally:
                network.terminate()

    def _argv(self, *words: str) -> list[str]:
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root")
        return ["nsenter", "--target", str(self._pid), *spaces, "--wd=/", *words]


@contextlib.contextmanager
def workstation(layers: Sequence[Path], folder: Path) -> Iterator[Workstation]:
    """One that runs; it and all it has written are gone afterwards."""
    found = Workstation(layers, folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)


def bare(suite: str) -> list[Path]:
    """The root of a new Debian with an ordinary user, as layers; made once."""
    key = _key(suite, *PACKAGES, ACCOUNT, *sources(suite))
    folder = _cache() / f"{suite}-{key}"
    with locks.locked(_cache() / f"{suite}.lock", f"a root of {suite}", patience=INSTALL_SECONDS):
        if not (folder / "done").exists():
            for old in _cache().glob(f"{suite}-*/"):
                shutil.rmtree(old)
            folder.mkdir(parents=True)
            say(f"workstation: making a root of Debian {suite}")
            words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite]
            subprocess.run([*words, folder / "root", *sources(suite)], check=True, timeout=INSTALL_SECONDS)
            subprocess.run(["chroot", folder / "root", "sh", "-euc", ACCOUNT], check=True, capture_output=True)
            if CERTIFICATES.exists():
                shutil.copy(CERTIFICATES, folder / "root" / CERTIFICATES.relative_to("/"))
            (folder / "done").touch()
    return [folder / "root"]


def installed(suite: str) -> list[Path]:
    """The root of a Debian on which the user has run `make install`, as layers; made once."""
    texts = [(REPOSITORY / name).read_text() for name in ("tools/packages.txt", "tools/setup", "requirements.lock")]

    def make(made: Workstation) -> None:
        made.put_clone()
        say(f"workstation: make install on Debian {suite}")
        made.install("install")
        made.run("apt-get clean; rm -rf /var/lib/apt/lists/*", user="root")

    return layer("installed", bare(suite), texts, make)


def layer(name: str, below: Sequence[Path], texts: Sequence[str], make: Callable[[Workstation], None]) -> list[Path]:
    """Layers with one more on top: what a workstation on those below has written while `make` was at work; made once.

    `texts` decide whether one that was made before still holds.
    """
    folder = below[0].parent / f"{name}-{_key(*texts)}"
    with locks.locked(folder.parent / f"{name}.lock", f"a root of {folder.parent.name}", patience=INSTALL_SECONDS):
        if not (folder / "done").exists():
            for old in folder.parent.glob(f"{name}-*/"):
                shutil.rmtree(old)
            made = Workstation(below, folder)
            try:
                made.start()
                make(made)
            finally:
                made.stop()
            (folder / "done").touch()
    return [folder / "upper", *below]


def _key(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "klab-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
