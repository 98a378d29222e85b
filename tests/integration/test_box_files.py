"""Box files before their own judges: Vagrant takes them, skopeo and qemu-img read what is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import process
from lab.boxes import images
from lab.boxes.disk import write_vmdk
from lab.boxes.recipe import ImageSpec
from lab.boxes.vagrant import write_libvirt_box, write_virtualbox_box

MIB = 1024


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "disk.qcow2", "1G"], timeout=60)
    return tmp_path / "disk.qcow2"


def test_vagrant_adds_both_boxes(disk: Path, tmp_path: Path) -> None:
    write_vmdk(disk, tmp_path / "disk.vmdk")
    write_libvirt_box(disk, tmp_path / "libvirt.box", MIB)
    write_virtualbox_box(tmp_path / "disk.vmdk", tmp_path / "virtualbox.box", MIB)
    env = {"VAGRANT_HOME": str(tmp_path / "vagrant"), "VAGRANT_CHECKPOINT_DISABLE": "1"}
    for provider in ("libvirt", "virtualbox"):
        argv = ["vagrant", "box", "add", "--name", "klab-test", tmp_path / f"{provider}.box"]
        process.run(argv, timeout=120, env=env)
    listed = process.run(["vagrant", "box", "list"], timeout=60, env=env).stdout
    assert sorted(line.split("(")[1].split(",")[0] for line in listed.splitlines()) == ["libvirt", "virtualbox"]


def test_a_vmdk_repeats_and_qemu_finds_no_fault_in_it(disk: Path, tmp_path: Path) -> None:
    for name in ("1.vmdk", "2.vmdk"):
        write_vmdk(disk, tmp_path / name)
        process.run(["qemu-img", "check", "-f", "vmdk", tmp_path / name], timeout=60)
    first, second = ((tmp_path / name).read_bytes() for name in ("1.vmdk", "2.vmdk"))
    # The descriptor names its own file, nothing else may differ.
    first = first.replace(b"1.vmdk", b"2.vmdk")
    assert [place for place in range(len(first)) if first[place] != second[place]] == []
    assert len(first) == len(second)


@pytest.mark.skipif(not process.have("skopeo"), reason="skopeo is not installed")
def test_skopeo_reads_and_copies_an_image(tmp_path: Path) -> None:
    (tmp_path / "web").write_bytes(b"#!web")
    spec = ImageSpec(ref="docker.io/library/web:latest", programs=(("/web", "web"),), entrypoint=("/web",))
    layout = images.Layout(tmp_path / "layout", 1_700_000_000)
    images.write_own_layer(spec, {"web": tmp_path / "web"}, None, tmp_path / "layer.tar", layout.epoch)
    layout.add_image(spec, [layout.add_layer(tmp_path / "layer.tar")])
    layout.close()
    process.run(["skopeo", "copy", f"oci:{layout.folder}:latest", f"docker-archive:{tmp_path}/web.tar"], timeout=60)
    # skopeo recomputes every digest on the way; a wrong one ends the copy.
    listed = process.run(["tar", "-tf", tmp_path / "web.tar"], timeout=60)
    assert "manifest.json" in listed.stdout
