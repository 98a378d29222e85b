"""References to container images, as the kubelet and container runtimes read them. Pure.

    >>> str(parse_reference("nginx"))
    'docker.io/library/nginx:latest'
    >>> str(parse_reference("ghcr.io/team/app:1.2@sha256:" + 64 * "0")) == "ghcr.io/team/app@sha256:" + 64 * "0"
    True

Source: github.com/distribution/reference, reference.go and normalize.go; ParseDockerRef there, which the runtimes use,
leaves out the tag where there is a digest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lab.scenario.kinds import HOST, MOST_PORT
from lab.scenario.schema import Value, named
from lab.text import shortened, visible

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
PLAIN = "http://"
_OFFICIAL = "library"
_FORMER = "index.docker.io"
_LOCAL = "localhost"
_MOST_NAME = 255
MOST_LENGTH = 512
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """An image by its whole name: docker.io, library/nginx, and a tag or a digest (sha256:HEX); the other is empty."""

    registry: str
    repository: str
    tag: str
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"

    @property
    def name(self) -> str:
        """Registry and repository: docker.io/library/nginx."""
        return f"{self.registry}/{self.repository}"

    @property
    def hex(self) -> str:
        """The digest in hex; empty for a reference by tag."""
        return self.digest.removeprefix("sha256:")


def parse_reference(text: str) -> Reference:
    """A reference as a manifest, or a person, writes it.

    Raises:
        ValueError: it is not valid; the message says why.
    """
    shown = named(shortened(visible(text), 80))
    if not text or text != text.strip() or len(text) > MOST_LENGTH:
        raise ValueError(f"{shown} is not an image, such as nginx:1.29")
    rest, at, digest = text.partition("@")
    if at and _DIGEST.fullmatch(digest) is None:
        raise ValueError(f"the digest in {shown} is invalid: it must be sha256: and 64 lower-case hex digits")
    path, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:  # the colon of a port, or none
        path, tag = rest, DEFAULT_TAG
    elif _TAG.fullmatch(tag) is None:
        raise ValueError(f"the tag in {shown} is invalid: letters, digits, '_', '.' and '-', at most 128")
    registry, repository = _split(path)
    if not _is_registry(registry):
        raise ValueError(f"the registry in {shown} is invalid: it must be a host name, perhaps with a port")
    parts = repository.split("/")
    if not all(_COMPONENT.fullmatch(part) for part in parts) or len(registry) + len(repository) >= _MOST_NAME:
        upper = "; it must be lower-case" if repository.lower() != repository else ""
        raise ValueError(f"{shown} is not an image, such as nginx:1.29 or ghcr.io/team/app:1.0{upper}")
    return Reference(registry, repository, "" if digest else tag, digest)


def _split(path: str) -> tuple[str, str]:
    """Registry and repository. What comes before the first slash is a registry only if it looks like one."""
    first, slash, rest = path.partition("/")
    if not slash or not ({".", ":"} & set(first) or first == _LOCAL or first.lower() != first):
        first, rest = DEFAULT_REGISTRY, path
    if first == _FORMER:
        first = DEFAULT_REGISTRY
    return first, f"{_OFFICIAL}/{rest}" if first == DEFAULT_REGISTRY and "/" not in rest else rest


def _is_registry(text: str) -> bool:
    port = text.partition(":")[2]
    return HOST.fullmatch(text) is not None and (not port or 0 < int(port) <= MOST_PORT)


def check_image(value: object) -> str:
    """An image of a scenario, by its whole name.

    Raises:
        ValueError: it is not text, or not a reference.
    """
    if not isinstance(value, str):
        raise ValueError(f"needs text, not {named(value)}; put quotes around it")
    return str(parse_reference(value))


IMAGE = Value(check_image, {"type": "string", "minLength": 1, "maxLength": MOST_LENGTH})
