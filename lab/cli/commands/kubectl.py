"""klab kubectl"""

from __future__ import annotations

import sys

import click

from lab.errors import UsageError


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[LAB] -- ARGUMENTS...")
def command(words: tuple[str, ...]) -> None:
    """Run kubectl against a lab, on this machine.

    The kubectl is the one that was built with the lab's box, so its version fits. For a lab from
    a checkpoint whose box was not built here, it is the one on the PATH.

    \b
    Examples:
      klab kubectl -- get nodes -o wide
      klab kubectl 1m2w -- apply -f nginx.yaml
    """
    from lab.boxes.kubectl import kubectl_for
    from lab.cli.opening import lab_then
    from lab.process import attach

    lab, rest = lab_then(words)
    rest = rest[1:] if rest[:1] == ["--"] else rest
    if not rest:
        raise UsageError("kubectl what?", hint="for example: klab kubectl -- get nodes")
    kubectl = kubectl_for(lab.home, lab.record.box, lab.plan.kubernetes.version)
    lab.enter()
    sys.exit(attach([kubectl, *rest], env={"KUBECONFIG": str(lab.folder.kubeconfig)}))
