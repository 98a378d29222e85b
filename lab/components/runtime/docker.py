"""Docker, with dockershim inside the kubelet below Kubernetes 1.24, with cri-dockerd from there on.

dockershim is a part of the kubelet and needs no flag of klab's: kubeadm of those versions sets --network-plugin=cni
and the pause image when it is told of the socket without a scheme, and takes the programs and files of CNI from where
klab has them. Of a socket with a scheme it thinks that it is another runtime's.
dockershim reads an image's VirtualSize, which Docker's API has no longer since 1.44: Docker must be older than 25.

Docker asks mirrors for docker.io alone, gives them no login, and of a mirror it takes no path: the node's own registry
serves it only what has its name without a registry there, too (library/nginx).

Sources: kubernetes 1.16.3 and 1.23.0, cmd/kubeadm/app/{constants/constants_unix.go,phases/kubelet/flags.go},
cmd/kubelet/app/options/container_runtime.go, pkg/kubelet/dockershim/convert.go; github.com/Mirantis/cri-dockerd 0.4.3,
packaging/systemd and config/options.go; kubernetes.io 1.23, "Container runtimes" (daemon.json);
moby, registry/config.go (ValidateMirror), pull requests 45469 and 47207.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from types import MappingProxyType

from lab.components.cluster import File, Minor, Versions
from lab.components.runtime.base import (
    NODE_REGISTRY,
    NODE_REGISTRY_ROOT,
    ContainerRuntime,
    Mirror,
    crictl,
    repository_of,
)

DAEMON_FILE = "/etc/docker/daemon.json"
CERTS_FOLDER = "/etc/docker/certs.d"  # docs.docker.com, "Verify repository client with certificates"
ADAPTER = "cri-docker"  # upstream's name of cri-dockerd's unit
ADAPTER_FILE = f"/etc/systemd/system/{ADAPTER}.service"
ADAPTER_SOCKET_FILE = f"/etc/systemd/system/{ADAPTER}.socket"
DOCKERSHIM = "/var/run/dockershim.sock"
ADAPTERS_CRI = "unix:///run/cri-dockerd.sock"
MIRRORED = "docker.io"
WITHOUT_DOCKERSHIM = (1, 24)
# The kubelet's own limits (containerLogMaxSize, containerLogMaxFiles), which are not for the logs of Docker's.
LOG_LIMITS = {"max-size": "10m", "max-file": "5"}

_ADAPTER = """\
[Unit]
Description=CRI for Docker
Documentation=https://github.com/Mirantis/cri-dockerd
After=network-online.target docker.service
Wants=network-online.target docker.service
Requires={adapter}.socket

[Service]
Type=notify
ExecStart=/usr/bin/cri-dockerd --container-runtime-endpoint fd:// --pod-infra-container-image {pause}
Restart=always
RestartSec=2
TimeoutSec=0
LimitNOFILE=infinity
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
Delegate=yes
KillMode=process

[Install]
WantedBy=multi-user.target
"""
_ADAPTER_SOCKET = f"""\
[Unit]
Description=CRI for Docker
PartOf={ADAPTER}.service

[Socket]
ListenStream=/run/cri-dockerd.sock
SocketMode=0660
SocketUser=root
SocketGroup=docker

[Install]
WantedBy=sockets.target
"""
STORE = "var/lib/docker"
# In a network of its own: nothing of what a daemon does to networks reaches the machine that builds.
_FILL = """
set -eu
export DOCKER_HOST=unix:///run/klab-docker.sock
unshare --net dockerd --host "$DOCKER_HOST" --pidfile /run/klab-docker.pid --log-level warn \\
  --storage-driver overlay2 --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false &
daemon=$!
for _ in $(seq 300); do
  docker version > /dev/null 2>&1 && break
  kill -0 "$daemon"
  sleep 0.1
