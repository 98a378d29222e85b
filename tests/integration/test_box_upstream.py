"""Upstream's programs and images from servers that stand in for dl.k8s.io and registry.k8s.io.

The registry is a real one, Debian's docker-registry, filled by skopeo; in front of it, and of the programs, stands a
server that fails as it is told.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.authority import server_files
from support.published import PLACE, VERSION, content, publish_archive, publish_images, publish_programs
from support.stand_ins import PASSWORD, USER, StandIn, Trouble, registry, serving

from lab import process
from lab.boxes.upstream import web
from lab.boxes.upstream.addresses import Addresses, Registry, Site
from lab.boxes.upstream.archives import unpack
from lab.boxes.upstream.patience import Patience
from lab.boxes.upstream.upstream import Upstream, _obstacle_in_folder
from lab.boxes.upstream.web import BEGUN, Missing
from lab.cluster.secrets import load_or_make
from lab.components.archives import Archive
from lab.errors import BoxError, HostError
from lab.store import LabFolder
from lab.waiting import Deadline, poll

# Short where a test waits for the end of klab's patience; long enough for a busy machine where it must not end.
PATIENT = Patience(first=0.05, longest=0.05)
HASTY = Patience(stall=2.0, give_up=1.0, first=0.4, longest=0.4)
PAUSE = VERSION.image("pause")
PROXY = VERSION.image("kube-proxy")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, dict[str, str]]]:
    """A registry with Kubernetes' images below k8s/: its port, and the images' digests."""
    folder = tmp_path_factory.mktemp("registry")
    with registry(folder) as port:
        yield port, publish_images(folder / "work", port, VERSION.images.values(), "k8s/")


@pytest.fixture
def files(tmp_path: Path) -> Iterator[StandIn]:
    publish_programs(tmp_path / "published")
    with serving(StandIn(tmp_path / "published")) as server:
        yield server


@pytest.fixture
def front(store: tuple[int, dict[str, str]]) -> Iterator[StandIn]:
    with serving(StandIn(port=store[0])) as server:
        yield server


class Desk:
    """klab's side: what it is told of, and where it keeps what comes."""

    def __init__(self, folder: Path, files: StandIn, front: StandIn) -> None:
        self.kept = folder / "kept"
        self.told: list[str] = []
        self.addresses = Addresses(Site(f"http://{files.host}"), Registry(f"{front.host}/k8s", plain=True))

    def upstream(self, patience: Patience = PATIENT, addresses: Addresses | None = None) -> Upstream:
        return Upstream(addresses or self.addresses, VERSION.version, self.kept, self.told.append, patience)


@pytest.fixture
def desk(tmp_path: Path, files: StandIn, front: StandIn) -> Desk:
    return Desk(tmp_path, files, front)


def ranges(server: StandIn, path: str) -> list[str]:
    """What each request for a path has asked to go on from."""
    return [asked.headers.get("range", "") for asked in server.asked if asked.path.endswith(path)]


# --- programs -----------------------------------------------------------------------------------------


def test_a_program_comes_with_its_published_checksum(desk: Desk) -> None:
    found = desk.upstream().program("kubeadm")
    assert found.read_bytes() == content("kubeadm")
    assert found == desk.kept / "dl.k8s.io" / PLACE / "kubeadm"
    assert found.with_name("kubeadm.sha256").read_text().strip() == hashlib.sha256(content("kubeadm")).hexdigest()
    assert desk.told == []


def test_what_is_there_is_not_fetched_again(desk: Desk, files: StandIn) -> None:
    for _ in range(2):
        desk.upstream().program("kubeadm")
    assert ranges(files, "/kubeadm") == [""]


def test_a_wrong_checksum_ends_with_both(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "published" / PLACE / "kubeadm").write_bytes(b"another program")
    with pytest.raises(BoxError, match=r"kubeadm from 127\.0\.0\.1:\d+ is not what was published") as caught:
        desk.upstream().program("kubeadm")
    shown = "\n".join(caught.value.details)
    assert hashlib.sha256(content("kubeadm")).hexdigest() in shown
    assert hashlib.sha256(b"another program").hexdigest() in shown
    assert "--mirror" in caught.value.hint
    assert [path.name for path in (desk.kept / "dl.k8s.io" / PLACE).iterdir()] == ["kubeadm.sha256"]


