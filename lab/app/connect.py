"""Connect to a port of a node from this machine's own network; and how another program calls klab."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from pathlib import Path

from lab.app.labs import Note, inside, silent
from lab.cluster.lab import Lab
from lab.errors import LabError, MachineError, Remedy
from lab.host.local import connect
from lab.plan.model import Node

BLOCK = 1 << 16  # bytes
# What decides which labs klab sees, and where their networks are.
VARIABLES = ("KLAB_HOME", "KLAB_LIBVIRT")


def this_klab() -> list[str]:
    """The command line by which another program (ssh, tmux) starts the klab that runs.

    It works from any folder, and whatever that program does to the environment.
    """
    script = Path(sys.executable).with_name("klab")
    # -P: a folder called lab in the person's working directory is not klab's package.
    klab = [str(script)] if script.is_file() else [sys.executable, "-P", "-m", "lab.cli.main"]
    kept = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if "KLAB_HOME" in kept:
        kept["KLAB_HOME"] = str(Path(kept["KLAB_HOME"]).expanduser().absolute())
    return ["env", *(f"{name}={value}" for name, value in kept.items()), *klab] if kept else klab


def connected(lab: Lab, node: Node, port: int, *, note: Note = silent) -> socket.socket:
    """A connection to a node, from this machine's own network.

    The thread is in the lab's network only until the connection is there. A process inside the private libvirt keeps
    that from ending with its last lab, and ssh may hold a connection for a long time (ControlPersist; Ansible does so).

    Raises:
        HostError: there is no way to the lab's network.
        MachineError: nothing listens there, or the node does not answer.
    """
    with inside(lab, note=note):
        return connect(lab.name, node, port)


def relay(channel: socket.socket, source: int, sink: int, name: str) -> None:
    """Carry bytes both ways until both ends have closed; the end of either direction is passed on.

    Two threads that may block: a terminal that is made non-blocking is so for each process that has it open.

    Args:
        channel: the connection.
        source: file descriptor of what goes to the node.
        sink: file descriptor of what comes from it; leads nowhere afterwards.
        name: who is at the other end, for messages.

    Raises:
        MachineError: the connection was cut.
        BrokenPipeError: the reader of what comes from the node has gone.
    """
    cuts: list[OSError] = []
    feeder = threading.Thread(target=_feed, args=(channel, source, cuts), daemon=True)
    feeder.start()
    while chunk := _receive(channel, name):
        while chunk:
            chunk = chunk[os.write(sink, chunk) :]
    # Closed for its reader, while its number stays in use.
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
            return  # the node has ended its own direction before
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
        f"the connection to {name} was cut",
        details=[error.strerror or str(error)],
        hint=(Remedy("status"), " shows what runs"),
    )
