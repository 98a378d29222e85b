"""What nodes are asked about images, and what of their answers is believed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from support.fake_lab import lab_on_disk

from lab import process
from lab.components.runtime import runtime
from lab.render.images import NodeImage, Seen, parse_seen, render_look, render_place, render_receive, render_remove
from lab.store import Home

A, B = "a" * 64, "b" * 64
IMAGE = NodeImage("docker.io/library/nginx:1", "docker.io/library/nginx", "1", (A,), (B,))


def test_an_answer() -> None:
    text = f"lacks {A} 0\nlacks {B} 512\nnamed docker.io/library/nginx:1\nfree 1000\n"
    assert parse_seen(text) == Seen(1000, {A: 0, B: 512}, frozenset({IMAGE.ref}))


@pytest.mark.parametrize("text", ["", "no registry\n", "free x\n", f"lacks {A} 1\n", "free " + "9" * 30, "\0"])
def test_a_node_that_says_nothing_of_use(text: str) -> None:
    assert parse_seen(text) is None


def test_lines_that_are_none_are_passed_over() -> None:
    assert parse_seen(f"lacks ../x 1\nlacks {A} -1\nlacks {A}\nwhatever\nfree 5\n") == Seen(5)


def test_the_scripts_are_bash(tmp_path: Path) -> None:
    _, plan = lab_on_disk(Home(tmp_path), control_planes=1, workers=0, bootstrap="full")
    scripts = [
        render_look([IMAGE]),
        render_receive([(A, 0), (B, 100)]),
        render_place(plan, [IMAGE]),
        render_remove(plan, [IMAGE], []),
    ]
    for text in scripts:
        process.run(["bash", "-n"], timeout=30, stdin=text)
        assert text.rstrip().endswith("\nmain")


@pytest.mark.parametrize("name", ["containerd", "cri-o", "docker"])
def test_every_runtime_asks_the_nodes_registry(name: str) -> None:
    found = runtime(name)
    refs = ["docker.io/team/app:1", "docker.io/team/other:1", "hub.lan:5000/app:1"]
    text = found.offer(refs, mirrored=["docker.io"])
    if name == "docker":
        assert text.count("ln -s docker.io/team") == 1
        assert "docker pull 127.0.0.1:5000/hub.lan_5000/app:1" in text
    else:
        assert "127.0.0.1:5000" in text
        assert "hub.lan_5000" in text
    assert "app:1" in found.forget("hub.lan:5000/app:1")


@pytest.mark.parametrize("others", ["", '[host."https://hub.example"]\n  capabilities = ["pull", "resolve"]\n'])
def test_a_registry_that_images_came_from_keeps_the_mirror_of_all_others(others: str, tmp_path: Path) -> None:
    """Run by this machine's shell; containerd looks at the file of one registry, or at that of all others."""
    script = runtime("containerd").offer(["hub.lan:5000/app:1"], mirrored=["_default"] if others else [])
    script = script.replace("/etc/containerd/certs.d", str(tmp_path))
    if others:
        (tmp_path / "_default").mkdir()
        (tmp_path / "_default/hosts.toml").write_text(others)
        (tmp_path / "_default/hosts.toml").chmod(0o600)
    for _ in range(2):
        process.run(["bash", "-eu", "-c", f"umask 022\n{script}"], timeout=30)
    file = tmp_path / "hub.lan:5000/hosts.toml"
    hosts = tomllib.loads(file.read_text())["host"]
    assert list(hosts) == ["http://127.0.0.1:5000/v2/hub.lan_5000", *(["https://hub.example"] if others else [])]
    assert file.stat().st_mode & 0o777 == (0o600 if others else 0o644)