def test_sha512_where_that_is_all(desk: Desk, tmp_path: Path) -> None:
    place = tmp_path / "published" / PLACE
    (place / "kubeadm.sha256").unlink()
    (place / "kubeadm.sha512").write_text(f"{hashlib.sha512(content('kubeadm')).hexdigest()}  kubeadm\n")
    assert desk.upstream().program("kubeadm").read_bytes() == content("kubeadm")


def test_a_page_in_place_of_a_checksum_is_no_checksum(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "published" / PLACE / "kubeadm.sha256").write_text("<html>Please log in</html>")
    with pytest.raises(BoxError, match="gives no checksum of kubeadm") as caught:
        desk.upstream().program("kubeadm")
    assert "Please log in" in caught.value.details[0]
    assert "portal" in caught.value.hint


def test_a_version_that_is_not_there(desk: Desk, files: StandIn, tmp_path: Path) -> None:
    for name in ("kubeadm", "kubeadm.sha256"):
        (tmp_path / "published" / PLACE / name).unlink()
    with pytest.raises(Missing, match=rf"{files.host} has no /{PLACE}/kubeadm.sha512") as caught:
        desk.upstream().program("kubeadm")
    assert "--mirror" in caught.value.hint


@pytest.mark.parametrize(("status", "said"), [(401, "401 Unauthorized"), (403, "403 Forbidden")])
def test_who_must_log_in_is_told_how(desk: Desk, files: StandIn, status: int, said: str) -> None:
    files.troubles = [Trouble("kubeadm$", status=status)]
    with pytest.raises(BoxError, match=f"{files.host} refuses: {said}") as caught:
        desk.upstream().program("kubeadm")
    assert "USER:PASSWORD" in caught.value.hint


def test_a_user_and_a_password_are_sent_to_that_server_alone(desk: Desk, files: StandIn, tmp_path: Path) -> None:
    with serving(StandIn(tmp_path / "published")) as other:
        files.troubles = [Trouble("kubelet$", status=302, headers={"Location": f"http://{other.host}/{PLACE}/kubelet"})]
        site = Site(f"http://{files.host}", "student", "chalk")
        desk.upstream(addresses=Addresses(site, desk.addresses.images)).program("kubelet")
        assert {asked.headers.get("authorization") for asked in files.asked} == {"Basic c3R1ZGVudDpjaGFsaw=="}
        assert [asked.headers.get("authorization") for asked in other.asked] == [None]
    assert "chalk" not in repr(site) + str(site)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_waited_for_as_it_asks(desk: Desk, files: StandIn, status: int) -> None:
    files.troubles = [Trouble("kubeadm$", times=2, status=status, headers={"Retry-After": "1"})]
    assert desk.upstream().program("kubeadm").read_bytes() == content("kubeadm")
    assert len(desk.told) == 2
    assert f"{files.host}: {status} " in desk.told[0]
    assert "asks to wait; trying again in 1 s" in desk.told[0]


def test_a_server_that_stays_busy_is_given_up_in_words(desk: Desk, files: StandIn) -> None:
    files.troubles = [Trouble("kubeadm$", status=503)]
    with pytest.raises(BoxError, match=f"{files.host} does not deliver: 503 Service Unavailable") as caught:
        desk.upstream(HASTY).program("kubeadm")
    assert "tried 3 times" in caught.value.details[0]
    assert "goes on where it stopped" in caught.value.hint
    assert "klab box build --source source" in caught.value.hint


def test_a_server_that_asks_to_wait_too_long_is_given_up_at_once(desk: Desk, files: StandIn) -> None:
    files.troubles = [Trouble("kubeadm$", status=429, headers={"Retry-After": "7200"})]
    with pytest.raises(BoxError, match="429 Too Many Requests") as caught:
        desk.upstream().program("kubeadm")
    assert "it asks to wait 7200 s; klab waits 300 s" in caught.value.details


