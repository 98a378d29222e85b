"""klab connect, and how another program calls klab."""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from lab.errors import LabError, MachineError, UsageError

if TYPE_CHECKING:
    from lab.cli.opening import OpenLab
    from lab.plan.model import Node

SSH_PORT = 22
BLOCK = 1 << 16
# What decides which labs klab sees, and where their networks are.
VARIABLES = ("KLAB_HOME", "KLAB_LIBVIRT")


@click.command()
@click.argument("lab")
@click.argument("node")
@click.argument("port", type=click.IntRange(1, 65535), default=SSH_PORT)
def command(lab: str, node: str, port: int) -> None:
    """Connect standard input and output to a TCP port of a node; port 22 unless told otherwise.

    Made to be ssh's ProxyCommand: it goes into klab's private libvirt first, where there is
    one. `klab inventory --format ssh` writes a configuration that uses it.

    It ends when both ends have closed: the end of standard input is passed on to the node,
    and what the node still sends comes out. Exit code 8 when nothing listens there, or when
    the connection is cut.

    \b
    Examples:
      klab connect 1m2w cp1 </dev/null
      printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' | klab connect 1m2w w1 10256
    """
    from lab.cli.app import EXIT_BROKEN_PIPE
    from lab.cli.opening import find_lab

    # With one of them closed, its number would be the next file's that klab opens.
    if sys.stdin is None or sys.stdout is None:
        raise UsageError(
            "klab connect needs standard input and output",
            hint="</dev/null is an empty input, >/dev/null drops what comes",
        )
    found = find_lab(lab)
    place = found.node(node)
    with _connected(found, place, port) as channel:
        try:
            _relay(channel, sys.stdin.fileno(), sys.stdout.fileno(), f"{place.name} port {port}")
        except BrokenPipeError:
            sys.exit(EXIT_BROKEN_PIPE)


def this_klab() -> list[str]:
    """The command line by which another program (ssh, tmux) starts the klab that runs.

    It works from any folder, and whatever that program does to the environment.
    """
    script = Path(sys.executable).with_name("klab")
    # -P: a folder called lab where the person stands is none of klab's.
    klab = [str(script)] if script.is_file() else [sys.executable, "-P", "-m", "lab.cli.main"]
    kept = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if "KLAB_HOME" in kept:
        kept["KLAB_HOME"] = str(Path(kept["KLAB_HOME"]).expanduser().absolute())
    return ["env", *(f"{name}={value}" for name, value in kept.items()), *klab] if kept else klab


def _connected(lab: OpenLab, node: Node, port: int) -> socket.socket:
    """A connection to a node, from this machine's own network.

    A child makes it and ends at once. Whoever is inside the private libvirt keeps it from ending with its
    last lab, and ssh may hold a connection long after the last word (ControlPersist; Ansible does so).

    Raises:
        HostError: there is no way to the lab's network.
        MachineError: nothing listens there, or the node does not answer.
    """
    ours, theirs = socket.socketpair()
    with ours:
        child = os.fork()
        if child == 0:
            _hand_over(theirs, lab, node, port)
        theirs.close()
        answer, handles, _, _ = socket.recv_fds(ours, BLOCK, 1)
        os.waitpid(child, 0)
    if not answer:
        raise MachineError(
            f"{node.name} could not be connected to: what was to do it was killed",
            hint="klab doctor shows what is free",
        )
    if not handles:
        error = pickle.loads(answer)  # noqa: S301 - it comes from our own child
        raise error
    return socket.socket(fileno=handles[0])


def _hand_over(theirs: socket.socket, lab: OpenLab, node: Node, port: int) -> NoReturn:
    """In the child: give the parent the connection, or the error that there was."""
    try:
        try:
            lab.enter()
            with _open(lab, node, port) as channel:
                socket.send_fds(theirs, [b"connected"], [channel.fileno()])
        except Exception as error:
            theirs.sendall(pickle.dumps(error))
    finally:
        os._exit(0)  # the rest of the program is the parent's


def _open(lab: OpenLab, node: Node, port: int) -> socket.socket:
    """A connection to a node, from where this process is.

    Raises:
        MachineError: nothing listens there, or the node does not answer.
    """
    from lab.machines.ssh import CONNECT_SECONDS

    try:
        channel = socket.create_connection((str(node.address), port), timeout=CONNECT_SECONDS)
    except ConnectionRefusedError as error:
        raise MachineError(
            f"{node.name} refuses connections to port {port}",
            details=[f"{node.address} port {port}: {error.strerror}"],
            hint=f"klab logs {lab.name} {node.name} shows whether it is starting still"
            if port == SSH_PORT
            else f"klab ssh {lab.name} {node.name} -- sudo ss -tlnp shows what listens there",
        ) from error
    except OSError as error:
        raise MachineError(
            f"{node.name} does not answer on port {port}",
            details=[f"{node.address} port {port}: {error.strerror or error}"],
            hint=f"klab status {lab.name} shows whether it runs",
        ) from error
    channel.settimeout(None)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # What is typed shall not wait for more of it.
    channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return channel


def _relay(channel: socket.socket, source: int, sink: int, name: str) -> None:
    """Carry bytes both ways until both ends have closed; the end of either direction is passed on.

    Two threads that may block, since a terminal that is made non-blocking is so for everybody who has it.

    Args:
        channel: the connection.
        source: file descriptor of what goes to the node.
        sink: file descriptor of what comes from it; leads nowhere afterwards.
        name: who is at the other end, for messages.

    Raises:
        MachineError: the connection was cut.
        BrokenPipeError: nobody reads what comes from the node.
    """
    cuts: list[OSError] = []
    feeder = threading.Thread(target=_feed, args=(channel, source, cuts), daemon=True)
    feeder.start()
    while chunk := _receive(channel, name):
        while chunk:
            chunk = chunk[os.write(sink, chunk) :]
    # Closed for its reader, while the number stays taken.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sink)
    os.close(nowhere)
    feeder.join()
    if cuts:
        raise _cut(name, cuts[0]) from cuts[0]


def _feed(channel: socket.socket, source: int, cuts: list[OSError]) -> None:
    """Carry what is read to the node, and its end."""
    while chunk := _read(source):
        try:
            channel.sendall(chunk)
        except BrokenPipeError:
            return  # it had ended its own direction before: it has what it wanted
        except OSError as error:
            cuts.append(error)
            return
    with contextlib.suppress(OSError):  # the connection is gone: the other thread says so
        channel.shutdown(socket.SHUT_WR)


def _read(source: int) -> bytes:
    try:
        return os.read(source, BLOCK)
    except OSError:
        return b""  # a terminal that was hung up


def _receive(channel: socket.socket, name: str) -> bytes:
    try:
        return channel.recv(BLOCK)
    except OSError as error:
        raise _cut(name, error) from error


def _cut(name: str, error: OSError) -> LabError:
    return MachineError(
        f"the connection to {name} was cut", details=[error.strerror or str(error)], hint="klab status shows what runs"
    )
