"""klab image: load, fetch, list, rm, check, prune."""

from __future__ import annotations

import sys

import click

from lab.errors import RootNeeded, UsageError

_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")
_EVENTS = click.option(
    "--json", "as_json", is_flag=True, help="Print events and the result as JSON, one object per line."
)
_NAME = click.option("--name", metavar="NAME:TAG", help="What to call the image of a file that gives it no name.")
_BOX = click.option("--box", metavar="BOX", help="Take images out of a box: its name, or the beginning of its digest.")
_PULL = click.option("--pull", is_flag=True, help="Ask the registry even for an image that this machine keeps.")
_OWN = click.option("--own-build", is_flag=True, help="klab's own build from Debian packages, under the name of IMAGE.")


@click.group()
def command() -> None:
    """Bring container images to all nodes of a lab; list, remove and check them.

    An image comes once to this machine, which keeps it for nodes and labs that are made later, and
    from here into the registry that runs on each node. Pods then get it under its usual name, with
    any pull policy but Never, whether the lab reaches another network or not.

    \b
    Examples:
      klab image load redis:8.2                     from its registry
      klab image load app.tar                       what docker save has written
      klab image check lesson/ --lab 1m2w --load    what manifests ask for
      klab image list
    """


@command.command()
@click.argument("lab_and_sources", nargs=-1, metavar="[LAB] [FILE|FOLDER|IMAGE]...")
@_NAME
@_BOX
@_PULL
@_OWN
@_EVENTS
def load(
    lab_and_sources: tuple[str, ...], name: str | None, box: str | None, pull: bool, own_build: bool, as_json: bool
) -> None:
    """Bring images to every node of a lab; without images, what the nodes lack of those on its list.

    FILE is what docker save or podman save has written, or an OCI archive; FOLDER has an OCI
    layout. IMAGE comes from its registry by skopeo: a login is skopeo's (skopeo login HOST), a CA of
    your own goes into SSL_CERT_FILE, and http://HOST/IMAGE is a registry without TLS.

    What a node has is not sent again: after a failure, or Ctrl-C, the same command continues.

    \b
    Examples:
      klab image load redis:8.2 ghcr.io/team/app:1.0
      klab image load 1m2w app.tar
      klab image load --name app:1.0 image.tar
      klab image load --box debian-12-k8s-1.28.0 nginx
      klab image load --own-build redis:7-alpine    where no registry is reached
      klab image load 1m2w                          after klab restore, for example
    """
    from lab.app.images import Wanted
    from lab.cli.reports.images import run_load
    from lab.cli.terminal.words import lab_then

    lab, rest = lab_then(lab_and_sources)
    run_load(lab, Wanted(rest, name, box, pull, own_build), as_json=as_json)


@command.command()
@click.argument("words", nargs=-1, required=True, metavar="FILE|FOLDER|IMAGE...")
@_NAME
@_BOX
@_PULL
@_OWN
@_JSON
def fetch(
    words: tuple[str, ...], name: str | None, box: str | None, pull: bool, own_build: bool, as_json: bool
) -> None:
    """Fetch images to this machine, for labs that are created later; arguments as of klab image load.

    klab create then brings those that the scenario names under images, without any network.

    With --own-build no registry is asked: klab packs an image from Debian packages and calls it what
    you say. It is not the original: its version is Debian's, whatever the tag. That needs root's
    rights, for which sudo asks.

    \b
    Examples:
      klab image fetch redis:8.2
      klab image fetch /media/stick/images          the folder KLAB_HOME/images of another machine
      klab image fetch --own-build redis:7-alpine httpd:2.4
    """
    from lab.app.images import Wanted
    from lab.cli.reports.images import run_fetch
    from lab.store import Home

    home = Home.default(gives_back=own_build)
    try:
        run_fetch(home, Wanted(words, name, box, pull, own_build), as_json=as_json)
    except RootNeeded as needed:
        from lab.cli.terminal.sudo import again_as_root

        sys.exit(again_as_root(needed, home))


@command.command(name="list")
@click.argument("lab", required=False)
@click.option("--here", is_flag=True, help="List what this machine keeps, and the labs that have it.")
@_JSON
def list_(lab: str | None, here: bool, as_json: bool) -> None:
    """List the images that klab has brought to a lab, and whether every node has them.

    Images that came with the box are not listed; klab image check knows them.

    \b
    Examples:
      klab image list
      klab image list 1m2w --json
      klab image list --here
    """
    from lab.cli.reports.images import run_here, run_list

    if not here:
        run_list(lab, as_json=as_json)
    elif lab is not None:
        raise UsageError("--here is about this machine, not about a lab", hint="leave one of the two out")
    else:
        run_here(as_json=as_json)


@command.command()
@click.argument("lab_and_images", nargs=-1, metavar="[LAB] IMAGE...")
@_JSON
def rm(lab_and_images: tuple[str, ...], as_json: bool) -> None:
    """Remove images from every node of a lab.

    Containers that run are not touched. This machine keeps the images until klab image prune.

    \b
    Examples:
      klab image rm redis:8.2
      klab image rm 1m2w redis:8.2 ghcr.io/team/app:1.0
    """
    from lab.cli.reports.images import run_remove
    from lab.cli.terminal.words import lab_then

    lab, rest = lab_then(lab_and_images)
    if not rest:
        raise UsageError("an image is needed", hint=f"klab image list {lab.name} lists them")
    run_remove(lab, rest, as_json=as_json)


@command.command()
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST|FOLDER...")
@click.option("--lab", metavar="LAB", help="The lab; without it, the default box.")
@click.option("--load", is_flag=True, help="Bring to the lab what it lacks and what can be had.")
@click.option("--offline", is_flag=True, help="Ask no registry.")
@click.option("--own-build", is_flag=True, help="With --load: klab's own builds of what is to be had nowhere, too.")
@_JSON
def check(
    manifests: tuple[str, ...], lab: str | None, load: bool, offline: bool, own_build: bool, as_json: bool
) -> None:
    """Find every image that Kubernetes manifests ask for, and say whether a lab has it or where it can be had.

    Exit code 1 when one is missing. Of a folder every .yaml, .yml and .json is read; - is standard
    input, for charts and kustomizations: helm template CHART | klab image check -

    \b
    Examples:
      klab image check lesson.yaml
      klab image check lesson/ --lab 1m2w
      klab image check lesson/ --lab 1m2w --load --own-build
      kubectl kustomize overlay/ | klab image check - --json
    """
    from lab.cli.reports.images import run_check

    if load and lab is None:
        raise UsageError("--load needs a lab", hint="--lab LAB names it")
    if own_build and not load:
        raise UsageError("--own-build is about what --load brings", hint="add --load, or leave --own-build out")
    code = run_check(manifests, lab, load=load, own_build=own_build, ask=not offline, as_json=as_json)
    raise SystemExit(code)


@command.command()
@_JSON
def prune(as_json: bool) -> None:
    """Remove from this machine the images that no lab has.

    \b
    Examples:
      klab image prune
    """
    from lab.cli.reports.images import run_prune

    run_prune(as_json=as_json)
