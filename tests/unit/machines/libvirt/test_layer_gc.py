"""Which layers become one, and by whom, where klab has no right to the files; over libvirt's own test driver.

What an emulator does with them is tests/contract's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import libvirt
import pytest
from support.libvirt_host import NAMESPACE, OWNER, WORDS, Host

from lab.errors import MachineError
from lab.machines.captures import Rewrite
from lab.machines.libvirt import block_commit, definitions, layer_gc
from lab.machines.libvirt.capture_index import CaptureIndex, Entry, Saved
from lab.machines.libvirt.layer_gc import LayerCollector
from lab.machines.libvirt.pools import LabPool
from lab.machines.libvirt.resources import Resources
from lab.machines.libvirt.volumes import LayerStore

PREFIX = "klab-demo_cp1."
# A disk with two branches: what lies between them and the box is needed for their sake only.
BRANCHES = {"a": "", "b": "a", "t": "b", "c1": "t", "c2": "t"}


def file(layer: str) -> str:
    return f"{PREFIX}{layer}.img"


@dataclass
class Layers:
    """The disk of one node, as libvirt shows it, and what emulators were asked to do with it."""

    host: Host
    commits: list[tuple[str, str, str]] = field(default_factory=list)  # by whom, into, top
    fail_at: int = 99

    @property
    def collector(self) -> LayerCollector:
        return LayerCollector(self.host.plan, self.index, self._resources)

    @property
    def index(self) -> CaptureIndex:
        return CaptureIndex(self.host.folder.captures)

    def _resources(self) -> Resources:
        return Resources(self.host.connection, OWNER)

    def store(self) -> LayerStore:
        return LayerStore(self._resources())

    def there(self) -> dict[str, str]:
        """By layer the one below it, in short."""
        found = self.store().backing
        short = {name: name.removeprefix(PREFIX).removesuffix(".img") for name in found}
        return {short[name]: short[below] if below else "" for name, below in found.items()}

    def lay(self, layer: str, below: str) -> None:
        pool = LabPool(self.host.connection, OWNER).find()
        assert pool is not None
        with contextlib.suppress(libvirt.libvirtError):
            pool.storageVolLookupByName(file(layer)).delete()
        under = self.store().path(file(below)) if below else "/box.img"
        pool.createXML(definitions.overlay_volume(file(layer), 1 << 20, under))

    def capture(self, **layers: str) -> None:
        self.host.folder.captures.mkdir(parents=True, exist_ok=True)
        for number, (key, layer) in enumerate(layers.items()):
            self.index.write(Entry(key, number, {"cp1": Saved(file(layer), "", "<domain/>")}))

    def machine(self, state: str, *chain: str) -> None:
        """Let the node's machine be in that state, over these layers."""
        below = ""
        for layer in reversed(chain[1:]):
            source = f"<format type='qcow2'/><source file='{self.store().path(file(layer))}'/>"
            below = f"<backingStore type='file'>{source}{below or '<backingStore/>'}</backingStore>"
        disk = (
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
            f"<source file='{self.store().path(file(chain[0]))}'/>{below}<target dev='vda' bus='virtio'/></disk>"
        )
        node = self.host.plan.known("cp1")
        with contextlib.suppress(libvirt.libvirtError):
            self.host.domain("cp1").destroy()
        domain = self.host.connection.defineXML(
            f"<domain type='test' xmlns:test='{NAMESPACE}'><name>klab-demo_cp1</name><uuid>{node.uuid}</uuid>"
            f"<description>{OWNER.description}</description><memory>8192</memory><os><type>hvm</type></os>"
            f"<devices>{disk}</devices><test:runstate>{WORDS[state]}</test:runstate></domain>"
        )
        if state != "off":
            domain.create()
        if state == "paused":
            domain.suspend()

    def commit(self, domain: libvirt.virDomain | str, into: str, top: str) -> None:
        """What an emulator does: bring the content of the layers down, and tell those above."""
        if len(self.commits) == self.fail_at:
            raise MachineError("the emulator was killed")
        name = domain if isinstance(domain, str) else domain.name()
        short = [Path(path).name.removeprefix(PREFIX).removesuffix(".img") for path in (into, top)]
        self.commits.append((name, short[0], short[1]))
        children = (
            [name] if isinstance(domain, str) else [each for each, below in self.there().items() if below == short[1]]
        )
        for child in children:
            if child != short[1]:
                self.lay(child, short[0])


