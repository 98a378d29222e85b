"""How the nodes of a lab are reached from an ordinary shell."""

from __future__ import annotations

from lab.app.connect import this_klab
from lab.cluster.lab import Lab
from lab.host.network import wants_private
from lab.host.private_libvirt import PrivateLibvirt
from lab.machines.providers import provider_named
from lab.machines.ssh import Ssh
from lab.render.inventory import Way


def ways(lab: Lab) -> dict[str, Way]:
    """How ssh gets to each node; the lab need not have been entered."""
    ssh = Ssh(lab.folder, lab.plan)
    through = (*this_klab(), "connect", lab.name) if is_hidden(lab) else ()
    return {n.name: Way(ssh.settings(n.name), (*through, n.name) if through else ()) for n in lab.plan.nodes}


def is_hidden(lab: Lab) -> bool:
    """Whether the lab's network is in the private libvirt, out of this machine's reach."""
    return provider_named(lab.record.provider).features.private_host and wants_private(PrivateLibvirt(lab.home))
