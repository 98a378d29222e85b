"""Container runtimes: what each answers."""

from __future__ import annotations

import pytest

from lab.components.runtime import runtimes

IMAGE = "registry.k8s.io/pause:3.10.1"


@pytest.mark.parametrize("name", runtimes())
def test_a_runtime_answers_every_question(name: str) -> None:
    runtime = runtimes()[name]
    assert runtime.socket.startswith("unix:///run/")
    assert runtime.stop_drop_in.startswith("/etc/systemd/system/")
    assert runtime.list_images
    assert IMAGE in runtime.pull(IMAGE)
    assert runtime.mirror_files((), "http://127.0.0.1:5000") == []


def test_containerd_asks_the_nodes_registry_before_the_mirror() -> None:
    (file,) = runtimes()["containerd"].mirror_files([("docker.io", "http://10.0.0.1:5000")], "http://127.0.0.1:5000")
    assert file.path == "/etc/containerd/certs.d/docker.io/hosts.toml"
    assert file.content.startswith('server = "https://registry-1.docker.io"\n')
    own = file.content.index('[host."http://127.0.0.1:5000/v2/docker.io"]')
    assert own < file.content.index('[host."http://10.0.0.1:5000"]')