def test_what_was_cut_off_goes_on_where_it_stopped(desk: Desk, files: StandIn) -> None:
    files.troubles = [Trouble("kubeadm$", times=1, cut=204_800), Trouble("kubeadm$", times=1, cut=49_152)]
    assert desk.upstream().program("kubeadm").read_bytes() == content("kubeadm")
    assert ranges(files, "/kubeadm") == ["", "bytes=204800-", "bytes=253952-"]
    assert "the connection broke off" in desk.told[0]


def test_what_another_klab_has_begun_is_finished(desk: Desk, files: StandIn) -> None:
    files.troubles = [Trouble("kubeadm$", times=1, cut=204_800)]
    with pytest.raises(BoxError, match="does not deliver"):
        desk.upstream(Patience(give_up=0.0)).program("kubeadm")
    (begun,) = (desk.kept / "dl.k8s.io" / PLACE).glob(f"*{BEGUN}")
    assert begun.read_bytes() == content("kubeadm")[:204_800]
    files.troubles = []
    assert desk.upstream().program("kubeadm").read_bytes() == content("kubeadm")
    assert ranges(files, "/kubeadm")[-1] == "bytes=204800-"


def test_a_server_that_stalls_is_left_and_asked_again(desk: Desk, files: StandIn) -> None:
    files.troubles = [Trouble("kubeadm$", times=1, stall=131_072)]
    found = desk.upstream(Patience(stall=2.0, first=0.05)).program("kubeadm")
    assert found.read_bytes() == content("kubeadm")
    assert "not a byte for 2 s" in desk.told[0]
    assert ranges(files, "/kubeadm")[1].startswith("bytes=")


def test_a_server_that_cannot_go_on_begins_anew(desk: Desk, files: StandIn) -> None:
    files.ranges = False
    files.troubles = [Trouble("kubeadm$", times=1, cut=204_800)]
    assert desk.upstream().program("kubeadm").read_bytes() == content("kubeadm")


@pytest.mark.parametrize("before", [b"of another file", content("kubeadm") + b"and more"])
def test_what_had_come_before_and_does_not_fit_is_fetched_anew(desk: Desk, files: StandIn, before: bytes) -> None:
    place = desk.kept / "dl.k8s.io" / PLACE
    place.mkdir(parents=True)
    (place / f"kubeadm.{hashlib.sha256(content('kubeadm')).hexdigest()[:12]}{BEGUN}").write_bytes(before)
    assert desk.upstream().program("kubeadm").read_bytes() == content("kubeadm")
    assert ranges(files, "/kubeadm") == [f"bytes={len(before)}-", ""]
    assert "from the start" in desk.told[0]


