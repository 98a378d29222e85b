"""containerd.

Source: github.com/containerd/containerd, docs/hosts.md and docs/cri/config.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from lab.components.cluster import File, Minor, Versions
from lab.components.runtime.base import API, NODE_REGISTRY, OTHER_REGISTRIES, ContainerRuntime, Mirror, repository_of

CERTS_FOLDER = "/etc/containerd/certs.d"
# Those for which a box has a hosts.toml (boxes/debian-13/files).
BOXED_REGISTRIES = ("docker.io", "ghcr.io", "k8s.gcr.io", "quay.io", "registry.k8s.io")
# The namespace that its CRI side keeps images and containers in.
NAMESPACE = "k8s.io"

STORE = "var/lib/containerd"
# Without CRI: it would add names in the background, and race with the end.
_FILL = """
set -eu
cat > /tmp/import.toml <<'CONFIG'
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
CONFIG
containerd --config /tmp/import.toml --log-level warn &
daemon=$!
for _ in $(seq 300); do
  ctr version > /dev/null 2>&1 && break
  kill -0 "$daemon"
  sleep 0.1
done
tar -C /run/host/images -cf - . | ctr -n k8s.io images import --snapshotter overlayfs -
for image in $KLAB_ALL; do
  # What containerd's CRI side puts on images that it pulled itself.
  ctr -n k8s.io images label "$image" io.cri-containerd.image=managed > /dev/null
done
for image in $KLAB_PINNED; do
  ctr -n k8s.io images label "$image" io.cri-containerd.pinned=pinned > /dev/null
done
# The import's own index is no image. Removing a name with --sync collects it now, and not some time later.
ctr -n k8s.io images tag "$image" klab.local/none:none > /dev/null
ctr -n k8s.io images rm --sync klab.local/none:none > /dev/null
ctr -n k8s.io images ls -q
kill "$daemon"
wait "$daemon"
"""


class Containerd(ContainerRuntime):
    """containerd, of the version that the recipe gives the version of Kubernetes."""

    name = "containerd"
    summary = "the default"
    packages = ("containerd", "runc")
    units = ("containerd",)
    boxed = units
    # systemd reads it for each scope that begins so: a container's, cri-containerd-ID.scope.
    stop_drop_in = "/etc/systemd/system/cri-containerd-.scope.d/10-klab.conf"
    list_images = f"timeout 30 ctr --connect-timeout 5s -n {NAMESPACE} images ls -q"
    fill = _FILL
    databases = (
        f"{STORE}/io.containerd.metadata.v1.bolt/meta.db",
        f"{STORE}/io.containerd.snapshotter.v1.overlayfs/metadata.db",
    )
    forgotten = (f"{STORE}/io.containerd.grpc.v1.introspection/uuid",)
    blobs = f"{STORE}/io.containerd.content.v1.content/blobs/sha256"

    def socket(self, minor: Minor) -> str:  # noqa: ARG002
        return "unix:///run/containerd/containerd.sock"

    def files(self, versions: Versions, mirrors: Sequence[Mirror]) -> Sequence[File]:  # noqa: ARG002
        """hosts.toml for each mirrored registry: the lab's own registry, then the mirror, then upstream.

        The mirror of all other registries is that of those, too, for which the box has a hosts.toml: containerd looks
        at one of them only.
        """
        named = {each.registry for each in mirrors}
        files: list[File] = []
        for each in mirrors:
            known = [name for name in BOXED_REGISTRIES if name not in named]
            for host in (*known, each.registry) if each.registry == OTHER_REGISTRIES else (each.registry,):
                folder = f"{CERTS_FOLDER}/{host}"
                ca = f"{folder}/mirror.pem" if each.ca else ""
                text = f"{_before(host)}{_mirror(each, ca)}"
                files.append(File(f"{folder}/hosts.toml", text, "0600" if each.basic else "0644"))
                if ca:
                    files.append(File(ca, each.ca))
        return files

    def forget(self, image: str) -> str:
        return f"ctr -n {NAMESPACE} images rm --sync {image}"

    def offer(self, images: Sequence[str], *, mirrored: Iterable[str]) -> str:  # noqa: ARG002 - what is there stays
        """hosts.toml for each registry without one; it is read again for each pull.

        The mirror of all other registries, if there is one, is this one's too: containerd looks at one file only.
        """
        lines = []
        others = f"{CERTS_FOLDER}/{OTHER_REGISTRIES}/hosts.toml"
        for host in dict.fromkeys(image.partition("/")[0] for image in images):
            file = f"{CERTS_FOLDER}/{host}/hosts.toml"
            text = f"{_own(host)}\n".replace("\n", "\\n")
            lines.append(
                f"[ -e {file} ] || {{ mkdir -p {CERTS_FOLDER}/{host} && printf '{text}' > {file} && "
                f"if [ -e {others} ]; then chmod --reference={others} {file}; cat {others} >> {file}; fi; }}\n"
            )
        return "".join(lines)

    def pull(self, image: str) -> str:
        return f"sudo ctr -n {NAMESPACE} images pull --hosts-dir {CERTS_FOLDER} {image}"


COMPONENT = Containerd()


def _before(host: str) -> str:
    """What hosts.toml says before a mirror: upstream, which is asked last, and the node's own registry.

    For all other registries neither can be said; containerd knows upstream by an image's name.
    """
    if host == OTHER_REGISTRIES:
        return ""
    upstream = "https://registry-1.docker.io" if host == "docker.io" else f"https://{host}"
    return f"server = {_toml(upstream)}\n\n{_own(host)}\n"


def _own(host: str) -> str:
    """The entry of the node's own registry, for images of a registry."""
    address = _toml(f"http://{NODE_REGISTRY}/{API}/{repository_of(host)}")
    return f'[host.{address}]\n  capabilities = ["pull", "resolve"]\n  override_path = true\n'


def _mirror(mirror: Mirror, ca: str) -> str:
    """The entry of a mirror. Of one with a path, images are asked for below it: /v2/PATH/library/nginx.

    containerd itself would put /v2 behind the path, where a Harbor or another proxy of registries has nothing.
    A login goes with each request, as credentials of a registry itself are no mirror's.
    Source: containerd, docs/hosts.md, "override_path", "ca", "header"; core/remotes/docker/config/hosts.go.
    """
    scheme, _, rest = mirror.url.partition("://")
    host, _, path = rest.rstrip("/").partition("/")
    address, override = mirror.url, ""
    if path and path != API and not path.endswith(f"/{API}"):  # not the root of an API as it stands
        address = f"{scheme}://{host}/{API}/{path.removeprefix(f'{API}/')}"
        override = "  override_path = true\n"
    entry = f'[host.{_toml(address)}]\n  capabilities = ["pull", "resolve"]\n{override}'
    if ca:
        entry += f"  ca = {_toml(ca)}\n"
    if mirror.basic:
        entry += f"  [host.{_toml(address)}.header]\n    Authorization = {_toml(f'Basic {mirror.basic}')}\n"
    return entry


def _toml(text: str) -> str:
    """A text, or a quoted key, as TOML writes it: JSON's escapes are TOML's (toml.io, v1.0.0, "String")."""
    return json.dumps(text).replace("\x7f", "\\u007f")
