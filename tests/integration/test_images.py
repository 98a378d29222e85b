"""Images of lessons: real skopeo, real registries, and nodes on which klab's scripts run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_lab import lab_on_disk, opener
from support.published import publish_images
from support.registry_nodes import machines, programs, storage
from support.saved_images import CONTAINERD, image, layout_files, saved_files, write_folder, write_tar
from support.stand_ins import StandIn, Trouble, registry, serving

from lab import process
from lab.boxes.upstream.patience import Patience
from lab.cluster.acts import images as act
from lab.cluster.lab import Lab
from lab.errors import ImageError, LabError, NotFound
from lab.images.record import LabImage, images_of, keep
from lab.images.sources import Sources, parse_source
from lab.images.store import Store
from lab.scenario.references import parse_reference
from lab.store import Home

NAMES = ("docker.io/library/nginx:1.29", "docker.io/team/app:1.0")
HASTY = Patience(stall=3.0, give_up=1.0, first=0.3, longest=0.3)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, dict[str, str]]]:
    """A registry with two images behind indexes: its port, and the digests of their manifests."""
    folder = tmp_path_factory.mktemp("hub")
    with registry(folder) as port:
        yield port, publish_images(folder / "work", port, NAMES)


@pytest.fixture
def front(hub: tuple[int, dict[str, str]]) -> Iterator[StandIn]:
    with serving(StandIn(port=hub[0])) as server:
        yield server


class Desk:
    """A lab of three nodes with empty registries, and what this machine keeps."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root / "home")
        self.disks = root / "disks"
        self.folder, self.plan = lab_on_disk(self.home, control_planes=1, workers=2, bootstrap="full")
        self.nodes = [node.name for node in self.plan.nodes]
        self.store = Store(self.home)
        self.told: list[str] = []
        self.machines = machines(self.disks, self.nodes)
        self.lab = Lab(self.home, self.folder, self.plan, opener(self.machines), 60)

    def sources(self, **how: object) -> Sources:
        return Sources(self.store, self.told.append, **how)  # type: ignore[arg-type]

    def load(self, *words: str, **how: object) -> act.Loaded:
        found = self.sources(**how).take([parse_source(word) for word in words])
        return act.load(self.lab, [LabImage.of(each) for each in found])


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def pulled(port: int, name: str, target: Path) -> str:
    """Let skopeo pull an image of a node's registry; returns the digest that the registry gives."""
    source = f"docker://127.0.0.1:{port}/{name}"
    argv = ["skopeo", "--override-os", "linux", "--override-arch", "amd64", "copy", "--src-tls-verify=false"]
    process.run([*argv, source, f"dir:{target}"], timeout=60)
    done = process.run(["skopeo", "inspect", "--raw", "--tls-verify=false", source], timeout=60)
    return hashlib.sha256(done.stdout.encode()).hexdigest()


def test_an_image_of_a_registry_is_in_every_nodes_registry_by_tag_and_by_both_digests(
    desk: Desk, front: StandIn, hub: tuple[int, dict[str, str]], tmp_path: Path
) -> None:
    word = f"http://{front.host}/library/nginx:1.29"
    done = desk.load(word)
    assert sorted(done.nodes) == ["cp1", "w1", "w2"]
    (loaded,) = images_of(desk.folder)
    index, manifest = loaded.revisions
    assert f"sha256:{manifest}" == hub[1][NAMES[0]]
    place = tmp_path / "serve"
    place.mkdir()
    (place / "store").symlink_to(storage(desk.disks, "w2"))
    with registry(place) as port:
        name = f"{front.host.replace(':', '_')}/library/nginx"
        assert pulled(port, f"{name}:1.29", tmp_path / "a") == index
        assert pulled(port, f"{name}@sha256:{index}", tmp_path / "b") == index
        assert pulled(port, f"{name}@sha256:{manifest}", tmp_path / "c") == manifest
    hosts = (desk.disks / f"w1/etc/containerd/certs.d/{front.host}/hosts.toml").read_text()
    assert f'[host."http://127.0.0.1:5000/v2/{front.host.replace(":", "_")}"]\n' in hosts
    assert "override_path = true\n" in hosts


def test_what_is_here_is_neither_fetched_nor_sent_again(desk: Desk, front: StandIn) -> None:
    word = f"http://{front.host}/library/nginx:1.29"
    desk.load(word)
    asked, ran = len(front.asked), len(desk.machines.ran)
    done = desk.load(word)
    assert (done.nodes, done.sent) == ((), 0)
    assert len(front.asked) == asked
    assert [kind for _, kind in desk.machines.ran[ran:]] == ["look"] * 3
    desk.load(word, ask_again=True)
    assert len(front.asked) > asked
    assert not [each for each in front.asked[asked:] if "/blobs/" in each.path]


