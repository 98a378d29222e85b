"""The node's whole file system, as a folder on the host."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from lab import process
from lab.boxes import debian, registry
from lab.boxes.chroot import run_in
from lab.boxes.images import read_layout
from lab.boxes.recipe import SETTLE, Recipe
from lab.errors import BoxError

# Starts the box's own containerd inside the box, imports, and ends it in good order.
# Without CRI: it would add names in the background, and race with the end.
_IMPORT = """
set -eu
cat > /tmp/import.toml <<'CONFIG'
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
CONFIG
containerd --config /tmp/import.toml --log-level warn &
daemon=$!
for _ in $(seq 300); do
  ctr version > /dev/null 2>&1 && break
  kill -0 "$daemon"
  sleep 0.1
done
tar -C "/run/host/$KLAB_IMAGES" -cf - . | ctr -n k8s.io images import --snapshotter overlayfs -
for image in $KLAB_ALL; do
  # What containerd's CRI side puts on images that it pulled itself.
  ctr -n k8s.io images label "$image" io.cri-containerd.image=managed > /dev/null
done
for image in $KLAB_PINNED; do
  ctr -n k8s.io images label "$image" io.cri-containerd.pinned=pinned > /dev/null
done
# The import's own index is no image. Removing a name with --sync collects it now, and not some time later.
ctr -n k8s.io images tag "$image" klab.local/none:none > /dev/null
ctr -n k8s.io images rm --sync klab.local/none:none > /dev/null
ctr -n k8s.io images ls -q
kill "$daemon"
wait "$daemon"
"""

_DATABASES = (
    "var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db",
    "var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/metadata.db",
)

# What the build left behind, what each node must make for itself, and what holds a date or a random number.
_FORGET = (
    "etc/ssh/ssh_host_*",
    "etc/.pwd.lock",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/lib/apt/lists/*",
    "var/cache/apt/*",
    "var/cache/debconf/*-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dpkg/*-old",
    "etc/*-",
    "var/lib/cloud/*",
    "var/lib/containerd/io.containerd.grpc.v1.introspection/uuid",
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
        ProgramError: configure.sh or the import of the images failed.
        BoxError: an image did not get in.
    """
    process.run(
        ["tar", "-xpf", system, "-C", root, "--numeric-owner", "--xattrs", "--xattrs-include=*", "--exclude=./dev/*"],
        timeout=600,
        log=log,
    )
    debian.set_public_sources(root, recipe.suite)
    copy_files(recipe.folder / "files", root, recipe.markers)
    for place, name in recipe.install:
        target = root / place.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(programs[name], target)
        target.chmod(0o755)
    script = (recipe.folder / "configure.sh").read_text(encoding="utf-8")
    run_in(root, script, timeout=900, env={"SOURCE_DATE_EPOCH": str(recipe.epoch)}, log=log)
    _import_images(recipe, images, root, log)
    databases = [root / place for place in _DATABASES]
    process.run([programs[SETTLE], str(recipe.epoch), *databases], timeout=60, log=log)
    _forget(root)


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


def _import_images(recipe: Recipe, images: Path, root: Path, log: Path) -> None:
    stored = read_layout(images)
    env = {
        "KLAB_IMAGES": images.name,
        "KLAB_ALL": " ".join(image.ref for image in stored),
        "KLAB_PINNED": " ".join(spec.ref for spec in recipe.images if spec.pinned),
    }
    done = run_in(root, _IMPORT, timeout=900, env=env, bind=[images], log=log)
    if missing := {image.ref for image in stored} - set(done.stdout.split()):
        raise BoxError("containerd did not take every image", details=sorted(missing), hint=f"the whole output: {log}")
    storage = root / registry.STORAGE
    registry.write(storage, root / registry.CONTAINERD_BLOBS, stored)
    registry.give_to(storage, root / "etc/passwd", "docker-registry")


def _forget(root: Path) -> None:
    for pattern in _FORGET:
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
