"""Nodes and pods as facts, read from the API server's objects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from lab.cluster.clients.resources import condition, is_ready
from lab.cluster.observe.facts import NodeFacts, PodFacts

# Why a container waits when its image cannot be had (kubernetes, pkg/kubelet/images/types.go).
IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")
F = TypeVar("F")


def name_of_object(item: Mapping[str, Any]) -> object:
    """Its name as it stands there, of whatever type; None where it has none."""
    metadata = item.get("metadata")
    return metadata.get("name") if isinstance(metadata, dict) else None


def node_facts(facts: NodeFacts, found: Mapping[str, Any]) -> NodeFacts:
    """The facts of a node with what its Node object adds; errors as `resources.condition`."""
    said = condition(found, "Ready")
    ready = said.get("status") == "True"
    conditions = found.get("status", {}).get("conditions") or []
    return replace(
        facts,
        registered=True,
        ready=ready,
        why="" if ready else _line(str(said.get("message") or "not Ready")),
        unheard=said.get("status") == "Unknown",
        cordoned=bool(found.get("spec", {}).get("unschedulable")),
        kubelet=str(found.get("status", {}).get("nodeInfo", {}).get("kubeletVersion", "")),
        pressures=tuple(c["type"] for c in conditions if "Pressure" in c["type"] and c.get("status") == "True"),
    )


def read_all(read: Callable[[Mapping[str, Any]], F | None], items: Sequence[Mapping[str, Any]]) -> tuple[F, ...]:
    """What `read` returns for each item. Items of another shape are left out, since a guest answers."""
    found = []
    for item in items:
        with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError, OverflowError):
            found.append(read(item))
    return tuple(each for each in found if each is not None)


def pod_facts(pod: Mapping[str, Any]) -> PodFacts:
    """The facts of a Pod object; errors as `resources.condition`."""
    metadata, status = pod["metadata"], pod.get("status", {})
    ready = status.get("phase") == "Succeeded" or is_ready(pod)
    reasons, images = [], []
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in IMAGE_REASONS:
            images.append(str(container.get("image", "")))
        if waiting:
            reasons.append(f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip())
    why = "; ".join(reasons) or str(condition(pod, "PodScheduled").get("message") or status.get("phase", "unknown"))
    return PodFacts(
        metadata.get("namespace", ""),
        metadata.get("name", ""),
        str(pod.get("spec", {}).get("nodeName", "")),
        ready,
        "" if ready else _line(why),
        tuple(images),
    )


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
