"""klab inventory, connect and shell, as far as no network and no tmux is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lab.app.connect import this_klab
from lab.cli import app
from lab.host import network
from lab.plan.decide import decide
from lab.plan.file import to_json
from lab.scenario.library import load_scenario
from lab.store import Home, Record

STUB = """#!/bin/sh
echo "$@" >> "{log}"
case "$1" in
    has-session) exit {there} ;;
    new-session) echo '@0 %0' ;;
    split-window) echo '%1' ;;
    list-windows) printf '@0\\n@1\\n' ;;
    {fails}) echo 'it does not want to' >&2; exit 1 ;;
esac
"""


@pytest.fixture
def klab(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Run klab, on a terminal if wanted, and return what it printed to standard output and error."""

    def run(*words: str, code: int = 0, terminal: bool = False) -> tuple[str, str]:
        for stream in (sys.stdin, sys.stdout):
            monkeypatch.setattr(stream, "isatty", lambda: terminal)
        found = app.run(words)
        out, err = capsys.readouterr()
        assert found == code, err
        return out, err

    return run


@pytest.fixture
def make_lab(home: Path, catalog):
    """A lab as it lies on disk."""

    def make(name: str, scenario: str = "1m1w", provider: str = "libvirt") -> Path:
        plan = decide(load_scenario(scenario, catalog).scenario, catalog, name=name)
        folder = Home(home).lab(name)
        folder.path.mkdir(parents=True)
        (folder.path / "plan.json").write_text(to_json(plan))
        folder.write_record(Record("id", name, provider, "box", 0, "ready", 1.7e9))
        return folder.path

    return make


@pytest.fixture(autouse=True)
def system_libvirt(monkeypatch: pytest.MonkeyPatch):
    """Say whether a system libvirtd answers."""

    def answers(yes: bool) -> None:
        monkeypatch.setattr(network, "system_answers", lambda: yes)

    monkeypatch.delenv("KLAB_LIBVIRT", raising=False)
    monkeypatch.delenv("TMUX", raising=False)
    answers(True)
    return answers


