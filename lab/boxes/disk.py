"""One disk that boots anywhere: partition table, ext4 and boot loader, without loop device or VM.

GRUB's core image lies in the gap before the first partition and carries its whole
configuration, so that BIOSes of QEMU and VirtualBox, over virtio, SATA or IDE, all load
/vmlinuz and /initrd.img from the file system labelled "root".
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from lab import process
from lab.errors import BoxError, HostError

SECTOR = 512
# The usual 1 MiB gap: room for the core image, and partitions aligned for any disk.
FIRST_SECTOR = 2048
VIRTUAL_GIB = 8
LABEL = "root"
# no_timer_check: the kernel tests early whether the timer ticks against the TSC, and panics where it seems not
# to; an emulated guest on a busy host fails that now and then. panic: a node that panics comes back by itself.
# The last three harden a kernel against its users, which costs an emulated guest time; a lab's users are its
# masters. Source: kernel.org, "The kernel's command-line parameters".
COMMAND_LINE = (
    "root=LABEL=root rw console=tty0 console=ttyS0,115200n8 net.ifnames=0 mitigations=off no_timer_check panic=10 "
    "init_on_alloc=0 hardened_usercopy=off randomize_kstack_offset=off quiet"
)
# For programs that know cgroup v1 only; without the second word systemd would keep its own groups in v2 (hybrid).
# Source: systemd 252, systemd(1), "Kernel command line". systemd 258 no longer has v1.
CGROUP_V1 = "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1"
GRUB = Path("/usr/lib/grub/i386-pc")
# linux16: where GRUB's `linux` puts a kernel first is not where it is to run, and all the memory that it starts with
# (59 MB) is then moved byte by byte, which takes an emulated guest five seconds.
_MODULES = ["biosdisk", "part_msdos", "ext2", "search", "search_label", "linux16", "boot", "echo", "normal"]
# GRUB 2.06 cannot read file systems with these two features (Debian 13's mke2fs sets them).
_EXT4_WITHOUT = "^metadata_csum_seed,^orphan_file"
# Fixed, so that equal content makes an equal disk.
_FS_UUID = "6b6c6162-0000-4000-8000-000000000001"
_HASH_SEED = "6b6c6162-0000-4000-8000-000000000002"
_DISK_ID = "0x6b6c6162"
_CID = re.compile(rb"^CID=[0-9a-f]+$", re.MULTILINE)
_CONTENT_ID = b"6b6c6162"
# Where the header of a sparse VMDK says that its descriptor is, in sectors: offset and size.
_VMDK_DESCRIPTOR = struct.Struct("<28x2Q")


def write_raw(root: Path, target: Path, epoch: int, *, cgroup_v1: bool = False, log: Path) -> None:
    """Write a raw disk, sparse, of VIRTUAL_GIB, with the content of `root`.

    Args:
        root: the file system, as a folder.
        target: the file to write.
        epoch: the date of what is made here, in seconds since 1970.
        cgroup_v1: it boots with cgroup v1 instead of v2.
        log: file that all output is appended to.

    Raises:
        HostError: a program or GRUB's files are not installed.
        ProgramError: one of the programs failed, for example because the content does not fit.
    """
    size = VIRTUAL_GIB << 30
    with target.open("wb") as file:
        file.truncate(size)
    table = f"label: dos\nlabel-id: {_DISK_ID}\nstart={FIRST_SECTOR}, type=83, bootable\n"
    process.run(["sfdisk", "-q", target], timeout=60, stdin=table, log=log)
    _write_file_system(root, target, size, epoch, log)
    _write_boot_loader(target, boot_configuration(cgroup_v1=cgroup_v1), log)


def boot_configuration(*, cgroup_v1: bool) -> str:
    """What GRUB does, as its core image has it; the argument as in `write_raw`."""
    command_line = f"{COMMAND_LINE} {CGROUP_V1}" if cgroup_v1 else COMMAND_LINE
    return f"""search.fs_label {LABEL} root
