"""A box of 30 MB that boots in seconds, even under emulation: Debian's kernel, busybox, dropbear.

It reads what it needs (address, MAC, key) from the cloud-init seed's cdrom at its first boot
and keeps it in the last megabyte of its disk, so that it comes up again without the seed. The
power button shuts it down. It stands where a real box would: a folder NAME@DIGEST with
disk.qcow2 in it.
"""

from __future__ import annotations

import fcntl
import lzma
import re
import shutil
import subprocess
from pathlib import Path

PACKAGES = ("busybox-static", "dropbear-bin", "libtomcrypt1", "libtommath1")
MODULES = ("virtio_blk", "virtio_net", "virtio_rng", "ahci", "sr_mod", "isofs", "button", "evdev")
VERSION = 4

INIT = """#!/bin/sh
export PATH=/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /run /tmp /mnt
mount -t devpts devpts /dev/pts
while read module; do insmod /modules/$module; done < /modules/order
acpid -d -p /run/acpid.pid >/dev/null 2>&1 &
keep=$(( $(cat /sys/block/vda/size) / 2048 - 1 ))
for i in 1 2 3 4 5 6 7 8; do [ -b /dev/sr0 ] && break; sleep 0.5; done
if mount -t iso9660 -o ro /dev/sr0 /mnt 2>/dev/null; then
  tr -d '\\r' < /mnt/tiny | dd of=/dev/vda bs=1M seek=$keep conv=sync 2>/dev/null
  umount /mnt
  sync
fi
dd if=/dev/vda bs=1M skip=$keep count=1 2>/dev/null | tr -d '\\000' > /run/tiny
. /run/tiny
hostname "$NAME"
ip link set lo up
for nic in /sys/class/net/eth*; do
  name=${nic##*/}
  ip link set $name up
  case "$(cat $nic/address)" in
    $MAC) ip addr add $ADDRESS dev $name ;;
    *) udhcpc -i $name -b -t 20 -T 1 -s /bin/lease >/dev/null 2>&1 & ;;
  esac
done
mkdir -p /home/vagrant/.ssh
echo "$KEY" > /home/vagrant/.ssh/authorized_keys
chmod 700 /home/vagrant /home/vagrant/.ssh
chmod 600 /home/vagrant/.ssh/authorized_keys
dropbear -s -r /etc/hostkey
echo "tiny $NAME is up" > /dev/ttyS0
while :; do sleep 1000; done
"""
LEASE = """#!/bin/sh
[ "$1" = bound ] && ip addr add $ip/$mask dev $interface
exit 0
"""
SUDO = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
exec "$@"
"""
# Where busybox's acpid looks for what to do about its built-in event of the power button (util-linux/acpid.c).
BUTTON = "etc/acpi/PWRF/00000080"
POWER_OFF = """#!/bin/sh
sync
poweroff -f
"""
# linux16, as in lab/boxes/disk.py, which says why.
GRUB = """set timeout=0
serial --unit=0 --speed=115200
linux16 /vmlinuz console=ttyS0 net.ifnames=0 mitigations=off no_timer_check random.trust_cpu=on panic=-1
initrd16 /initrd
boot
"""


def seed(name: str, address: str, mac: str, key: str) -> dict[str, str]:
    """The files of a tiny node's seed. `address` with prefix length."""
    tiny = f"NAME='{name}'\nADDRESS={address}\nMAC={mac}\nKEY='{key.strip()}'\n"
    return {"tiny": tiny, "user-data": "#cloud-config\n", "meta-data": f"instance-id: {name}\n"}


def build(folder: Path) -> Path:
    """Build the box into `folder`, unless it is there; returns the path its .box file would have.

    Of processes that want it at the same time one builds it, and the others wait.
    """
    target = folder / f"tiny@{VERSION:012d}"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "disk.qcow2").is_file():
            work = folder / "work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            _build(work)
            target.mkdir(parents=True, exist_ok=True)
            (work / "disk.qcow2").replace(target / "disk.qcow2")
            shutil.rmtree(work)
    return target / "libvirt.box"


