"""A box from upstream's programs and images, its record and its lock: a small recipe without Debian's packages.

What is left out, Debian's system, the file system and the disk, does not ask where a program came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.published import PLACE, VERSION, content, publish_archive, publish_images, publish_programs
from support.stand_ins import StandIn, Trouble, registry, serving

from lab import process
from lab.app import boxes as app
from lab.boxes import build, gomodules
from lab.boxes import registry as node_registry
from lab.boxes.cache import digest_file
from lab.boxes.images import read_layout
from lab.boxes.lock import Lock, lock_of, lock_text, parse_lock
from lab.boxes.manifest import CONTENTS, DISK, KUBECTL, Box, MadeFrom, describe_file, read_box
from lab.cli.commands.box import box as command
from lab.components.archives import archive_of
from lab.errors import BoxError, Conflict, UsageError
from lab.scenario.catalog import load_catalog
from lab.store import Home
from lab.waiting import Deadline, poll

RECIPE = f"""\
name: small
runtimes: [containerd]
cnis: [none]
kubernetes:
  "{VERSION.version}": {json.dumps({key: value for key, value in VERSION.as_data().items() if key != "version"})}
epoch: 1700000000
debian: {{suite: trixie, packages: []}}
go: "1.26.8"
programs:
  - name: kubernetes
    module: k8s.io/kubernetes
    version: v{{kubernetes}}
    build: {{kubeadm: cmd/kubeadm, kubelet: cmd/kubelet, kubectl: cmd/kubectl, kube-apiserver: cmd/kube-apiserver}}
  - {{name: bolt-settle, c: programs/settle.c, build: {{bolt-settle: ""}}}}
  - {{name: pause, c: programs/pause.c, build: {{pause: ""}}}}
install: {{/usr/bin: [kubeadm, kubelet, kubectl]}}
bases: {{}}
images:
  - {{component: kube-apiserver, programs: {{/usr/local/bin/kube-apiserver: kube-apiserver}}}}
  - {{component: pause, programs: {{/pause: pause}}, pinned: true}}
  - {{ref: "docker.io/library/lesson:latest", programs: {{/settle: bolt-settle}}}}
