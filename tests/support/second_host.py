"""Another machine that ssh reaches: network and mount namespaces with an sshd and a KLAB_HOME of their own.

The sshd comes from Debian's package, unpacked and not installed. Nothing of it shows on this machine.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.host import namespaces
from lab.host.remote import SshHost

PORT = 2222
START_SECONDS = 30.0
# $1 is the folder, $2 the sshd. The account that sshd gives up its rights to may not exist here.
SCRIPT = """
set -e
ip link set lo up
mkdir -p /run
mount -t tmpfs tmpfs /run
mkdir -m 0755 /run/sshd
cp /etc/passwd "$1/passwd"
grep -q '^sshd:' "$1/passwd" || echo 'sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin' >> "$1/passwd"
mount --bind "$1/passwd" /etc/passwd
exec "$2" -D -e -f "$1/sshd_config"
"""
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile {folder}/sshd.pid
SetEnv KLAB_HOME={home}
"""


@dataclass(frozen=True)
class SecondHost:
    """The machine, and how a thread that is in its network reaches it."""

    folder: Path
    pid: int

    @property
    def home(self) -> Path:
        return self.folder / "klab-home"

    def host(self, *, klab: str = "klab", shared: bool = True) -> SshHost:
        """As klab sees it, from inside `entered`."""
        options = {
            "Port": str(PORT),
            "IdentityFile": str(self.folder / "key"),
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.folder / "known_hosts"),
        }
        return SshHost("root@127.0.0.1", klab=klab, options=options, sockets=self.folder if shared else None)

    def entered(self) -> contextlib.AbstractContextManager[None]:
        return namespaces.entered(self.pid)


def sshd(cache: Path) -> Path:
    """The program, from the package openssh-server; downloaded once."""
    program = cache / "root" / "usr" / "sbin" / "sshd"
    if not program.exists():
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir(parents=True)
        subprocess.run(["apt-get", "download", "-q", "openssh-server"], cwd=cache, check=True, capture_output=True)
        (package,) = cache.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", package, cache / "root"], check=True)
    return program


@contextlib.contextmanager
def second_host(folder: Path, program: Path) -> Iterator[SecondHost]:
    """Start one whose files are in `folder`; it ends with the context."""
    for name in ("key", "host_key"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True)
    public = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{PORT} {public}")
    (folder / "sshd_config").write_text(CONFIG.format(port=PORT, folder=folder, home=folder / "klab-home"))
    words = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh", folder, program]
    with (folder / "sshd.log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as child:
        try:
            _wait_for(folder / "sshd.pid", child)
            yield SecondHost(folder, child.pid)
        finally:
            child.terminate()
            with contextlib.suppress(FileNotFoundError):
                subprocess.run(["pkill", "-f", str(folder)], check=False)


def _wait_for(file: Path, child: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while not file.exists():
        assert child.poll() is None, file.with_name("sshd.log").read_text()
        assert time.monotonic() < end, file.with_name("sshd.log").read_text()
        time.sleep(0.05)
