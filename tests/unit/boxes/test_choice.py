"""Which source is taken: the order, the probes, what is told, what contradicts what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from lab.boxes.choice import Way, choose, ways
from lab.boxes.lock import Lock
from lab.boxes.manifest import MadeFrom
from lab.boxes.upstream.addresses import UPSTREAM, Addresses
from lab.boxes.upstream.upstream import Obstacle
from lab.components.kubernetes.sources import MIRROR, RELEASE, SOURCE
from lab.errors import BoxError, UsageError

STICK = ("/media/stick",)
UNKNOWN = Obstacle("https://dl.k8s.io: its name is not known")
NO_FLANNEL = Obstacle("ghcr.io: no such host", name="ghcr.io")
NO_ARCHIVES = Obstacle("https://github.com: its name is not known", name="github.com")
BUSY = Obstacle("registry.k8s.io: StatusCode: 429", busy=True)


def lock(source: str) -> Lock:
    return Lock("debian-13", "1.35.4", MadeFrom(source, {}, {}, {}, {}))


@pytest.mark.parametrize(
    ("source", "mirrors", "locked", "order"),
    [
        ("auto", (), "", [RELEASE, SOURCE]),
        ("auto", STICK, "", [MIRROR, RELEASE, SOURCE]),
        ("release", (), "", [RELEASE]),
        ("mirror", STICK, "", [MIRROR]),
        ("source", (), "", [SOURCE]),
        ("auto", (), RELEASE, [RELEASE]),
        ("auto", STICK, MIRROR, [MIRROR, RELEASE]),
        ("auto", STICK, SOURCE, [SOURCE]),
    ],
)
def test_the_order(source: str, mirrors: Sequence[str], locked: str, order: list[str]) -> None:
    found = ways(source, mirrors, lock(locked) if locked else None)
    assert [way.source for way in found] == order


@pytest.mark.parametrize(
    ("source", "mirrors", "locked", "said"),
    [
        ("mirror", (), "", "--source mirror needs a mirror"),
        ("release", STICK, "", "--source release asks no mirror"),
        ("source", STICK, "", "--source source asks no mirror"),
        ("release", (), SOURCE, "the lock is of a box from source, which --source release does not make"),
        ("source", (), RELEASE, "the lock is of a box from release, which --source source does not make"),
        ("auto", ("x=y",), "", "is a mirror of"),
    ],
)
def test_what_contradicts_what(source: str, mirrors: Sequence[str], locked: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        ways(source, mirrors, lock(locked) if locked else None)
    assert caught.value.hint


def test_the_first_that_is_reached_is_taken_and_told() -> None:
    told: list[str] = []

    def obstacles(addresses: Addresses) -> list[Obstacle]:
        return [] if addresses == UPSTREAM else [Obstacle("/media/stick: there is no images/index.json")]

    assert choose(ways("auto", STICK), obstacles, told.append) == Way(RELEASE, UPSTREAM)
    assert told == [
        "mirror cannot be used: /media/stick: there is no images/index.json",
        "release: programs from https://dl.k8s.io, images from registry.k8s.io",
    ]


def test_flannel_is_compiled_where_its_image_is_not_reached() -> None:
    told: list[str] = []
    found = choose(ways("auto", ()), lambda _: [NO_FLANNEL], told.append)
    assert found == Way(RELEASE, replace(UPSTREAM, network=None))
    assert told == [
        "release: programs from https://dl.k8s.io, images from registry.k8s.io",
        "the pod network is compiled, since its image cannot be had: ghcr.io: no such host",
    ]
    assert found in ways("auto", ())[0].variants
    assert Way(SOURCE, None).variants == (Way(SOURCE, None),)


def test_what_other_projects_publish_is_compiled_where_it_is_not_reached() -> None:
    told: list[str] = []
    found = choose(ways("auto", ()), lambda _: [NO_FLANNEL, NO_ARCHIVES], told.append)
    assert found == Way(RELEASE, replace(UPSTREAM, network=None, archives=None))
    assert told[1:] == [
        "the pod network is compiled, since its image cannot be had: ghcr.io: no such host",
        "what other projects publish is compiled, since it cannot be had: https://github.com: its name is not known",
    ]
    # A box that exists is found by what it was made of, whatever was reached then.
    assert [way.addresses for way in ways("auto", ())[0].variants] == [
        UPSTREAM,
        replace(UPSTREAM, network=None),
        replace(UPSTREAM, archives=None),
        replace(UPSTREAM, network=None, archives=None),
    ]


def test_a_lock_says_where_flannel_comes_from() -> None:
    (packing,) = ways("auto", (), lock(RELEASE))
    assert packing.addresses == replace(UPSTREAM, network=None, archives=None)
    wanted = replace(lock(RELEASE), made_from=MadeFrom(RELEASE, UPSTREAM.shown, {}, {}, {}))
    (strict,) = ways("auto", (), wanted)
    assert strict.addresses == UPSTREAM
    assert strict.variants == (strict,)
    with pytest.raises(BoxError, match="no source of Kubernetes can be used") as caught:
        choose((strict,), lambda _: [NO_FLANNEL], lambda _: None)
    assert caught.value.details == ("release: ghcr.io: no such host",)


def test_source_is_not_probed() -> None:
    told: list[str] = []
    found = choose(ways("auto", ()), lambda _: [UNKNOWN], told.append)
    assert found == Way(SOURCE, None)
    assert told == [
        "release cannot be used: https://dl.k8s.io: its name is not known",
        "source: Go modules, compiled here",
    ]


def test_where_none_is_reached_each_says_why() -> None:
    with pytest.raises(BoxError, match="no source of Kubernetes can be used") as caught:
        choose(ways("release", ()), lambda _: [UNKNOWN], lambda _: None)
    assert caught.value.details == ("release: https://dl.k8s.io: its name is not known",)
    assert "--source source" in caught.value.hint


def test_a_busy_source_is_waited_for_where_there_is_no_other() -> None:
    told: list[str] = []
    assert choose(ways("release", ()), lambda _: [BUSY], told.append).source == RELEASE
    assert told == ["release is busy: registry.k8s.io: StatusCode: 429"]
    assert choose(ways("auto", ()), lambda _: [BUSY], told.append).source == SOURCE
    with pytest.raises(BoxError):
        choose(ways("release", ()), lambda _: [BUSY, UNKNOWN], told.append)