@pytest.fixture
def tmux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A tmux that writes down what it is told; returns a function that reads it."""
    log, program = tmp_path / "tmux.log", tmp_path / "bin" / "tmux"

    def install(*, there: bool, fails: str = "nothing"):
        program.parent.mkdir()
        program.write_text(STUB.format(log=log, there=0 if there else 1, fails=fails))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return lambda: log.read_text().splitlines()

    return install


# --- inventory --------------------------------------------------------------------------------------


def test_a_lab_on_the_systems_libvirt_is_reached_directly(klab, make_lab) -> None:
    make_lab("one")
    for words in ([], ["--format", "ssh"], ["--json"]):
        out, err = klab("inventory", "one", *words)
        assert "192.168.56.11" in out
        assert "klab connect" not in out
        assert not err


@pytest.mark.parametrize("provider", ["virtualbox", "fake"])
def test_a_lab_elsewhere_is_reached_directly(klab, make_lab, system_libvirt, provider: str) -> None:
    system_libvirt(False)
    make_lab("one", provider=provider)
    assert "Proxy" not in klab("inventory", "--format", "ssh")[0]


def test_a_lab_in_the_private_libvirt_is_reached_through_klab(klab, make_lab, home: Path, system_libvirt) -> None:
    make_lab("one")
    system_libvirt(False)
    line = f"ProxyCommand env KLAB_HOME={home} {' '.join(this_klab()[2:])} connect one w1 %p"
    assert line in klab("inventory", "--format", "ssh")[0]
    # Labs in it keep it in use, whatever the system has.
    system_libvirt(True)
    (home / "realm" / "etc" / "qemu").mkdir(parents=True)
    (home / "realm" / "etc" / "qemu" / "one.xml").touch()
    assert line in klab("inventory", "--format", "ssh")[0]
    hosts = json.loads(klab("inventory", "--json")[0])["all"]["children"]["klab_one"]["children"]["workers"]["hosts"]
    assert line.replace("ProxyCommand ", "ProxyCommand=") in hosts["w1"]["ansible_ssh_common_args"]


def test_the_choice_of_libvirt_is_passed_along(klab, make_lab, monkeypatch: pytest.MonkeyPatch) -> None:
    make_lab("one")
    monkeypatch.setenv("KLAB_LIBVIRT", "private")
    assert " KLAB_LIBVIRT=private " in klab("inventory", "--format", "ssh")[0]
    monkeypatch.setenv("KLAB_LIBVIRT", "mine")
    assert "must be auto, private or system" in klab("inventory", code=5)[1]


def test_the_inventory_is_yaml_and_json_of_the_same(klab, make_lab) -> None:
    make_lab("one", "ha-3m2w")
    data = json.loads(klab("inventory", "--json")[0])
    assert yaml.safe_load(klab("inventory")[0]) == data
    assert yaml.safe_load(klab("inventory", "one", "--format", "ansible")[0]) == data
    assert list(data["all"]["children"]["klab_one"]["children"]["workers"]["hosts"]) == ["w1", "w2"]


def test_host_lines_say_when_they_lead_nowhere(klab, make_lab, system_libvirt) -> None:
    make_lab("one", "ha-3m2w")
    out, err = klab("inventory", "--format", "hosts")
    assert "192.168.56.10 one-control-plane-endpoint control-plane-endpoint\n" in out
    assert not err
    system_libvirt(False)
    assert "private libvirt only" in klab("inventory", "--format", "hosts")[1]


@pytest.mark.parametrize("kind", ["ssh", "hosts"])
def test_only_the_inventory_has_json(klab, make_lab, kind: str) -> None:
    make_lab("one")
    assert f"--format {kind} has no JSON form" in klab("inventory", "--json", "--format", kind, code=2)[1]


def test_an_inventory_of_no_lab(klab, make_lab) -> None:
    assert "there is no lab yet" in klab("inventory", code=3)[1]
    make_lab("one")
    assert "labs here: one" in klab("inventory", "two", code=3)[1]
    assert "'toml' is not one of 'ansible', 'ssh', 'hosts'" in klab("inventory", "--format", "toml", code=2)[1]


# --- connect ----------------------------------------------------------------------------------------


def test_klab_is_called_by_its_full_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KLAB_HOME", "KLAB_LIBVIRT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    assert this_klab() == [str(tmp_path / "python3"), "-P", "-m", "lab.cli.main"]
    (tmp_path / "klab").touch()
    assert this_klab() == [str(tmp_path / "klab")]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KLAB_HOME", "here")
    assert this_klab() == ["env", f"KLAB_HOME={tmp_path / 'here'}", str(tmp_path / "klab")]


@pytest.mark.parametrize("script", [True, False])
def test_the_klab_that_is_called_starts_anywhere(
    script: bool, tmp_path: Path, make_lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a folder of the same name as klab's own, with no environment to speak of."""
    make_lab("one")
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").write_text("raise RuntimeError('not this one')\n")
    with monkeypatch.context() as patched:
        if not script:
            patched.setattr(Path, "is_file", lambda _self: False)
        command = this_klab()
    assert ("-m" in command) is not script
    env = {"PATH": os.environ["PATH"]}
    done = subprocess.run([*command, "list", "--json"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert [lab["name"] for lab in json.loads(done.stdout)] == ["one"], done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["one", "w9"], 3, "its nodes: cp1, w1"),
        (["two", "w1"], 3, "no lab called 'two'"),
        (["one", "w1", "65536"], 2, "65536 is not in the range"),
        (["one", "w1", "http"], 2, "not a valid integer"),
        (["one"], 2, "missing argument"),
    ],
)
def test_connect_says_what_is_wrong(klab, make_lab, words: list[str], code: int, said: str) -> None:
    make_lab("one")
    assert said in klab("connect", *words, code=code)[1]


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_connect_needs_both_streams(klab, make_lab, stream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make_lab("one")
    monkeypatch.setattr(sys, stream, None)
    assert app.run(["connect", "one", "cp1"]) == 2


# --- shell ------------------------------------------------------------------------------------------


def test_a_shell_needs_a_terminal(klab, make_lab) -> None:
    make_lab("one")
    err = klab("shell", code=2)[1]
    assert "needs a terminal" in err
    assert "klab ssh one NODE -- COMMAND" in err


def test_a_shell_needs_tmux(klab, make_lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_lab("one")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "sudo apt-get install tmux" in klab("shell", code=5, terminal=True)[1]


def test_the_first_shell_makes_a_session_and_goes_there(klab, make_lab, tmux) -> None:
    make_lab("one")
    told = tmux(there=False)
    klab("shell", "one", terminal=True)
    words = [line.split()[0] for line in told() if line]
    assert words.count("new-session") == words.count("split-window") == 1
    assert f"{' '.join(this_klab())} shell one --node w1" in "\n".join(told())
    assert told()[-1] == "attach-session -t =klab-one"
    assert "synchronize-panes" not in "\n".join(told())


def test_a_second_shell_goes_to_the_session_that_is_there(klab, make_lab, tmux) -> None:
    make_lab("one")
    told = tmux(there=True)
    klab("shell", "--synchronize", terminal=True)
    assert told() == [
        "has-session -t =klab-one",
        "list-windows -t =klab-one -F #{window_id}",
        "set-option -w -t @0 synchronize-panes on",
        "set-option -w -t @1 synchronize-panes on",
        "attach-session -t =klab-one",
    ]


def test_inside_tmux_the_client_is_switched(klab, make_lab, tmux, monkeypatch: pytest.MonkeyPatch) -> None:
    make_lab("one")
    told = tmux(there=True)
    monkeypatch.setenv("TMUX", "/tmp/tmux-0/default,1,0")
    klab("shell", terminal=True)
    assert told()[-1] == "switch-client -t =klab-one"


def test_no_half_of_a_session_stays(klab, make_lab, tmux) -> None:
    """A second `klab shell` would go to it and miss nodes."""
    make_lab("one")
    told = tmux(there=False, fails="select-layout")
    assert "it does not want to" in klab("shell", code=6, terminal=True)[1]
    assert told()[-1] == "kill-session -t =klab-one"


def test_a_pane_says_that_its_node_does_not_run(klab, make_lab) -> None:
    folder = make_lab("one", provider="fake")
    err = klab("shell", "one", "--node", "w1", code=8)[1]
    assert "w1 is not running: its machine is absent" in err
    assert "klab start one w1" in err
    (folder / "fake").mkdir()
    (folder / "fake" / "w1.json").write_text('{"state": "paused"}')
    assert "its machine is paused" in klab("shell", "one", "--node", "w1", code=8)[1]
    assert "its nodes: cp1, w1" in klab("shell", "one", "--node", "w9", code=3)[1]


def test_a_pane_opens_a_shell_on_its_node(klab, make_lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_lab("one", provider="fake")
    (folder / "fake").mkdir()
    (folder / "fake" / "w1.json").write_text('{"state": "running"}')
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/told\nexit 7\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    klab("shell", "one", "--node", "w1", code=7)
    assert (tmp_path / "told").read_text() == "vagrant@192.168.56.21\n"