def _build(work: Path) -> None:
    packages, root, image = work / "packages", work / "root", work / "image"
    for path in (packages, root, image):
        path.mkdir()
    _run("apt-get", "download", "-q", *PACKAGES, _kernel_package(), cwd=work)
    for package in work.glob("*.deb"):
        _run("dpkg-deb", "-x", str(package), str(packages))
    for path in ("bin", "etc", "modules", "proc", "sys", "dev", "home"):
        (root / path).mkdir()
    (root / "sbin").symlink_to("bin")
    shutil.copy2(packages / "bin/busybox", root / "bin/busybox")
    for applet in subprocess.run([root / "bin/busybox", "--list"], capture_output=True, text=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    for name, text in (
        ("init", INIT),
        ("bin/lease", LEASE),
        ("bin/sudo", SUDO),
        (BUTTON, POWER_OFF),
        ("bin/bash", '#!/bin/sh\nexec sh "$@"\n'),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    (root / "bin/shutdown").write_text("#!/bin/sh\nsync\n(sleep 1; poweroff -f) >/dev/null 2>&1 &\n")
    (root / "bin/shutdown").chmod(0o755)
    (root / "etc/passwd").write_text("vagrant::0:0::/home/vagrant:/bin/sh\n")
    (root / "etc/shells").write_text("/bin/sh\n")
    _add_program(packages, root, "usr/sbin/dropbear")
    libraries = str(packages / "usr/lib/x86_64-linux-gnu")
    dropbearkey = ["dropbearkey", "-t", "ed25519", "-f", str(root / "etc/hostkey")]
    _run(*dropbearkey, env={"LD_LIBRARY_PATH": libraries, "PATH": str(packages / "usr/bin")})
    _add_modules(packages, root)
    with (image / "initrd").open("wb") as out:
        names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*"))).encode()
        subprocess.run(
            ["/usr/bin/bsdtar", "--format=newc", "-cnf", "-", "-T", "-"], cwd=root, input=names, stdout=out, check=True
        )
    shutil.copy(next((packages / "boot").glob("vmlinuz-*")), image / "vmlinuz")
    (image / "boot/grub").mkdir(parents=True)
    (image / "boot/grub/grub.cfg").write_text(GRUB)
    _run("grub-mkrescue", "-d", "/usr/lib/grub/i386-pc", "-o", str(work / "disk.raw"), str(image))
    _run("qemu-img", "convert", "-O", "qcow2", str(work / "disk.raw"), str(work / "disk.qcow2"))
    _run("qemu-img", "resize", str(work / "disk.qcow2"), "1G")


def _kernel_package() -> str:
    found = _run("apt-cache", "search", "--names-only", r"^linux-image-6\.12\..*-cloud-amd64-unsigned$")
    names = [line.split()[0] for line in found.splitlines()]
    return max(names, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def _add_program(packages: Path, root: Path, program: str) -> None:
    """A dynamically linked program and its libraries: from the packages, else from this host."""
    shutil.copy2(packages / program, root / "bin" / Path(program).name)
    libraries = packages / "usr/lib/x86_64-linux-gnu"
    listed = _run("ldd", str(packages / program), env={"LD_LIBRARY_PATH": str(libraries), "PATH": "/usr/bin:/bin"})
    for line in listed.splitlines():
        match = re.search(r"(?:=> )?(/\S+) \(", line)
        if match:
            source = Path(match[1])
            folder = root / ("lib64" if source.name.startswith("ld-") else "lib")
            folder.mkdir(exist_ok=True)
            shutil.copy2(source.resolve(), folder / source.name)


def _add_modules(packages: Path, root: Path) -> None:
    """Kernel modules with what they need, uncompressed, in the order to load them."""
    files = {
        re.sub(r"\.ko(\.xz)?$", "", file.name).replace("-", "_"): file for file in packages.glob("**/kernel/**/*.ko*")
    }
    order: list[str] = []

    def add(name: str) -> None:
        if name in order or name not in files:
            return
        data = files[name].read_bytes()
        data = lzma.decompress(data) if files[name].suffix == ".xz" else data
        # The section .modinfo holds key=value strings; `depends` names other modules.
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for other in depends[1].decode().split(",") if depends and depends[1] else ():
            add(other.replace("-", "_"))
        (root / "modules" / name).write_bytes(data)
        order.append(name)

    for name in MODULES:
        assert name in files, f"the kernel package has no module {name}"
        add(name)
    (root / "modules/order").write_text("\n".join(order) + "\n")


def _run(*words: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout
