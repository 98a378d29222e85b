"""Images on their way to nodes: fake machines on which klab's scripts run. With real registries: tests/integration."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.changing_lab import WELL, Joining, lab_of
from support.changing_lab import Lab as ChangingLab
from support.cluster_server import ClusterServer
from support.fake_lab import lab_on_disk, opener
from support.kills import killed_in
from support.registry_nodes import RegistryMachines, machines, storage
from support.saved_images import CONTAINERD, Made, image, layout_files, write_tar

from lab.cluster.acts import images as act
from lab.cluster.acts import scale
from lab.cluster.events import Event
from lab.cluster.lab import Lab
from lab.components.runtime.base import NODE_REGISTRY_ROOT
from lab.errors import Conflict, ImageError, NotFound
from lab.images.record import LabImage, images_of, keep
from lab.images.sources import Sources, parse_source
from lab.images.store import Store
from lab.machines.fake.machines import FakeMachines
from lab.scenario.model import Bootstrap
from lab.store import Home

REF = "docker.io/team/app:1"


def stored(home: Home, folder: Path, made: Made, ref: str = REF) -> LabImage:
    """An image that this machine keeps."""
    file = write_tar(folder / "image.tar", layout_files([(made, {CONTAINERD: ref})]))
    (found,) = Sources(Store(home), lambda _text: None).take([parse_source(str(file))])
    return LabImage.of(found)


class Desk:
    def __init__(self, root: Path, bootstrap: Bootstrap = "full") -> None:
        self.root, self.home = root, Home(root / "home")
        self.folder, self.plan = lab_on_disk(self.home, control_planes=1, workers=1, bootstrap=bootstrap)
        self.disks = root / "disks"
        self.machines = machines(self.disks, ["cp1", "w1"])
        self.events: list[Event] = []

    @property
    def lab(self) -> Lab:
        return Lab(self.home, self.folder, self.plan, opener(self.machines), 60, self.events.append)

    def store(self, made: Made, ref: str = REF) -> LabImage:
        return stored(self.home, self.root, made, ref)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def blobs(disks: Path, node: str) -> set[str]:
    return {path.parent.name for path in (disks / f"{node}{NODE_REGISTRY_ROOT}/blobs").rglob("data")}


def test_every_node_gets_every_file_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(act, "PIECE", 1500)
    made = image(indexed=True, size=5000)
    done = act.load(desk.lab, [desk.store(made)])
    assert (done.nodes, done.sent) == (("cp1", "w1"), 2 * sum(map(len, made.blobs.values())))
    for node in ("cp1", "w1"):
        assert blobs(desk.disks, node) == set(made.blobs)
        current = storage(desk.disks, node) / "docker/registry/v2/repositories/docker.io/team/app/_manifests/tags/1"
        assert (current / "current/link").read_text() == f"sha256:{made.top}"
    assert not list(desk.disks.rglob("klab/images"))
    assert [(e.phase, e.state) for e in desk.events if e.node == "w1"] == [("images", "begin"), ("images", "done")]
    assert act.look(desk.lab, images_of(desk.folder)) == {"cp1": {REF}, "w1": {REF}}
    assert not list(desk.home.images.glob(".parcel*"))


def test_a_second_image_brings_only_what_is_new(desk: Desk) -> None:
    act.load(desk.lab, [desk.store(image(("base", "one")))])
    two = image(("base", "two"))
    done = act.load(desk.lab, [desk.store(two, "docker.io/team/two:1")])
    base = max(two.blobs.values(), key=len)
    assert done.sent < 2 * sum(map(len, two.blobs.values())) - len(base)


def test_a_node_that_was_rolled_back_gets_what_it_lacks(desk: Desk) -> None:
    act.load(desk.lab, [desk.store(image())])
    for path in sorted((desk.disks / f"w1{NODE_REGISTRY_ROOT}").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (desk.disks / f"w1{NODE_REGISTRY_ROOT}/repositories").mkdir()
    assert act.look(desk.lab, images_of(desk.folder)) == {"cp1": {REF}, "w1": frozenset()}
    assert act.load(desk.lab, []).nodes == ("w1",)
    assert act.look(desk.lab, images_of(desk.folder))["w1"] == {REF}


def test_a_node_that_is_off_is_told_before_anything_is_sent(desk: Desk) -> None:
    wanted = desk.store(image())
    desk.lab.machines().power_off(["w1"])
    with pytest.raises(Conflict, match="not every machine of lab 'demo' runs") as caught:
        act.load(desk.lab, [wanted])
    assert "w1 is stopped" in caught.value.details
    assert "klab start demo" in caught.value.hint
    assert desk.machines.ran == []
    assert images_of(desk.folder) == ()
    with pytest.raises(Conflict, match="not every machine"):
        act.remove(desk.lab, [wanted])
    assert act.look(desk.lab, [wanted])["w1"] is None


def test_plain_and_half_made_labs(tmp_path: Path) -> None:
    plain = Desk(tmp_path / "plain", "none")
    with pytest.raises(Conflict, match="are plain machines: no registry runs on them"):
        act.load(plain.lab, [])
    half = Desk(tmp_path / "half")
    half.folder.update_record(phase="creating")
    with pytest.raises(Conflict, match="is half made"):
        act.load(half.lab, [])


def test_a_node_without_room(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = desk.store(image())
    monkeypatch.setattr(act.scripts, "parse_seen", lambda _text: act.Seen(10, dict.fromkeys(wanted.files, 0)))
    with pytest.raises(ImageError, match="cp1 has no room for the images") as caught:
        act.load(desk.lab, [wanted])
    assert "klab image rm" in caught.value.hint


def test_a_disk_that_is_full_in_the_middle(desk: Desk) -> None:
    desk.machines.full = True
    with pytest.raises(ImageError, match="the disk of cp1 is full"):
        act.load(desk.lab, [desk.store(image())])
    desk.machines.full = False
    assert act.load(desk.lab, []).nodes == ("cp1", "w1"), "the list has it already"


def test_a_node_without_a_registry(desk: Desk) -> None:
    (desk.disks / f"cp1{NODE_REGISTRY_ROOT}/repositories").rmdir()
    with pytest.raises(ImageError, match="cp1 has no registry that images could be brought to"):
        act.load(desk.lab, [desk.store(image())])


def test_a_node_that_does_not_answer(desk: Desk) -> None:
    desk.machines.cut = 0
    with pytest.raises(ImageError, match="has no registry") as caught:
        act.load(desk.lab, [desk.store(image())])
    assert "the connection was closed" in caught.value.details


def test_what_this_machine_no_longer_keeps(desk: Desk) -> None:
    wanted = desk.store(image())
    (desk.home.images / "blobs/sha256" / wanted.revisions[0]).unlink()
    with pytest.raises(ImageError, match=f"no longer keeps the image {REF}") as caught:
        act.load(desk.lab, [wanted])
    assert f"klab image load demo {REF}" in caught.value.hint or f"klab image load {REF}" in caught.value.hint


def test_what_was_damaged_here_is_found_on_the_node(desk: Desk) -> None:
    wanted = desk.store(image())
    layer = max(wanted.files, key=lambda name: wanted.files[name])
    file = desk.home.images / "blobs/sha256" / layer
    file.write_bytes(bytes(len(file.read_bytes())))
    with pytest.raises(ImageError, match="does not take the images") as caught:
        act.load(desk.lab, [wanted])
    assert any(layer in line for line in caught.value.details)
    assert layer not in blobs(desk.disks, "cp1")


@pytest.mark.parametrize("scripts", [1, 2, 3, 4])
def test_after_a_kill_the_same_again_continues(tmp_path: Path, scripts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(act, "PIECE", 2000)
    monkeypatch.setattr(act, "_AT_ONCE", 1)
    desk = Desk(tmp_path)
    wanted = desk.store(image(size=3000))

    killed_in(RegistryMachines, "_run", lambda: act.load(desk.lab, [wanted]), call=scripts)
    done = act.load(desk.lab, [])
    assert "w1" in done.nodes
    for node in ("cp1", "w1"):
        assert blobs(desk.disks, node) == set(wanted.files)


def test_ctrl_c_ends_it_after_the_piece_at_hand(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(act, "PIECE", 500)
    seen: list[int] = []

    real = act._Delivery._post

    def post(self: act._Delivery, pieces: Any) -> None:
        real(self, pieces)
        seen.append(1)
        self._stop.set()

    monkeypatch.setattr(act._Delivery, "_post", post)
    with pytest.raises(ImageError, match="stopped"):
        act.load(desk.lab, [desk.store(image(size=9000))])
    assert len(seen) <= 2


def test_only_what_klab_has_brought_is_removed(desk: Desk) -> None:
    wanted = desk.store(image())
    act.load(desk.lab, [wanted])
    with pytest.raises(NotFound, match="klab has brought no image 'nginx' to lab 'demo'") as caught:
        act.chosen(images_of(desk.folder), ["nginx"], "demo")
    assert REF in caught.value.hint
    with pytest.raises(NotFound):
        act.chosen([], ["$x"], "demo")
    act.remove(desk.lab, act.chosen(images_of(desk.folder), ["team/app:1"], "demo"), [REF])
    assert blobs(desk.disks, "cp1") == set(wanted.files), "the box has it: the nodes keep it"
    assert images_of(desk.folder) == ()


# --- nodes that come later ----------------------------------------------------------------------------


class JoiningWithRegistry(Joining, RegistryMachines):
    """Nodes that join the fake cluster and have a registry."""


@pytest.mark.usefixtures("quick_watch")
def test_nodes_that_join_get_the_labs_images(
    tmp_path: Path, cluster: ClusterServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = lab_of(1, 1, tmp_path / "home", cluster, monkeypatch)
    wanted = stored(lab.home, tmp_path, image())
    disks = tmp_path / "disks"
    made = machines(disks, ["cp1", "w1", "w2"])
    joining = type("Made", (JoiningWithRegistry,), {"disks": disks, "ran": made.ran})
    keep(lab.folder, [wanted])
    change = changed(lab, joining)
    assert scale.scale(change, workers=2).joined == ("w2",)
    assert blobs(disks, "w2") == set(wanted.files)
    assert blobs(disks, "cp1") == set(), "the others are left"
    assert scale.replace_node(changed(lab, joining), "w2").joined == ("w2",)


def changed(lab: ChangingLab, joining: type[FakeMachines]) -> scale.Change:
    cluster_lab = Lab(
        lab.home,
        lab.folder,
        lab.plan,
        opener(partial(joining, cluster=lab.cluster, says=WELL, joins=True)),  # type: ignore[arg-type]
        20,
        reach=lab.cluster.reach,
    )
    return scale.Change(cluster_lab, None, "true", lambda _plan, _nodes: None)
