"""A node leaves the cluster by `klab node reset`, as lessons teach it, and joins again by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.lessons import services_by_name
from support.membership import await_ready, left_behind
from support.trouble import findings

from lab.waiting import Deadline, poll

if TYPE_CHECKING:
    from support.real_lab import Lab

BOOT = "cat /proc/sys/kernel/random/boot_id"
IMAGES = "ctr -n k8s.io images ls -q"


def repairs(lab: Lab) -> dict[tuple[str, str], str]:
    """What doctor tells to do, by check and node."""
    return {at: found["repair"] for at, found in findings(lab).items()}


def test_a_worker_that_was_reset_joins_again_by_hand(lab: Lab) -> None:
    boot, images = lab.on("w1", BOOT), set(lab.on("w1", IMAGES).split())
    assert left_behind(lab, "w1") != [], "or what is looked for is not what a member has"
    assert lab.result("node", "reset", lab.name, "w1")["left"] == ["w1"]
    assert {n["metadata"]["name"] for n in lab.get("nodes")["items"]} == {"cp1", "w2"}
    assert left_behind(lab, "w1") == []
    assert lab.on("w1", BOOT) == boot, "the machine lives on"
    assert images <= set(lab.on("w1", IMAGES).split())

    again = f"klab node join {lab.name} w1"
    assert again in lab.klab("status", lab.name, check=False).stdout
    # Until the pods that were there have come up elsewhere, doctor finds these, too.
    assert poll(lambda: repairs(lab) == {("nodes", "w1"): again}, Deadline.after(600)), repairs(lab)

    lab.on("w1", lab.klab("token", lab.name).stdout)
    await_ready(lab, "w1")
    assert lab.on("w1", "systemctl is-enabled kubelet").strip() == "enabled"
    addresses = {a["type"]: a["address"] for a in lab.get("node", "w1")["status"]["addresses"]}
    assert addresses["InternalIP"] == lab.addresses["w1"]
    services_by_name(lab, "w1")
    lab.klab("start", lab.name)
    assert lab.result("status", lab.name)["ready"] is True
