"""klab's machines in a process of their own, so that a test can kill it.

python -m contract.driver HOME BOX LAB SEAT STEP...
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from contract.labs import make_lab

from lab.errors import MachineError, ProgramTimeout
from lab.host.network import enter_host_network
from lab.machines.protocol import Machines
from lab.machines.vagrant.command import Vagrant
from lab.store import Home
from lab.waiting import Deadline, poll

SECONDS = 240


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  (its parent reads this)


def answers(machines: Machines) -> bool:
    with contextlib.suppress(MachineError, ProgramTimeout):
        return machines.ssh("cp1", ["true"], timeout=60).code == 0
    return False


def main() -> None:
    root, box, name, seat, *steps = sys.argv[1:]
    home = Home(Path(root))
    say(enter_host_network(home))
    lab = make_lab(home, name, nodes=1, provider="libvirt", box=Path(box), seat=int(seat))
    machines = lab.open()
    for step in steps:
        match step:
            case "up":
                machines.up(Deadline.after(SECONDS), say)
            case "states":
                say(" ".join(f"{node}={state.value}" for node, state in machines.states().items()))
            case "hostname":
                say(machines.ssh("cp1", ["hostname"], timeout=60).stdout.strip())
            case "start":
                machines.start(["cp1"])
                poll(lambda: answers(machines), Deadline.after(SECONDS))
            case "remove":
                machines.remove("cp1", say)
            case "drop":
                machines.drop_seeds()
            case "vagrant status" | "vagrant halt" | "vagrant up" | "vagrant destroy -f":
                say(Vagrant(lab.folder.path).run(step.split()[1:], timeout=SECONDS).stdout)
            case "destroy":
                machines.destroy(say)
            case "leftovers":
                say(f"leftovers: {machines.leftovers()}")
        say(f"done {step}")


if __name__ == "__main__":
    main()
