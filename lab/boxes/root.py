"""The node's whole file system, as a folder on the host."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from lab import process
from lab.boxes import debian, registry
from lab.boxes.chroot import run_in
from lab.boxes.images import read_layout
from lab.boxes.recipe import SETTLE, Recipe
from lab.components.kubernetes import packages
from lab.components.runtime import runtime
from lab.components.runtime.base import ContainerRuntime
from lab.errors import BoxError

# What the build left behind, what each node must make for itself, and what holds a date or a random number.
_FORGET = (
    "etc/ssh/ssh_host_*",
    "etc/.pwd.lock",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/cache/apt/*",
    "var/cache/debconf/*-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dpkg/*-old",
    "etc/*-",
    "var/lib/cloud/*",
    "var/lib/initramfs-tools/*",
)


def assemble(
    recipe: Recipe, system: Path, programs: Mapping[str, Path], images: Path, root: Path, *, log: Path
) -> None:
    """Put a node's file system together.

    Args:
        recipe: what goes in.
        system: the tar of Debian's packages.
        programs: where each compiled program lies.
        images: the OCI layout with all images.
        root: an empty folder.
        log: file that all output is appended to.

    Raises:
        ProgramError: configure.sh, making the packages or importing the images failed.
        BoxError: the runtime did not take an image.
    """
    process.run(
        ["tar", "-xpf", system, "-C", root, "--numeric-owner", "--xattrs", "--xattrs-include=*", "--exclude=./dev/*"],
        timeout=600,
        log=log,
    )
    debian.set_public_sources(root, recipe.suite)
    for folder in recipe.folders:
        copy_files(folder / "files", root, recipe.markers)
    for place, name in recipe.install:
        target = root / place.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(programs[name], target)
        target.chmod(0o755)
    script = (recipe.folder / "configure.sh").read_text(encoding="utf-8")
    dates = {"SOURCE_DATE_EPOCH": str(recipe.epoch)}
    run_in(root, script, timeout=900, env=dates, log=log)
    run_in(root, packages.render_install(packaged(recipe)), timeout=900, env=dates, log=log)
    containers = runtime(recipe.runtime)
    _import_images(recipe, containers, images, root, log)
    if containers.databases:
        databases = [root / place for place in containers.databases]
        process.run([programs[SETTLE], str(recipe.epoch), *databases], timeout=60, log=log)
    _forget(root, (*_FORGET, *containers.forgotten))


def packaged(recipe: Recipe) -> dict[packages.Package, str]:
    """The Debian packages that a box has of its own programs, each with the program's version."""
    versions = {name: program.version.removeprefix("v") for program in recipe.programs for name in program.build}
    places = {place for place, _ in recipe.install}
    there = (each for each in packages.PACKAGES if f"{packages.PROGRAMS_FOLDER}/{each.program}" in places)
    return {package: versions[package.program] for package in there}


def copy_files(source: Path, root: Path, markers: Mapping[str, str]) -> None:
    """Copy the recipe's files over the file system; in NAME.in each @MARKER@ is replaced.

    Modes are 0644, or 0755 where the source is executable; owner is root.

    Raises:
        BoxError: a marker has no value.
    """
    for file in sorted(p for p in source.rglob("*") if p.is_file()):
        target = root / file.relative_to(source)
        data = file.read_bytes()
        if file.suffix == ".in":
            target = target.with_suffix("")
            data = fill(data.decode(), markers, file.name).encode()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_bytes(data)
        target.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)


def fill(text: str, markers: Mapping[str, str], where: str) -> str:
    """Text with each @MARKER@ replaced.

    Raises:
        BoxError: one has no value.
    """
    for name, value in markers.items():
        text = text.replace(f"@{name}@", value)
    if "@" in text:
        line = next(line for line in text.splitlines() if "@" in line)
        raise BoxError(f"{where} has a marker without a value", details=[line])
    return text


def _import_images(recipe: Recipe, containers: ContainerRuntime, images: Path, root: Path, log: Path) -> None:
    stored = read_layout(images)
    env = {
        "KLAB_ALL": " ".join(image.ref for image in stored),
        "KLAB_PINNED": " ".join(spec.ref for spec in recipe.images if spec.pinned),
    }
    done = run_in(root, containers.fill, timeout=900, env=env, bind={"images": images}, log=log)
    if missing := {image.ref for image in stored} - set(done.stdout.split()):
        raise BoxError(
            f"{containers.name} did not take every image", details=sorted(missing), hint=f"the whole output: {log}"
        )
    storage = root / registry.STORAGE
    if containers.blobs:
        registry.write(storage, root / containers.blobs, stored)
    else:
        registry.write(storage, images / "blobs" / "sha256", stored, place=shutil.copyfile)
    for name, other in containers.registry_links.items():
        registry.link(storage, name, other)
    registry.give_to(storage, root / "etc/passwd", "docker-registry")


def _forget(root: Path, patterns: Iterable[str]) -> None:
    for pattern in patterns:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for path in (root / "var/log").rglob("*"):
        if path.is_file():
            path.unlink()
    # Empty, not absent: each node makes its own, and it does not count as a first boot.
    (root / "etc/machine-id").write_text("")