@pytest.fixture
def layers(make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], Layers]:
    """Makes a node's disk from each layer's lower one."""

    def make(disk: Mapping[str, str]) -> Layers:
        made = Layers(make_host())
        pool = LabPool(made.host.connection, OWNER)
        pool.ensure(pool.box_pool("default"))
        for layer, below in disk.items():
            made.lay(layer, below)

        @contextlib.contextmanager
        def opened(_connection: libvirt.virConnect, _owner: object, disk: str) -> Iterator[str]:
            yield Path(disk).name.removeprefix(PREFIX).removesuffix(".img")

        monkeypatch.setattr(layer_gc, "end_job", lambda _domain: None)  # the test driver knows no jobs
        monkeypatch.setattr(block_commit, "commit", made.commit)
        monkeypatch.setattr(block_commit, "opened", opened)
        monkeypatch.setattr(LayerStore, "direct", False)
        return made

    return make


def test_layers_of_a_machine_that_is_off_are_opened_for_it(layers: Callable[..., Layers]) -> None:
    disk = layers(BRANCHES)
    disk.capture(one="c2")
    disk.machine("off", "c1")
    assert disk.collector.unmerged() == ["cp1: 3 disk layers can become one"]
    assert disk.collector.rewrites([]) == [Rewrite(file("a"), (file("b"), file("t")))]
    disk.collector.delete([], merge=True)
    assert disk.commits == [("c1", "a", "t"), ("c2", "a", "t")]
    assert disk.there() == {"a": "", "c1": "a", "c2": "a"}
    assert (disk.collector.unmerged(), disk.index.merging) == ([], None)


def test_layers_that_captures_consist_of_are_left_unless_asked_for(layers: Callable[..., Layers]) -> None:
    disk = layers(BRANCHES)
    disk.capture(one="c2")
    disk.machine("off", "c1")
    disk.collector.delete([])
    assert disk.there() == BRANCHES


def test_a_machine_that_runs_merges_what_it_has_open(layers: Callable[..., Layers]) -> None:
    disk = layers({"a": "", "b": "a", "t": "b", "c": "t"})
    disk.capture(one="t")
    disk.machine("running", "c", "t", "b", "a")
    disk.collector.delete([], merge=True)
    assert disk.commits == [("klab-demo_cp1", "a", "t")]
    assert disk.there() == {"a": "", "c": "a"}
    assert disk.index.entry("one").nodes["cp1"].disk == file("a"), "the capture is of the same content"


def test_what_another_branch_lies_on_waits_until_the_machine_is_off(layers: Callable[..., Layers]) -> None:
    """Only an emulator may write into that branch, and it cannot have layers open that a running machine has."""
    disk = layers(BRANCHES)
    disk.capture(one="c2")
    disk.machine("running", "c1", "t", "b", "a")
    assert disk.collector.rewrites([]) == []
    (line,) = disk.collector.unmerged()
    assert line.startswith("cp1: 3 disk layers can become one, once its machine is off")
    disk.collector.delete([], merge=True)
    assert (disk.there(), disk.commits) == (BRANCHES, [])
    disk.machine("off", "c1")
    disk.collector.delete([], merge=True)
    assert disk.there() == {"a": "", "c1": "a", "c2": "a"}


def test_a_paused_machine_waits_until_it_is_resumed(layers: Callable[..., Layers]) -> None:
    disk = layers({"a": "", "b": "a"})
    disk.machine("paused", "b", "a")
    assert disk.collector.unmerged() == ["cp1: 2 disk layers can become one, once its machine is resumed"]
    disk.collector.delete([], merge=True)
    assert disk.commits == []


def test_the_layer_that_a_machine_starts_from_next(layers: Callable[..., Layers]) -> None:
    disk = layers({"a": "", "b": "a"})
    disk.machine("off", "b")
    disk.collector.delete([])
    assert disk.commits == [("b", "a", "b")]
    assert disk.there() == {"a": ""}
    found = definitions.disk(disk.host.domain("cp1").XMLDesc())
    assert found is not None
    assert Path(found.path).name == file("a")


