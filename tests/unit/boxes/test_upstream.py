"""The pure parts of what fetches from upstream: patience, checksums, skopeo's words, manifests, locks."""

from __future__ import annotations

import json
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from lab import process
from lab.boxes.lock import parse_lock, read_lock
from lab.boxes.upstream.addresses import Registry
from lab.boxes.upstream.checksum import Checksum, parse_checksum
from lab.boxes.upstream.layout import Choice, Manifest, Shelf, parse_image, parse_index
from lab.boxes.upstream.patience import Patience, Trials, parse_retry_after
from lab.boxes.upstream.skopeo import Skopeo, complaint, parse_pause, refuse
from lab.boxes.upstream.web import BrokenOffError, Meter, Missing, Web, parse_range
from lab.errors import BoxError, HostError, LabError, NotFound, UsageError

HUB = Registry("hub.example/k8s")
NOW = 1_700_000_000.0


class Clock:
    """A clock on which each pause is over at once."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def trials(clock: Clock, told: list[str]) -> Trials:
    return Trials("hub.example", Patience(give_up=100, first=2, longest=30), told.append, clock.time, clock.sleep)


# --- patience -----------------------------------------------------------------------------------------


def test_each_pause_is_twice_as_long_until_patience_ends() -> None:
    clock, told = Clock(), []
    waiting = trials(clock, told)
    for _ in range(6):
        waiting.again("503")
    assert clock.pauses == [2, 4, 8, 16, 30, 30]
    with pytest.raises(BoxError, match=r"hub\.example does not deliver: 503") as caught:
        waiting.again("503")
    assert told[0] == "hub.example: 503; trying again in 2 s"
    assert caught.value.details == ("tried 7 times in 90 s",)


def test_progress_gives_new_patience() -> None:
    clock, told = Clock(), []
    waiting = trials(clock, told)
    for _ in range(50):
        waiting.again("broke off")
        waiting.progressed()
    assert set(clock.pauses) == {2}


def test_a_server_is_waited_for_as_long_as_it_asks() -> None:
    clock, told = Clock(), []
    trials(clock, told).again("429", 70)
    assert clock.pauses == [70]
    assert told == ["hub.example: 429; asks to wait; trying again in 70 s"]
    with pytest.raises(BoxError) as caught:
        trials(clock, told).again("429", 101)
    assert caught.value.details == ("tried 1 times in 0 s", "it asks to wait 101 s; klab waits 100 s")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        (formatdate(NOW + 90, usegmt=True), 90),
        (formatdate(NOW - 90, usegmt=True), 0),
        *((text, None) for text in (None, "", "soon", "-1", "1.5", "9" * 400, "٣", "Wed, 99 Foo 2026 99:99:99 GMT")),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text, NOW) == seconds


# --- programs -----------------------------------------------------------------------------------------


def test_published_checksums(tmp_path: Path) -> None:
    assert parse_checksum("AB" * 32) == Checksum("sha256", "ab" * 32)
    assert parse_checksum(f"{'ab' * 32}  kubeadm\n") == Checksum("sha256", "ab" * 32)
    assert parse_checksum("ab" * 64 + "\n").algorithm == "sha512"
    for text in ("", "<html>", "ab" * 20, "xy" * 32):
        with pytest.raises(ValueError, match="no checksum"):
            parse_checksum(text)
    assert not Checksum("sha256", "ab" * 32).fits(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("text", "first"),
    [("bytes 5-9/10", 5), ("bytes 5-9/*", 5), ("bytes */10", None), ("items 5-9/10", None), ("", None), (None, None)],
)
def test_content_range(text: str | None, first: int | None) -> None:
    assert parse_range(text) == first


@pytest.mark.parametrize(
    ("variables", "url", "proxy", "login"),
    [
        ({}, "https://dl.k8s.io/x", None, None),
        ({"https_proxy": "http://proxy.example:3128"}, "https://dl.k8s.io/x", "proxy.example", None),
        (
            {"https_proxy": "http://me:p%40ss@proxy.example:3128"},
            "https://dl.k8s.io/x",
            "proxy.example",
            "bWU6cEBzcw==",
        ),
        ({"https_proxy": "proxy.example:3128"}, "https://dl.k8s.io/x", "proxy.example", None),
        ({"https_proxy": "http://proxy.example:3128", "no_proxy": "k8s.io"}, "https://dl.k8s.io/x", None, None),
        ({"https_proxy": "http://proxy.example:3128"}, "http://dl.k8s.io/x", None, None),
    ],
)
def test_the_proxy_that_the_environment_names(
    variables: dict[str, str], url: str, proxy: str | None, login: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    pool: Any = Web(lambda _: None, Patience())._pool(url)
    assert (pool.proxy.host if pool.proxy else None) == proxy
    headers = pool.proxy_headers if pool.proxy else {}
    assert headers.get("proxy-authorization") == (f"Basic {login}" if login else None)


def test_a_meter_tells_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    meter = Meter("kubelet", 60 << 20, told.append)
    meter.at(1 << 20)
    monkeypatch.setattr(meter, "_told", -1e9)
    meter.at(12 << 20)
    meter.at(13 << 20)
    assert told == ["kubelet: 12 of 60 MiB"]


# --- skopeo -------------------------------------------------------------------------------------------

# As skopeo 1.9.3 printed them against a registry that failed so.
SAID = {
    "reading manifest 3.10.1 in hub.example/pause: StatusCode: 429, ": BrokenOffError,
    "pinging container registry hub.example: too many requests to registry": BrokenOffError,
    "received unexpected HTTP status: 503 Service Unavailable": BrokenOffError,
    "Error fetching blob: invalid status code from registry 503 (Service Unavailable)": BrokenOffError,
    "writing blob: happened during read: unexpected EOF": BrokenOffError,
    'Get "https://hub.example/v2/": dial tcp 10.0.0.1:443: connect: connection refused': BrokenOffError,
    'Get "https://hub.example/v2/": dial tcp: lookup hub.example on 10.0.0.2:53: no such host': BrokenOffError,
    'Get "https://hub.example/v2/": net/http: TLS handshake timeout': BrokenOffError,
    "reading manifest nope in hub.example/pause: manifest unknown: manifest unknown": Missing,
    "reading manifest 3.10.1 in hub.example/pause: StatusCode: 404, ": Missing,
    "Error fetching blob: invalid status code from registry 404 (Not Found)": Missing,
    "reading manifest 3.10.1 in hub.example/pause: unauthorized: authentication required": BoxError,
    "reading manifest 3.10.1 in hub.example/pause: StatusCode: 403, ": BoxError,
    "unable to retrieve auth token: invalid username/password: unauthorized": BoxError,
    'Get "https://hub.example/v2/": http: server gave HTTP response to HTTPS client': BoxError,
    'Get "https://hub.example/v2/": tls: first record does not look like a TLS handshake': BoxError,
    'Get "https://hub.example/v2/": x509: certificate signed by unknown authority': BoxError,
    "writing blob: write /var/x/dir-put-blob1: no space left on device": HostError,
}


@pytest.mark.parametrize(("why", "kind"), SAID.items())
def test_what_skopeo_complains_of(why: str, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        refuse(HUB, "hub.example/k8s/pause:3.10.1", why)
    assert type(caught.value) is kind
    if isinstance(caught.value, LabError):
        assert caught.value.hint
        assert why in caught.value.details


@pytest.mark.parametrize(
    ("why", "hint"),
    [
        ("unauthorized: authentication required", "skopeo login hub.example"),
        ("http: server gave HTTP response to HTTPS client", "--mirror registry.k8s.io=http://hub.example/k8s"),
        ("x509: certificate signed by unknown authority", "SSL_CERT_FILE"),
        ("no space left on device", "klab box prune"),
        ("manifest unknown", "--mirror"),
        ("something else", "--source source"),
    ],
)
def test_what_to_do_about_it(why: str, hint: str) -> None:
    with pytest.raises(LabError) as caught:
        refuse(HUB, "hub.example/k8s/pause:3.10.1", why)
    assert hint in caught.value.hint


def test_skopeos_last_word_counts() -> None:
    lines = [
        'time="2026-11-29T22:33:41Z" level=debug msg="GET https://hub.example/v2/"',
        r'time="2026-11-29T22:33:42Z" level=fatal msg="Error parsing image name \"docker://x\": manifest unknown"',
        'time="2026-11-29T22:33:43Z" level=debug msg=bye',
    ]
    assert complaint("\n".join(lines)) == "manifest unknown"
    assert complaint("panic: what\n\n") == "panic: what"
    assert complaint("") == ""


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            'Error parsing image name "docker://hub.example/pause:3.10.1": pinging container registry hub.example: '
            'Get "https://hub.example/v2/": dial tcp: lookup hub.example on 10.0.0.2:53: no such host',
            "no such host",
        ),
        (
            "initializing source docker://hub.example/pause:3: pinging container registry hub.example:5000: "
            'Get "http://hub.example:5000/v2/": dial tcp 10.0.0.1:5000: connect: connection refused',
            "connect: connection refused",
        ),
        (
            'Error parsing image name "docker://hub.example/pause:3": reading manifest 3 in hub.example/pause: '
            "manifest unknown: manifest unknown",
            "reading manifest 3 in hub.example/pause: manifest unknown: manifest unknown",
        ),
        ('Get "https://hub.example/v2/": EOF', "EOF"),
    ],
)
def test_skopeo_comes_to_the_point(said: str, why: str) -> None:
    quoted = said.replace('"', '\\"')
    assert complaint(f'time="2026-11-29T22:33:42Z" level=fatal msg="{quoted}"') == why
    with pytest.raises((BrokenOffError, Missing)):
        refuse(HUB, "hub.example/k8s/pause:3.10.1", why)


def test_skopeos_pauses() -> None:
    line = 'level=debug msg="Too many requests to https://hub.example/v2/: sleeping for 4.500000 seconds before next"'
    assert parse_pause(line) == 4.5
    assert parse_pause(line.replace("4.500000", "9000")) == 60
    assert parse_pause(line.replace("4.500000", "1.2.3")) == 0
    assert parse_pause("level=debug msg=else") == 0


def test_without_skopeo_a_probe_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.shutil, "which", lambda name, path=None: None)
    found = Skopeo(lambda _: None, Patience()).obstacle(HUB, "hub.example/k8s/pause:3.10.1", 1)
    assert found == "skopeo is not installed (sudo apt-get install skopeo)"


# --- images -------------------------------------------------------------------------------------------

MANIFEST = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
    "config": {"digest": f"sha256:{'aa' * 32}", "size": 10},
    "layers": [{"digest": f"sha256:{'bb' * 32}", "size": 20}],
}


def test_a_manifest_and_an_index() -> None:
    found = parse_image(json.dumps(MANIFEST))
    assert isinstance(found, Manifest)
    assert [blob.hex for blob in found.blobs] == ["aa" * 32, "bb" * 32]
    assert found.size == 30
    entries = [
        {"digest": f"sha256:{letter * 64}", "size": 1, "platform": {"os": "linux", "architecture": each}}
        for letter, each in (("c", "arm64"), ("d", "amd64"))
    ]
    assert parse_image(json.dumps({"manifests": entries})) == Choice("d" * 64)
    with pytest.raises(ValueError, match="no image for linux/amd64"):
        parse_image(json.dumps({"manifests": entries[:1]}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps({**MANIFEST, "config": None}),
        json.dumps({**MANIFEST, "layers": [{"digest": "sha256:../../x", "size": 1}]}),
        json.dumps({**MANIFEST, "layers": [{"digest": f"sha256:{'bb' * 32}", "size": -1}]}),
        json.dumps({"schemaVersion": 1, "fsLayers": []}),
    ],
)
def test_what_is_no_manifest(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_image(text)


def test_a_layouts_index() -> None:
    entry = {"digest": f"sha256:{'cc' * 32}", "size": 1, "annotations": {"org.opencontainers.image.ref.name": "a/b:c"}}
    assert parse_index(json.dumps({"manifests": [entry, {}, 1]})) == {"a/b:c": "cc" * 32}
    with pytest.raises(ValueError, match="names no images"):
        parse_index("{}")


def test_a_shelf_without_a_sound_index(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "images")
    assert shelf.manifest("a/b:c") is None
    found = parse_image(json.dumps(MANIFEST))
    assert isinstance(found, Manifest)
    assert not shelf.holds(found)
    for content in ("{", "{}", None):
        if content is not None:
            (shelf.folder / "index.json").parent.mkdir(exist_ok=True)
            (shelf.folder / "index.json").write_text(content)
        shelf.name("a/b:c", found)
        assert shelf.manifest("a/b:c") == found
    (shelf.blobs / found.hex).write_text("{}")
    with pytest.raises(BoxError, match="is damaged") as caught:
        shelf.manifest("a/b:c")
    assert "another SHA-256" in caught.value.details[0]


# --- locks --------------------------------------------------------------------------------------------

LOCK: dict[str, Any] = {
    "format": 1,
    "box": "debian-13",
    "kubernetes": "1.35.4",
    "made_from": {
        "source": "release",
        "addresses": {"dl.k8s.io": "https://dl.k8s.io"},
        "versions": {"version": "1.35.4"},
        "programs": {"kubeadm": "ab" * 32},
        "images": {"registry.k8s.io/pause:3.10.1": f"sha256:{'cd' * 32}"},
    },
}


def test_a_lock_is_read(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text(json.dumps(LOCK))
    assert read_lock(tmp_path / "lock.json").made_from.programs == {"kubeadm": "ab" * 32}


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("format",), 2, "format 2, this klab reads 1"),
        (("kubernetes",), "1.35", "kubernetes is '1.35'"),
        (("box",), 1, "box is 1"),
        (("made_from", "source"), "\x1b", "source is"),
        (("made_from", "programs"), {"kubeadm": "abc"}, "the program 'kubeadm' has the digest 'abc'"),
        (("made_from", "programs"), {"../x": "ab" * 32}, "the program '../x'"),
        (("made_from", "images"), {"pause": "latest"}, "the image 'pause' has the digest 'latest'"),
        (("made_from", "addresses"), {"a": "\x1b[2J"}, "'a' is '\\x1b[2J'"),
    ],
)
def test_what_is_no_lock(place: tuple[str, ...], value: Any, said: str, tmp_path: Path) -> None:
    data = json.loads(json.dumps(LOCK))
    inner = data
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    with pytest.raises(ValueError, match=r".") as caught:
        parse_lock(json.dumps(data))
    assert said in str(caught.value)
    (tmp_path / "lock.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match="is no lock that klab reads") as refused:
        read_lock(tmp_path / "lock.json")
    assert "klab box lock" in refused.value.hint


def test_a_lock_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        read_lock(tmp_path / "lock.json")
    assert "klab box lock" in caught.value.hint
