"""Where a box's programs come from, and what decides that one is made again."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from lab import resources
from lab.boxes import gomodules
from lab.boxes.recipe import Program, load_recipe
from lab.boxes.sources import GoModules, InImage, Published, Source, is_in_etcds_image, is_published, without_published
from lab.boxes.upstream.addresses import UPSTREAM, Addresses
from lab.boxes.upstream.archives import unpack
from lab.boxes.upstream.layout import Blob, Manifest, Shelf
from lab.boxes.upstream.upstream import Upstream
from lab.components.archives import Archive, archive_of
from lab.errors import BoxError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(resources.path("boxes") / "debian-13", tmp_path / "debian-13"))


def named(name: str) -> Program:
    return next(program for program in load_recipe("debian-13", "1.35.4").programs if program.name == name)


def test_a_program_of_the_recipes_own_follows_its_sources(folder: Path) -> None:
    source: Source = GoModules(folder, {"GOTOOLCHAIN": "local"}, ["go", "gcc"])
    before = {name: source.inputs(named(name)) for name in ("pause", "coredns", "etcd")}
    with (folder / "programs/pause/pause.c").open("a") as file:
        file.write("/* changed */\n")
    after = {name: source.inputs(named(name)) for name in before}
    assert after["pause"] != before["pause"]
    assert {**after, "pause": 0} == {**before, "pause": 0}


def test_every_program_follows_the_compilers(folder: Path) -> None:
    one = GoModules(folder, {"GOTOOLCHAIN": "local"}, ["go version go1.26.8"])
    other = replace(one, compilers=["go version go1.26.9"])
    assert one.inputs(named("etcd")) != other.inputs(named("etcd"))


def test_it_is_the_go_builder_that_makes_it(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[object] = []
    monkeypatch.setattr(gomodules, "build", lambda *given, **named: asked.append((given, named)))
    GoModules(folder, {"GOTOOLCHAIN": "go1.26.8"}, []).make(named("etcd"), tmp_path, tmp_path / "log")
    assert asked == [((named("etcd"), folder, tmp_path), {"go": {"GOTOOLCHAIN": "go1.26.8"}, "log": tmp_path / "log"})]
    assert GoModules.code == (gomodules,)


GO_MOD = """\
module k8s.io/kubernetes

go 1.16

replace (
	k8s.io/api => ./staging/src/k8s.io/api
	github.com/moby/term => github.com/moby/term v0.0.0-20210610120745-9d4ed1856297
	golang.org/x/oauth2 v0.1.0 => golang.org/x/oauth2 v0.2.0
)

