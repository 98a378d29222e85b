"""A lab on the stand-in for VBoxManage (`support.vboxmanage`), all of it in the test's own process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.machines.ownership import Owner
from lab.machines.virtualbox.machines import VirtualBoxMachines
from lab.plan.decide import decide
from lab.plan.names import domain_name
from lab.process import Completed, failed
from lab.scenario.catalog import Catalog
from lab.scenario.model import Scenario, Topology
from lab.store import Home, Record
from support.vboxmanage import VirtualBox

RECORD = Record(
    id="cb7b241c-70ce-456d-a4d8-2e6b37ed0cff",
    name="demo",
    provider="virtualbox",
    box="box",
    seat=0,
    phase="ready",
    created=1.0,
)


class Programs:
    """In the place of `lab.process.run`: VBoxManage is the stand-in, and of Vagrant's commands the words are kept.

    A command with one of the words in `broken` fails, whatever the state is; one with a word in `ignored` does
    nothing, and says that it went well.
    """

    def __init__(self, virtualbox: VirtualBox) -> None:
        self.virtualbox = virtualbox
        self.vagrant: list[list[str]] = []
        self.broken: set[str] = set()
        self.ignored: set[str] = set()

    def run(self, argv: Sequence[str], *, check: bool = True, **_options: object) -> Completed:
        done = Completed(tuple(argv), *self._answer(*argv))
        if check and done.code != 0:
            raise failed(done)
        return done

    def _answer(self, program: str, *words: str) -> tuple[int, str, str]:
        if program == "vagrant":
            self.vagrant.append(list(words))
            return 0, "", ""
        if self.broken & set(words):
            return 1, "", f"VBoxManage: error: {words[0]} failed"
        return (0, "", "") if self.ignored & set(words) else self.virtualbox.run(words)


class VirtualBoxLab:
    """The lab demo with the nodes cp1 and w1; those in `states` have a machine, in that state.

    Each machine has its seed in its drive, as before the end of its first boot.
    """

    def __init__(self, home: Home, catalog: Catalog, programs: Programs, states: Mapping[str, str]) -> None:
        self.programs = programs
        self.virtualbox = programs.virtualbox
        self.folder = home.lab("demo")
        self._plan = decide(Scenario(version=1, name="demo", topology=Topology(control_planes=1, workers=1)), catalog)
        self.machines = VirtualBoxMachines(home, self.folder, self._plan, RECORD, None)
        for folder in (self.folder.logs, self.folder.seeds):
            folder.mkdir(parents=True)
        for node, state in states.items():
            self._make(node)
            self.put(state, node)

    def _make(self, node: str) -> None:
        seed = self.folder.seeds / f"{node}.iso"
        seed.write_text("the seed")
        self.virtualbox.add(self.name(node), Owner(RECORD.id, RECORD.seat, RECORD.epoch).description)
        where = ["--storagectl", "SATA", "--port", "1", "--device", "0", "--type", "dvddrive"]
        self.do("storageattach", self.name(node), *where, "--medium", str(seed))

    def name(self, node: str) -> str:
        """What VirtualBox calls a node's machine."""
        return domain_name(self._plan, node)

    def put(self, state: str, *nodes: str) -> None:
        """Put machines into a state, as a person or a crash does."""
        for node in nodes:
            self.virtualbox.set_state(self.name(node), state)

    def do(self, *words: str) -> None:
        """A command of the person's own, behind klab's back."""
        answer = self.virtualbox.run(words)
        assert answer.code == 0, answer

    @property
    def states(self) -> dict[str, str]:
        """The machines' states in VirtualBox's words, by node."""
        return {
            name.removeprefix(self.name("")): machine["state"] for name, machine in self.virtualbox.machines.items()
        }

    def snapshots(self, node: str) -> list[str]:
        """The names of a machine's snapshots, in the order in which they were taken."""
        return [shot["name"] for shot in self.virtualbox.machines[self.name(node)]["snapshots"]]

    def count(self, *words: str, node: str) -> int:
        """How often a command was given about a node: "snapshot", "take", "one"."""
        verb, *rest = words
        machine = self.virtualbox.machines[self.name(node)]
        calls = self.virtualbox.calls
        return sum(calls.count([verb, which, *rest]) for which in (machine["name"], machine["uuid"]))
