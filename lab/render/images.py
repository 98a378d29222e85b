"""Scripts for root's shell on a node that gets images into its own registry, or loses them.

    /var/lib/klab/images/HEX       a blob of which a part has come, or all of it, not yet checked
    /var/lib/docker-registry       where the registry has it then

The registry reads its files again for each request (`lab.boxes.registry` describes them), so that nothing is pushed and
nothing has to be restarted for what comes; for what goes, it has to forget what it remembers of blobs.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lab.components.runtime import runtime
from lab.components.runtime.base import NODE_REGISTRY_ROOT, NODE_REGISTRY_USER
from lab.plan.model import Plan

STAGING = "/var/lib/klab/images"
_INCOMING = f"{STAGING}/incoming"
_LOCK = "/run/klab-images.lock"
_HEX = re.compile(r"[0-9a-f]{64}")

# The function is called by the last line: a shell that was sent only half of it does nothing. The lock: a klab that
# was killed may have left a script at work.
_SCRIPT = """\
main() {{
    set -eu
    umask 022
    mkdir -p {staging}
    exec 9> {lock}
    flock 9
    root={root}
{body}}}
main
"""


@dataclass(frozen=True, slots=True)
class NodeImage:
    """An image as a node's registry has it.

    `name` is its repository, registry included; `tag` is empty for one that is known by its digest alone. `revisions`
    are its manifests, what the name stands for first, `blobs` configuration and layers: SHA-256 in hex.
    """

    ref: str
    name: str
    tag: str
    revisions: tuple[str, ...]
    blobs: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.blobs, *self.revisions)))


@dataclass(frozen=True, slots=True)
class Seen:
    """What a node has said: bytes that are free, bytes that have come of blobs it lacks, images it has by name."""

    free: int = 0
    lacks: dict[str, int] = field(default_factory=dict)
    named: frozenset[str] = frozenset()


def render_look(images: Sequence[NodeImage]) -> str:
    """Prints what `parse_seen` reads; the registry stays as it is."""
    lines = ["    [ -d $root/repositories ] || { echo 'no registry'; exit 0; }\n"]
    lines += [
        f"    [ -s {_data(digest)} ] || echo lacks {digest} $(stat -c %s {STAGING}/{digest} 2>/dev/null || echo 0)\n"
        for digest in _files(images)
    ]
    for image in images:
        tests = [f'[ "$(cat {path}/link 2>/dev/null)" = sha256:{digest} ]' for path, digest in _links(image)]
        lines.append(f"    if {' && '.join(tests)}; then echo named {shlex.quote(image.ref)}; fi\n")
    lines.append("    echo free $(df --output=avail -B1 $root | tail -n 1)\n")
    return _script("".join(lines))


def parse_seen(text: str) -> Seen | None:
    """What `render_look` has printed; None where the node has no registry, or did not answer properly.

    A node is not trusted: a line that is no such line is passed over.
    """
    free, lacks, named = -1, {}, set()
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        digest, _, size = rest.partition(" ")
        if word == "lacks" and _HEX.fullmatch(digest) and (count := _count(size)) is not None:
            lacks[digest] = count
        elif word == "named":
            named.add(rest)
        elif word == "free" and (count := _count(rest)) is not None:
            free = count
    return None if free < 0 else Seen(free, lacks, frozenset(named))


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else None


def piece_name(digest: str, offset: int) -> str:
    """The name, in the tar that `render_receive` reads, of a part of a blob that begins at a byte."""
    return f"{digest}.{offset}"


def render_receive(pieces: Sequence[tuple[str, int]]) -> str:
    """Takes parts of blobs from a tar on its standard input, in this order, and appends each to what has come.

    Args:
        pieces: SHA-256 in hex, and where in the blob the part begins.
    """
    lines = [f"    rm -rf {_INCOMING}\n    mkdir -p {_INCOMING}\n    tar -x --no-same-owner -C {_INCOMING}\n"]
    for digest, offset in pieces:
        file = f"{STAGING}/{digest}"
        if offset == 0:
            lines.append(f"    mv {_INCOMING}/{piece_name(digest, 0)} {file}\n")
        else:
            part = f"{_INCOMING}/{piece_name(digest, offset)}"
            lines.append(f'    [ "$(stat -c %s {file})" = {offset} ]\n    cat {part} >> {file}\n')
    lines.append(f"    rm -rf {_INCOMING}\n")
    return _script("".join(lines))


def render_place(plan: Plan, images: Sequence[NodeImage]) -> str:
    """Checks what has come, puts it into the registry, and lets the container runtime ask it for these images."""
    lines = []
    for digest in _files(images):
        file = f"{STAGING}/{digest}"
        lines.append(
            f"    if [ ! -s {_data(digest)} ]; then\n"
            f"        echo '{digest}  {file}' | sha256sum --quiet -c - >&2 || {{ rm -f {file}; exit 1; }}\n"
            f"        mkdir -p {_folder(digest)}\n"
            f"        mv {file} {_data(digest)}\n"
            f"        chown -R {NODE_REGISTRY_USER}: {_folder(digest)}\n    fi\n"
        )
    for image in images:
        for path, digest in _links(image):
            lines.append(
                f"    mkdir -p {path}\n    printf sha256:{digest} > {path}/link.new\n"
                f"    mv {path}/link.new {path}/link\n"
            )
    # Not the blobs that were there before, which the runtime's own store may share.
    lines.append(f"    chown -R {NODE_REGISTRY_USER}: $root/repositories\n    rm -rf {STAGING}\n")
    runs = runtime(plan.kubernetes.runtime)
    offered = runs.offer([image.ref for image in images], mirrored=[registry for registry, _ in plan.mirrors])
    return _script("".join(lines) + "".join(f"    {line}\n" for line in offered.splitlines()))


def render_remove(plan: Plan, gone: Sequence[NodeImage], kept: Sequence[NodeImage]) -> str:
    """Takes images out of the registry and out of the runtime's own store; blobs that nothing else has go, too.

    Args:
        plan: the lab.
        gone: the images.
        kept: those that the lab still has.
    """
    lines = ["    cd $root/repositories\n"]
    for image in gone:
        others = [each for each in kept if each.name == image.name]
        lines.append(_untagged(image))
        staying = {digest for each in others for digest in each.files}
        manifests = f"{image.name}/_manifests"
        lines += [
            f"    ls -d {manifests}/tags/*/index/sha256/{digest} > /dev/null 2>&1 ||"
            f" rm -rf {manifests}/revisions/sha256/{digest}\n"
            for digest in image.revisions
            if digest not in staying
        ]
        lines += [_unlinked(image.name, digest) for digest in image.blobs if digest not in staying]
    # A revision or a layer of any other image is a folder of that name.
    lines += [
        f'    [ -n "$(find . -type d -name {digest} -print -quit)" ] || rm -rf {_folder(digest)}\n'
        for digest in _files(gone)
    ]
    for image in gone:
        above = image.name.rpartition("/")[0]
        lines.append(f"    find {image.name} -depth -type d -empty -delete 2> /dev/null || true\n")
        lines.append(f"    rmdir -p --ignore-fail-on-non-empty {above} 2> /dev/null || true\n")
    runs = runtime(plan.kubernetes.runtime)
    lines += [f"    {runs.forget(image.ref)} > /dev/null 2>&1 || true\n" for image in gone]
    lines.append("    systemctl restart docker-registry\n")
    return _script("".join(lines))


def _files(images: Iterable[NodeImage]) -> dict[str, None]:
    """SHA-256, in hex, of every file of these images, each once."""
    return dict.fromkeys(digest for image in images for digest in image.files)


def _untagged(image: NodeImage) -> str:
    """A tag that stands for the image stands for what it stood for before, such as the box's image, or goes."""
    if not image.tag:
        return ""
    tag, digest = f"{image.name}/_manifests/tags/{image.tag}", image.revisions[0]
    return (
        f"    rm -rf {tag}/index/sha256/{digest}\n"
        f'    if [ "$(cat {tag}/current/link 2>/dev/null)" = sha256:{digest} ]; then\n'
        f"        before=$(ls {tag}/index/sha256 2>/dev/null | head -n 1)\n"
        f'        if [ -n "$before" ]; then printf sha256:$before > {tag}/current/link; else rm -rf {tag}; fi\n'
        f"    fi\n"
    )


