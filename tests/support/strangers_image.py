"""A cloud image as distributions make them: Debian's packages alone, nothing of klab's, no agent, other NIC names.

It stands for the images that nobody can download where klab is tested. What Debian's own has is in it as well:
cloud-init, netplan, systemd-timesyncd, an initramfs with every driver, a login on the serial console.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from pathlib import Path

import pytest

from lab import process
from lab.boxes import debian, disk
from lab.boxes.chroot import run_in

SUITE = "bookworm"
GIB = 3
PACKAGES = (
    *("linux-image-amd64", "initramfs-tools", "systemd-sysv", "udev", "dbus", "kmod", "e2fsprogs", "login", "sudo"),
    *("cloud-init", "cloud-guest-utils", "fdisk", "netplan.io", "iproute2", "openssh-server", "systemd-timesyncd"),
)
# klab's own, which spares emulated machines minutes, but for what it has for klab alone: eth0 and a writable root.
COMMAND_LINE = disk.COMMAND_LINE.replace(" net.ifnames=0", "").replace(" rw ", " ro ")
# What image builders do last: each machine is to make its own keys and identity.
FINISH = """
set -eu
rm -f /etc/ssh/ssh_host_* /etc/hostname
: > /etc/machine-id
echo 'LABEL=root / ext4 rw,discard,errors=remount-ro 0 1' > /etc/fstab
echo 'locale: false' > /etc/cloud/cloud.cfg.d/90-locale.cfg
"""
EPOCH = 1767225600


def build(folder: Path) -> Path:
    """The image, built into `folder` unless it is there: some two minutes. Needs root."""
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    image = folder / f"strangers-{key}.qcow2"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.is_file():
            work = folder / "work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            _build(work).replace(image)
            shutil.rmtree(work)
    return image


def _build(work: Path) -> Path:
    root, log, raw, image = work / "root", work / "log", work / "disk.raw", work / "disk.qcow2"
    debian.make_root(work / "root.tar", SUITE, PACKAGES, EPOCH, log=log)
    root.mkdir()
    process.run(["tar", "-x", "--numeric-owner", "--xattrs", "-f", work / "root.tar", "-C", root], timeout=600)
    run_in(root, FINISH, timeout=60, log=log)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "COMMAND_LINE", COMMAND_LINE)
        patch.setattr(disk, "VIRTUAL_GIB", GIB)
        disk.write_raw(root, raw, EPOCH, log=log)
    pack = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", raw, image]
    process.run(pack, timeout=1800)
    return image
