"""What klab prints for other programs, before those programs: Ansible, ssh, tmux; and klab connect on a real socket."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

import pytest

from lab.app import inventory
from lab.app.labs import Labs
from lab.machines.ownership import Owner
from lab.plan.decide import decide
from lab.plan.file import to_json
from lab.render.inventory import render_ansible, render_ssh
from lab.scenario.catalog import load_catalog
from lab.scenario.library import load_scenario
from lab.store import Home, LabFolder, Record
from lab.waiting import Deadline, poll

PROGRAMS = Path(sys.executable).parent
KLAB = [sys.executable, "-m", "lab.cli.main"]
LOOPBACK = "127.0.0.1"
SECONDS = 60.0
MUCH = bytes(range(256)) * (1 << 14)  # more than pipes and sockets hold on the way: 4 MiB


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own whose path has a blank in it, in an environment without a person's settings."""
    folder = tmp_path / "a home"
    # COLUMNS and LINES, which a worker of pytest-xdist has, go before the size of the terminal that there is.
    for name in [name for name in os.environ if name.startswith(("ANSIBLE_", "TMUX", "KLAB_", "COLUMNS", "LINES"))]:
        monkeypatch.delenv(name)
    for name, value in {
        "KLAB_HOME": str(folder),
        "HOME": str(tmp_path),
        "ANSIBLE_INVENTORY_UNPARSED_FAILED": "true",
        "LC_ALL": "C.UTF-8",  # Ansible refuses any other
        "NO_COLOR": "1",
        "TERM": "xterm-256color",
    }.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def make_lab(home: Path):
    """A lab as it lies on disk, with nodes at addresses of the test's choosing."""

    def make(name: str, scenario: str, provider: str, *, addresses: dict[str, str] | None = None) -> Path:
        catalog = load_catalog()
        plan = decide(load_scenario(scenario, catalog).scenario, catalog, name=name)
        chosen = addresses or {}
        nodes = tuple(
            dataclasses.replace(n, address=IPv4Address(chosen.get(n.name, str(n.address)))) for n in plan.nodes
        )
        folder = Home(home).lab(name)
        folder.path.mkdir(parents=True)
        (folder.path / "plan.json").write_text(to_json(dataclasses.replace(plan, nodes=nodes)))
        folder.write_record(Record("an-id", name, provider, "box", 0, "ready", 1.7e9))
        return folder.path

    return make


@pytest.fixture
def loopback_lab(make_lab) -> Path:
    """A lab `here` whose cp1 is this very machine."""
    return make_lab("here", "1m1w", "virtualbox", addresses={"cp1": LOOPBACK})


