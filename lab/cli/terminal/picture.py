"""A lab's topology as a small picture of plain characters."""

from __future__ import annotations

from collections.abc import Sequence

from lab.plan.model import Node, Plan

MOST_IN_A_ROW = 8


def picture(plan: Plan) -> list[str]:
    """The lines of the picture: control planes above their network, workers below.

    [cp1]
      |
    ==+=======+==  192.168.56.0/24
      |       |
    [w1]    [w2]
    """
    above, below = _cells(plan.control_planes), _cells(plan.workers)
    width = max(len(above), len(below)) * _step(above + below)
    step = _step(above + below)
    vip = f"   virtual IP {plan.load_balancer.vip}" if plan.load_balancer else ""
    lines = [_row(above, step) + vip, _pins(above, step, " ", "|")]
    lines.append("=" * (width + 1) + f"  {plan.networks.cidr}")
    if below:
        lines += [_pins(below, step, " ", "|"), _row(below, step)]
    return [line.rstrip() for line in lines]


def _cells(nodes: Sequence[Node]) -> list[str]:
    names = [f"[{node.name}]" for node in nodes]
    if len(names) > MOST_IN_A_ROW:
        names = [*names[: MOST_IN_A_ROW - 2], "...", names[-1]]
    return names


def _step(cells: list[str]) -> int:
    return max(len(cell) for cell in cells) + 2


def _row(cells: list[str], step: int) -> str:
    return "".join(cell.center(step) for cell in cells).rstrip()


def _pins(cells: list[str], step: int, blank: str, pin: str) -> str:
    return "".join(pin.center(step, blank) for _ in cells)
