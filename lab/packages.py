"""Which Debian package brings a program that klab starts. `tools/packages.txt` lists what `make install` installs."""

from __future__ import annotations

PACKAGES = {
    "vagrant": "vagrant vagrant-libvirt",
    "virsh": "libvirt-clients",
    "libvirtd": "libvirt-daemon-system",
    "virtlogd": "libvirt-daemon-system",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "xorriso": "xorriso",
    "dnsmasq": "dnsmasq-base",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "sfdisk": "fdisk",
    "grub-mkimage": "grub-common grub-pc-bin",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "ip": "iproute2",
    "gcc": "gcc libc6-dev",
    "go": "golang-go",
}
PLUGIN_HINT = "sudo apt-get install vagrant-libvirt; with HashiCorp's Vagrant: vagrant plugin install vagrant-libvirt"
# What does as well, where apt has no such package.
INSTEAD = {"vagrant": "; Ubuntu 24.04 has neither: docs/how-to/providers.md has the commands for HashiCorp's"}
# Programs that no Debian package brings, or none in a version that fits.
ELSEWHERE = {
    "VBoxManage": "VirtualBox comes from virtualbox.org/wiki/Linux_Downloads; Ubuntu has a package of it, Debian none",
    "kubectl": "klab box build brings one that fits; kubernetes.io/docs/tasks/tools has others",
}


def install_hint(program: str) -> str:
    """How a person installs `program`. A program that is not in the table has the name of its package."""
    by_apt = f"sudo apt-get install {PACKAGES.get(program, program)}{INSTEAD.get(program, '')}"
    return ELSEWHERE.get(program) or by_apt
