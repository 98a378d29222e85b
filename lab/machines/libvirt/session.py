"""The way to one lab's things in libvirt: a connection that is renewed when it is lost, and ends with the last lab."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from lab.host.private_libvirt import PrivateLibvirt
from lab.machines.libvirt.connection import connect, library, translate_errors
from lab.machines.libvirt.resources import Resources
from lab.machines.ownership import Owner
from lab.store import Home

if TYPE_CHECKING:
    import libvirt


class Session:
    """One lab's way to libvirt.

    `over`: the private libvirt ended with this lab; there is nothing left to ask.
    """

    def __init__(self, home: Home, owner: Owner) -> None:
        self.owner = owner
        self.private_libvirt = PrivateLibvirt(home)
        self.over = False
        self._connection: libvirt.virConnect | None = None

    def resources(self) -> Resources:
        """The lab's things, over a connection that is alive.

        Raises:
            HostError: libvirtd does not answer.
        """
        return Resources(self._connect(), self.owner)

    def _connect(self) -> libvirt.virConnect:
        connection = self._connection
        if connection is not None and connection.isAlive():
            return connection
        if self.private_libvirt.inside:
            self.private_libvirt.start()  # starts a libvirtd that was killed; the machines ran meanwhile
        self._connection = connect()
        return self._connection

    def end_if_empty(self) -> None:
        """End the private libvirt with its last lab."""
        if not self.private_libvirt.inside:
            return
        with translate_errors("the private libvirt cannot be asked for its labs"):
            connection = self._connect()
            if connection.listAllDomains() or connection.listAllNetworks():
                return
            with contextlib.suppress(library().libvirtError):
                connection.close()
        self._connection = None
        self.over = self.private_libvirt.stop()