def test_an_image_that_goes_leaves_the_others_and_what_they_share(desk: Desk, tmp_path: Path) -> None:
    one, two = image(("base", "one")), image(("base", "two"))
    files = layout_files([(one, {CONTAINERD: "docker.io/team/one:1"}), (two, {CONTAINERD: "docker.io/team/two:1"})])
    desk.load(str(write_tar(tmp_path / "both.tar", files)))
    gone = act.chosen(images_of(desk.folder), ["team/one:1"], "demo")
    act.remove(desk.lab, gone)
    assert [each.ref for each in images_of(desk.folder)] == ["docker.io/team/two:1"]
    place = tmp_path / "serve"
    place.mkdir()
    (place / "store").symlink_to(storage(desk.disks, "w1"))
    with registry(place) as port:
        assert pulled(port, "docker.io/team/two:1", tmp_path / "a") == two.top
        with pytest.raises(LabError, match="skopeo failed"):
            pulled(port, "docker.io/team/one:1", tmp_path / "b")
    left = {path.parent.name for path in storage(desk.disks, "w1").glob("docker/registry/v2/blobs/sha256/*/*/data")}
    assert left == set(two.blobs)
    repositories = storage(desk.disks, "w1") / "docker/registry/v2/repositories"
    assert [path.name for path in (repositories / "docker.io/team").iterdir()] == ["two"]
    assert "systemctl restart docker-registry" in programs(desk.disks, "w1")
    assert "ctr -n k8s.io images rm --sync docker.io/team/one:1" in programs(desk.disks, "w1")
    with desk.store.lock():
        assert desk.store.remove([each.reference for each in gone], []) > 0
    assert {file.name for file in desk.store.blobs.iterdir()} == set(two.blobs)


def test_what_the_box_had_under_a_name_comes_back(desk: Desk, tmp_path: Path) -> None:
    box, mine = image(("box",)), image(("mine",))
    for made in (box, mine):
        files = layout_files([(made, {CONTAINERD: "docker.io/library/nginx:latest"})])
        keep(desk.folder, [])  # of what a box brings klab has no list
        desk.load(str(write_tar(tmp_path / "nginx.tar", files)))
    act.remove(desk.lab, images_of(desk.folder))
    place = tmp_path / "serve"
    place.mkdir()
    (place / "store").symlink_to(storage(desk.disks, "cp1"))
    with registry(place) as port:
        assert pulled(port, "docker.io/library/nginx:latest", tmp_path / "a") == box.top


def test_a_tag_that_has_moved_leaves_nothing_of_what_it_stood_for(desk: Desk, tmp_path: Path) -> None:
    old, new = image(("base", "old")), image(("base", "new"))
    for made in (old, new):
        desk.load(str(write_tar(tmp_path / "app.tar", layout_files([(made, {CONTAINERD: "docker.io/team/app:1"})]))))
    left = {path.parent.name for path in storage(desk.disks, "w1").glob("docker/registry/v2/blobs/sha256/*/*/data")}
    assert left == set(new.blobs)
    place = tmp_path / "serve"
    place.mkdir()
    (place / "store").symlink_to(storage(desk.disks, "w1"))
    with registry(place) as port:
        assert pulled(port, "docker.io/team/app:1", tmp_path / "a") == new.top
    act.remove(desk.lab, images_of(desk.folder))
    assert not list(storage(desk.disks, "w1").glob("docker/registry/v2/blobs/sha256/*/*/data"))
    assert not list((storage(desk.disks, "w1") / "docker/registry/v2/repositories").iterdir())


def test_docker_save_of_old_and_its_two_names(desk: Desk, tmp_path: Path) -> None:
    desk.load(str(write_tar(tmp_path / "app.tar.gz", saved_files(["app:1", "team/app:2"]), "w:gz")))
    assert [each.ref for each in images_of(desk.folder)] == ["docker.io/library/app:1", "docker.io/team/app:2"]
    place = tmp_path / "serve"
    place.mkdir()
    (place / "store").symlink_to(storage(desk.disks, "cp1"))
    with registry(place) as port:
        assert pulled(port, "docker.io/team/app:2", tmp_path / "a") == images_of(desk.folder)[1].revisions[0]


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci"])
def test_what_skopeo_itself_writes(desk: Desk, hub: tuple[int, dict[str, str]], tmp_path: Path, kind: str) -> None:
    target = tmp_path / ("layout" if kind == "oci" else "app.tar")
    source = f"docker://127.0.0.1:{hub[0]}/team/app:1.0"
    argv = ["skopeo", "--override-os", "linux", "--override-arch", "amd64", "copy", "--src-tls-verify=false"]
    process.run([*argv, source, f"{kind}:{target}:team/app:1.0"], timeout=60)
    desk.load(str(target))
    (found,) = images_of(desk.folder)
    assert found.ref == "docker.io/team/app:1.0"
    place = tmp_path / "serve"
    place.mkdir()
    (place / "store").symlink_to(storage(desk.disks, "w1"))
    with registry(place) as port:
        assert pulled(port, "docker.io/team/app:1.0", tmp_path / "a") == found.revisions[0]


