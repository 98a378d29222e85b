"""What stands for the guests of `support.vboxmanage`: for each machine that runs, a real sshd.

The machine's first boot reads the seed in its drive, as cloud-init would: whose key may log in, and which address
belongs to the network adapter with which MAC address. A machine without a seed, or whose adapters the seed does not
know, does not answer. Behind the login is no shell: a table of answers, and nothing reaches the host.

The stand-in for VBoxManage runs it as a program: FOLDER SSHD MACHINE, the last as JSON. It must run as root in network
and mount namespaces that were made for it, see NAMESPACES.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# $1 is a folder of the namespaces' own. What is changed here, accounts and the network, is changed in them alone;
# nothing is seen of the kernel's modules, KVM's among them.
NAMESPACES = """
set -e
ip link set lo up
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /sys/module
for program in /usr/sbin/libvirtd /usr/sbin/virtqemud; do
    [ ! -e "$program" ] || mount --bind /dev/null "$program"
done
mkdir -m 0755 /run/sshd
cp /etc/passwd "$1/passwd"
grep -q '^sshd:' "$1/passwd" || echo 'sshd:x:64999:65534::/run/sshd:/usr/sbin/nologin' >> "$1/passwd"
echo 'vagrant:x:0:0::/nonexistent:/bin/sh' >> "$1/passwd"
mount --bind "$1/passwd" /etc/passwd
touch "$1/ready"
exec sleep infinity
"""
CONFIG = """
{listen}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
UseDNS no
StrictModes no
PidFile none
ForceCommand {command}
"""
_KEY = re.compile(rb"ssh_authorized_keys:\n\s*- (ssh-ed25519 [A-Za-z0-9+/=]+)")
_ADAPTER = re.compile(rb'macaddress: "([0-9a-f:]{17})"\n((?:    .*\n)*)')
_ADDRESS = re.compile(rb'- "([0-9.]+)/\d+"')
_SCRIPT = re.compile(
    r"export TERM=\"?vt100\"?\nprintf '(?P<marker>[^']*)'\n\(>&2 printf '[^']*'\)\n(?P<command>[^\n]*)\nexit\n"
)
BOOT = ("cloud-init begin", "boot done", "clean begin", "clean done")


def boot(folder: Path, sshd: str, machine: dict[str, Any]) -> None:
    """Become the sshd of a machine."""
    disk = folder / machine["uuid"]
    if not (disk / "addresses").exists():
        _first_boot(disk, machine)
    addresses = json.loads((disk / "addresses").read_text())
    listen = [f"ListenAddress {address}" for address in addresses]
    for address in addresses:
        subprocess.run(["ip", "addr", "replace", f"{address}/32", "dev", "lo"], check=True)
    for rule in machine["nics"]["1"]["forwards"].values():
        _, host, port, _, guest_port = rule.split(",")
        if guest_port == "22":
            listen.append(f"ListenAddress {host or '127.0.0.1'}:{port}")
    command = f"{sys.executable} -I {__file__} {disk}"
    (disk / "sshd_config").write_text(CONFIG.format(listen="\n".join(listen), folder=disk, command=command))
    os.execv(sshd, [sshd, "-D", "-E", str(disk / "sshd.log"), "-f", str(disk / "sshd_config")])  # noqa: S606


def _first_boot(disk: Path, machine: dict[str, Any]) -> None:
    """Read the seed; without one the machine has no way in, and waits for ever."""
    drive = machine["slots"].get("1")
    seed = Path(drive["medium"]).read_bytes() if drive and drive["medium"] else b""
    own = {nic["mac"] for nic in machine["nics"].values() if nic["type"] == "hostonly"}
    addresses = [
        address.decode()
        for mac, settings in _ADAPTER.findall(seed)
        if mac.decode().replace(":", "").upper() in own
        for address in _ADDRESS.findall(settings)
    ]
    key = _KEY.search(seed)
    if not addresses or key is None:
        time.sleep(3600)
    disk.mkdir(parents=True)
    (disk / "authorized_keys").write_bytes(key[1] + b"\n" if key else b"")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(disk / "host_key")], check=True)
    if machine["uart"]:
        Path(machine["uart"]).write_text("".join(f"klab: {mark}\n" for mark in BOOT))
    (disk / "addresses").write_text(json.dumps(addresses))


def answer(disk: Path, command: str) -> int:
    """Answer a command on a node; its exit code."""
    if command in {"bash -l", "sudo -E -H bash -l"}:
        return _shell(disk, sys.stdin.read())
    with (disk / "commands").open("a") as commands:
        commands.write(json.dumps(command) + "\n")
    skew = disk / "skew"
    behind = float(skew.read_text()) if skew.exists() else 0.0
    match command.split():
        case [] | ["true"] | ["test", *_] | ["sync"]:
            return 0
        case ["sed", "-i", what, "/etc/fstab"] if "VAGRANT-BEGIN" in what:
            return 0
        case ["date", "+%s"]:
            sys.stdout.write(f"{int(time.time() + behind)}\n")
            return 0
        case ["sudo", "date", "-s", stamp] if stamp.startswith("@"):
            skew.write_text(str(int(stamp[1:]) - time.time()))
            return 0
    sys.stderr.write(f"not in the stand-in: {command}\n")
    return 127


def _shell(disk: Path, script: str) -> int:
    """A login shell with a script as Vagrant sends it (plugins/communicators/ssh/communicator.rb, shell_execute)."""
    match = _SCRIPT.fullmatch(script)
    if match is None:
        return answer(disk, script)
    for stream in (sys.stdout, sys.stderr):
        stream.write(match["marker"])
    return answer(disk, match["command"])


if __name__ == "__main__":
    match sys.argv[1:]:
        case [folder, sshd, machine]:
            boot(Path(folder), sshd, json.loads(machine))
        case [disk]:
            sys.exit(answer(Path(disk), os.environ.get("SSH_ORIGINAL_COMMAND", "")))