def run(*words: str | Path, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    argv = [str(word) for word in words]
    done = subprocess.run(
        argv, env=os.environ | more, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def behind_klab(name: str) -> tuple[str, str]:
    """What klab would print for a lab that is in the private libvirt: the inventory and the ssh configuration."""
    lab = Labs().find(name)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(inventory, "is_hidden", lambda _lab: True)
        ways = inventory.ways(lab)
    return render_ansible(lab.plan, lab.record.id, ways), render_ssh(lab.plan, ways)


def effective(text: str) -> dict[str, str]:
    """What `ssh -G` prints."""
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)


# --- Ansible ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "words"), [("lab.yaml", []), ("lab", []), ("lab.json", ["--json"])])
def test_ansible_takes_the_inventory(make_lab, tmp_path: Path, name: str, words: list[str]) -> None:
    make_lab("ha-3m2w", "ha-3m2w", "virtualbox")
    file = tmp_path / name
    file.write_text(run(*KLAB, "inventory", *words).stdout)
    done = run(PROGRAMS / "ansible-inventory", "-i", file, "--list")
    assert not done.stderr
    found = json.loads(done.stdout)
    assert found["klab_ha_3m2w"]["children"] == ["control_planes", "workers"]
    assert found["control_planes"]["hosts"] == ["cp1", "cp2", "cp3"]
    assert found["workers"]["hosts"] == ["w1", "w2"]
    cp2 = found["_meta"]["hostvars"]["cp2"]
    assert cp2["ansible_host"] == cp2["klab_address"] == "192.168.56.12"
    assert cp2["klab_role"] == "control-plane"
    assert cp2["klab_vip"] == "192.168.56.10"
    assert cp2["ansible_python_interpreter"] == "/usr/bin/python3"


def test_ansible_finds_the_nodes_by_their_groups_and_names(make_lab, tmp_path: Path) -> None:
    make_lab("ha-3m2w", "ha-3m2w", "virtualbox")
    file = tmp_path / "lab"
    file.write_text(run(*KLAB, "inventory").stdout)
    for pattern, count in {"all": 5, "klab_ha_3m2w": 5, "workers": 2, "control_planes": 3, "w1": 1}.items():
        assert f"hosts ({count}):" in run(PROGRAMS / "ansible", "-i", file, pattern, "--list-hosts").stdout


def test_ansible_takes_the_inventory_from_a_pipe(make_lab) -> None:
    make_lab("1m2w", "1m2w", "virtualbox")
    line = f"{shlex.join(KLAB)} inventory | {PROGRAMS / 'ansible'} -i /dev/stdin all --list-hosts"
    assert "hosts (3):" in run("sh", "-c", line).stdout


def test_ansible_refuses_a_wrong_inventory(make_lab, tmp_path: Path) -> None:
    """The judge above can say no."""
    make_lab("1m1w", "1m1w", "virtualbox")
    (tmp_path / "lab.yaml").write_text(run(*KLAB, "inventory").stdout.replace("  hosts:", "  machines: yes please #"))
    done = subprocess.run([PROGRAMS / "ansible-inventory", "-i", tmp_path / "lab.yaml", "--list"], capture_output=True)
    assert done.returncode != 0 or done.stderr


@pytest.mark.parametrize("hidden", [True, False])
def test_ssh_understands_what_ansible_makes_of_the_inventory(loopback_lab: Path, tmp_path: Path, hidden: bool) -> None:
    """Through Ansible's own quoting: its ssh is a program that has `ssh -G` explain the command line."""
    text, config = behind_klab("here") if hidden else (run(*KLAB, "inventory").stdout, "")
    (tmp_path / "lab.yaml").write_text(text)
    program = tmp_path / "explain"
    program.write_text(f'#!/bin/sh\nexec ssh -G "$@" > {tmp_path}/explained\n')
    program.chmod(0o755)
    run(
        *(PROGRAMS / "ansible", "-i", tmp_path / "lab.yaml", "cp1", "-m", "raw", "-a", "true"),
        *("-e", f"ansible_ssh_executable={program}"),
    )
    found = effective((tmp_path / "explained").read_text())
    assert found["user"] == "vagrant"
    assert found["hostname"] == LOOPBACK
    assert found["identityfile"] == str(loopback_lab / "ssh" / "id_ed25519")
    assert found["userknownhostsfile"] == str(loopback_lab / "ssh" / "known_hosts")
    assert found["hostkeyalias"] == "here-cp1"
    assert found["connecttimeout"] == "30"
    assert Path(found["controlpath"]).name.startswith("klab-")
    assert found.get("proxycommand") == (proxy_of(config, "cp1") if hidden else None)


def proxy_of(config: str, node: str) -> str:
    """The ProxyCommand of a node in an ssh configuration."""
    lines = [line.strip() for line in config.splitlines() if "ProxyCommand" in line]
    return next(line.removeprefix("ProxyCommand ") for line in lines if f" {node} " in line)


# --- ssh --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["cp2", "ha-3m2w-cp2"])
def test_ssh_takes_the_configuration(make_lab, tmp_path: Path, host: str) -> None:
    folder = make_lab("ha-3m2w", "ha-3m2w", "virtualbox")
    config = tmp_path / "config"
    config.write_text(run(*KLAB, "inventory", "--format", "ssh").stdout)
    found = effective(run("ssh", "-G", "-F", config, host).stdout)
    assert found["user"] == "vagrant"
    assert found["hostname"] == "192.168.56.12"
    # ssh shows this one as it stands in the file; the blank in it has not cut it short.
    assert found["identityfile"] == str(folder / "ssh" / "id_ed25519")
    assert found["identitiesonly"] == "yes"
    assert found["userknownhostsfile"] == str(folder / "ssh" / "known_hosts")
    assert found["hostkeyalias"] == "ha-3m2w-cp2"
    assert "proxycommand" not in found


def test_ssh_takes_the_configuration_of_a_private_lab(make_lab, home: Path, tmp_path: Path) -> None:
    make_lab("1m1w", "1m1w", "libvirt")
    config = tmp_path / "config"
    config.write_text(run(*KLAB, "inventory", "--format", "ssh", KLAB_LIBVIRT="private").stdout)
    found = effective(run("ssh", "-G", "-F", config, "w1").stdout)
    words = shlex.split(found["proxycommand"])
    assert words[:3] == ["env", f"KLAB_HOME={home}", "KLAB_LIBVIRT=private"]
    assert words[-4:] == ["connect", "1m1w", "w1", "%p"]
    assert Path(words[3]).is_absolute()
    assert os.access(words[3], os.X_OK)


def test_ssh_itself_goes_through_klab_connect(loopback_lab: Path, tmp_path: Path) -> None:
    """As far as the greeting: what answers here is no sshd."""
    config = tmp_path / "config"
    config.write_text(behind_klab("here")[1])

    def greet(channel: socket.socket) -> bytes:
        channel.sendall(b"SSH-2.0-none_that_is_known\r\n")
        return channel.recv(100)

    # Without klab's variables: those it needs stand in the configuration.
    with served(greet) as server, pytest.MonkeyPatch.context() as patched:
        patched.delenv("KLAB_HOME")
        run("ssh", "-F", config, "-p", str(server.port), "cp1", "true", code=255)
    assert server.results[0].startswith(b"SSH-2.0-OpenSSH")


# --- connect ----------------------------------------------------------------------------------------


class Server(NamedTuple):
    """A TCP server for one connection: its port, and what its function returned."""

    port: int
    results: list[bytes]


@contextlib.contextmanager
def served(serve: Callable[[socket.socket], bytes]) -> Iterator[Server]:
    """One connection is served in a thread; leaving the context waits for it."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(SECONDS)
        server = Server(listener.getsockname()[1], [])

        def work() -> None:
            channel, _ = listener.accept()
            channel.settimeout(SECONDS)
            with channel:
                server.results.append(serve(channel))

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield server
        finally:
            thread.join()


def everything(channel: socket.socket) -> bytes:
    """What comes until the other side ends its direction."""
    return b"".join(iter(lambda: channel.recv(1 << 16), b""))


@contextlib.contextmanager
def connected(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """`klab connect` with pipes on all sides."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*KLAB, "connect", "here", "cp1", str(port)], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def test_bytes_go_both_ways_as_they_are(loopback_lab: Path) -> None:
    """The other side answers only when everything has come, so the end of the input was passed on."""

    def answer(channel: socket.socket) -> bytes:
        found = everything(channel)
        channel.sendall(found[::-1])
        return found

    with served(answer) as server, connected(server.port) as child:
        out, err = child.communicate(MUCH, timeout=SECONDS)
    assert server.results == [MUCH]
    assert out == MUCH[::-1]
    assert (child.returncode, err) == (0, b"")


def test_what_is_said_arrives_while_both_still_talk(loopback_lab: Path) -> None:
    def chat(channel: socket.socket) -> bytes:
        channel.sendall(b"who?")
        said = channel.recv(100)
        channel.sendall(b"hello " + said)
        return said + everything(channel)

    with served(chat) as server, connected(server.port) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.read(4) == b"who?"
        child.stdin.write(b"me")
        assert child.stdout.read(8) == b"hello me"
        child.stdin.write(b", bye")
        child.stdin.close()
        assert child.wait(SECONDS) == 0
    assert server.results == [b"me, bye"]


def test_the_end_of_the_nodes_direction_is_passed_on(loopback_lab: Path) -> None:
    """The reader sees the end, and what is said afterwards still reaches the node."""

    def end_first(channel: socket.socket) -> bytes:
        channel.sendall(b"done")
        channel.shutdown(socket.SHUT_WR)
        return everything(channel)

    with served(end_first) as server, connected(server.port) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.read() == b"done"
        assert child.poll() is None
        child.stdin.write(b"one more thing")
        child.stdin.close()
        assert child.wait(SECONDS) == 0
    assert server.results == [b"one more thing"]


def test_both_directions_at_once_do_not_block_each_other(loopback_lab: Path) -> None:
    """Neither side reads before it has said all."""

    def talk_first(channel: socket.socket) -> bytes:
        talker = threading.Thread(target=channel.sendall, args=(MUCH,))
        talker.start()
        found = everything(channel)
        talker.join()
        return found

    with served(talk_first) as server, connected(server.port) as child:
        out, _ = child.communicate(MUCH, timeout=SECONDS)
    assert server.results == [MUCH]
    assert out == MUCH
    assert child.returncode == 0


def test_a_port_where_nothing_listens(loopback_lab: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = str(listener.getsockname()[1])
    done = run(*KLAB, "connect", "here", "cp1", port, code=8)
    assert f"cp1 refuses connections to port {port}" in done.stderr
    assert "klab ssh here cp1 -- sudo ss -tlnp" in done.stderr
    assert not done.stdout


def test_a_node_that_does_not_answer(make_lab) -> None:
    # TCP to everybody at once: the kernel refuses, and nothing is sent.
    make_lab("nowhere", "1m1w", "virtualbox", addresses={"cp1": "255.255.255.255"})
    done = run(*KLAB, "connect", "nowhere", "cp1", code=8)
    assert "cp1 does not answer on port 22" in done.stderr
    assert "klab status nowhere" in done.stderr


@pytest.mark.parametrize("talking", [True, False])
def test_a_connection_that_is_cut(loopback_lab: Path, talking: bool) -> None:
    def cut(channel: socket.socket) -> bytes:
        channel.recv(1)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
        return b""

    with served(cut) as server, connected(server.port) as child:
        assert child.stdin is not None
        assert child.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(MUCH if talking else b"!")
        assert child.wait(SECONDS) == 8
        assert f"the connection to cp1 port {server.port} was cut" in child.stderr.read().decode()


def test_nobody_reads_what_comes(loopback_lab: Path) -> None:
    def talk(channel: socket.socket) -> bytes:
        with contextlib.suppress(OSError):
            while True:
                channel.sendall(MUCH)
        return b""

    with served(talk) as server, connected(server.port) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.wait(SECONDS) == 141
        assert child.stderr.read() == b""


INSIDE = """
import contextlib, os, sys
from lab.app import connect
from lab.cli.app import run
from lab.errors import HostError

@contextlib.contextmanager
def inside(lab, *, changes=False, note=None):
    if sys.argv[1] == "closed":
        raise HostError("there is no way in", details=["a detail"], hint="open it")
    here = os.getcwd()
    os.chdir("/")
    try:
        yield
    finally:
        os.chdir(here)

relay = connect.relay

def relayed(*words):
    print(os.getcwd(), file=sys.stderr)
    relay(*words)

connect.inside, connect.relay = inside, relayed
sys.exit(run(["connect", "here", "cp1", sys.argv[2]]))
"""


def test_klab_itself_stays_outside(loopback_lab: Path, tmp_path: Path) -> None:
    """ssh may hold a connection for long, and the private libvirt cannot end while klab is in it."""

    def greet(channel: socket.socket) -> bytes:
        channel.sendall(b"hello")
        return everything(channel)

    with served(greet) as server, pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path)
        done = run(sys.executable, "-c", INSIDE, "open", str(server.port))
    assert done.stdout == "hello"
    assert done.stderr.strip() == str(tmp_path)


def test_why_there_is_no_way_in_is_said(loopback_lab: Path) -> None:
    done = run(sys.executable, "-c", INSIDE, "closed", "22", code=5)
    assert "error: there is no way in\n  a detail\nhint: open it\n" in done.stderr


# --- shell ------------------------------------------------------------------------------------------


class Terminal:
    """A terminal of a tmux of the test's own, in which a person's tmux runs: two servers, two sockets."""

    def __init__(self, folder: Path, *, columns: int = 100, rows: int = 30) -> None:
        folder.mkdir(mode=0o700)
        self.env = {"TMUX_TMPDIR": str(folder)}
        self._size = ("-x", str(columns), "-y", str(rows))

    def start(self, *command: str) -> None:
        """Run a command on the terminal; it does not know that tmux makes it."""
        line = f"env -u TMUX {shlex.join(command)}; echo ended with $?; exec cat"
        self.outer("-f", "/dev/null", "new-session", "-d", *self._size, line)

    def outer(self, *words: str) -> str:
        return run("tmux", "-L", "outer", *words, **self.env).stdout

    def inner(self, *words: str) -> str:
        return run("tmux", *words, **self.env).stdout

    def shows(self, *texts: str) -> str:
        """Wait until all of these are on the screen, and return it."""

        def look() -> bool:
            self.screen = self.outer("capture-pane", "-p")
            return all(text in self.screen for text in texts)

        assert poll(look, Deadline.after(SECONDS), every=0.1), self.screen
        return self.screen

    def stop(self) -> None:
        for server in (["-L", "outer"], []):
            subprocess.run(["tmux", *server, "kill-server"], env=os.environ | self.env, capture_output=True)


@pytest.fixture
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(**size: int) -> Terminal:
        # A short path: that of a socket may not be longer than 107 bytes.
        made.append(Terminal(tmp_path_factory.mktemp("t") / "s", **size))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def stub_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ssh that says where it was to go and then repeats what it is told, until it hears `leave`."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nfor target; do :; done\necho "on $target"\n'
        'while read -r said; do [ "$said" != leave ] || exit 0; echo "heard $said"; done\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.fixture
def stub_manage(tmp_path: Path, stub_ssh: None) -> None:
    """A VBoxManage that has the machines of the files in `machines`, which bear their names."""
    folder = tmp_path / "machines"
    folder.mkdir()
    program = tmp_path / "bin" / "VBoxManage"
    program.write_text(f'#!/bin/sh\ncd {folder} || exit\n[ "$1" = list ] && cat vms || cat "$2"\n')
    program.chmod(0o755)


def machine(folder: Path, node: str, state: str) -> None:
    """Let VirtualBox have that machine of the lab in `folder`, in that state (in its own word)."""
    machines, record = folder.parents[2] / "machines", LabFolder(folder).record()
    mark = Owner(record.id, record.seat, record.epoch).description
    name = str(uuid.uuid5(uuid.NAMESPACE_DNS, node))
    (machines / name).write_text(f'VMState="{state}"\ndescription="{mark}"\n')
    with (machines / "vms").open("a") as known:
        known.write(f'"klab-it_{node}" {{{name}}}\n')


@pytest.fixture
def shell_lab(make_lab, stub_manage: None) -> Path:
    """A lab `it` with cp1 and w1 running and w2 stopped."""
    folder = make_lab("it", "1m2w", "virtualbox")
    for node, state in {"cp1": "running", "w1": "running", "w2": "poweroff"}.items():
        machine(folder, node, state)
    return folder


ON_CP1, ON_W1, ON_W2 = (f"on vagrant@192.168.56.{number}" for number in (11, 21, 22))
PANES = ("list-panes", "-s", "-t", "=klab-it", "-F")


def test_a_pane_for_each_node(shell_lab: Path, terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.start(*KLAB, "shell", "it")
    shown = screen.shows(ON_CP1, ON_W1, "w2 is not running: its machine is stopped", "Enter opens a shell on w2")
    assert all(f"─ {node} ─" in shown for node in ("cp1", "w1", "w2"))
    assert screen.inner(*PANES, "#{pane_title}").split() == ["cp1", "w1", "w2"]
    assert set(screen.inner(*PANES, "#{pane_synchronized}").split()) == {"0"}


def test_a_second_shell_goes_back_to_the_first(shell_lab: Path, terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.start(*KLAB, "shell")
    screen.shows(ON_CP1)
    screen.outer("send-keys", "only once", "Enter")
    screen.shows("heard only once")
    screen.inner("detach-client", "-s", "=klab-it")
    screen.shows("ended with 0")
    screen.outer("respawn-pane", "-k", f"env -u TMUX {shlex.join(KLAB)} shell it --synchronize")
    screen.shows("heard only once", ON_W1)
    assert len(screen.inner("list-sessions").splitlines()) == 1
    screen.outer("send-keys", "to all", "Enter")
    assert poll(lambda: screen.shows("heard to all").count("heard to all") == 2, Deadline.after(SECONDS), every=0.1)


def test_a_pane_outlives_its_shell(shell_lab: Path, terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.start(*KLAB, "shell", "it")
    screen.shows(ON_CP1, "Enter opens a shell on w2")
    screen.outer("send-keys", "leave", "Enter")
    screen.shows("Enter opens a shell on cp1")
    # One that did not run does by now.
    machine(shell_lab, "w2", "running")
    w2 = screen.inner(*PANES, "#{pane_id}").split()[2]
    screen.inner("send-keys", "-t", w2, "Enter")
    screen.shows(ON_W2)
    screen.outer("send-keys", "C-d")
    left = ["w1", "w2"]
    assert poll(lambda: screen.inner(*PANES, "#{pane_title}").split() == left, Deadline.after(SECONDS), every=0.1), (
        screen.inner(*PANES, "#{pane_title}")
    )


def test_from_inside_tmux_it_goes_to_the_other_session(shell_lab: Path, terminal: Callable[..., Terminal]) -> None:
    screen = terminal()
    screen.start("tmux", "-f", "/dev/null", "new-session", "-s", "mine", "sh")
    screen.shows("[mine]")
    screen.outer("send-keys", f"{shlex.join(KLAB)} shell it", "Enter")
    screen.shows(ON_CP1, ON_W1, "[klab-it]")
    assert screen.inner("list-clients", "-F", "#{client_session}").split() == ["klab-it"]


def test_panes_that_find_no_room_go_to_another_window(shell_lab: Path, terminal: Callable[..., Terminal]) -> None:
    screen = terminal(columns=40, rows=4)
    screen.start(*KLAB, "shell", "it")
    screen.shows("[klab-it]")
    assert poll(
        lambda: screen.inner(*PANES, "#{pane_title}").split() == ["cp1", "w1", "w2"], Deadline.after(SECONDS), every=0.1
    )
    assert len(set(screen.inner(*PANES, "#{window_id}").split())) > 1
