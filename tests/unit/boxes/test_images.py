"""Images: layers that repeat, a layout that others read, a registry's storage."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from lab.boxes import images, registry
from lab.boxes.recipe import ImageSpec
from lab.errors import BoxError

EPOCH = 1_700_000_000
SPEC = ImageSpec(
    ref="docker.io/library/web:latest",
    programs=(("/usr/local/bin/web", "web"),),
    links=(("/bin/serve", "/usr/local/bin/web"),),
    command=("web",),
    ports=("80/tcp",),
)


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, Path]:
    file = tmp_path / "web"
    file.write_bytes(b"#!web")
    return {"web": file}


def packages_tar(path: Path, *, shuffled: bool = False) -> Path:
    """What mmdebstrap's extract variant gives: names with ./, devices, documentation."""
    members: list[tuple[str, bytes | None]] = [
        ("./usr", None),
        ("./usr/bin", None),
        ("./usr/bin/busybox", b"box"),
        ("./usr/bin/cp", b"real cp"),
        ("./usr/share/doc/x", b"text"),
        # As Debian 12's packages have it.
        ("./lib", None),
        ("./lib/modprobe.d", None),
        ("./lib/modprobe.d/a.conf", b"options"),
        ("./usr/lib", None),
        ("./usr/lib/modprobe.d", None),
    ]
    with tarfile.open(path, "w") as tar:
        for name, data in reversed(members) if shuffled else members:
            member = tarfile.TarInfo(name)
            member.mtime = EPOCH + 5000
            if data is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(data)
            tar.addfile(member, io.BytesIO(data or b""))
        device = tarfile.TarInfo("./dev/null")
        device.type = tarfile.CHRTYPE
        tar.addfile(device)
    return path


def build_layout(folder: Path, programs: dict[str, Path], work: Path) -> Path:
    layout = images.Layout(folder, EPOCH)
    layer = work / "layer.tar"
    images.write_own_layer(SPEC, programs, None, layer, EPOCH)
    layout.add_image(SPEC, [layout.add_layer(layer)])
    layout.close()
    return folder


def test_a_base_layer_is_merged_usr_without_documentation(tmp_path: Path) -> None:
    target = tmp_path / "layer.tar"
    images.write_base_layer(packages_tar(tmp_path / "p.tar"), target, EPOCH, ["cp", "ls"])
    with tarfile.open(target) as layer:
        found = {m.name: m for m in layer}
    assert {name: found[name].linkname for name in ("bin", "lib", "lib64", "sbin")} == {
        "bin": "usr/bin",
        "lib": "usr/lib",
        "lib64": "usr/lib64",
        "sbin": "usr/sbin",
    }
    assert "usr/share/doc/x" not in found
    assert "dev/null" not in found
    assert found["usr/lib/modprobe.d/a.conf"].isreg()
    assert [name for name in found if name.startswith("lib/")] == []
    assert found["usr/bin/ls"].linkname == "busybox"
    assert found["usr/bin/cp"].isreg(), "busybox must not replace a package's own program"
    assert max(m.mtime for m in found.values()) <= EPOCH


def test_a_base_layer_does_not_depend_on_the_order_of_its_source(tmp_path: Path) -> None:
    one, two = tmp_path / "1.tar", tmp_path / "2.tar"
    images.write_base_layer(packages_tar(tmp_path / "p.tar"), one, EPOCH)
    images.write_base_layer(packages_tar(tmp_path / "q.tar", shuffled=True), two, EPOCH)
    assert one.read_bytes() == two.read_bytes()


def test_own_layer_has_programs_links_and_a_place_for_temporary_files(
    tmp_path: Path, programs: dict[str, Path]
) -> None:
    target = tmp_path / "own.tar"
    images.write_own_layer(SPEC, programs, None, target, EPOCH)
    with tarfile.open(target) as layer:
        found = {m.name: m for m in layer}
    assert found["usr/local/bin/web"].mode == 0o755
    assert found["bin/serve"].linkname == "/usr/local/bin/web"
    assert found["tmp"].mode == 0o1777
    assert list(found).index("usr/local/bin") < list(found).index("usr/local/bin/web")


