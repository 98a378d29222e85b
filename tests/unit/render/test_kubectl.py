"""kubectl for people on a node: the scripts and the shell's file, run by this machine's bash."""

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
    BASHRC,
    COPIES,
    SHELL_FILE,
    render_give,
    render_hook,
    render_refresh,
    render_take,
    shell_files,
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
        self.path(BASHRC).write_text("# Debian's\n")

    def path(self, path: str) -> Path:
        return self.root / path.removeprefix("/")

    def run(self, script: str) -> None:
        for path in (*COPIES, ADMIN_CONF, BASHRC):
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


def test_shells_read_the_file_once(node: Node) -> None:
    node.run(render_hook())
    node.run(render_hook())
    assert node.path(BASHRC).read_text() == f"# Debian's\n[ ! -r {SHELL_FILE} ] || . {SHELL_FILE}\n"


@pytest.mark.parametrize(
    ("bootstrap", "given", "hooked"), [("full", True, True), ("prepared", False, True), ("none", False, False)]
)
def test_a_cluster_of_the_students_own_has_no_copy(bootstrap: str, given: bool, hooked: bool, catalog: Catalog) -> None:
    text = f"version: 1\nname: one\nbootstrap: {bootstrap}\ntopology: {{workers: 1}}\n"
    made = decide(parse_scenario(text, catalog), catalog)
    script = render_node_script(made, made.nodes[0])
    assert ("/home/vagrant/.kube/config" in script, SHELL_FILE in script) == (given, hooked)
    assert "/.kube/config" not in render_node_script(made, made.workers[0])


# --- completion -------------------------------------------------------------------------------------

# What cobra's script does with the line, for a program that completes with what it was asked.
PROGRAM = r"""#!/bin/sh
echo asked >> "$ASKED"
cat <<'END'
__start_NAME() {
    local cur prev words cword
    _get_comp_words_by_ref -n =: cur prev words cword || return
    COMPREPLY=("$cword" "$prev" "$cur" "${words[@]}")
}
complete -o default -F __start_NAME NAME
END
"""


class Shell:
    """An interactive bash's completion, asked as readline asks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("kubectl", "kubeadm"):
            (folder / name).write_text(PROGRAM.replace("NAME", name))
            (folder / name).chmod(0o755)
        (folder / "rc").write_text(shell_files()[0].content)
        self.asked = folder / "asked"

    def run(self, script: str) -> list[str]:
        env = {"PATH": f"{self.folder}:/usr/bin:/bin", "ASKED": str(self.asked), "HOME": str(self.folder)}
        words = ["bash", "--noprofile", "--norc", "-c", f"shopt -s expand_aliases\n. {self.folder}/rc\n{script}"]
        done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=60)
        assert done.stderr == ""
        return done.stdout.splitlines()

    def complete(self, line: str, words: str, at: int) -> list[str]:
        command = line.split()[0]
        return self.run(f"""
            COMP_LINE={line!r} COMP_POINT={len(line)} COMP_WORDS=({words}) COMP_CWORD={at}
            _klab_complete {command}
            [ $? = 124 ] || echo "no second try"
            function=$(complete -p {command} | sed 's/.* -F //; s/ .*//')
            "$function" {command}
            printf '%s\\n' "${{COMPREPLY[@]}}"
        """)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.mark.parametrize("command", ["kubectl", "k", "kubeadm"])
def test_the_program_is_asked_at_the_first_tab(command: str, shell: Shell) -> None:
    assert shell.complete(f"{command} get ", f"{command} get ''", 2) == ["2", "get", "", command, "get", ""]
    assert shell.asked.read_text() == "asked\n"


def test_a_shell_that_begins_asks_no_program(shell: Shell) -> None:
    assert shell.run("alias k; complete -p k") == ["alias k='kubectl'", "complete -o default -F _klab_complete k"]
    assert not shell.asked.exists()


@pytest.mark.parametrize(
    ("line", "words", "at", "expected"),
    [
        ("k get --output=js", "k get --output = js", 4, ["2", "get", "--output=js", "k", "get", "--output=js"]),
        ("k get --output=", "k get --output = ''", 4, ["2", "get", "--output=", "k", "get", "--output="]),
        ("k -l a=b get ", "k -l a = b get ''", 6, ["4", "get", "", "k", "-l", "a=b", "get", ""]),
        ("k cp pod:/etc/h", "k cp pod : /etc/h", 4, ["2", "cp", "pod:/etc/h", "k", "cp", "pod:/etc/h"]),
        ("k get = x", "k get = x", 3, ["3", "=", "x", "k", "get", "=", "x"]),
    ],
)
def test_words_are_those_of_the_person_not_of_bash(
    line: str, words: str, at: int, expected: list[str], shell: Shell
) -> None:
    assert shell.complete(line, words, at) == expected


def test_what_bash_has_split_off_is_not_repeated(shell: Shell) -> None:
    said = shell.run("""
        COMP_WORDBREAKS=$' \\t\\n=:' COMPREPLY=(pod:/etc pod:/home) cur=pod:/
        __ltrim_colon_completions "$cur"
        printf '%s\\n' "${COMPREPLY[@]}"
        COMPREPLY=(plain); __ltrim_colon_completions plain; printf '%s\\n' "${COMPREPLY[@]}"
    """)
    assert said == ["/etc", "/home", "plain"]


def test_files_and_folders_are_completed(shell: Shell) -> None:
    (shell.folder / "deep").mkdir()
    (shell.folder / "deeds").touch()
    said = shell.run(
        f"cd {shell.folder}; cur=dee; _filedir; echo ${{COMPREPLY[@]}}; _filedir -d; echo ${{COMPREPLY[@]}}"
    )
    assert [sorted(line.split()) for line in said] == [["deeds", "deep"], ["deep"]]


def test_without_the_program_there_is_no_completion(shell: Shell) -> None:
    (shell.folder / "kubectl").write_text("#!/bin/sh\nexit 1\n")
    assert shell.run("_klab_complete kubectl; echo $?") == ["1"]


def test_shellcheck_has_nothing_to_say(plan: Plan) -> None:
    for text in (
        shell_files()[0].content,
        f"#!/bin/bash\n{render_hook()}{render_give()}",
        f"#!/bin/sh\n{render_refresh()}{render_take(plan)}",
    ):
        shell = [] if text.startswith("#!") else ["--shell=bash"]
        judge = ["shellcheck", *shell, "-"] if shutil.which("shellcheck") else ["bash", "-n"]
        done = subprocess.run(judge, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