def test_a_merge_that_was_killed_is_finished(layers: Callable[..., Layers]) -> None:
    disk = layers(BRANCHES)
    disk.capture(one="c2")
    disk.machine("off", "c1")
    disk.fail_at = 1
    with pytest.raises(MachineError, match="killed"):
        disk.collector.delete([], merge=True)
    assert disk.there() == BRANCHES | {"c1": "a"}
    disk.fail_at = 99
    disk.collector.delete([])
    assert disk.commits == [("c1", "a", "t"), ("c2", "a", "t")]
    assert disk.there() == {"a": "", "c1": "a", "c2": "a"}


def test_a_merge_that_was_killed_waits_for_a_machine_that_was_started_since(layers: Callable[..., Layers]) -> None:
    disk = layers(BRANCHES)
    disk.capture(one="c2")
    disk.machine("off", "c1")
    disk.fail_at = 0
    with pytest.raises(MachineError, match="killed"):
        disk.collector.delete([], merge=True)
    disk.fail_at = 99
    disk.machine("running", "c1", "t", "b", "a")
    disk.collector.delete([], merge=True)
    assert (disk.there(), disk.commits) == (BRANCHES, [])
    disk.machine("off", "c1")
    disk.collector.delete([])
    assert disk.there() == {"a": "", "c1": "a", "c2": "a"}


def test_what_a_damaged_entry_needs_is_unknown(layers: Callable[..., Layers]) -> None:
    disk = layers(BRANCHES)
    disk.capture(one="c2")
    disk.machine("off", "c1")
    (disk.host.folder.captures / "one.json").write_text("{")
    assert "damaged" in disk.collector.unmerged()[0]
    disk.collector.delete([], merge=True)
    assert disk.there() == BRANCHES


def test_a_disk_of_too_many_layers_is_refused_before_it_cannot_be_opened(
    layers: Callable[..., Layers], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer_gc, "MOST_LAYERS", 3)
    disk = layers({"a": "", "b": "a"})
    disk.machine("off", "b")
    disk.collector.refuse_deep()
    disk.lay("c", "b")
    disk.machine("running", "c", "b", "a")
    with pytest.raises(MachineError, match="the disk of klab-demo_cp1 consists of 3 layers") as caught:
        disk.collector.refuse_deep()
    assert "klab snapshot prune" in caught.value.hint


# --- the machine that never runs ------------------------------------------------------------------------


def test_what_opens_layers_is_small_paused_and_no_machine_of_the_labs() -> None:
    xml = definitions.disk_opener(OWNER, "/pool/a & b.img")
    assert definitions.disk(xml) == definitions.Disk("vda", "/pool/a & b.img")
    assert OWNER.description not in xml
    text = xml.replace("type='qemu'", "type='test'").replace(" machine='q35'", "")
    connection = libvirt.open("test:///default")
    try:
        made = connection.createXML(text)
        assert (made.UUIDString(), made.isPersistent(), made.maxMemory()) == (OWNER.opener_uuid, 0, 16 << 10)
    finally:
        connection.close()


def test_it_is_ended_whatever_happens_and_one_that_was_left_before(
    make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = make_host().connection
    flags: list[int] = []
    create = libvirt.virConnect.createXML

    def noted(self: libvirt.virConnect, xml: str, flag: int) -> libvirt.virDomain:
        flags.append(flag)
        text = xml.replace("type='qemu'", "type='test'").replace(" machine='q35'", "")
        made: libvirt.virDomain = create(self, text)  # the test driver knows neither flag
        return made

    monkeypatch.setattr(libvirt.virConnect, "createXML", noted)
    noted(connection, definitions.disk_opener(OWNER, "/old"), 0)

    def use() -> None:
        with block_commit.opened(connection, OWNER, "/pool/a.img") as domain:
            assert definitions.live_chain(domain.XMLDesc()) == ["/pool/a.img"]
            raise MachineError("the emulator was killed")

    with pytest.raises(MachineError):
        use()
    assert connection.listAllDomains() == []
    assert flags[1] == libvirt.VIR_DOMAIN_START_PAUSED | libvirt.VIR_DOMAIN_START_AUTODESTROY