def test_a_layout_repeats_and_every_blob_is_named_by_its_digest(tmp_path: Path, programs: dict[str, Path]) -> None:
    one = build_layout(tmp_path / "one", programs, tmp_path)
    two = build_layout(tmp_path / "two", programs, tmp_path)
    assert (one / "index.json").read_bytes() == (two / "index.json").read_bytes()
    for blob in (one / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    config_digest = images.read_layout(one)[0].config
    config = json.loads((one / "blobs" / "sha256" / config_digest).read_text())
    assert config["config"]["Cmd"] == ["web"]
    assert config["config"]["ExposedPorts"] == {"80/tcp": {}}
    assert "Entrypoint" not in config["config"]
    assert len(config["history"]) == len(config["rootfs"]["diff_ids"])


def test_a_layout_without_a_blob_is_damaged(tmp_path: Path, programs: dict[str, Path]) -> None:
    folder = build_layout(tmp_path / "one", programs, tmp_path)
    manifest = images.read_layout(folder)[0].manifest
    (folder / "blobs" / "sha256" / manifest).unlink()
    with pytest.raises(BoxError, match="damaged"):
        images.read_layout(folder)


def test_the_registry_shares_blobs_and_links_what_a_pull_needs(tmp_path: Path, programs: dict[str, Path]) -> None:
    folder = build_layout(tmp_path / "one", programs, tmp_path)
    (image,) = images.read_layout(folder)
    blobs = folder / "blobs" / "sha256"
    registry.write(tmp_path / "storage", blobs, [image])
    root = tmp_path / "storage/docker/registry/v2"
    data = root / "blobs/sha256" / image.manifest[:2] / image.manifest / "data"
    assert data.samefile(blobs / image.manifest)
    repository = root / "repositories/docker.io/library/web"
    assert (repository / "_manifests/tags/latest/current/link").read_text() == f"sha256:{image.manifest}"
    for digest in (image.config, *image.layers):
        assert (repository / "_layers/sha256" / digest / "link").read_text() == f"sha256:{digest}"


def test_the_registry_misses_no_blob_silently(tmp_path: Path, programs: dict[str, Path]) -> None:
    folder = build_layout(tmp_path / "one", programs, tmp_path)
    stored = images.read_layout(folder)
    (folder / "blobs" / "sha256" / stored[0].layers[0]).unlink()
    with pytest.raises(BoxError, match="lacks the blob"):
        registry.write(tmp_path / "storage", folder / "blobs" / "sha256", stored)


def test_the_registry_belongs_to_a_user_of_the_box(tmp_path: Path) -> None:
    passwd = tmp_path / "passwd"
    passwd.write_text(f"root:x:0:0::/:/bin/sh\nreg:x:{os.getuid()}:{os.getgid()}::/:/bin/false\n")
    (tmp_path / "storage").mkdir()
    registry.give_to(tmp_path / "storage", passwd, "reg")
    with pytest.raises(BoxError, match="no user nobody-here"):
        registry.give_to(tmp_path / "storage", passwd, "nobody-here")


# --- what own builds need -----------------------------------------------------------------------------


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_cas_lie_in_one_file_and_what_is_not_wanted_is_left_out(tmp_path: Path) -> None:
    source = packed(
        tmp_path / "p.tar",
        {
            "usr/share/ca-certificates/mozilla/b.crt": b"B\n",
            "usr/share/ca-certificates/mozilla/a.crt": b"A\n",
            "usr/share/perl/5.40/x.pm": b"x",
            "usr/bin/perl5.40": b"x",
        },
    )
    images.write_base_layer(source, tmp_path / "layer.tar", EPOCH, (), ("usr/share/perl", "usr/bin/perl"))
    with tarfile.open(tmp_path / "layer.tar") as layer:
        bundle = layer.extractfile("etc/ssl/certs/ca-certificates.crt")
        assert bundle is not None
        assert bundle.read() == b"A\nB\n"
        assert [name for name in layer.getnames() if "perl" in name] == []


def test_versions_of_packages(tmp_path: Path) -> None:
    files = {
        "redis-server/changelog.Debian": b"redis (5:8.0.2-3+deb13u3) trixie-security; urgency=high\n\n  * text\n",
        "redis-server/changelog": b"Redis 8.0.2\n",
        "base-files/changelog": b"base-files (13.8+deb13u1) trixie; urgency=medium\n",
        "other/changelog.Debian": b"other (1.0) trixie; urgency=low\n",
    }
    source = packed(
        tmp_path / "p.tar", {f"usr/share/doc/{name}.gz": gzip.compress(data) for name, data in files.items()}
    )
    found = images.versions_in(source, ["redis-server", "base-files", "absent"])
    assert found == {"redis-server": "5:8.0.2-3+deb13u3", "base-files": "13.8+deb13u1"}


def test_an_own_layer_has_programs_and_folders_of_their_users(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay"
    (overlay / "bin").mkdir(parents=True)
    (overlay / "bin/entry.sh").write_text("#!/bin/sh\n")
    (overlay / "bin/entry.sh").chmod(0o700)
    (overlay / "page.html").write_text("page")
    spec = ImageSpec(ref="a.io/b:1", folders=(("/var/lib/data", 999),))
    images.write_own_layer(spec, {}, overlay, tmp_path / "layer.tar", EPOCH)
    with tarfile.open(tmp_path / "layer.tar") as layer:
        found = {member.name: (member.mode, member.uid, member.gid) for member in layer}
    assert found["bin/entry.sh"] == (0o755, 0, 0)
    assert found["page.html"] == (0o644, 0, 0)
    assert found["var/lib/data"] == (0o755, 999, 999)
    assert found["var/lib"] == (0o755, 0, 0)


def test_a_configuration_has_labels_and_a_folder(tmp_path: Path) -> None:
    layout = images.Layout(tmp_path / "layout", EPOCH)
    layout.add_image(ImageSpec(ref="a.io/b:1", workdir="/data", labels=(("a", "b"),)), [])
    layout.add_image(ImageSpec(ref="a.io/c:1"), [])
    layout.close()
    own, plain = (
        json.loads((layout.folder / "blobs/sha256" / each.config).read_text())["config"]
        for each in images.read_layout(layout.folder)
    )
    assert own == {"Env": [images.PATH], "WorkingDir": "/data", "Labels": {"a": "b"}}
    assert plain == {"Env": [images.PATH]}