def test_a_full_disk_is_told_and_keeps_what_has_come(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = desk.upstream()
    upstream.checksum("kubeadm")
    monkeypatch.setattr(Path, "open", open_full(Path.open))
    with pytest.raises(HostError, match="No space left on device") as caught:
        upstream.program("kubeadm")
    assert "what has come is kept" in caught.value.details
    assert "klab box prune" in caught.value.hint


def open_full(original: object) -> object:
    """Path.open, with /dev/full in the place of a file that is being fetched."""

    def opened(self: Path, mode: str = "r", *rest: object, **named: object) -> object:
        full = BEGUN in self.name and mode != "rb"
        return original(Path("/dev/full") if full else self, mode, *rest, **named)  # type: ignore[operator]

    return opened


def test_progress_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_EVERY", 0.0)
    desk.upstream().program("kubeadm")
    assert desk.told[-1] == "kubeadm: 0 of 0 MiB"


# --- certificates -------------------------------------------------------------------------------------


@pytest.fixture
def tls(tmp_path: Path, store: tuple[int, dict[str, str]]) -> Iterator[tuple[StandIn, StandIn, Path]]:
    """Programs and images behind TLS, and the CA that signed for both."""
    lab = LabFolder(tmp_path / "lab")
    load_or_make(lab)
    files = server_files(lab, "ca", tmp_path / "tls")
    publish_programs(tmp_path / "behind")
    with (
        serving(StandIn(tmp_path / "behind", tls=files)) as programs,
        serving(StandIn(port=store[0], tls=files)) as images,
    ):
        yield programs, images, lab.path / "pki" / "ca.crt"


def test_a_certificate_that_nobody_trusts_ends_it(desk: Desk, tls: tuple[StandIn, StandIn, Path]) -> None:
    programs, images, _ = tls
    addresses = Addresses(Site(f"https://{programs.host}"), Registry(f"{images.host}/k8s"))
    with pytest.raises(BoxError, match="certificate is refused") as caught:
        desk.upstream(addresses=addresses).program("kubeadm")
    assert "SSL_CERT_FILE" in caught.value.hint
    with pytest.raises(BoxError, match=f"the certificate of {images.host} is refused") as caught:
        desk.upstream(addresses=addresses).image(PAUSE)
    assert "SSL_CERT_FILE" in caught.value.hint
    assert desk.told == []


def test_a_ca_of_ones_own_is_trusted(
    desk: Desk, tls: tuple[StandIn, StandIn, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, images, ca = tls
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    upstream = desk.upstream(addresses=Addresses(Site(f"https://{programs.host}"), Registry(f"{images.host}/k8s")))
    assert upstream.program("kubeadm").read_bytes() == content("kubeadm")
    upstream.fetch(PAUSE, upstream.image(PAUSE))


@pytest.mark.parametrize("to", ["http://127.0.0.1:9/kubeadm", "file:///etc/passwd"])
def test_no_server_leads_away_from_tls(
    desk: Desk, tls: tuple[StandIn, StandIn, Path], monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    programs, _, ca = tls
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    programs.troubles = [Trouble("kubeadm.sha256$", status=302, headers={"Location": to})]
    addresses = Addresses(Site(f"https://{programs.host}"), desk.addresses.images)
    with pytest.raises(BoxError, match=f"{programs.host} leads elsewhere without end, or to a server without TLS"):
        desk.upstream(addresses=addresses).program("kubeadm")


def test_a_server_that_leads_in_circles(desk: Desk, files: StandIn) -> None:
    files.troubles = [Trouble("kubeadm.sha256$", status=301, headers={"Location": f"/{PLACE}/kubeadm.sha256"})]
    with pytest.raises(BoxError, match="leads elsewhere without end"):
        desk.upstream().program("kubeadm")


# --- images -------------------------------------------------------------------------------------------


def test_an_image_comes_as_upstream_made_it(desk: Desk, store: tuple[int, dict[str, str]]) -> None:
    upstream = desk.upstream()
    for ref in VERSION.images.values():
        found = upstream.image(ref)
        assert f"sha256:{found.manifest.hex}" == store[1][ref]
        upstream.fetch(ref, found)
    again = {ref: upstream.shelf.manifest(ref) for ref in VERSION.images.values()}
    assert {ref: f"sha256:{each.hex}" for ref, each in again.items() if each} == store[1]
    assert not list(desk.kept.glob(f"*{BEGUN}"))
    assert desk.told == []


def test_an_image_that_is_there_is_not_fetched_again(desk: Desk, front: StandIn) -> None:
    for _ in range(2):
        upstream = desk.upstream()
        upstream.fetch(PAUSE, upstream.image(PAUSE))
    layers = [asked.path for asked in front.asked if "/blobs/" in asked.path]
    assert len(layers) == len(set(layers)) == 2


def test_a_mirror_made_for_kubeadm_has_coredns_elsewhere(
    desk: Desk, files: StandIn, tmp_path: Path, store: tuple[int, dict[str, str]]
) -> None:
    ref = "registry.k8s.io/coredns:v1.13.1"
    (digest,) = publish_images(tmp_path / "flat", store[0], [ref], "flat/").values()
    with serving(StandIn(port=store[0])) as server:
        addresses = Addresses(Site(f"http://{files.host}"), Registry(f"{server.host}/flat", plain=True))
        found = desk.upstream(addresses=addresses).image(VERSION.image("coredns"))
    assert f"sha256:{found.manifest.hex}" == digest
    assert "trying" in desk.told[0]


def test_an_image_that_is_not_there(desk: Desk, front: StandIn) -> None:
    with pytest.raises(Missing, match=f"{front.host} has no {front.host}/k8s/pause:0.1") as caught:
        desk.upstream().image("registry.k8s.io/pause:0.1")
    assert "manifest unknown" in caught.value.details[0]
    assert "--mirror" in caught.value.hint


def test_a_registry_that_wants_a_login(
    desk: Desk, files: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    with registry(folder, locked=True) as port:
        publish_images(folder / "work", port, [PAUSE], login=f"{USER}:{PASSWORD}")
        addresses = Addresses(Site(f"http://{files.host}"), Registry(f"127.0.0.1:{port}", plain=True))
        with pytest.raises(BoxError, match=f"127.0.0.1:{port} refuses") as caught:
            desk.upstream(addresses=addresses).image(PAUSE)
        assert f"skopeo login 127.0.0.1:{port}" in caught.value.hint
        argv = ["skopeo", "login", "--tls-verify=false", "-u", USER, "--password-stdin", f"127.0.0.1:{port}"]
        process.run(argv, stdin=PASSWORD, timeout=60)
        upstream = desk.upstream(addresses=addresses)
        upstream.fetch(PAUSE, upstream.image(PAUSE))
    assert PASSWORD not in "".join(desk.told)


def test_a_registry_that_forbids(desk: Desk, front: StandIn) -> None:
    front.troubles = [Trouble("/manifests/", status=403)]
    with pytest.raises(BoxError, match=f"{front.host} refuses"):
        desk.upstream().image(PAUSE)


def test_a_registry_that_asks_to_wait_is_waited_for(desk: Desk, front: StandIn) -> None:
    front.troubles = [Trouble("/manifests/", times=1, status=429, headers={"Retry-After": "1"})]
    upstream = desk.upstream()
    upstream.fetch(PAUSE, upstream.image(PAUSE))
    assert desk.told == ["pause:3.10.1: the registry asks to wait (429 Too Many Requests); again in 1 s"]


def test_a_registry_that_asks_for_ever_is_given_up_in_words(desk: Desk, front: StandIn) -> None:
    front.troubles = [Trouble("/manifests/", status=429, headers={"Retry-After": "1"})]
    with pytest.raises(BoxError, match=f"{front.host} does not deliver") as caught:
        desk.upstream(Patience(give_up=1.0)).image(PAUSE)
    assert "429" in caught.value.message
    assert "goes on where it stopped" in caught.value.hint


@pytest.mark.parametrize("path", ["/manifests/", "/blobs/"])
def test_a_registry_that_is_down_for_a_moment(desk: Desk, front: StandIn, path: str) -> None:
    front.troubles = [Trouble(path, times=1, status=503)]
    upstream = desk.upstream()
    upstream.fetch(PAUSE, upstream.image(PAUSE))
    assert "503" in desk.told[0]


def test_an_image_that_is_cut_off_is_fetched_again(desk: Desk, front: StandIn) -> None:
    front.troubles = [Trouble("/blobs/", times=1, cut=100_000)]
    upstream = desk.upstream()
    upstream.fetch(PAUSE, upstream.image(PAUSE))
    assert "EOF" in desk.told[0]


def test_a_registry_that_stalls_is_left_and_asked_again(desk: Desk, front: StandIn) -> None:
    front.troubles = [Trouble("/blobs/", times=1, stall=100_000)]
    upstream = desk.upstream(Patience(stall=3.0, first=0.05))
    upstream.fetch(PAUSE, upstream.image(PAUSE))
    assert "not a byte for 3 s" in desk.told[0]


def test_patience_begins_anew_where_more_of_an_image_comes(desk: Desk, front: StandIn) -> None:
    patience = Patience(stall=3.0, give_up=1.0, first=0.05, longest=0.05)
    front.troubles = [Trouble("/blobs/", times=1, stall=100_000)]
    upstream = desk.upstream(patience)
    upstream.fetch(PAUSE, upstream.image(PAUSE))
    front.troubles = [Trouble("/blobs/", stall=100_000)]
    with pytest.raises(BoxError, match=f"{front.host} does not deliver: not a byte for 3 s"):
        upstream.fetch(PROXY, upstream.image(PROXY))
    assert len([told for told in desk.told if "trying again" in told]) == 2


def test_a_registry_without_tls_is_not_taken_for_one_with(desk: Desk, front: StandIn) -> None:
    addresses = Addresses(desk.addresses.programs, Registry(f"{front.host}/k8s"))
    with pytest.raises(BoxError, match=f"{front.host} speaks HTTP without TLS") as caught:
        desk.upstream(addresses=addresses).image(PAUSE)
    assert f"--mirror registry.k8s.io=http://{front.host}/k8s" in caught.value.hint


KILLED = """
import sys
from pathlib import Path
from lab.boxes.upstream.archives import unpack
from lab.components.archives import Archive
from lab.boxes.upstream.addresses import Addresses, Registry
from lab.boxes.upstream.upstream import Upstream

upstream = Upstream(Addresses(Path("/"), Registry(sys.argv[1], plain=True)), "1.35.4", Path(sys.argv[2]), print)
upstream.fetch(sys.argv[3], upstream.image(sys.argv[3]))
"""


def test_a_klab_that_is_killed_leaves_no_skopeo_and_the_next_begins_the_image_anew(desk: Desk, front: StandIn) -> None:
    front.troubles = [Trouble("/blobs/", times=1, stall=100_000)]
    argv = [sys.executable, "-c", KILLED, f"{front.host}/k8s", desk.kept, PAUSE]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, cwd=Path(web.__file__).parents[3]) as klab:
        wait_for(lambda: any("/blobs/" in asked.path for asked in front.asked))
        (skopeo,) = running(f"dir:{desk.kept}")
        klab.kill()
    wait_for(lambda: not Path(f"/proc/{skopeo}").exists())
    upstream = desk.upstream()
    upstream.fetch(PAUSE, upstream.image(PAUSE))
    assert upstream.shelf.manifest(PAUSE) is not None
    assert not list(desk.kept.glob(f"*{BEGUN}"))


def running(word: str) -> list[str]:
    """The ids of processes with this in their command line."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if word.encode() in file.read_bytes():
                found.append(file.parent.name)
    return found


def wait_for(what: Callable[[], object]) -> None:
    assert poll(what, Deadline.after(120), every=0.1)


# --- a folder, or a stick -----------------------------------------------------------------------------


def stick(desk: Desk, tmp_path: Path) -> Path:
    """A copy of what a build has kept."""
    upstream = desk.upstream()
    for name in ("kubeadm", "kubelet", "kubectl"):
        upstream.program(name)
    for ref in VERSION.images.values():
        upstream.fetch(ref, upstream.image(ref))
    return Path(shutil.copytree(desk.kept, tmp_path / "stick"))


def test_what_a_build_has_kept_is_a_mirror(desk: Desk, tmp_path: Path, store: tuple[int, dict[str, str]]) -> None:
    folder = stick(desk, tmp_path)
    shutil.rmtree(desk.kept)
    upstream = desk.upstream(addresses=Addresses(folder, folder))
    assert upstream.obstacles(PAUSE) == []
    assert upstream.program("kubelet").read_bytes() == content("kubelet")
    for ref in VERSION.images.values():
        found = upstream.image(ref)
        upstream.fetch(ref, found)
        assert f"sha256:{found.manifest.hex}" == store[1][ref]


def test_a_stick_with_a_wrong_program_or_a_wrong_image(desk: Desk, tmp_path: Path) -> None:
    folder = stick(desk, tmp_path)
    shutil.rmtree(desk.kept)
    upstream = desk.upstream(addresses=Addresses(folder, folder))
    (folder / "dl.k8s.io" / PLACE / "kubelet").write_bytes(b"another")
    with pytest.raises(BoxError, match="is not what was published"):
        upstream.program("kubelet")
    (folder / "dl.k8s.io" / PLACE / "kubectl").unlink()
    with pytest.raises(Missing, match=r"there is no file .*kubectl"):
        upstream.program("kubectl")
    found = upstream.image(PROXY)
    (folder / "images/blobs/sha256" / found.manifest.blobs[-1].hex).write_bytes(b"another")
    with pytest.raises(BoxError, match=f"the image {PROXY} .* is damaged"):
        upstream.fetch(PROXY, found)
    with pytest.raises(Missing, match=r"has no registry\.k8s\.io/pause:0\.1"):
        upstream.image("registry.k8s.io/pause:0.1")


# --- is it there at all? ------------------------------------------------------------------------------


def test_what_is_reached_has_no_obstacles(desk: Desk) -> None:
    assert desk.upstream().obstacles(PAUSE) == []


def test_what_is_not_reached_says_why(desk: Desk, files: StandIn, front: StandIn) -> None:
    files.troubles = [Trouble("", status=404)]
    front.troubles = [Trouble("/manifests/", status=503)]
    programs, images = desk.upstream().obstacles(PAUSE)
    assert programs.why.startswith(f"http://{files.host}: HTTP status 404 for ")
    assert images.why.startswith(f"http://{front.host}/k8s: ")
    assert "503" in images.why
    assert (programs.busy, images.busy) == (False, True)


def test_a_server_that_does_not_answer_is_not_waited_for(desk: Desk, files: StandIn, front: StandIn) -> None:
    for server in (files, front):
        server.troubles = [Trouble("kubeadm|manifests", silent=True)]
    found = desk.upstream().obstacles(PAUSE, 1.0)
    assert [each.why.rpartition(": ")[2] for each in found] == ["not a byte for 1 s", "no answer within 1 s"]


FLANNEL = "ghcr.io/flannel-io/flannel:v0.28.4"


def test_flannels_image_from_its_own_registry(desk: Desk, store: tuple[int, dict[str, str]], tmp_path: Path) -> None:
    digest = publish_images(tmp_path / "flannel", store[0], [FLANNEL], "hub/")[FLANNEL]
    own = Registry(f"127.0.0.1:{store[0]}/hub", plain=True)
    upstream = desk.upstream(addresses=replace(desk.addresses, network=own))
    assert upstream.obstacles(PAUSE, network=FLANNEL) == []
    found = upstream.image(FLANNEL)
    assert f"sha256:{found.manifest.hex}" == digest
    upstream.fetch(FLANNEL, found)
    assert upstream.shelf.holds(found.manifest)
    stick = desk.kept
    assert _obstacle_in_folder(stick, FLANNEL) is None


CRICTL = Archive("tools/releases/download/v1.37.0/crictl.tar.gz", ".sha256")


def test_an_archive_comes_with_its_published_checksum(desk: Desk, files: StandIn, tmp_path: Path) -> None:
    publish_archive(tmp_path / "published", CRICTL, {"crictl": content("crictl")})
    addresses = replace(desk.addresses, archives=Site(f"http://{files.host}"))
    upstream = desk.upstream(addresses=addresses)
    assert upstream.obstacles(PAUSE, archive=CRICTL) == []
    wanted = upstream.archive_checksum(CRICTL)
    assert wanted is not None
    found = upstream.archive(CRICTL, wanted)
    assert unpack(found, "crictl") == content("crictl")
    # What has come is a mirror, in a folder.
    assert found == desk.kept / "github.com" / CRICTL.path
    folder = Path(shutil.copytree(desk.kept, tmp_path / "folder"))
    shutil.rmtree(desk.kept)
    again = desk.upstream(addresses=replace(addresses, archives=folder))
    assert again.archive_checksum(CRICTL) == wanted
    assert again.archive(CRICTL, wanted).read_bytes() == (folder / "github.com" / CRICTL.path).read_bytes()


def test_an_archive_goes_on_where_it_was_cut_off(desk: Desk, files: StandIn, tmp_path: Path) -> None:
    publish_archive(tmp_path / "published", CRICTL, {"crictl": content("crictl")})
    files.troubles = [Trouble("gz$", times=1, cut=147_456)]
    upstream = desk.upstream(addresses=replace(desk.addresses, archives=Site(f"http://{files.host}")))
    wanted = upstream.archive_checksum(CRICTL)
    assert wanted is not None
    assert unpack(upstream.archive(CRICTL, wanted), "crictl") == content("crictl")
    assert ranges(files, "gz") == ["", "bytes=147456-"]


def test_a_wrong_archive_ends_with_both_checksums(desk: Desk, files: StandIn, tmp_path: Path) -> None:
    publish_archive(tmp_path / "published", CRICTL, {"crictl": content("crictl")})
    (tmp_path / "published" / CRICTL.path).write_bytes(b"another")
    upstream = desk.upstream(addresses=replace(desk.addresses, archives=Site(f"http://{files.host}")))
    wanted = upstream.archive_checksum(CRICTL)
    assert wanted is not None
    with pytest.raises(BoxError, match="is not what was published"):
        upstream.archive(CRICTL, wanted)


def test_an_archive_that_is_not_there_can_be_compiled(desk: Desk, files: StandIn) -> None:
    upstream = desk.upstream(addresses=replace(desk.addresses, archives=Site(f"http://{files.host}")))
    (found,) = upstream.obstacles(PAUSE, archive=CRICTL)
    assert (found.optional, found.name) == (True, "github.com")
    assert f"HTTP status 404 for {CRICTL.path}.sha256" in found.why
    assert upstream.archive_checksum(CRICTL) is None
    assert desk.told == [f"http://{files.host} has no crictl.tar.gz"]
    assert desk.upstream().archive_checksum(CRICTL) is None
    (lacking,) = desk.upstream(addresses=replace(desk.addresses, archives=Path("/"))).obstacles(PAUSE, archive=CRICTL)
    assert (lacking.why, lacking.optional) == (f"/: there is no github.com/{CRICTL.path}", True)


def test_where_flannels_image_is_not_reached_it_can_be_compiled(desk: Desk, front: StandIn) -> None:
    nobody = Registry("127.0.0.1:9/hub", plain=True)
    (found,) = desk.upstream(addresses=replace(desk.addresses, network=nobody)).obstacles(PAUSE, network=FLANNEL)
    assert found.optional
    assert found.why.startswith("http://127.0.0.1:9/hub: ")
    (lacking,) = desk.upstream(addresses=replace(desk.addresses, network=Path("/"))).obstacles(PAUSE, network=FLANNEL)
    assert (lacking.why, lacking.optional) == ("/: there is no images/index.json", True)


def test_a_stick_that_lacks_an_image(desk: Desk, tmp_path: Path) -> None:
    folder = stick(desk, tmp_path)
    assert _obstacle_in_folder(folder, PAUSE) is None
    found = _obstacle_in_folder(folder, FLANNEL)
    assert found is not None
    assert found.why == f"there is no {FLANNEL} in images"
    (folder / "images/index.json").write_text("{")
    damaged = _obstacle_in_folder(folder, PAUSE)
    assert damaged is not None
    assert "is damaged" in damaged.why


def test_a_folder_without_a_mirror(desk: Desk, tmp_path: Path) -> None:
    found = desk.upstream(addresses=Addresses(tmp_path, tmp_path)).obstacles(PAUSE)
    assert [each.why for each in found] == [
        f"{tmp_path}: there is no dl.k8s.io/{PLACE}/kubeadm",
        f"{tmp_path}: there is no images/index.json",
    ]
