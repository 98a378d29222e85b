"""A proxy that the environment names leads elsewhere; a lab is on this machine. klab's own clients ask none."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lab.plan.model import Plan

_WAYS = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_EXCEPTIONS = ("NO_PROXY", "no_proxy")  # Go reads the first that is set, curl the second alone


def straight_to(plan: Plan, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables by which kubectl, and what else speaks HTTP, goes straight to a lab; none where no proxy is named.

    The lab's network is for programs that know CIDR notation (Go's, curl since 7.86), its addresses are for others.

    Args:
        plan: the lab's.
        environment: what the person has set; exceptions that are there stay.
    """
    if not any(environment.get(way) for way in _WAYS):
        return {}
    there = next((environment[name] for name in _EXCEPTIONS if environment.get(name)), "")
    addresses = [node.address for node in plan.nodes] + ([plan.load_balancer.vip] if plan.load_balancer else [])
    wanted = map(str, (plan.networks.cidr, *addresses))
    kept = [word for word in map(str.strip, there.split(",")) if word]
    return dict.fromkeys(_EXCEPTIONS, ",".join(dict.fromkeys([*kept, *wanted])))
