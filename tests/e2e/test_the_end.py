"""Last of all `klab destroy`, of a lab at work that has snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.host import look_at_host

if TYPE_CHECKING:
    from support.real_lab import Lab


def test_destroy_leaves_nothing(lab: Lab) -> None:
    lab.klab("destroy", "-y", lab.name)
    assert not lab.folder.exists()
    assert look_at_host(lab.home) == lab.before
    # The box's own disk stays in the pool, as a link to the box; nothing that carries the lab's name does.
    assert [str(p) for p in lab.home.rglob("*") if lab.name in p.relative_to(lab.home).as_posix()] == []
    volumes = [p.name for p in (lab.home / "realm" / "lib" / "images").glob("*")]
    assert [v for v in volumes if not v.endswith("_box.img")] == []
