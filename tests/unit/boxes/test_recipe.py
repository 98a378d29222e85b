"""Recipes: every version filled in, contradictions refused, equal recipes equal digests."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from lab import resources
from lab.boxes.recipe import Program, Recipe, layer_of, load_recipe
from lab.boxes.root import copy_files, fill
from lab.errors import BoxError, NotFound


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shutil.copytree(resources.path("boxes"), tmp_path / "boxes")
    return tmp_path / "boxes"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("debian-13", "1.35.4")


def edit(root: Path, old: str, new: str) -> None:
    file = root / "debian-13" / "recipe.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_versions_are_filled_in(recipe: Recipe) -> None:
    kubernetes = next(p for p in recipe.programs if p.name == "kubernetes")
    assert kubernetes.version == "v1.35.4"
    assert kubernetes.staging == "v0.35.4"
    assert ("k8s.io/component-base/version.gitMinor", "35") in kubernetes.variables
    assert recipe.box_name == "debian-13-k8s-1.35.4"
    assert ("/usr/bin/kubeadm", "kubeadm") in recipe.install


def test_lesson_images_are_in_the_box(recipe: Recipe) -> None:
    refs = {image.ref for image in recipe.images}
    assert {"docker.io/library/nginx:latest", "docker.io/library/busybox:latest"} <= refs
    assert set(recipe.kubernetes.images.values()) <= refs


def test_no_mirror_and_no_secret_is_written_down(recipe: Recipe) -> None:
    # Upstream's image names are names, not addresses that a build asks.
    for file in recipe.folder.rglob("*"):
        text = file.read_text() if file.is_file() else ""
        assert set(re.findall(r"https?://([^/\s\"']+)", text)) <= {"127.0.0.1:5000", "kubernetes.io"}, file
        assert "PRIVATE KEY" not in text


def test_every_registry_resolves_to_the_node_first(recipe: Recipe, tmp_path: Path) -> None:
    copy_files(recipe.folder / "files", tmp_path, recipe.markers)
    for host in ("docker.io", "registry.k8s.io", "ghcr.io", "quay.io"):
        text = (tmp_path / "etc/containerd/certs.d" / host / "hosts.toml").read_text()
        assert f'[host."http://127.0.0.1:5000/v2/{host}"]' in text
        assert "override_path = true" in text
    config = (tmp_path / "etc/containerd/config.toml").read_text()
    assert 'sandbox_image = "registry.k8s.io/pause:3.10.1"' in config
    assert "SystemdCgroup = true" in config


def test_markers_without_a_value_are_refused() -> None:
    assert fill("a @x@ b", {"x": "1"}, "file") == "a 1 b"
    with pytest.raises(BoxError, match="marker without a value"):
        fill("a @y@ b", {"x": "1"}, "file")


def programs(recipe: Recipe) -> dict[str, Program]:
    return {program.name: program for program in recipe.programs}


def test_a_version_has_programs_of_its_own() -> None:
    current, newest, older = (load_recipe("debian-13", version) for version in ("1.35.4", "1.37.2", "1.31.14"))
    assert "containerd" not in programs(current)
    assert "/usr/bin/containerd" not in dict(current.install)
    assert programs(newest)["containerd"].version == "v2.3.7"
    assert (
        dict(programs(newest)["containerd"].variables)["github.com/containerd/containerd/v2/version.Version"] == "2.3.7"
    )
    assert dict(newest.install)["/usr/bin/containerd-shim-runc-v2"] == "containerd-shim-runc-v2"
    assert (programs(older)["etcd"].version, programs(older)["etcdctl"].version) == ("v3.5.24", "v3.5.21")
    assert programs(older)["etcdctl"].module == programs(current)["etcdctl"].module


def test_one_version_more_leaves_the_boxes_of_the_others(copied: Path) -> None:
    before = {version: load_recipe("debian-13", version, root=copied).digest() for version in ("1.35.4", "1.37.2")}
    edit(copied, "containerd: {version: v2.3.7}", "containerd: {version: v2.3.8}")
    after = {version: load_recipe("debian-13", version, root=copied).digest() for version in before}
    assert after["1.35.4"] == before["1.35.4"]
    assert after["1.37.2"] != before["1.37.2"]


def test_a_recipe_that_extends_another_says_only_what_is_different(copied: Path) -> None:
    base, own = load_recipe("debian-13", "1.23.0", root=copied), load_recipe("debian-12", "1.23.0", root=copied)
    assert (own.box_name, own.suite, own.runtime) == ("debian-12-k8s-1.23.0", "bookworm", "docker")
    assert set(own.packages) ^ set(base.packages) == {"docker.io", "linux-image-amd64", "linux-image-cloud-amd64"}
    assert own.programs == base.programs
    assert own.folders == (copied / "debian-13", copied / "debian-12")
    before = own.digest()
    assert before != base.digest()
    script = copied / "debian-13" / "configure.sh"
    script.write_text(script.read_text() + "\n")
    assert load_recipe("debian-12", "1.23.0", root=copied).digest() != before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("debian-12", "extends: 'debian-12' is not another recipe"),
        ("../debian-13", "extends: '../debian-13' is not another recipe"),
        ("[debian-13]", "extends: ['debian-13'] is not another recipe"),
    ],
)
def test_only_another_recipe_can_be_extended(copied: Path, name: str, said: str) -> None:
    file = copied / "debian-12" / "recipe.yaml"
    file.write_text(file.read_text().replace("extends: debian-13", f"extends: {name}"))
    with pytest.raises(BoxError) as caught:
        load_recipe("debian-12", "1.23.0", root=copied)
    assert said in caught.value.details[0]


def test_a_recipe_that_extends_is_not_extended(copied: Path) -> None:
    edit(copied, "name: debian-13\n", "name: debian-13\nextends: debian-12\n")
    with pytest.raises(BoxError) as caught:
        load_recipe("debian-12", "1.23.0", root=copied)
    assert "debian-13 extends a recipe itself" in caught.value.details[0]


def test_only_packages_that_are_there_can_be_left_out(copied: Path) -> None:
    file = copied / "debian-12" / "recipe.yaml"
    file.write_text(file.read_text().replace("without: [", "without: [emacs, "))
    with pytest.raises(BoxError) as caught:
        load_recipe("debian-12", "1.23.0", root=copied)
    assert "debian.without: no package is called emacs" in caught.value.details[0]


def test_a_box_has_one_runtime(copied: Path) -> None:
    edit(copied, "runtimes: [containerd]", "runtimes: [containerd, docker]")
    with pytest.raises(BoxError) as caught:
        load_recipe("debian-13", "1.35.4", root=copied)
    assert "runtimes: a box has one, in whose store its images are" in caught.value.details[0]


def test_the_digest_follows_every_file(copied: Path) -> None:
    before = load_recipe("debian-13", "1.35.4", root=copied).digest()
    assert before == load_recipe("debian-13", "1.35.4", root=copied).digest()
    script = copied / "debian-13" / "configure.sh"
    script.write_text(script.read_text() + "\n")
    assert load_recipe("debian-13", "1.35.4", root=copied).digest() != before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("/pause: pause}", "/pause: paws}", "no program is called paws"),
        ("base: shell", "base: shall", "no base is called shall"),
        ("v{flannel_cni}", "v{unknown}", "unknown"),
        ("entrypoint: [/pause]", "entrypiont: [/pause]", "entrypiont"),
    ],
)
def test_contradictions_are_refused(copied: Path, old: str, new: str, said: str) -> None:
    edit(copied, old, new)
    with pytest.raises(BoxError) as caught:
        load_recipe("debian-13", "1.35.4", root=copied)
    assert said in str(caught.value)


def test_unknown_boxes_and_versions_name_the_known_ones() -> None:
    with pytest.raises(NotFound) as caught:
        load_recipe("debian-11", "1.35.4")
    assert "debian-13" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        load_recipe("debian-13", "1.0.0")
    assert "1.35.4" in caught.value.hint


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("cri: {version: v1}", "kubernetes: 1.37.2: no program is called cri"),
        ("containerd: v2", "kubernetes: 1.37.2: programs maps programs to what is different"),
        ("containerd: {versoin: v2}", "versoin is not known here"),
    ],
)
def test_what_is_wrong_with_a_version_s_programs_is_named(copied: Path, new: str, said: str) -> None:
    edit(copied, "containerd: {version: v2.3.7}", new)
    with pytest.raises(BoxError) as caught:
        load_recipe("debian-13", "1.37.2", root=copied)
    assert said in caught.value.details[0]


def test_packages_of_an_image_may_come_from_another_suite() -> None:
    assert layer_of(["nginx", "bash"], "bookworm") == ("bookworm", ("nginx", "bash"))
    assert layer_of(["nginx/trixie", "bash/trixie"], "bookworm") == ("trixie", ("nginx", "bash"))
    assert layer_of(["nginx/trixie", "bash"], "trixie") == ("trixie", ("nginx", "bash"))
    older = load_recipe("debian-12", "1.23.0")
    assert {name: layer_of(packages, older.suite)[0] for name, packages in older.bases.items()} == {
        "network": "bookworm",  # as the node's own, whose rules it shares
        "web": "trixie",
        "shell": "trixie",
    }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epoch: 1767225600", "epoch: soon", 'epoch is "soon", which is not a whole number'),
        ("epoch: 1767225600", "", "epoch is missing"),
        ("  suite: trixie", "  suite: 13", "debian.suite is 13, which is not text"),
        ("    module: go.etcd.io/bbolt", "    modul: go.etcd.io/bbolt", "programs[10].modul is not known here"),
        ("    version: v1.3.11", "    version: v{bolt}", "bolt-settle: 'v{bolt}' names no version that is known"),
        ("/opt/cni/bin/flannel: flannel-cni", "/opt/cni/bin/flannel: 1", "install./opt/cni/bin/flannel is 1"),
        ("    pinned: true", "    pinned: 1", "images[7].pinned is 1, which is not true or false"),
        ("    pinned: true", "    ref: x", "an image needs either a component or a ref"),
        ("  shell: [busybox-static]", "  1: [busybox-static]", "bases has the key 1, which is not text"),
        (
            "  shell: [busybox-static]",
            "  shell: [busybox-static, bash/bookworm]",
            "bases: busybox-static, bash/bookworm are of several suites",
        ),
        ("  - component: pause", "  - component: paws", "paws"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(copied: Path, old: str, new: str, said: str) -> None:
    edit(copied, old, new)
    with pytest.raises(BoxError, match="the recipe debian-13 cannot be used") as caught:
        load_recipe("debian-13", "1.35.4", root=copied)
    assert said in caught.value.details[0]
