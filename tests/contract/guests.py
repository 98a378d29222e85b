"""What a tiny guest, or a fake one, can be told to keep in its RAM and on its disk."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

from lab.errors import MachineError, ProgramTimeout
from lab.machines.captures import PartKind
from lab.machines.protocol import Machines
from lab.waiting import Deadline, poll

NODES = ["cp1", "w1"]
# Writes a megabyte at one of 30 places of the disk again and again, and counts.
WRITER = """(n=0; while :; do
  dd if=/dev/urandom of=/dev/vda bs=1M count=1 seek=$((600 + n % 30)) conv=fsync && n=$((n + 1)); echo $n > /run/written
  sleep 0.2
done) > /dev/null 2>&1 < /dev/null &"""
# A sector near the end of the disk that nothing else uses; the very end holds what the node knows of itself.
SECTOR = "$(( $(cat /sys/block/vda/size) - 6144 ))"
KEEP = f"cat > /run/kept; dd if=/run/kept of=/dev/vda bs=512 seek={SECTOR} conv=sync,notrunc 2>/dev/null; sync"
RECALL = {
    PartKind.MEMORY: "cat /run/kept 2>/dev/null; echo",
    PartKind.DISK: f"echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/vda bs=512 skip={SECTOR} count=1 2>/dev/null; echo",
}


def keep(machines: Machines, node: str, text: str) -> None:
    """Let a guest have a text in its RAM and on its disk."""
    machines.ssh(node, ["sh", "-c", KEEP], timeout=60, stdin=text)


def recall(machines: Machines, node: str) -> dict[PartKind, str]:
    """What a guest has in either place."""
    said = machines.ssh(node, ["sh", "-c", "; ".join(RECALL.values())], timeout=60).stdout
    return dict(zip(RECALL, (line.strip("\0") for line in said.splitlines()), strict=True))


def kept(machines: Machines) -> dict[str, str]:
    """What the guests have in both places; both must say the same."""
    with ThreadPoolExecutor() as pool:
        found = dict(zip(NODES, pool.map(lambda node: recall(machines, node), NODES), strict=True))
    assert all(len(set(texts.values())) == 1 for texts in found.values()), found
    return {node: texts[PartKind.DISK] for node, texts in found.items()}


def note(machines: Machines, text: str) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda node: keep(machines, node, f"{text} of {node}"), NODES))


def noted(machines: Machines) -> set[str]:
    return {text.partition(" of ")[0] for text in kept(machines).values()}


def answers(machines: Machines, node: str) -> bool:
    with contextlib.suppress(MachineError, ProgramTimeout):
        return machines.ssh(node, ["true"], timeout=60).code == 0
    return False


def write_on(machines: Machines) -> None:
    """Let the guests write to their disks from now on."""
    for node in NODES:
        machines.ssh(node, ["sh", "-c", WRITER], timeout=60)


def stir(machines: Machines) -> None:
    """Give each guest some megabytes in its RAM that were in none before."""
    for node in NODES:
        machines.ssh(node, ["sh", "-c", "head -c 8000000 /dev/urandom > /run/stirred"], timeout=60)


def written(machines: Machines) -> bool:
    """Whether each guest that writes does so right now."""

    def count(node: str) -> int:
        return int(machines.ssh(node, ["cat", "/run/written"], timeout=60).stdout)

    before = {node: count(node) for node in NODES}
    return all(poll(lambda n=node: count(n) > before[n], Deadline.after(60)) for node in NODES)  # type: ignore[misc]
