"""Which libvirt of this machine is used, and the way to where its networks are."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

from lab.errors import HostError
from lab.host import access, namespaces
from lab.host.private_libvirt import PrivateLibvirt
from lab.host.visitors import visitors
from lab.store import Home

SYSTEM = "system libvirtd"
PRIVATE = "private libvirtd"
# libvirtd's own socket, and that of the modular daemon which took its place in some systems.
SOCKETS = ("/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock")
ANSWER_SECONDS = 5.0


def enter_host_network(home: Home) -> str:
    """Get to where the labs' libvirt and networks are: stay on the host, or walk into the private libvirt.

    It is the calling thread that gets there, with the threads that it starts. The private libvirt is used where it
    already holds labs, where no system libvirtd answers, and where KLAB_LIBVIRT=private asks for it;
    KLAB_LIBVIRT=system refuses it.

    Returns:
        "system libvirtd" or "private libvirtd", for messages.

    Raises:
        HostError: the system's libvirtd does not let this user in, or none answers and a
            private one cannot be had.
    """
    private_libvirt = PrivateLibvirt(home)
    if not wants_private(private_libvirt):
        return SYSTEM
    private_libvirt.start()
    private_libvirt.enter()
    return PRIVATE


@contextlib.contextmanager
def host_network(home: Home) -> Iterator[str]:
    """Have the calling thread where the labs' libvirt and networks are, as `enter_host_network`; afterwards it is back.

    One process can so work with labs in several homes, in a thread each, even where their addresses are the same.

    Raises:
        HostError: as `enter_host_network`.
    """
    private = PrivateLibvirt(home)
    if not wants_private(private):
        yield SYSTEM
        return
    private.start()
    with private.entered():
        yield PRIVATE


@contextlib.contextmanager
def returning() -> Iterator[None]:
    """Let the calling thread go wherever it has to in the block; afterwards it is where it was before it."""
    before = visitors.mine()
    try:
        with namespaces.returning():
            yield
    finally:
        visitors.drop_to(before)


def stop_unused_private_libvirt(home: Home) -> None:
    """End the private libvirt that `enter_host_network` has started, if nothing was made in it after all."""
    private_libvirt = PrivateLibvirt(home)
    if private_libvirt.inside and not private_libvirt.holds_labs:
        private_libvirt.stop()


def wants_private(private_libvirt: PrivateLibvirt) -> bool:
    """Whether the labs' libvirt is the private one; see `enter_host_network`.

    Raises:
        HostError: KLAB_LIBVIRT is wrong, or the system's libvirtd does not let this user in or does not answer.
    """
    wanted = os.environ.get("KLAB_LIBVIRT", "auto")
    if wanted not in {"auto", "private", "system"}:
        raise HostError(f"KLAB_LIBVIRT is {wanted!r}; it must be auto, private or system", hint="unset KLAB_LIBVIRT")
    if wanted == "private" or (wanted == "auto" and private_libvirt.holds_labs):
        return True
    if system_answers():
        return False
    if wanted == "system":
        raise HostError("no system libvirtd answers", hint="sudo systemctl enable --now libvirtd")
    return True


def system_answers() -> bool:
    """Whether a libvirtd of the system's answers on its socket.

    Raises:
        HostError: one is there, but this user may not talk to it.
    """
    for path in SOCKETS:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(ANSWER_SECONDS)
            try:
                client.connect(path)
            except PermissionError as error:
                raise access.refused_by_libvirt(f"{path}: {error.strerror}") from error
            except OSError:
                continue
            return True
    return False