done
tar -C /run/host/images -cf - . | docker load > /dev/null
{list_images}
kill "$daemon"
wait "$daemon" || true
"""
# Docker leaves out what the others print: docker.io/ and docker.io/library/.
_FULL_NAMES = "sed -E -e 's,^[^/]+$,library/&,' -e 's,^[^/.:]+/,docker.io/&,'"
_LIST = (
    "listed=$(timeout 30 docker image ls --format '{{.Repository}}:{{.Tag}}') && "
    f'printf "%s\\n" "$listed" | {_FULL_NAMES}'
)


class Docker(ContainerRuntime):
    """docker.io as Debian packs it."""

    name = "docker"
    summary = "inside the kubelet below Kubernetes 1.24; with cri-dockerd from there on, not run"
    packages = ("docker.io", "apparmor")
    programs = ("cri-dockerd",)
    units = ("docker", ADAPTER)
    boxed = ("docker.socket", "docker", "containerd")
    stop_drop_in = "/etc/systemd/system/docker-.scope.d/10-klab.conf"
    list_images = _LIST
    fill = _FILL.replace("{list_images}", _LIST)
    # Its name for itself, and what it has of a network.
    forgotten = ("etc/docker/key.json", f"{STORE}/engine-id", f"{STORE}/network")
    # Of a mirror Docker asks for what is in docker.io by its name alone.
    registry_links = MappingProxyType({"library": "docker.io/library"})

    def socket(self, minor: Minor) -> str:
        return DOCKERSHIM if minor < WITHOUT_DOCKERSHIM else ADAPTERS_CRI

    def units_for(self, minor: Minor) -> tuple[str, ...]:
        return self.units[:1] if minor < WITHOUT_DOCKERSHIM else self.units

    def files(self, versions: Versions, mirrors: Sequence[Mirror]) -> Sequence[File]:
        own = [File(DAEMON_FILE, daemon([each.url for each in mirrors if each.registry == MIRRORED]))]
        own += [File(f"{CERTS_FOLDER}/{each.host}/ca.crt", each.ca) for each in mirrors if each.ca]
        if versions.minor < WITHOUT_DOCKERSHIM:
            return (*own, crictl(f"unix://{DOCKERSHIM}"))
        unit = _ADAPTER.format(adapter=ADAPTER, pause=versions.image("pause"))
        return (*own, crictl(ADAPTERS_CRI), File(ADAPTER_FILE, unit), File(ADAPTER_SOCKET_FILE, _ADAPTER_SOCKET))

    def prepare(self, minor: Minor) -> str:
        # The box may have started it before the seed was read.
        lines = ["systemctl --quiet enable docker", "systemctl restart docker"]
        if minor >= WITHOUT_DOCKERSHIM:
            lines.append(f"systemctl --quiet enable --now {ADAPTER}.socket {ADAPTER}")
        return "\n".join(lines) + "\n"

    def forget(self, image: str) -> str:
        return f"docker image rm {image}"

    def offer(self, images: Sequence[str], *, mirrored: Iterable[str]) -> str:  # noqa: ARG002 - docker.io's alone
        """docker.io's repositories by their names alone; images of others have to be in its own store."""
        lines, linked = [], set()
        for image in images:
            registry, _, repository = image.partition("/")
            first = repository.partition("/")[0]
            link = f"{NODE_REGISTRY_ROOT}/repositories/{first}"
            if registry != MIRRORED:
                lines.append(f"{{ {self.pull(image)}; }} > /dev/null\n")
            elif first not in linked:
                linked.add(first)
                lines.append(f"[ -e {link} ] || ln -s {MIRRORED}/{first} {link}\n")
        return "".join(lines)

    def pull(self, image: str) -> str:
        registry, _, repository = image.partition("/")
        own = f"{NODE_REGISTRY}/{repository_of(registry)}/{repository}"
        return f"sudo docker pull {own} && sudo docker tag {own} {image} || sudo docker pull {image}"

    def mirrors_refusal(self, mirrors: Sequence[Mirror]) -> str:
        others = [each.registry for each in mirrors if each.registry != MIRRORED]
        if others:
            return f"Docker can have a mirror of {MIRRORED} only; given: {', '.join(others)}"
        for each in mirrors:
            # dockerd would not start (moby, registry/config.go, ValidateMirror).
            if each.url.partition("://")[2].partition("/")[2].strip("/"):
                return f"Docker can have a mirror without a path only; given: {each.url}"
            if each.basic:
                return f"Docker gives a mirror no login; {each.url} must answer without one"
        return ""


COMPONENT = Docker()


def daemon(mirrors: Sequence[str]) -> str:
    """dockerd's configuration: the kubelet's cgroup driver, and where docker.io is asked first."""
    config = {
        "exec-opts": ["native.cgroupdriver=systemd"],
        "log-driver": "json-file",
        "log-opts": LOG_LIMITS,
        "registry-mirrors": [f"http://{NODE_REGISTRY}", *mirrors],
        "storage-driver": "overlay2",
    }
    return json.dumps(config, indent=2) + "\n"
