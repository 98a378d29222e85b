"""Virtual machines: the protocol, the providers that keep it, and what they need of the host.

The names below are imported when first used: `klab plan` looks at the host through this
package and must not pay for what starts machines.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lab.machines.choose import choose_provider, enter_host_network, open_machines
    from lab.machines.protocol import HostProfile, Machines, NodeState

__all__ = ["HostProfile", "Machines", "NodeState", "choose_provider", "enter_host_network", "open_machines"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "choose" if name.islower() else "protocol"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
