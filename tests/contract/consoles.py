"""What is on the serial consoles of a lab's machines."""

from __future__ import annotations

import os

from contract.labs import Lab

from lab.waiting import Deadline, poll

SECONDS = 60


def printed(lab: Lab, node: str, *, times: int = 1) -> str:
    """What a node has printed, in a file of the person's own; waits until its guest has said so often that it is up."""
    file = lab.open().consoles()[node]
    poll(lambda: file.read_text(errors="replace").count(f"{node} is up") >= times, Deadline.after(SECONDS))
    assert file.stat().st_uid == os.geteuid()
    text = file.read_text(errors="replace")
    assert text.count(f"{node} is up") == times
    return text