"""
# Beside that, a program that is in etcd's image, and flannel, whose program nothing here could compile.
LARGER = (
    RECIPE.replace("cnis: [none]", "cnis: [flannel]")
    .replace('"pause": "3.10.1"', '"pause": "3.10.1", "flannel": "0.28.4", "flannel_cni": "0.9.1"')
    .replace(
        "  - {name: bolt",
        """\
  - {name: etcdctl, module: go.etcd.io/etcd/etcdctl/v3, version: "v{etcd}", build: {etcdctl: ""}}
  - {name: flannel, module: nowhere.example/flannel, version: "v{flannel}", build: {flanneld: ""}}
  - {name: bolt""",
    )
    .replace("[kubeadm, kubelet, kubectl]}", "[kubeadm, kubelet, kubectl, etcdctl]}")
    .replace(
        "  - {component: pause",
        """\
  - {component: etcd, programs: {/usr/local/bin/etcdctl: etcdctl}}
  - {component: flannel, programs: {/opt/bin/flanneld: flanneld}}
  - {component: pause""",
    )
)
UPSTREAMS = ("kube-apiserver", "pause")
FLANNEL = "ghcr.io/flannel-io/flannel:v0.28.4"


class Place:
    """A KLAB_HOME, a recipe, and servers that stand in for upstream's."""

    def __init__(self, folder: Path, files: StandIn, front: StandIn, digests: dict[str, str]) -> None:
        self.home = Home(folder / "home")
        self.recipes = folder / "recipes"
        self.published = folder / "published"
        self.files, self.front, self.digests = files, front, digests
        self.told: list[str] = []
        (self.recipes / "small/programs").mkdir(parents=True)
        (self.recipes / "small/images").mkdir()
        self.write(RECIPE)
        for name in ("settle", "pause"):
            (self.recipes / f"small/programs/{name}.c").write_text("int main(void) { return 0; }\n")

    def write(self, recipe: str) -> None:
        (self.recipes / "small/recipe.yaml").write_text(recipe)

    @property
    def mirrors(self) -> tuple[str, ...]:
        return f"dl.k8s.io=http://student:chalk@{self.files.host}", f"registry.k8s.io=http://{self.front.host}/k8s"

    def build(self, **options: Any) -> Box:
        self.told.clear()
        catalog, version = load_catalog(self.recipes), VERSION.version
        options = {"mirrors": self.mirrors, **options}
        return build.build_box(self.home, catalog, "small", version, self.told.append, recipes=self.recipes, **options)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("registry")
    with registry(folder) as port:
        refs = [VERSION.image(name) for name in UPSTREAMS]
        yield port, publish_images(folder / "work", port, refs, "k8s/")


@pytest.fixture
def place(tmp_path: Path, store: tuple[int, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    publish_programs(tmp_path / "published")
    monkeypatch.setattr(build, "check_host", lambda _: None)  # what is left out is what needs root, and room
    monkeypatch.setattr(build.debian, "make_root", lambda *_, **__: None)
    monkeypatch.setattr(build.root, "assemble", lambda *_, **__: None)
    monkeypatch.setattr(build._Build, "_package", packaged)
    with serving(StandIn(tmp_path / "published")) as files, serving(StandIn(port=store[0])) as front:
        made = Place(tmp_path, files, front, store[1])
        monkeypatch.setenv("KLAB_HOME", str(made.home.root))
        yield made


def packaged(self: Any, _work: Path, target: Path, programs: dict[str, Path], made_from: MadeFrom) -> Box:
    """A box whose disk says what is in it."""
    (target / DISK).write_text(json.dumps([made_from.programs, made_from.images]))
    (target / KUBECTL).write_bytes(programs["kubectl"].read_bytes())
    (target / CONTENTS).write_text("")
    box: Box = self._place(target, {path.name: describe_file(path) for path in sorted(target.iterdir())}, made_from)
    return box


def run(*words: str) -> Any:
    return CliRunner().invoke(command, words, catch_exceptions=True)


def test_a_box_says_what_it_was_made_from(place: Place) -> None:
    built = place.build()
    made = built.made_from
    assert made is not None
    assert made.source == "mirror"
    assert made.addresses == {
        "dl.k8s.io": f"http://{place.files.host}",
        "registry.k8s.io": f"http://{place.front.host}/k8s",
    }
    assert made.programs.keys() == {"kubeadm", "kubelet", "kubectl", "bolt-settle"}
    assert made.images.keys() == {*place.digests, "docker.io/library/lesson:latest"}
    assert place.digests.items() <= made.images.items()
    assert built.kubectl.read_bytes() == content("kubectl")
    assert read_box(built.folder) == built
    assert "chalk" not in "".join(file.read_text() for file in built.folder.iterdir() if file.name != KUBECTL)
    assert place.told[0].startswith("mirror: programs from http://127.0.0.1:")
    assert "chalk" not in "".join(place.told)
    (layout,) = (place.home.cache / "images").iterdir()
    assert {image.ref: f"sha256:{image.manifest}" for image in read_layout(layout)} == made.images
    for image in read_layout(layout):
        for blob in (image.manifest, image.config, *image.layers):
            assert digest_file(layout / "blobs/sha256" / blob) == blob


def test_a_nodes_registry_serves_upstreams_images_as_they_are(place: Place, tmp_path: Path) -> None:
    place.build()
    (layout,) = (place.home.cache / "images").iterdir()
    folder = tmp_path / "node"
    (folder / "store").mkdir(parents=True)
    node_registry.write(folder / "store", layout / "blobs/sha256", read_layout(layout))
    with registry(folder) as port:
        for ref, digest in place.digests.items():
            argv = [
                "skopeo",
                "copy",
                "--src-tls-verify=false",
                f"docker://127.0.0.1:{port}/{ref}",
                f"dir:{folder}/copy",
            ]
            process.run(argv, timeout=60)
            assert f"sha256:{digest_file(folder / 'copy/manifest.json')}" == digest


def test_the_same_again_asks_no_server(place: Place) -> None:
    first = place.build()
    asked = len(place.files.asked) + len(place.front.asked)
    assert place.build() == first
    assert len(place.files.asked) + len(place.front.asked) == asked


def test_a_box_from_elsewhere_is_another_box(place: Place, tmp_path: Path, store: tuple[int, dict[str, str]]) -> None:
    first = place.build()
    with serving(StandIn(tmp_path / "published")) as files:
        elsewhere = (f"dl.k8s.io=http://{files.host}", place.mirrors[1])
        second = place.build(mirrors=elsewhere)
    assert second.inputs != first.inputs
    # The same bytes all the same: upstream's checksums say so, and nothing large was fetched twice.
    assert second.digest == first.digest
    assert not [asked for asked in files.asked if asked.path.endswith("/kubelet")]
    assert second.made_from is not None
    assert second.made_from.addresses["dl.k8s.io"] == f"http://{files.host}"


def test_the_folder_of_downloads_builds_the_same_box(place: Place, tmp_path: Path) -> None:
    first = place.build()
    stick = tmp_path / "stick"
    (place.home.cache / "upstream").rename(stick)
    other = Place(tmp_path / "other", place.files, place.front, place.digests)
    before = len(place.files.asked) + len(place.front.asked)
    second = other.build(mirrors=(str(stick),))
    assert len(place.files.asked) + len(place.front.asked) == before
    assert second.digest == first.digest
    assert second.made_from == replace(
        first.made_from, addresses={"dl.k8s.io": str(stick), "registry.k8s.io": str(stick)}
    )


def test_list_verify_and_lock_tell_it(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = place.build()
    assert built.made_from is not None
    monkeypatch.chdir(tmp_path)
    assert "this machine, mirror" in run("list").stdout
    assert json.loads(run("list", "--json").stdout)[0]["made_from"] == asdict(built.made_from)
    assert json.loads(run("verify", "--json").stdout)[0]["source"] == "mirror"
    done = run("lock")
    assert "small-k8s-1.35.4.lock.json: 4 programs and 3 images of small, from mirror" in done.stderr
    written = (tmp_path / "small-k8s-1.35.4.lock.json").read_text()
    assert parse_lock(written) == lock_of(built)
    assert json.loads(run("lock", "--json").stdout)["made_from"] == asdict(built.made_from)
    assert run("lock", built.short, "-o", "course.json").exit_code == 0
    assert (tmp_path / "course.json").read_text() == written
    assert "chalk" not in written


def changed(lock: Lock, **changes: Any) -> Lock:
    """The lock with other programs or images."""
    return parse_lock(lock_text(replace(lock, made_from=replace(lock.made_from, **changes))))


def test_a_lock_is_met(place: Place) -> None:
    lock = lock_of(place.build())
    other = Home(place.home.root.with_name("other-home"))
    place.home = other
    assert place.build(lock=lock).made_from == lock.made_from
    # Found again, and nothing is asked.
    asked = len(place.files.asked)
    assert place.build(lock=lock).made_from == lock.made_from
    assert len(place.files.asked) == asked


def test_another_program_than_the_locks_stops_before_it_is_fetched(place: Place) -> None:
    built = place.build()
    lock = changed(lock_of(built), programs={**built.made_from.programs, "kubelet": "ab" * 32})  # type: ignore[union-attr]
    place.home = Home(place.home.root.with_name("other-home"))
    before = len([asked for asked in place.files.asked if asked.path.endswith("/kubelet")])
    with pytest.raises(BoxError, match="the program kubelet is not the one in the lock") as caught:
        place.build(lock=lock)
    found = (place.published / PLACE / "kubelet.sha256").read_text()
    assert caught.value.details == (f"in the lock: {'ab' * 32}", f"at http://{place.files.host}: {found}")
    assert len([asked for asked in place.files.asked if asked.path.endswith("/kubelet")]) == before


def test_another_image_than_the_locks_stops_before_it_is_fetched(place: Place) -> None:
    built = place.build()
    ref = VERSION.image("pause")
    lock = changed(lock_of(built), images={**built.made_from.images, ref: f"sha256:{'ab' * 32}"})  # type: ignore[union-attr]
    place.home = Home(place.home.root.with_name("other-home"))
    place.front.asked.clear()
    with pytest.raises(BoxError, match=f"the image {ref} is not the one in the lock") as caught:
        place.build(lock=lock)
    assert f"in the lock: sha256:{'ab' * 32}" in caught.value.details
    assert place.digests[ref] in caught.value.details[1]
    assert not [asked for asked in place.front.asked if "/blobs/" in asked.path]


def test_what_was_compiled_is_locked_too(place: Place) -> None:
    built = place.build()
    lock = changed(lock_of(built), programs={**built.made_from.programs, "bolt-settle": "ab" * 32})  # type: ignore[union-attr]
    with pytest.raises(BoxError, match="the program bolt-settle is not the one in the lock"):
        place.build(lock=lock)


def test_a_program_that_the_lock_does_not_know_or_that_is_gone(place: Place) -> None:
    lock = lock_of(place.build())
    programs = dict(lock.made_from.programs)
    with pytest.raises(BoxError, match="the lock names calico, which this build does not have"):
        place.build(lock=changed(lock, programs={**programs, "calico": "ab" * 32}))
    del programs["kubectl"]
    with pytest.raises(BoxError, match="the lock does not name the program kubectl"):
        place.build(lock=changed(lock, programs=programs))


def test_a_lock_of_upstreams_programs_is_not_compiled(place: Place) -> None:
    lock = lock_of(place.build())
    with pytest.raises(UsageError, match="from mirror, which --source source does not make"):
        place.build(lock=lock, source="source", mirrors=())


def test_a_lock_names_its_box(place: Place, tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text(lock_text(lock_of(place.build())))
    for name, version in (("debian-13", None), (None, "v1.34.4")):
        with pytest.raises(Conflict, match=r"the lock is of small with Kubernetes 1\.35\.4"):
            app.build(place.home, name, version, locked=tmp_path / "lock.json", tell=place.told.append)


def test_a_box_that_does_not_say_what_it_was_made_from_has_no_lock(place: Place) -> None:
    built = place.build()
    file = built.folder / "manifest.json"
    data = json.loads(file.read_text())
    del data["made_from"]
    file.write_text(json.dumps(data))
    assert read_box(built.folder).made_from is None
    with pytest.raises(Conflict, match="does not say what it was made from") as caught:
        app.lock(place.home)
    assert caught.value.hint == "klab box build small --kubernetes 1.35.4 --rebuild"


def test_a_damaged_blob_is_fetched_again(place: Place) -> None:
    place.build()
    manifest = place.digests[VERSION.image("pause")].removeprefix("sha256:")
    blobs = place.home.cache / "upstream/images/blobs/sha256"
    layer = json.loads((blobs / manifest).read_text())["layers"][0]["digest"].removeprefix("sha256:")
    damaged = bytearray((blobs / layer).read_bytes())
    damaged[100] ^= 1
    (blobs / layer).write_bytes(damaged)
    with (place.recipes / "small/programs/settle.c").open("a") as file:
        file.write("/* another */\n")
    place.build()
    assert digest_file(blobs / layer) == layer


# --- flannel and etcdctl ------------------------------------------------------------------------------


ETCD = VERSION.image("etcd")


@pytest.fixture(scope="module")
def more(store: tuple[int, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of etcd's image, with etcdctl in it, and of flannel's."""
    folder, paths = tmp_path_factory.mktemp("more"), {ETCD: "/usr/local/bin/etcdctl"}
    return publish_images(folder, store[0], [ETCD, FLANNEL], "k8s/", paths=paths)


def test_flannel_and_etcdctl_come_as_images(place: Place, more: dict[str, str]) -> None:
    place.write(LARGER)
    own = f"ghcr.io=http://{place.front.host}/k8s"
    built = place.build(mirrors=(*place.mirrors, own))
    made = built.made_from
    assert made is not None
    assert made.addresses["ghcr.io"] == own.partition("=")[2]
    assert made.images.items() >= more.items()
    assert "flanneld" not in made.programs
    program = next(place.home.cache.glob("programs/*/bin/etcdctl"))
    assert program.read_bytes() == content(ETCD)
    assert made.programs["etcdctl"] == digest_file(program)
    # Found again, without a server.
    place.files.troubles = place.front.troubles = [Trouble("", status=500)]
    assert place.build(mirrors=(*place.mirrors, own)) == built


def test_flannel_is_compiled_where_its_registry_is_not_reached(place: Place, more: dict[str, str]) -> None:
    place.write(LARGER)
    compiled: list[str] = []

    def stop(program: Any, *_: object, **__: object) -> None:
        compiled.append(program.name)
        raise BoxError("enough", hint="none")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gomodules, "build", stop)
        with pytest.raises(BoxError, match="enough"):
            place.build(mirrors=(*place.mirrors, "ghcr.io=http://127.0.0.1:9"))
    assert compiled == ["flannel"]
    assert any(line.startswith("the pod network is compiled, since its image cannot be had: ") for line in place.told)


CRICTL = (
    "  - {name: crictl, module: sigs.k8s.io/cri-tools, version: v1.37.0, build: {crictl: cmd/crictl}}\n  - {name: bolt"
)


def test_a_program_comes_out_of_its_projects_archive(place: Place) -> None:
    place.write(RECIPE.replace("  - {name: bolt", CRICTL).replace("kubelet, kubectl]}", "kubelet, kubectl, crictl]}"))
    archive = archive_of("sigs.k8s.io/cri-tools", "v1.37.0")
    assert archive is not None
    publish_archive(place.published, archive, {"crictl": content("crictl")})
    own = f"github.com=http://{place.files.host}"
    built = place.build(mirrors=(*place.mirrors, own))
    made = built.made_from
    assert made is not None
    assert made.addresses["github.com"] == own.partition("=")[2]
    (program,) = place.home.cache.glob("programs/*/bin/crictl")
    assert program.read_bytes() == content("crictl")
    assert made.programs["crictl"] == digest_file(program)
    assert "fetching crictl v1.37.0" in place.told
    # Found again, without a server; and by its lock.
    place.files.troubles = place.front.troubles = [Trouble("", status=500)]
    assert place.build(mirrors=(*place.mirrors, own)) == built
    assert place.build(mirrors=(*place.mirrors, own), lock=lock_of(built)) == built


def test_what_other_projects_publish_is_compiled_where_it_is_not_reached(place: Place) -> None:
    place.write(RECIPE.replace("  - {name: bolt", CRICTL).replace("kubelet, kubectl]}", "kubelet, kubectl, crictl]}"))
    compiled: list[str] = []

    def stop(program: Any, *_: object, **__: object) -> None:
        compiled.append(program.name)
        raise BoxError("enough", hint="none")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gomodules, "build", stop)
        with pytest.raises(BoxError, match="enough"):
            place.build(mirrors=(*place.mirrors, "github.com=http://127.0.0.1:9"))
    assert compiled == ["crictl"]
    said = "what other projects publish is compiled, since it cannot be had: http://127.0.0.1:9: "
    assert any(line.startswith(said) for line in place.told)


def test_a_failure_of_debians_need_not_wait_for_the_compiler(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BoxError("the mirror of Debian is gone", hint="none")

    def slow(*_: object, **__: object) -> None:
        pytest.fail("it was compiled all the same")

    monkeypatch.setattr(build.debian, "make_root", refuse)
    monkeypatch.setattr(build, "background", at_once)
    monkeypatch.setattr(gomodules, "build", slow)
    with pytest.raises(BoxError, match="the mirror of Debian is gone"):
        place.build()


def test_what_a_failure_waits_for_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def patient(*_: object, **__: object) -> None:
        poll(lambda: [line for line in place.told if line.startswith("stopping when")], Deadline.after(60))

    def fail(*_: object, **__: object) -> None:
        raise BoxError("it does not compile", hint="none")

    monkeypatch.setattr(build.debian, "make_root", patient)
    monkeypatch.setattr(gomodules, "build", fail)
    with pytest.raises(BoxError, match="it does not compile"):
        place.build()
    assert place.told[-1] == "stopping when Debian's packages are there; they are kept for the next build"


@contextmanager
def at_once(act: Any) -> Iterator[Future[Any]]:
    """As `lab.waiting.background`, done before the block begins."""
    done: Future[Any] = Future()
    try:
        done.set_result(act())
    except BoxError as error:
        done.set_exception(error)
    yield done
