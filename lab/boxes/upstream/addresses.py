"""Where upstream's programs and images are: at upstream itself, or at a mirror that a person names. Pure.

    --mirror FOLDER                                  a folder, or a USB stick, that holds all
    --mirror dl.k8s.io=https://HOST/PATH             programs: PATH/v1.35.4/bin/linux/amd64/kubeadm
    --mirror registry.k8s.io=HOST/PATH               images: HOST/PATH/pause:3.10.1; http://HOST/PATH without TLS
    --mirror ghcr.io=HOST/PATH                       flannel's image: HOST/PATH/flannel-io/flannel:v0.28.4
    --mirror github.com=https://HOST/PATH            archives: PATH/kubernetes-sigs/cri-tools/releases/download/...
    --mirror dl.k8s.io=/FOLDER                       each may also lie in a folder

What a folder holds: `lab.boxes.upstream.upstream`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from lab.components.cni import networks
from lab.errors import UsageError
from lab.text import visible

PROGRAMS = "dl.k8s.io"
IMAGES = "registry.k8s.io"
NETWORK_IMAGES = "ghcr.io"
ARCHIVES = "github.com"
# What klab can compile instead.
OPTIONAL = (NETWORK_IMAGES, ARCHIVES)
_NAMES = (PROGRAMS, IMAGES, *OPTIONAL)
_OF_NETWORKS = {
    image
    for network in networks().values()
    for image in network.repositories.values()
    if image.startswith(f"{NETWORK_IMAGES}/")
}
# What kubeadm named images by before 1.25; the registry is gone, its images are in the new one.
_FORMER_IMAGES = "k8s.gcr.io"
_FORMS = f"--mirror FOLDER, --mirror {PROGRAMS}=https://HOST/PATH, or --mirror {IMAGES}=HOST/PATH"
# A host, with a port, and a path: what a container image's reference begins with (distribution, reference.go).
_REPOSITORY = re.compile(r"[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?(?:/[a-z0-9._-]{1,128}){0,16}")
_MOST = 2000  # characters


@dataclass(frozen=True, slots=True)
class Site:
    """A web server's folder. `url` has no secret in it; `user` and `password` are sent to that host alone."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return self.url

    def at(self, path: str) -> Site:
        """A file below."""
        return replace(self, url=f"{self.url}/{path}")

    @property
    def host(self) -> str:
        """The host, and the port where there is one."""
        return urlsplit(self.url).netloc


@dataclass(frozen=True, slots=True)
class Registry:
    """A container registry, or a part of one: HOST/PATH. plain: by HTTP, without TLS."""

    prefix: str
    plain: bool = False

    def __str__(self) -> str:
        return f"http://{self.prefix}" if self.plain else self.prefix

    @property
    def host(self) -> str:
        return self.prefix.partition("/")[0]

    def names(self, ref: str) -> tuple[str, ...]:
        """What an image may be called here, the likeliest first.

        kubeadm drops the folder of CoreDNS' image where an imageRepository is set, and so do mirrors made for it.
        Source: kubernetes, cmd/kubeadm/app/images/images.go, GetDNSImage.

        >>> Registry("hub.example/k8s").names("registry.k8s.io/coredns/coredns:v1.13.1")
        ('hub.example/k8s/coredns/coredns:v1.13.1', 'hub.example/k8s/coredns:v1.13.1')
        """
        _, _, path = ref.partition("/")
        upstreams = self in {UPSTREAM.images, UPSTREAM.network}
        paths = (path,) if upstreams else (path, path.rpartition("/")[2])
        return tuple(dict.fromkeys(f"{self.prefix}/{each}" for each in paths))


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where Kubernetes' programs and images are, the pod network's image, and what other projects publish.

    None stands for one that is compiled instead.
    """

    programs: Site | Path
    images: Registry | Path
    network: Registry | Path | None = None
    archives: Site | Path | None = None

    @property
    def shown(self) -> dict[str, str]:
        """All of them, by upstream's name, without secrets."""
        optional = {NETWORK_IMAGES: self.network, ARCHIVES: self.archives}
        shown = {name: str(place) for name, place in optional.items() if place is not None}
        return {PROGRAMS: str(self.programs), IMAGES: str(self.images), **shown}

    def without(self, *names: str) -> Addresses:
        """The same, but what is at these is compiled. names: of `OPTIONAL`."""
        return replace(
            self,
            network=None if NETWORK_IMAGES in names else self.network,
            archives=None if ARCHIVES in names else self.archives,
        )

    def of(self, ref: str) -> Registry | Path | None:
        """Where an image is taken from; None for one that klab packs."""
        if ref.partition("/")[0] in {IMAGES, _FORMER_IMAGES}:
            return self.images
        return self.network if is_network_image(ref) else None


