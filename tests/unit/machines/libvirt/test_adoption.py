"""A machine moves from the disk that Vagrant made to one of klab's, and continues where a kill has left that."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.etree import ElementTree

import pytest

from lab.errors import MachineError
from lab.machines.libvirt import adoption

FOLDER = "/pool/klab-x"
BOX = "/pool/box.img"


@dataclass
class Store:
    """A lab's files; those of `strange` are root's alone."""

    strange: set[str]
    reserved: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    defined: list[str] = field(default_factory=list)

    def readable(self, name: str) -> bool:
        return name not in self.strange

    def path(self, name: str) -> str:
        return f"{FOLDER}/{name}"

    def reserve(self, *names: str) -> None:
        self.reserved += names

    def refresh(self) -> None:
        pass

    def remove(self, names: list[str]) -> None:
        self.removed += names

    def define(self, xml: str) -> None:
        self.defined.append(xml)


@dataclass
class Domain:
    """A machine with this chain, the one it writes to first; `looks` until a copy ends; `deaf`: it never starts one."""

    chain: list[str]
    next: str
    looks: int = 2
    deaf: bool = False
    copying: bool = False
    done: list[str] = field(default_factory=list)

    def name(self) -> str:
        return "klab-demo_cp1"

    def XMLDesc(self, flags: int = 0) -> str:  # noqa: N802 - libvirt's name
        below = ""
        for path in reversed(self.chain[1:] if not flags else []):
            below = f"<backingStore><source file='{path}'/>{below}</backingStore>"
        source = self.next if flags else self.chain[0]
        return (
            f"<domain><devices><disk type='file' device='disk'><source file='{source}'/>{below}"
            "<target dev='vda' bus='virtio'/></disk></devices></domain>"
        )

    def snapshotCreateXML(self, xml: str, flags: int) -> None:  # noqa: N802
        top = ElementTree.fromstring(xml).find("disks/disk/source").get("file")  # type: ignore[union-attr]  # noqa: S314
        assert "<memory snapshot='no'/>" in xml
        self.chain, self.next = [top, *self.chain], top
        self.done.append("layer")

    def blockJobInfo(self, _device: str) -> dict[str, int]:  # noqa: N802
        if not self.copying:
            return {}
        self.looks -= 1
        if self.looks < 0:
            self.chain, self.copying = [self.chain[0], self.chain[-1]], False
        return {"cur": 1, "end": 2} if self.copying else {}

    def blockRebase(self, device: str, base: str) -> None:  # noqa: N802
        assert (device, base) == ("vda", BOX)
        self.copying = not self.deaf
        self.done.append("copy")


def adopt(store: Store, domain: Domain) -> None:
    adoption.adopt(store, domain, "new.img")  # type: ignore[arg-type]


def test_a_disk_of_vagrants_gives_way_to_one_of_klabs() -> None:
    store, domain = Store({"first.img"}), Domain([f"{FOLDER}/first.img", BOX], f"{FOLDER}/first.img")
    adopt(store, domain)
    assert domain.chain == [f"{FOLDER}/new.img", BOX]
    assert (store.reserved, store.removed, store.defined) == (["new.img"], ["first.img"], [])
    adopt(store, domain)
    assert domain.done == ["layer", "copy"], "once"


@pytest.mark.parametrize("copying", [False, True])
def test_a_killed_one_is_continued(copying: bool) -> None:
    chain = [f"{FOLDER}/new.img", f"{FOLDER}/first.img", BOX]
    store, domain = Store({"first.img"}), Domain(chain, chain[1], copying=copying)
    adopt(store, domain)
    assert domain.chain == [f"{FOLDER}/new.img", BOX]
    assert domain.done == ([] if copying else ["copy"])
    assert (store.reserved, store.removed) == ([], ["first.img"])
    assert f"{FOLDER}/new.img" in store.defined[0], "its next start is from the same disk"


def test_what_klab_may_read_is_left_as_it_is() -> None:
    store, domain = Store(set()), Domain([f"{FOLDER}/first.img", BOX], f"{FOLDER}/first.img")
    adopt(store, domain)
    assert domain.done == store.reserved == store.removed == []


def test_a_copy_that_comes_to_nothing_deletes_nothing() -> None:
    store = Store({"first.img"})
    domain = Domain([f"{FOLDER}/first.img", BOX], f"{FOLDER}/first.img", deaf=True)
    with pytest.raises(MachineError, match="was not taken over from Vagrant") as caught:
        adopt(store, domain)
    assert caught.value.details == (f"{FOLDER}/new.img", f"{FOLDER}/first.img", BOX)
    assert store.removed == []
