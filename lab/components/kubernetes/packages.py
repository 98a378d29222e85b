"""Kubernetes' programs as Debian packages, in a folder of the node that apt reads: scripts for root's shell.

A node has those of its box from the first boot, and an upgrade adds those of its version. They are called as those of
pkgs.k8s.io, so that a lesson's own commands work without a network: apt-get install kubeadm=1.35.4-1.1, apt-cache
madison, apt-mark hold. They depend on nothing: a box has all that upstream's need, some of it in no package.

Sources: deb-control(5), deb-postinst(5), deb-prerm(5), dpkg-deb(1), sources.list(5); wiki.debian.org,
DebianRepository/Format, "Packages Indices"; kubernetes/release, cmd/krel/templates/latest (whose the units are).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

FOLDER = "/var/lib/klab/packages"
SOURCE_LIST = "/etc/apt/sources.list.d/klab-kubernetes.list"
PROGRAMS_FOLDER = "/usr/bin"
# For an emulated node, which has room, and would compress for minutes.
PLAIN = "-Znone"
# For a box: xz would save another eighth, for ten times the time. One thread, since several write other bytes.
COMPRESSED = "--threads-max=1 -Zzstd -z9"
_REVISION = "1.1"
_UNITS = "/usr/lib/systemd/system"
_BUILDING = f"{FOLDER}/.new"
# Ends each file in a script; no file of a package has such a line.
_END = "KLAB_END_OF_FILE"


class Package(NamedTuple):
    """name: the package's; program: what it has in /usr/bin; about: what that is, for people.

    units: what it has beside that, which is the same in every version: a box has it, and a node keeps it.
    service: the unit that runs the program.
    """

    name: str
    program: str
    about: str
    units: tuple[str, ...] = ()
    service: str = ""


# Those of which every version of Kubernetes has its own.
KUBERNETES = (
    Package("kubeadm", "kubeadm", "makes a Kubernetes cluster", (f"{_UNITS}/kubelet.service.d/10-kubeadm.conf",)),
    Package("kubelet", "kubelet", "Kubernetes' agent on each node", (f"{_UNITS}/kubelet.service",), "kubelet"),
    Package("kubectl", "kubectl", "Kubernetes' command line"),
)
PACKAGES = (*KUBERNETES, Package("cri-tools", "crictl", "command line of the CRI"))

_CONTROL = """\
Package: {name}
Version: {version}
Architecture: amd64
Section: admin
Priority: optional
Maintainer: klab
Description: {about}
"""

_PACK = f"""\
rm -rf {_BUILDING}
mkdir -p {_BUILDING}/DEBIAN {_BUILDING}{PROGRAMS_FOLDER}
ln {{programs}}/{{program}} {_BUILDING}{PROGRAMS_FOLDER}/
{{files}}dpkg-deb --root-owner-group {{compression}} --build \\
    {_BUILDING} {FOLDER}/{{name}}_{{version}}_amd64.deb > /dev/null
rm -rf {_BUILDING}
"""
_UNIT = f"[ ! -e {{unit}} ] || install -D -m 644 {{unit}} {_BUILDING}{{unit}}\n"
_FILE = f"cat > {_BUILDING}/DEBIAN/{{name}} <<'{_END}'\n{{text}}{_END}\nchmod {{mode}} {_BUILDING}/DEBIAN/{{name}}\n"

# apt asks a folder for no more than this, when it is told to trust it.
_INDEX = f"""\
cd {FOLDER}
for file in *.deb; do
    dpkg-deb -f "$file"
    printf 'Filename: ./%s\\nSize: %s\\nSHA256: %s\\n\\n' \\
        "$file" "$(stat -c %s "$file")" "$(sha256sum "$file" | cut -d ' ' -f 1)"
done > .Packages
mv .Packages Packages
cd /
echo "deb [trusted=yes lang=none] file:{FOLDER} ./" > {SOURCE_LIST}
apt-get update -qq -o Dir::Etc::SourceList={SOURCE_LIST} -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=0
"""

_INSTALL = f"dpkg --force-unsafe-io --install {FOLDER}/*.deb\n"
_FORGET = "rm -rf /var/lib/apt/lists/lock /var/lib/apt/lists/partial\n"

# Where systemd does not run, a box is being built.
_SCRIPT = """\
#!/bin/sh
set -e
if [ "$1" = {when} ] && [ -d /run/systemd/system ]; then
{body}fi
"""
_RELOAD = "    systemctl daemon-reload\n"
_STOP = "    systemctl stop {service}\n"
# An upgrade leaves the service to the lesson, which restarts it. Where the package was gone, the service was stopped.
_START = """\
    if [ -z "$2" ] && systemctl --quiet is-enabled {service}; then systemctl start --no-block {service}; fi
"""


def package_version(version: str) -> str:
    """The version of a program's Debian package: 1.35.4-1.1."""
    return f"{version}-{_REVISION}"


def render_add(versions: Mapping[Package, str], programs: str, compression: str) -> str:
    """Adds packages to those that a node has, and lets apt know all of them. Idempotent; for `set -e`.

    Args:
        versions: the version of each package's program: 1.35.4.
        programs: the folder with the programs, executable, on the file system of FOLDER.
        compression: PLAIN or COMPRESSED.
    """
    packs = [_pack(package, package_version(version), programs, compression) for package, version in versions.items()]
    return "".join(["umask 022\n", f"mkdir -p {FOLDER}\n", *packs, _INDEX])


def render_install(versions: Mapping[Package, str]) -> str:
    """Makes packages of the programs that a box has, and installs them; apt then knows them without a network.

    The environment's SOURCE_DATE_EPOCH is the newest date in the packages (dpkg-deb). Argument as of `render_add`.
    """
    body = render_add(versions, PROGRAMS_FOLDER, COMPRESSED) + _INSTALL + _FORGET
    # A function: what runs in it can read nothing of the script.
    return f"main() {{\nset -eu\n{body}}}\nmain\n"


def control(package: Package, version: str) -> str:
    """The control file of a package, whose version is that of `package_version`."""
    return _CONTROL.format(name=package.name, version=version, about=package.about)


def maintainer_scripts(package: Package) -> dict[str, str]:
    """What dpkg runs as it installs or removes a package, by the script's name: systemd is to know of its units."""
    if not package.units:
        return {}
    start = _START.format(service=package.service) if package.service else ""
    scripts = {
        "postinst": _SCRIPT.format(when="configure", body=_RELOAD + start),
        "postrm": _SCRIPT.format(when="remove", body=_RELOAD),
    }
    if package.service:
        scripts["prerm"] = _SCRIPT.format(when="remove", body=_STOP.format(service=package.service))
    return scripts


def _pack(package: Package, version: str, programs: str, compression: str) -> str:
    files = [_UNIT.format(unit=unit) for unit in package.units]
    files.append(_FILE.format(mode=644, name="control", text=control(package, version)))
    files += [_FILE.format(mode=755, name=name, text=text) for name, text in maintainer_scripts(package).items()]
    return _PACK.format(
        programs=programs,
        program=package.program,
        files="".join(files),
        compression=compression,
        name=package.name,
        version=version,
    )
