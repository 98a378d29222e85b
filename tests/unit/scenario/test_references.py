"""References to images: what a runtime makes of what people write."""

from __future__ import annotations

import pytest

from lab.scenario.parser import parse_scenario
from lab.scenario.references import check_image, parse_reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("written", "whole"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.29", "docker.io/library/nginx:1.29"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/library/nginx:latest", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("team/app:1", "docker.io/team/app:1"),
        ("ghcr.io/team/app__x-y.z:1.0-rc_1", "ghcr.io/team/app__x-y.z:1.0-rc_1"),
        ("registry.lan:5000/app", "registry.lan:5000/app:latest"),
        ("localhost/app:1", "localhost/app:1"),
        ("registry.lan:5000/app:2", "registry.lan:5000/app:2"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1.29@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        ("registry.k8s.io/coredns/coredns:v1.13.1", "registry.k8s.io/coredns/coredns:v1.13.1"),
    ],
)
def test_what_a_runtime_reads(written: str, whole: str) -> None:
    found = parse_reference(written)
    assert str(found) == whole
    assert parse_reference(whole) == found


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "is not an image"),
        (" nginx", "is not an image"),
        ("NGINX", "must be lower-case"),
        ("Team/App", "is invalid|must be lower-case|is not an image"),
        ("team/../app", "is not an image"),
        ("/app", "is not an image"),
        ("nginx:", "the tag in 'nginx:' is invalid"),
        ("nginx:a b", "the tag"),
        ("nginx:" + "a" * 129, "the tag"),
        ("nginx@sha256:ab", "the digest"),
        ("nginx@sha512:" + "ab" * 64, "the digest"),
        ("registry.lan:99999/app", "the registry"),
        ("-x.lan/app", "the registry"),
        ("a" * 260, "is not an image"),
        ("x" * 600, "is not an image"),
        ("$(reboot)", "is not an image"),
        ("app;reboot", "is not an image"),
    ],
)
def test_what_is_none(written: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_reference(written)


def test_a_scenarios_image_has_its_whole_name() -> None:
    assert check_image("redis:8.2") == "docker.io/library/redis:8.2"
    with pytest.raises(ValueError, match="needs text, not 8"):
        check_image(8)


def scenario(text: str) -> str:
    return f"version: 1\nname: lesson\n{text}\n"


def test_images_of_a_scenario() -> None:
    from lab.scenario.catalog import load_catalog

    found = parse_scenario(scenario("images: [redis:8.2, 'ghcr.io/team/app:1']"), load_catalog())
    assert found.images == ("docker.io/library/redis:8.2", "ghcr.io/team/app:1")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("images: [Redis]", "line 3: .*must be lower-case"),
        ("images: redis", "line 3: .*needs a list"),
        ("images: [redis]\nbootstrap: none", "plain machines have no registry for images"),
    ],
)
def test_a_scenario_whose_images_cannot_be(text: str, said: str) -> None:
    from lab.errors import ScenarioError
    from lab.scenario.catalog import load_catalog

    with pytest.raises(ScenarioError, match=f"(?s){said}"):
        parse_scenario(scenario(text), load_catalog())
