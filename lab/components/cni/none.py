"""No pod network: that part of the lesson is the student's."""

from __future__ import annotations

from lab.components.cni.base import PodNetwork


class NoNetwork(PodNetwork):
    """Nodes stay NotReady and cluster DNS waits until the student has brought a network."""

    name = "none"
    summary = "left to the student"
    present = False


COMPONENT = NoNetwork()