linux16 ($root)/vmlinuz {command_line}
initrd16 ($root)/initrd.img
boot
"""


def write_qcow2(raw: Path, target: Path, *, log: Path) -> None:
    """Convert a raw disk to qcow2, uncompressed: nodes read it all day long."""
    process.run(["qemu-img", "convert", "-O", "qcow2", raw, target], timeout=1800, log=log)


def write_vmdk(disk: Path, target: Path) -> None:
    """Convert a disk to a VMDK of the kind that VirtualBox imports (streamOptimized, compressed)."""
    process.run(["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", disk, target], timeout=3600)
    _fix_content_id(target)


def _write_file_system(root: Path, target: Path, size: int, epoch: int, log: Path) -> None:
    argv = [*_own_mke2fs(root), "-q", "-F", "-t", "ext4", "-O", _EXT4_WITHOUT, "-L", LABEL, "-U", _FS_UUID]
    argv += ["-d", str(root), "-E", f"offset={FIRST_SECTOR * SECTOR},hash_seed={_HASH_SEED},root_owner=0:0"]
    argv += [str(target), f"{size // 1024 - FIRST_SECTOR * SECTOR // 1024}k"]
    dates = {"SOURCE_DATE_EPOCH": str(epoch), "E2FSPROGS_FAKE_TIME": str(epoch)}
    config = {"MKE2FS_CONFIG": str(root / "etc/mke2fs.conf")}
    process.run(argv, timeout=1800, env={**dates, **config}, log=log)


def _own_mke2fs(root: Path) -> list[str]:
    """The box's own mke2fs, run through the box's own loader.

    Older ones copy each file's change time into the disk, which no build can repeat, and
    every host would have another version.
    """
    loader = root / "lib64/ld-linux-x86-64.so.2"
    libraries = ":".join(str(root / place) for place in ("usr/lib/x86_64-linux-gnu", "usr/lib"))
    return [str(loader), "--library-path", libraries, str(root / "usr/sbin/mke2fs")]


def _write_boot_loader(target: Path, configuration: str, log: Path) -> None:
    if not (GRUB / "boot.img").is_file():
        raise HostError("GRUB's files for BIOS machines are not installed", hint="sudo apt-get install grub-pc-bin")
    early = target.with_suffix(".grub.cfg")
    core = target.with_suffix(".grub.img")
    try:
        early.write_text(configuration)
        process.run(
            ["grub-mkimage", "-O", "i386-pc", "-o", core, "-c", early, "-p", "/boot/grub", *_MODULES],
            timeout=60,
            log=log,
        )
        image = core.read_bytes()
        if len(image) > (FIRST_SECTOR - 1) * SECTOR:
            raise BoxError("the boot loader does not fit before the first partition")
        with target.open("r+b") as disk:
            # The first 440 bytes are code; the partition table behind them stays.
            disk.write((GRUB / "boot.img").read_bytes()[:440])
            disk.seek(SECTOR)
            disk.write(image)
    finally:
        early.unlink(missing_ok=True)
        core.unlink(missing_ok=True)


def _fix_content_id(vmdk: Path) -> None:
    # qemu-img writes a random content id into the descriptor, without leading zeros: what follows it moves by as much.
    with vmdk.open("r+b") as file:
        header = file.read(_VMDK_DESCRIPTOR.size).ljust(_VMDK_DESCRIPTOR.size, b"\0")
        offset, size = (sectors * SECTOR for sectors in _VMDK_DESCRIPTOR.unpack(header))
        file.seek(offset)
        descriptor, count = _CID.subn(b"CID=" + _CONTENT_ID, file.read(size).rstrip(b"\0"))
        if count != 1:
            raise BoxError(f"{vmdk.name} has no content id; is it a VMDK?")
        file.seek(offset)
        file.write(descriptor.ljust(size, b"\0"))


def clamp_dates(root: Path, epoch: int) -> None:
    """Set every date under `root` that is newer than `epoch` to it; folders after their content."""
    for path in _bottom_up(root):
        if os.lstat(path).st_mtime > epoch:
            os.utime(path, (epoch, epoch), follow_symlinks=False)


def _bottom_up(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root, topdown=False):
        # Links to folders stand among the folders, but are not walked into.
        for name in (*files, *(name for name in folders if os.path.islink(os.path.join(folder, name)))):  # noqa: PTH114, PTH118
            yield os.path.join(folder, name)  # noqa: PTH118 - tens of thousands of them
        yield folder
