"""CRI-O.

Debian 12 and 13 do not have it, nor does the public module proxy: a box has to bring it, with crictl, by which klab
and kubeadm ask it.
Sources: github.com/cri-o/cri-o, docs/crio.conf.5.md and docs/crio.conf.d.5.md; containers-registries.conf(5) and
containers-registries.conf.d(5); kubernetes 1.23.0, pkg/kubelet/cri/remote (the first kubelet that speaks the CRI's v1);
cri-o pull request 6347 (1.26 has no v1alpha2).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from lab.components.cluster import File, Minor, Versions
from lab.components.runtime.base import (
    API,
    NODE_REGISTRY,
    OTHER_REGISTRIES,
    ContainerRuntime,
    Mirror,
    crictl,
    repository_of,
)

CONFIG_FILE = "/etc/crio/crio.conf.d/10-klab.conf"
REGISTRIES_FILE = "/etc/containers/registries.conf.d/10-klab.conf"
AUTH_FILE = "/etc/crio/klab-auth.json"
CERTS_FOLDER = "/etc/containers/certs.d"  # containers-certs.d(5)
SOCKET = "unix:///var/run/crio/crio.sock"
# Registries whose images a box may hold; the node's own has them.
REGISTRIES = ("docker.io", "ghcr.io", "quay.io", "registry.k8s.io")
SPEAKS_V1 = (1, 23)


class CriO(ContainerRuntime):
    """CRI-O of the minor version that goes with Kubernetes'."""

    name = "cri-o"
    summary = "not run"
    packages = ("conmon", "runc")
    programs = ("crio", "pinns", "crictl")
    units = ("crio",)
    boxed = units
    stop_drop_in = "/etc/systemd/system/crio-.scope.d/10-klab.conf"
    list_images = (
        "listed=$(timeout 30 crictl images) && "
        """printf "%s\\n" "$listed" | awk 'NR > 1 && $2 != "<none>" { print $1 ":" $2 }'"""
    )

    def socket(self, minor: Minor) -> str:  # noqa: ARG002
        return SOCKET

    def files(self, versions: Versions, mirrors: Sequence[Mirror]) -> Sequence[File]:
        logins = [each for each in mirrors if each.basic]
        files = [
            File(CONFIG_FILE, configuration(versions.image("pause"), AUTH_FILE if logins else "")),
            File(REGISTRIES_FILE, registries({each.registry: each.url for each in mirrors})),
            crictl(SOCKET),
        ]
        if logins:
            files.append(File(AUTH_FILE, _logins(logins), "0600"))
        return [*files, *(File(f"{CERTS_FOLDER}/{each.host}/ca.crt", each.ca) for each in mirrors if each.ca)]

    def prepare(self, minor: Minor) -> str:  # noqa: ARG002
        return "systemctl --quiet enable crio\nsystemctl restart crio\n"

    def forget(self, image: str) -> str:
        return f"crictl rmi {image}"

    def offer(self, images: Sequence[str], *, mirrored: Iterable[str]) -> str:
        """A file for each registry of which `files` says nothing."""
        lines = []
        for host in dict.fromkeys(image.partition("/")[0] for image in images):
            if host in {*REGISTRIES, *mirrored}:
                continue
            file = f"{REGISTRIES_FILE.rpartition('/')[0]}/20-klab-{repository_of(host)}.conf"
            own = _mirror(f"{NODE_REGISTRY}/{repository_of(host)}", insecure=True)
            text = f"[[registry]]\nprefix = {_toml(host)}\nlocation = {_toml(host)}\n\n{own}".replace("\n", "\\n")
            lines.append(f"[ -e {file} ] || {{ printf '{text}' > {file} && systemctl reload crio; }}\n")
        return "".join(lines)

    def pull(self, image: str) -> str:
        return f"sudo crictl pull {image}"

    def mirrors_refusal(self, mirrors: Sequence[Mirror]) -> str:
        if any(each.registry == OTHER_REGISTRIES for each in mirrors):
            return f"CRI-O has mirrors of registries that are named only; name them instead of {OTHER_REGISTRIES}"
        return ""

    def refusal(self, minor: Minor) -> str:
        if minor >= SPEAKS_V1:
            return ""
        kubelet = f"the kubelet of {minor[0]}.{minor[1]}"
        return f"{kubelet} speaks the CRI's v1alpha2 only, which CRI-O has no longer since 1.26"


COMPONENT = CriO()


def configuration(pause: str, auth_file: str = "") -> str:
    """CRI-O's drop-in: the kubelet's cgroup driver, Debian's programs, where CNI's are, the image that holds a pod.

    Where an `auth_file` is given, it has the logins to registries.
    """
    auth = f"global_auth_file = {_toml(auth_file)}\n" if auth_file else ""
    return f"""\
[crio.runtime]
cgroup_manager = "systemd"
default_runtime = "runc"

[crio.runtime.runtimes.runc]
runtime_path = "/usr/sbin/runc"
monitor_path = "/usr/bin/conmon"

[crio.image]
pause_image = {_toml(pause)}
{auth}
[crio.network]
network_dir = "/etc/cni/net.d/"
plugin_dirs = ["/opt/cni/bin/"]
"""


def registries(mirrors: dict[str, str]) -> str:
    """Each registry's mirrors: the node's own, then the scenario's. A name without a registry is docker.io's."""
    parts = ['unqualified-search-registries = ["docker.io"]\n']
    for registry in sorted({*REGISTRIES, *mirrors}):
        parts.append(f"[[registry]]\nprefix = {_toml(registry)}\nlocation = {_toml(registry)}\n")
        parts.append(_mirror(f"{NODE_REGISTRY}/{repository_of(registry)}", insecure=True))
        if registry in mirrors:
            url = mirrors[registry]
            parts.append(_mirror(_location(url), insecure=url.startswith("http://")))
    return "\n".join(parts)


def _location(url: str) -> str:
    """A mirror's host and path, below which images are asked for; one that begins with the API's own means the same."""
    return url.partition("://")[2].rstrip("/").replace(f"/{API}/", "/", 1)


def _logins(mirrors: Iterable[Mirror]) -> str:
    """The logins as containers-auth.json(5) has them, each for its mirror's path alone."""
    return json.dumps({"auths": {_location(each.url): {"auth": each.basic} for each in mirrors}}, indent=2) + "\n"


def _mirror(location: str, *, insecure: bool) -> str:
    return f"[[registry.mirror]]\nlocation = {_toml(location)}\n" + ("insecure = true\n" if insecure else "")


def _toml(text: str) -> str:
    return json.dumps(text)