UPSTREAM = Addresses(
    Site(f"https://{PROGRAMS}"), Registry(IMAGES), Registry(NETWORK_IMAGES), Site(f"https://{ARCHIVES}")
)


def is_network_image(ref: str) -> bool:
    """Whether an image is one that a pod network publishes there."""
    return ref.rpartition(":")[0] in _OF_NETWORKS


def parse_mirrors(words: Sequence[str]) -> Addresses:
    """What `--mirror` says, each time that it was given; what it does not name is upstream's own.

    Raises:
        UsageError: it is not understood; the message has no password.
    """
    places: dict[str, Any] = {}
    for word in words:
        name, place = _split(word)
        folder = Path(place).expanduser().absolute() if not name or place.startswith(("/", ".", "~")) else None
        for each in (name,) if name else _NAMES:
            if each in places:
                raise UsageError(f"--mirror names two places for {each}", hint="give one of them")
            places[each] = folder or (_site(each, place) if each in {PROGRAMS, ARCHIVES} else _registry(each, place))
    return Addresses(
        places.get(PROGRAMS, UPSTREAM.programs),
        places.get(IMAGES, UPSTREAM.images),
        places.get(NETWORK_IMAGES, UPSTREAM.network),
        places.get(ARCHIVES, UPSTREAM.archives),
    )


def _split(word: str) -> tuple[str, str]:
    """What a mirror is for, empty for a folder that is for both, and where it is."""
    name, equals, place = word.partition("=")
    if not word or len(word) > _MOST or "\0" in word:
        raise UsageError("--mirror has no place, or one that is too long", hint=_FORMS)
    if not equals and "://" not in word:
        return "", word
    if name not in _NAMES or not place:
        raise UsageError(
            f"--mirror does not say what {_public(place or name)} is a mirror of",
            hint=f"{_FORMS}; {PROGRAMS} stands for the programs, {IMAGES} for the images, "
            f"{NETWORK_IMAGES} for the pod network's, {ARCHIVES} for what other projects publish",
        )
    return name, place


def _site(name: str, place: str) -> Site:
    try:
        parts = urlsplit(place)
        host, port = parts.hostname or "", parts.port
        sound = parts.scheme in {"http", "https"} and host and not parts.query and not parts.fragment
    except ValueError:
        sound = False
    if not sound or not place.isascii() or not place.isprintable() or " " in place:
        raise UsageError(f"--mirror {name}={_public(place)} is no address", hint=f"--mirror {name}=https://HOST/PATH")
    shown = f"[{host}]" if ":" in host else host
    netloc = shown if port is None else f"{shown}:{port}"
    url = urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))
    return Site(url, unquote(parts.username or ""), unquote(parts.password or ""))


def _registry(name: str, place: str) -> Registry:
    plain = place.startswith("http://")
    prefix = place.removeprefix("http://").removeprefix("https://").rstrip("/")
    if "@" in prefix:
        raise UsageError(
            f"--mirror {name}={_public(place)} has a user in it",
            hint=f"leave it out, and log in: skopeo login {visible(prefix.rpartition('@')[2].partition('/')[0])}",
        )
    if _REPOSITORY.fullmatch(prefix) is None:
        raise UsageError(
            f"--mirror {name}={_public(place)} is no registry",
            hint=f"--mirror {name}=HOST/PATH, or http://HOST/PATH where it has no TLS",
        )
    return Registry(prefix, plain)


def _public(place: str) -> str:
    """What was typed, without a user and a password, and safe for a terminal."""
    scheme, slashes, rest = place.rpartition("://")
    return visible(scheme + slashes + rest.rpartition("@")[2])
