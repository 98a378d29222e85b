"""A lab whose nodes can be upgraded: fake machines and an API server that both keep what they know in files.

So a klab that is killed in a process of its own leaves what it has done.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.files import write_atomic
from lab.machines.fake.machines import FakeMachines
from lab.process import Completed
from lab.render import upgrade as scripts
from support.cluster_server import READY, ClusterServer

BEFORE = "1.34.4"
AFTER = "1.35.4"


class Nodes:
    """What the nodes of a lab are, by name: a file for each; and what was done on them, in order."""

    def __init__(self, place: Path, names: Sequence[str]) -> None:
        self._place = place
        place.mkdir()
        self._log = place / "done"
        for name in names:
            self.change(name, kubelet=BEFORE, unschedulable=False, annotations={}, packages=False)

    def of(self, name: str) -> dict[str, Any]:
        file = self._place / f"{name}.json"
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return found

    def change(self, name: str, **values: Any) -> None:
        # Whole at any moment: the server may read it in the middle, and a kill may come there.
        write_atomic(self._place / f"{name}.json", json.dumps({**self.of(name), **values}))

    def note(self, text: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{text}\n")

    @property
    def done(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


class UpgradableServer(ClusterServer):
    """Tells of the nodes what their files say."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__()
        self._states = nodes

    def _node(self, name: str) -> dict[str, Any]:
        state = self._states.of(name)
        return {
            "metadata": {"name": name, "annotations": state["annotations"]},
            "spec": {"unschedulable": True} if state["unschedulable"] else {},
            "status": {**READY, "nodeInfo": {"kubeletVersion": f"v{state['kubelet']}"}},
        }

    def _answer(self, path: str) -> tuple[int, Any]:
        if path == "/api/v1/nodes":
            return 200, {"items": [self._node(name) for name in self.nodes]}
        if (name := path.removeprefix("/api/v1/nodes/")) in self.nodes:
            return 200, self._node(name)
        return super()._answer(path)


class UpgradableMachines(FakeMachines):
    """Machines on which klab's scripts do what they are to do, to the files."""

    states_of: Nodes
    failing = ""

    def ssh(
        self, node: str, command: Sequence[str], timeout: float, check: bool = True, stdin: str | Path | None = None
    ) -> Completed:
        done = super().ssh(node, command, timeout, check, stdin)
        code = self._act(node, list(command), stdin)
        return Completed(done.argv, code, done.stdout, "the last words of a script\n" if code else "")

    def _act(self, node: str, command: list[str], stdin: str | Path | None) -> int:
        nodes, script = self.states_of, stdin if isinstance(stdin, str) else " ".join(command)
        if self.failing and self.failing in script and node == "w1":
            return 1
        if command[-1] == scripts.render_look(AFTER):
            return 0 if nodes.of(node)["packages"] else 1
        if command[-1] == scripts.render_receive(AFTER):
            assert isinstance(stdin, Path)
            nodes.note(f"{node} receives {stdin.read_text()}")
        elif "dpkg-deb" in script:
            nodes.change(node, packages=True)
        elif "kubeadm upgrade apply" in script:
            nodes.note(f"{node} apply")
        elif "kubeadm upgrade node" in script:
            nodes.note(f"{node} node")
        elif "restart kubelet" in script:
            nodes.change(node, kubelet=AFTER)
            nodes.note(f"{node} kubelet")
        return 0


def kubectl(nodes: Nodes, *words: str) -> None:
    """What kubectl does to the files."""
    act, name = words[0], words[2] if words[0] == "annotate" else words[1]
    if act == "annotate":
        key, _, _ = words[3].rstrip("-").partition("=")
        rest = {k: v for k, v in nodes.of(name)["annotations"].items() if k != key}
        nodes.change(name, annotations=rest if words[3].endswith("-") else {**rest, key: ""})
    else:
        nodes.change(name, unschedulable=act == "drain")
        nodes.note(f"{name} {act}")
