"""klab kubectl"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from lab.errors import UsageError

if TYPE_CHECKING:
    from lab.store import Home


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[LAB] -- ARGUMENTS...")
def command(words: tuple[str, ...]) -> None:
    """Run kubectl against a lab, on this machine.

    The kubectl is the one that was built with the lab's box, so its version fits.

    \b
    Examples:
      klab kubectl -- get nodes -o wide
      klab kubectl 1m2w -- apply -f nginx.yaml
    """
    from lab.cli.opening import lab_then
    from lab.process import attach

    lab, rest = lab_then(words)
    rest = rest[1:] if rest[:1] == ["--"] else rest
    if not rest:
        raise UsageError("kubectl what?", hint="for example: klab kubectl -- get nodes")
    kubectl = _kubectl(lab.home, lab.plan.box, lab.plan.kubernetes.version)
    lab.enter()
    sys.exit(attach([kubectl, *rest], env={"KUBECONFIG": str(lab.folder.kubeconfig)}))


def _kubectl(home: Home, box: str, version: str) -> str:
    """The kubectl that came with the box; the one on the PATH where the box is gone."""
    from lab.boxes.store import find_box
    from lab.errors import BoxError

    try:
        beside = find_box(home, box, version).kubectl
    except BoxError:
        return "kubectl"
    return str(beside) if beside.exists() else "kubectl"