replace github.com/old/name => github.com/new/name v1.2.3
"""


def test_what_is_linked_externally_may_be_partly_c(folder: Path) -> None:
    source = GoModules(folder, {"GOTOOLCHAIN": "local"}, [])
    (kubelets,) = (each for each in load_recipe("debian-12", "1.16.3").programs if "kubelet" in each.build)
    assert source.go_for(kubelets) == {"GOTOOLCHAIN": "local", "CGO_ENABLED": "1"}
    assert source.go_for(named("kubernetes")) == {"GOTOOLCHAIN": "local"}


def test_a_module_is_built_as_in_its_own_repository() -> None:
    program = Program(
        "kubernetes", {"kubeadm": "cmd/kubeadm"}, staging="v0.23.0", replace=(("github.com/x/y", "v2.0.0"),)
    )
    assert gomodules.as_its_own(program, GO_MOD) == [
        "-godebug=default=go1.20",
        "-replace=github.com/moby/term=github.com/moby/term@v0.0.0-20210610120745-9d4ed1856297",
        "-replace=github.com/old/name=github.com/new/name@v1.2.3",
        "-replace=github.com/x/y=github.com/x/y@v2.0.0",
        "-replace=golang.org/x/oauth2=golang.org/x/oauth2@v0.2.0",
        "-replace=k8s.io/api=k8s.io/api@v0.23.0",
    ]
    # Before Go knew godebug lines, it took the go line for what they say.
    assert gomodules.as_its_own(replace(program, go="1.21.13"), GO_MOD)[0] == "-go=1.20"
    assert gomodules.as_its_own(replace(program, go="1.26.8"), GO_MOD)[0] == "-godebug=default=go1.20"
    # A folder that no proxy serves can only be replaced by a version of its own.
    assert not any("k8s.io/api" in option for option in gomodules.as_its_own(replace(program, staging=""), GO_MOD))


def test_what_upstream_has_is_not_compiled() -> None:
    whole = load_recipe("debian-13", "1.35.4")
    packing = replace(UPSTREAM, network=None)
    reduced = {program.name: program for program in without_published(whole, packing).programs}
    assert reduced["kubernetes"].build.keys() == {"kubeadm", "kubelet", "kubectl"}
    assert reduced.keys() == {
        *("kubernetes", "etcdctl", "etcdutl", "crictl", "helm", "flannel-cni", "flannel", "bolt-settle")
    }
    assert [name for name, program in reduced.items() if is_published(program)] == ["kubernetes"]
    assert {image.ref for image in whole.images if packing.of(image.ref)} == {
        ref for name, ref in whole.kubernetes.images.items() if name != "flannel"
    }
    assert {program.name for program in without_published(whole, UPSTREAM).programs} == reduced.keys() - {"flannel"}
    assert [name for name, program in reduced.items() if is_in_etcds_image(program)] == ["etcdctl", "etcdutl"]


def test_archives_are_those_of_the_projects_releases() -> None:
    found = {each.name: archive_of(each.module, each.version) for each in load_recipe("debian-13", "1.37.2").programs}
    releases = "releases/download"
    assert {name: archive for name, archive in found.items() if archive} == {
        "containerd": Archive(
            f"containerd/containerd/{releases}/v2.3.7/containerd-2.3.7-linux-amd64.tar.gz", ".sha256sum", "bin/"
        ),
        "crictl": Archive(f"kubernetes-sigs/cri-tools/{releases}/v1.37.0/crictl-v1.37.0-linux-amd64.tar.gz", ".sha256"),
    }


def test_what_an_archive_holds(tmp_path: Path) -> None:
    file = tmp_path / "crictl.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        folder = tarfile.TarInfo("crictl")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("bin/ctr")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        program = tarfile.TarInfo("./bin/containerd")
        program.size = 4
        tar.addfile(program, io.BytesIO(b"\x7fELF"))
    assert unpack(file, "bin/containerd") == b"\x7fELF"
    for name in ("crictl", "bin/ctr", "bin/other"):
        with pytest.raises(BoxError, match=rf"crictl\.tar\.gz has no {name} in it"):
            unpack(file, name)
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(BoxError, match=r"crictl\.tar\.gz cannot be unpacked"):
        unpack(file, "other")
    file.write_text("<html>")
    with pytest.raises(BoxError, match=r"crictl\.tar\.gz cannot be unpacked") as caught:
        unpack(file, "crictl")
    assert "--source source" in caught.value.hint


def image_with(shelf: Shelf, *layers: dict[str, bytes]) -> Manifest:
    """An image of these layers, the uppermost last, each packed with gzip."""
    shelf.blobs.mkdir(parents=True)
    blobs = []
    for files in layers:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        blob = Blob(hashlib.sha256(packed.getvalue()).hexdigest(), len(packed.getvalue()))
        (shelf.blobs / blob.hex).write_bytes(packed.getvalue())
        blobs.append(blob)
    return Manifest("{}", "", (Blob("0" * 64, 0), *blobs))


def test_etcdctl_comes_out_of_etcds_image(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "images")
    path = "usr/local/bin/etcdctl"
    manifest = image_with(shelf, {path: b"old", "etc/x": b""}, {f"./{path}": b"new"}, {"usr/local/bin/etcd": b"server"})
    source = InImage(manifest, shelf)
    assert source.holds(named("etcdctl"))
    (tmp_path / "made").mkdir()
    source.make(named("etcdctl"), tmp_path / "made", tmp_path / "log")
    made = tmp_path / "made/bin/etcdctl"
    assert (made.read_bytes(), made.stat().st_mode & 0o777) == (b"new", 0o755)
    assert manifest.hex in str(source.inputs(named("etcdctl")))


def test_what_etcds_image_lacks_is_compiled(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "images")
    manifest = image_with(shelf, {"usr/local/bin/etcdctl": b"a program"})
    assert not InImage(manifest, shelf).holds(named("etcdutl"))
    (shelf.blobs / manifest.blobs[1].hex).write_bytes(b"packed with something else")
    assert not InImage(manifest, shelf).holds(named("etcdctl"))


def test_the_program_alone_decides_what_upstream_gives(tmp_path: Path) -> None:
    digest = "ab" * 32
    (tmp_path / "one/dl.k8s.io/v1.35.4/bin/linux/amd64").mkdir(parents=True)
    (tmp_path / "one/dl.k8s.io/v1.35.4/bin/linux/amd64/kubeadm.sha256").write_text(digest)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    program = replace(named("kubernetes"), build={"kubeadm": "cmd/kubeadm"})
    inputs = []
    for name in ("one", "two"):
        upstream = Upstream(Addresses(tmp_path / name, tmp_path), "1.35.4", tmp_path / "kept", lambda _: None)
        source: Source = Published(upstream)
        inputs.append(source.inputs(program))
    assert inputs[0] == inputs[1]
    assert digest in str(inputs[0])


def test_packages_that_ask_for_openapi_are_found_by_their_tag(tmp_path: Path) -> None:
    texts = {
        "core/v1/doc.go": "// +k8s:openapi-gen=true\npackage v1\n",
        "core/v1/types.go": "package v1\n",
        "meta/types.go": "package meta\n\n// +k8s:openapi-gen=true\ntype A struct{}\n",
        "plain/doc.go": "package plain\n",
        "testdata/doc.go": "// +k8s:openapi-gen=true\npackage testdata\n",
        "root.go": "// +k8s:openapi-gen=false\npackage api\n",
        "notes.md": "+k8s:openapi-gen=true",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = gomodules.tagged_packages("k8s.io/api", tmp_path)
    assert found == {"k8s.io/api", "k8s.io/api/core/v1", "k8s.io/api/meta"}
