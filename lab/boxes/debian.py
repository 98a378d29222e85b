"""Debian file systems from packages, by mmdebstrap.

The mirror is the one that this machine's own apt takes Debian from: a class behind a mirror or a
proxy needs no further set-up. The system that is made asks Debian's public service, as Debian's own cloud images do:
its users may never see the builder's mirror.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from lab import process
from lab.errors import BoxError, HostError

MIRROR_VARIABLE = "KLAB_DEBIAN_MIRROR"
TIMEOUT = 3600.0
# What the Release files of Debian's archives say of themselves (deb822, DebianRepository/Format).
_ARCHIVE, _SECURITY = "Debian", "Debian-Security"
_TARGETS = "$(SITE)|$(ORIGIN)|$(LABEL)|$(RELEASE)"
_URL = re.compile(r"https?://[!-~]{1,200}")
# Format: sources.list(5), DEB822.
_SOURCES = """\
Types: deb
URIs: {primary}
Suites: {suite} {suite}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {security}
Suites: {suite}-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
# Translations, manuals and the like: a third of a small system's files.
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*")


def sources(suite: str) -> list[str]:
    """One-line apt sources for `suite`, from the mirrors that this machine's apt uses.

    KLAB_DEBIAN_MIRROR names a mirror on machines whose own apt has none with Debian.

    Raises:
        HostError: no mirror is configured.
    """
    if chosen := os.environ.get(MIRROR_VARIABLE):
        return [f"deb {chosen} {suite} main"]
    return choose_sources(suite, process.run(["apt-get", "indextargets", "--format", _TARGETS], timeout=60).stdout)


def choose_sources(suite: str, targets: str) -> list[str]:
    """The sources for `suite`, given apt's list of "SITE|ORIGIN|LABEL|RELEASE" lines.

    Whatever release the machine itself runs: each mirror of Debian has them all. Ubuntu's mirrors have none of them.

    Raises:
        HostError: the list has no mirror of Debian.
    """
    found: dict[str, dict[str, str]] = {_ARCHIVE: {}, _SECURITY: {}}
    for line in targets.splitlines():
        site, *about = line.strip().rsplit("|", 3)
        if len(about) == 3 and about[0] == _ARCHIVE and about[1] in found and not site.startswith("cdrom:"):
            found[about[1]].setdefault(about[2], site)
    archives, securities = found[_ARCHIVE], found[_SECURITY]
    if not archives:
        raise HostError(
            "this machine's apt has no Debian mirror to take the box's packages from",
            hint=f"export {MIRROR_VARIABLE}=URL with the address of a Debian mirror",
        )
    archive = archives.get(suite) or next(iter(archives.values()))
    sources = [f"deb {archive} {suite} main", f"deb {archive} {suite}-updates main"]
    if securities:
        security = securities.get(f"{suite}-security") or next(iter(securities.values()))
        sources.append(f"deb {security} {suite}-security main")
    return sources


def set_public_sources(root: Path, suite: str) -> None:
    """Make the system in `root` take its packages from where Debian's own images do, with updates and security.

    Raises:
        BoxError: the system's cloud-init names no servers.
    """
    primary, security = public_servers((root / "etc/cloud/cloud.cfg").read_text(encoding="utf-8"))
    written = _SOURCES.format(suite=suite, primary=primary, security=security)
    apt = root / "etc/apt"
    (apt / "sources.list").unlink(missing_ok=True)
    (apt / "sources.list.d/debian.sources").write_text(written, encoding="utf-8")


def public_servers(cloud_cfg: str) -> tuple[str, str]:
    """The addresses of Debian's archive and of its security updates, given the configuration that cloud-init has.

    Its format: docs.cloud-init.io, "Base configuration", system_info.package_mirrors.

    Raises:
        BoxError: it names none.
    """
    try:
        mirrors = yaml.safe_load(cloud_cfg)["system_info"]["package_mirrors"]
        servers = next(mirror["failsafe"] for mirror in mirrors if "default" in mirror["arches"])
        found = (servers["primary"], servers["security"])
    except (yaml.YAMLError, ValueError, KeyError, TypeError, StopIteration):
        found = ("", "")
    primary, security = (url if isinstance(url, str) and _URL.fullmatch(url) else "" for url in found)
    if not primary or not security:
        raise BoxError(
            "the box's cloud-init does not say where Debian's packages are",
            details=["/etc/cloud/cloud.cfg: system_info.package_mirrors names no servers"],
            hint="choose a suite of Debian whose cloud-init does, in the recipe",
        )
    return primary, security


def make_root(target: Path, suite: str, packages: Sequence[str], epoch: int, *, log: Path) -> None:
    """Write a tar of a minimal Debian with `packages` configured in it.

    Raises:
        HostError: mmdebstrap is not installed.
        ProgramError: a package does not exist, or the mirror does not answer.
    """
    options = [f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT]
    _mmdebstrap(target, "minbase", suite, packages, epoch, options, log)


def make_layer(target: Path, suite: str, packages: Sequence[str], epoch: int, *, log: Path) -> None:
    """Write a tar of `packages` and what they depend on, unpacked but not configured.

    Raises:
        HostError, ProgramError: as `make_root`.
    """
    _mmdebstrap(target, "extract", suite, packages, epoch, [], log)


def _mmdebstrap(
    target: Path, variant: str, suite: str, packages: Sequence[str], epoch: int, options: Sequence[str], log: Path
) -> None:
    argv = ["mmdebstrap", f"--variant={variant}", f"--include={','.join(packages)}", *options]
    argv += ["--architectures=amd64", '--aptopt=Apt::Install-Recommends "false"', suite, str(target), *sources(suite)]
    process.run(
        argv,
        timeout=TIMEOUT,
        env={"SOURCE_DATE_EPOCH": str(epoch), "LC_ALL": "C.UTF-8"},
        log=log,
        hint=f"the whole output: {log}",
    )
