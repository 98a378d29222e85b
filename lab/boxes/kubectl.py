"""Which kubectl runs on this host for a lab: one that was built here, or this host's own."""

from __future__ import annotations

from lab.boxes.store import list_boxes
from lab.store import Home


def any_kubectl(home: Home) -> str:
    """A kubectl that runs on this host and needs no cluster: the newest box's, else the name of the one on the PATH."""
    built = [box for box in list_boxes(home) if not box.origin and box.kubectl.is_file()]
    return str(max(built, key=lambda box: box.created).kubectl) if built else "kubectl"


def kubectl_for(home: Home, folder: str, kubernetes: str) -> str:
    """The kubectl of a lab's own box, else of another box, else the name of the one on the PATH.

    One of the lab's version comes before any other: after an upgrade that of its own box is an older one.

    A box that came with a bundle has none: no program from another person's file runs on this host.

    Args:
        home: klab's folder.
        folder: the lab's box, as its record names it.
        kubernetes: the lab's version: 1.35.4.
    """
    built = [box for box in list_boxes(home) if not box.origin and box.kubectl.is_file()]
    right = [box for box in built if box.kubernetes == kubernetes]
    own = [box for box in built if box.folder.name == folder]
    first = [box for box in own if box in right]
    return next((str(box.kubectl) for box in first + right + own), "kubectl")
