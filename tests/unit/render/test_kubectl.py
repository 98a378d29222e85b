"""kubectl for people on a node: the scripts, run by this machine's bash."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.render.kubectl import (
    ADMIN_CONF,
    COPIES,
    render_give,
    render_refresh,
    render_take,
)
from lab.render.node_script import render_node_script
from lab.scenario.catalog import Catalog
from lab.scenario.parser import parse_scenario

CONFIG = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: CA
    server: https://192.168.56.11:6443
  name: one
kind: Config
users:
- name: kubernetes-admin
  user:
    client-certificate-data: OLD
    client-key-data: OLDKEY
"""
OTHER = CONFIG.replace("192.168.56.11", "10.0.0.1")


class Node:
    """A folder that stands for a node."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for copy in COPIES:
            self.path(copy).parents[1].mkdir(parents=True)
        self.path(ADMIN_CONF).parent.mkdir(parents=True)
        self.path(ADMIN_CONF).write_text(CONFIG)

    def path(self, path: str) -> Path:
        return self.root / path.removeprefix("/")

    def run(self, script: str) -> None:
        for path in (*COPIES, ADMIN_CONF):
            script = script.replace(path, str(self.path(path)))
        done = subprocess.run(["bash", "-c", f"set -eu\n{script}"], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def copies(self) -> list[str]:
        return [self.path(copy).read_text() if self.path(copy).exists() else "" for copy in COPIES]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "cp1")


@pytest.fixture
def plan(catalog: Catalog) -> Plan:
    return decide(parse_scenario("version: 1\nname: one\n", catalog), catalog)


def test_both_users_get_a_copy_that_only_they_read(node: Node) -> None:
    for _ in range(2):
        node.run(render_give())
        assert node.copies() == [CONFIG, CONFIG]
    for copy in COPIES:
        found = node.path(copy).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, os.getuid())
    node.path(ADMIN_CONF).write_text(CONFIG.replace("OLD", "NEW"))
    node.run(render_give())
    assert node.copies() == [CONFIG.replace("OLD", "NEW")] * 2, "a node that joins again"


def test_a_file_with_other_clusters_stays(node: Node) -> None:
    for copy, text in zip(COPIES, (OTHER, CONFIG + OTHER), strict=True):
        node.path(copy).parent.mkdir()
        node.path(copy).write_text(text)
    node.run(render_give())
    assert node.copies() == [OTHER, CONFIG + OTHER]


def test_a_user_who_is_not_there_is_passed_over(node: Node) -> None:
    node.path(COPIES[1]).parents[1].rmdir()
    node.run(render_give())
    assert node.copies() == [CONFIG, ""]


def test_a_renewed_certificate_gets_into_the_copies_and_nothing_else_changes(node: Node) -> None:
    mine = CONFIG.replace("name: one", "name: mine") + "- name: other\n  user:\n    client-key-data: OTHERS\n"
    node.run(render_give())
    node.path(COPIES[0]).write_text(mine)
    new = CONFIG.replace("OLDKEY", "NEWKEY").replace("OLD", "NEW")
    node.path(ADMIN_CONF).write_text(new)
    node.run(render_refresh())
    assert node.copies() == [mine.replace("OLDKEY", "NEWKEY").replace("OLD", "NEW"), new]
    assert stat.S_IMODE(node.path(COPIES[1]).stat().st_mode) == 0o600
    assert [each.name for each in node.path(COPIES[1]).parent.iterdir()] == ["config"]


@pytest.mark.parametrize("text", ["", OTHER, None])
def test_what_is_no_copy_is_not_refreshed(text: str | None, node: Node, tmp_path: Path) -> None:
    copy = node.path(COPIES[0])
    copy.parent.mkdir()
    if text is None:  # a link leads to the file itself, and needs no refresh
        copy.symlink_to(node.path(ADMIN_CONF))
    else:
        copy.write_text(text)
    node.run(render_refresh())
    assert copy.is_symlink() == (text is None)
    assert copy.read_text() == (CONFIG if text is None else text)
    assert not node.path(COPIES[1]).exists()


def test_where_there_is_no_admin_conf_there_is_nothing_to_refresh(node: Node) -> None:
    node.path(ADMIN_CONF).unlink()
    node.run(render_refresh())
    assert node.copies() == ["", ""]


def test_a_node_that_leaves_keeps_no_copy_of_its_cluster(node: Node, plan: Plan) -> None:
    node.run(render_give())
    node.path(ADMIN_CONF).unlink()
    node.run(render_take(plan))
    assert node.copies() == ["", ""]
    node.run(render_take(plan))


@pytest.mark.parametrize("text", [OTHER, CONFIG + OTHER, ""])
def test_one_with_other_clusters_stays_where_it_is(text: str, node: Node, plan: Plan) -> None:
    node.run(render_give())
    node.path(COPIES[1]).write_text(text)
    node.run(render_take(plan))
    assert node.copies() == ["", text]
    assert node.path(COPIES[1]).exists()


@pytest.mark.parametrize(("bootstrap", "given"), [("full", True), ("prepared", False), ("none", False)])
def test_a_cluster_of_the_students_own_has_no_copy(bootstrap: str, given: bool, catalog: Catalog) -> None:
    text = f"version: 1\nname: one\nbootstrap: {bootstrap}\ntopology: {{workers: 1}}\n"
    made = decide(parse_scenario(text, catalog), catalog)
    script = render_node_script(made, made.nodes[0])
    assert ("/home/vagrant/.kube/config" in script) == given
    assert "/.kube/config" not in render_node_script(made, made.workers[0])


def test_shellcheck_has_nothing_to_say(plan: Plan) -> None:
    for text in (f"#!/bin/bash\n{render_give()}", f"#!/bin/sh\n{render_refresh()}{render_take(plan)}"):
        judge = ["shellcheck", "-"] if shutil.which("shellcheck") else ["bash", "-n"]
        done = subprocess.run(judge, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
