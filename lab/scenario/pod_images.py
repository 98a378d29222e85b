"""The images that Kubernetes manifests ask for: objects -> references, each with the places that name it. Pure.

Every pod template is found by its shape, wherever it stands: in a Pod, a Deployment, a CronJob, or in a resource of
somebody else's that embeds one. Source: kubernetes.io, API reference, PodSpec.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lab.scenario.references import Reference, parse_reference
from lab.text import shortened, visible

_CONTAINERS = ("initContainers", "containers", "ephemeralContainers")
_NEVER = "Never"


@dataclass(frozen=True, slots=True)
class Use:
    """One place that names an image.

    `text` is as it is written there, `at` names object and container for a person. `reference` is None where the text
    is not valid, and `problem` says why. `never`: its pull policy is Never, so that no registry is asked.
    """

    text: str
    at: str
    reference: Reference | None
    problem: str = ""
    never: bool = False


def images_of(objects: Iterable[Mapping[str, Any]]) -> list[Use]:
    """Every use of an image, in order. What is not shaped as Kubernetes has it is passed over."""
    return [use for each in objects for use in _within(each, _title(each))]


def _title(manifest: Mapping[str, Any]) -> str:
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return _shown(f"{manifest.get('kind')} {name}")


def _within(value: Any, at: str) -> Iterator[Use]:
    """By a stack: a manifest may be nested as deeply as its reader allows."""
    pending = [value]
    while pending:
        found = pending.pop()
        if isinstance(found, dict):
            yield from _of_pod(found, at)
            pending += reversed([each for each in found.values() if isinstance(each, dict | list)])
        elif isinstance(found, list):
            pending += reversed([each for each in found if isinstance(each, dict | list)])


def _of_pod(spec: Mapping[str, Any], at: str) -> Iterator[Use]:
    """The images of a mapping's containers and volumes, where it is a PodSpec."""
    for key in _CONTAINERS:
        for container in _mappings(spec.get(key)):
            never = container.get("imagePullPolicy") == _NEVER
            yield from _use(container.get("image"), f"{at}, container {_shown(container.get('name'))}", never=never)
    for volume in _mappings(spec.get("volumes")):
        source = volume.get("image")
        if isinstance(source, dict):
            never = source.get("pullPolicy") == _NEVER
            yield from _use(source.get("reference"), f"{at}, volume {_shown(volume.get('name'))}", never=never)


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _use(text: Any, at: str, *, never: bool) -> Iterator[Use]:
    # A template of somebody else's may leave the image to a controller (an empty one, or none).
    if not isinstance(text, str) or not text:
        return
    try:
        yield Use(text, at, parse_reference(text), never=never)
    except ValueError as error:
        yield Use(text, at, None, str(error), never=never)


def _shown(value: object) -> str:
    return shortened(visible(str(value)), 80)
