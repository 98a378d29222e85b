"""--mirror: what it means, what is refused, and that no password gets out."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.boxes.upstream.addresses import UPSTREAM, Addresses, Registry, Site, parse_mirrors
from lab.errors import UsageError


def test_without_a_mirror_it_is_upstream_itself() -> None:
    assert parse_mirrors([]) == UPSTREAM
    assert UPSTREAM.shown == {
        "dl.k8s.io": "https://dl.k8s.io",
        "registry.k8s.io": "registry.k8s.io",
        "ghcr.io": "ghcr.io",
        "github.com": "https://github.com",
    }


@pytest.mark.parametrize(
    ("words", "programs", "images"),
    [
        (["/media/stick"], Path("/media/stick"), Path("/media/stick")),
        (["dl.k8s.io=https://files.example/k8s/"], Site("https://files.example/k8s"), UPSTREAM.images),
        (["dl.k8s.io=http://[::1]:80/a"], Site("http://[::1]:80/a"), UPSTREAM.images),
        (["dl.k8s.io=https://me:p%40ss@files.example"], Site("https://files.example", "me", "p@ss"), UPSTREAM.images),
        (["dl.k8s.io=/srv/k8s"], Path("/srv/k8s"), UPSTREAM.images),
        (
            ["registry.k8s.io=registry.aliyuncs.com/google_containers"],
            UPSTREAM.programs,
            Registry("registry.aliyuncs.com/google_containers"),
        ),
        (["registry.k8s.io=http://10.0.0.5:5000/k8s/"], UPSTREAM.programs, Registry("10.0.0.5:5000/k8s", plain=True)),
        (["registry.k8s.io=https://hub.example"], UPSTREAM.programs, Registry("hub.example")),
        (["registry.k8s.io=/srv/k8s", "dl.k8s.io=https://f.example"], Site("https://f.example"), Path("/srv/k8s")),
    ],
)
def test_what_a_mirror_stands_for(words: list[str], programs: object, images: object) -> None:
    found = parse_mirrors(words)
    assert (found.programs, found.images) == (programs, images)


def test_a_folder_is_found_from_where_the_person_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_mirrors(["stick"]) == Addresses(*(tmp_path / "stick",) * 4)
    assert parse_mirrors(["dl.k8s.io=./stick"]).programs == tmp_path / "stick"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([""], "no place"),
        (["x" * 3000], "no place, or one that is too long"),
        (["https://me:geheim@files.example/k8s"], "does not say what https://files.example/k8s is a mirror of"),
        (["docker.io=hub.example"], "does not say what hub.example is a mirror of"),
        (["dl.k8s.io="], "does not say what dl.k8s.io is a mirror of"),
        (["dl.k8s.io=files.example"], "dl.k8s.io=files.example is no address"),
        (["dl.k8s.io=ftp://files.example"], "is no address"),
        (["github.com=files.example"], "github.com=files.example is no address"),
        (["dl.k8s.io=https://me:geheim@files.example:x"], "dl.k8s.io=https://files.example:x is no address"),
        (["dl.k8s.io=https://files.example/?token=1"], "is no address"),
        (["registry.k8s.io=me:geheim@hub.example/k8s"], "registry.k8s.io=hub.example/k8s has a user in it"),
        (["registry.k8s.io=hub.example/k8s:v1"], "is no registry"),
        (["registry.k8s.io=hub.example/\x1b[2J"], r"is no registry"),
        (["/a", "/b"], "two places"),
        (["/a", "dl.k8s.io=/b"], "two places for dl.k8s.io"),
        (["registry.k8s.io=hub.example", "registry.k8s.io=/b"], "two places for registry.k8s.io"),
    ],
)
def test_what_is_not_understood(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_mirrors(words)
    assert said in caught.value.message
    assert "geheim" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert caught.value.hint


def test_what_an_image_is_called_elsewhere() -> None:
    dns = "registry.k8s.io/coredns/coredns:v1.13.1"
    assert UPSTREAM.images.names(dns) == (dns,)  # type: ignore[union-attr]
    # The registry of before 1.25 is gone; its images are in the new one.
    assert UPSTREAM.images.names("k8s.gcr.io/pause:3.5") == ("registry.k8s.io/pause:3.5",)  # type: ignore[union-attr]
    mirror = Registry("registry.aliyuncs.com/google_containers")
    assert mirror.names(dns)[-1] == "registry.aliyuncs.com/google_containers/coredns:v1.13.1"
    assert mirror.names("registry.k8s.io/pause:3.10.1") == ("registry.aliyuncs.com/google_containers/pause:3.10.1",)


def test_flannels_image_has_a_mirror_of_its_own() -> None:
    ref = "ghcr.io/flannel-io/flannel:v0.28.4"
    assert UPSTREAM.network.names(ref) == (ref,)  # type: ignore[union-attr]
    found = parse_mirrors(["ghcr.io=hub.example/proxy"]).network
    assert found == Registry("hub.example/proxy")
    assert found.names(ref)[0] == "hub.example/proxy/flannel-io/flannel:v0.28.4"  # type: ignore[union-attr]
    assert parse_mirrors(["registry.k8s.io=hub.example"]).network == UPSTREAM.network
    assert Addresses(UPSTREAM.programs, UPSTREAM.images).of(ref) is None


def test_archives_have_a_mirror_of_their_own() -> None:
    found = parse_mirrors(["github.com=https://me:chalk@files.example/github/"])
    assert found.archives == Site("https://files.example/github", "me", "chalk")
    assert found.shown["github.com"] == "https://files.example/github"
    assert (found.programs, found.without("github.com").archives) == (UPSTREAM.programs, None)


def test_which_images_upstream_publishes() -> None:
    assert UPSTREAM.of("registry.k8s.io/pause:3.10.1") == UPSTREAM.images
    assert UPSTREAM.of("k8s.gcr.io/pause:3.5") == UPSTREAM.images
    assert UPSTREAM.of("docker.io/library/nginx:latest") is None
    assert UPSTREAM.of("ghcr.io/flannel-io/flannel:v0.28.4") == UPSTREAM.network
    assert UPSTREAM.of("ghcr.io/somebody/else:1") is None
