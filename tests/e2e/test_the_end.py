"""What ends a lab: certificates that run out, which klab renews, and `klab destroy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.host import look_at_host
from support.trouble import await_findings, heal, repair

if TYPE_CHECKING:
    from support.real_lab import Lab


def test_certificates_that_expired_are_renewed(lab: Lab) -> None:
    for node in lab.nodes:
        lab.on(node, "systemctl stop chrony; date -s '+400 days' > /dev/null; systemctl start chrony")
    found = await_findings(lab, ("certificates", "cp1"))
    assert "has expired" in found["certificates", "cp1"]["what"]
    done = repair(lab, found["certificates", "cp1"])
    assert done.returncode == 0, done.stdout + done.stderr
    heal(lab)
    lab.kubectl("create", "configmap", "renewed")
    assert lab.result("status", lab.name)["ready"] is True


def test_destroy_leaves_nothing(lab: Lab) -> None:
    lab.klab("destroy", "-y", "e2e")
    assert not lab.folder.exists()
    assert look_at_host() == lab.before
    # The box's own disk stays in the pool, as a link to the box; nothing that carries the lab's name does.
    assert [str(p) for p in lab.home.rglob("*") if "e2e" in p.relative_to(lab.home).as_posix()] == []
    volumes = [p.name for p in (lab.home / "realm" / "lib" / "images").glob("*")]
    assert [v for v in volumes if not v.endswith("_box.img")] == []