def _unlinked(name: str, digest: str) -> str:
    """A layer of the repository goes, unless a manifest that stays there names it."""
    return (
        f"    used=\n    for other in $(ls {name}/_manifests/revisions/sha256 2>/dev/null); do\n"
        f"        grep -q {digest} $root/blobs/sha256/$(echo $other | cut -c 1-2)/$other/data 2>/dev/null && used=1\n"
        f'    done\n    [ -n "$used" ] || rm -rf {name}/_layers/sha256/{digest}\n'
    )


def _links(image: NodeImage) -> Iterable[tuple[str, str]]:
    """The folders that get a file `link`, and the digest in each; a tag comes last."""
    folder = f"$root/repositories/{image.name}"
    for digest in image.blobs:
        yield f"{folder}/_layers/sha256/{digest}", digest
    for digest in image.revisions:
        yield f"{folder}/_manifests/revisions/sha256/{digest}", digest
    if image.tag:
        tag = f"{folder}/_manifests/tags/{image.tag}"
        yield f"{tag}/index/sha256/{image.revisions[0]}", image.revisions[0]
        yield f"{tag}/current", image.revisions[0]


def _data(digest: str) -> str:
    return f"{_folder(digest)}/data"


def _folder(digest: str) -> str:
    return f"$root/blobs/sha256/{digest[:2]}/{digest}"


def _script(body: str) -> str:
    return _SCRIPT.format(staging=STAGING, lock=_LOCK, root=NODE_REGISTRY_ROOT, body=body)
