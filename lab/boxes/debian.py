"""Debian file systems from packages, by mmdebstrap.

The mirror is the one that this machine's own apt uses: a class behind a mirror or a
proxy needs no further set-up. The system that is made asks Debian's public service:
its users may never see the builder's mirror.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from lab import process
from lab.errors import HostError

MIRROR_VARIABLE = "KLAB_DEBIAN_MIRROR"
TIMEOUT = 3600.0
# debian.org/doc/manuals/debian-reference, "Basics of the package management"; format: sources.list(5), DEB822.
_PUBLIC_SOURCES = """\
Types: deb
URIs: http://deb.debian.org/debian
Suites: {suite} {suite}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
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
    done = process.run(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)"], timeout=60)
    return choose_sources(suite, _codename(), done.stdout)


def choose_sources(suite: str, host: str, targets: str) -> list[str]:
    """The sources for `suite`, given the host's own release and apt's list of "SITE RELEASE" lines.

    Raises:
        HostError: the list has no mirror of the host's release.
    """
    sites: dict[str, str] = {}
    for line in targets.splitlines():
        site, _, release = line.strip().partition(" ")
        sites.setdefault(release, site)
    if host not in sites:
        raise HostError(
            "this machine's apt has no Debian mirror to take the box's packages from",
            hint=f"export {MIRROR_VARIABLE}=URL with the address of a Debian mirror",
        )
    found = [f"deb {sites[host]} {suite} main", f"deb {sites[host]} {suite}-updates main"]
    if security := sites.get(f"{host}-security"):
        found.append(f"deb {security} {suite}-security main")
    return found


def set_public_sources(root: Path, suite: str) -> None:
    """Make the system in `root` take its packages from where Debian's own images do, with updates and security."""
    apt = root / "etc/apt"
    (apt / "sources.list").unlink(missing_ok=True)
    (apt / "sources.list.d/debian.sources").write_text(_PUBLIC_SOURCES.format(suite=suite), encoding="utf-8")


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


def _codename() -> str:
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