def test_a_cut_connection_and_the_same_again(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(act, "PIECE", 3000)
    monkeypatch.setattr(act, "_AT_ONCE", 1)
    made = image(("base", "app"), indexed=True, size=9000)
    file = write_folder(tmp_path / "layout", layout_files([(made, {CONTAINERD: "docker.io/team/app:1"})]))
    desk.machines.cut = 4
    with pytest.raises(ImageError, match="cp1 does not take the images") as caught:
        desk.load(str(file))
    assert "the connection was closed" in caught.value.details
    assert "run the same command again to continue" in caught.value.hint
    desk.machines.cut = 1 << 30
    before = [kind for node, kind in desk.machines.ran if node == "cp1"]
    desk.machines.ran.clear()
    act.load(desk.lab, [])
    again = [kind for node, kind in desk.machines.ran if node == "cp1"]
    whole = [kind for node, kind in desk.machines.ran if node == "w1"]
    assert before.count("receive") + again.count("receive") <= whole.count("receive") + 1
    assert again[-1] == "place"
    place = tmp_path / "serve"
    place.mkdir()
    (place / "store").symlink_to(storage(desk.disks, "cp1"))
    with registry(place) as port:
        assert pulled(port, "docker.io/team/app:1", tmp_path / "a") == made.top


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "refuses"),
        (403, "refuses"),
        (404, "has no"),
        (429, "does not deliver"),
        (500, "does not deliver"),
    ],
)
def test_a_registry_that_does_not_give_it(desk: Desk, front: StandIn, status: int, said: str) -> None:
    front.troubles = [Trouble("/manifests/", status=status, headers={"Retry-After": "1"})]
    with pytest.raises(LabError, match=f"{front.host} {said}") as caught:
        desk.load(f"http://{front.host}/library/nginx:1.29", patience=HASTY)
    assert "klab box" not in caught.value.hint
    assert caught.value.hint
    assert isinstance(caught.value, NotFound if status == 404 else ImageError)
    assert images_of(desk.folder) == ()


def test_a_registry_that_says_nothing_or_is_not_there(desk: Desk, front: StandIn) -> None:
    front.troubles = [Trouble("/", silent=True)]
    with pytest.raises(ImageError, match="does not deliver: not a byte"):
        desk.load(f"http://{front.host}/library/nginx:1.29", patience=HASTY)
    with pytest.raises(ImageError, match=r"127\.0\.0\.1:9 does not deliver"):
        desk.load("http://127.0.0.1:9/library/nginx:1.29", patience=HASTY)


def test_a_registry_without_tls_is_told(desk: Desk, front: StandIn) -> None:
    with pytest.raises(ImageError, match="speaks HTTP without TLS") as caught:
        desk.load(f"{front.host}/library/nginx:1.29", patience=HASTY)
    assert f"http://{front.host}/library/nginx:1.29" in caught.value.hint


def test_a_mirror_is_asked_in_the_place_of_the_registry(desk: Desk, front: StandIn) -> None:
    sources = desk.sources(mirrors={"docker.io": f"http://{front.host}"}, patience=HASTY)
    found = sources.take([parse_source("nginx:1.29"), parse_source("team/app:1.0")])
    assert [str(each.reference) for each in found] == list(NAMES)
    assert desk.sources(mirrors={"docker.io": f"http://{front.host}"}).obstacles([parse_reference("nginx:0")]) != {
        parse_reference("nginx:0"): ""
    }


def test_klabs_own_folder_is_a_source_for_another_machine(desk: Desk, tmp_path: Path) -> None:
    made = image(indexed=True)
    desk.load(str(write_folder(tmp_path / "layout", layout_files([(made, {CONTAINERD: "docker.io/team/app:1"})]))))
    other = Store(Home(tmp_path / "other"))
    (found,) = Sources(other, print).take([parse_source(str(desk.store.folder))])
    assert (str(found.reference), found.hex) == ("docker.io/team/app:1", made.top)
    assert json.loads((other.folder / "index.json").read_text())["manifests"][0]["digest"] == f"sha256:{made.top}"
