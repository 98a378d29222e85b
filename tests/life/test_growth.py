"""A lab lives on: a node restarts, nodes go and come, all lose their power."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from support.facts import facts
from support.lessons import nginx_behind_a_node_port, services_by_name
from support.membership import left_behind
from support.trouble import STALE_CLOCK

from lab.waiting import Deadline, poll

if TYPE_CHECKING:
    from support.real_lab import Lab


def test_a_reboot_changes_nothing(lab: Lab) -> None:
    boot = "cat /proc/sys/kernel/random/boot_id"
    first, before = facts(lab, "w1"), lab.on("w1", boot)
    lab.on("w1", f"{STALE_CLOCK}; rm /etc/systemd/system/chrony.service.d/klab.conf")
    lab.on("w1", "systemctl reboot", check=False)
    deadline = time.monotonic() + 600
    after = before
    while time.monotonic() < deadline and after in {"", before}:
        time.sleep(5)
        after = lab.on("w1", boot, check=False)
    assert after not in {"", before}
    now = facts(lab, "w1")
    for key in ("hostname", "hostkey", "address", "macs", "uuid", "machine_id", "swap", "forward", "bridge"):
        assert now[key] == first[key], key
    assert lab.on("w1", "systemctl is-active chrony", check=False).strip() == "failed", "see the next test"


def test_a_lab_shrinks_and_grows(lab: Lab) -> None:
    key = "cat /etc/ssh/ssh_host_ed25519_key.pub"  # new with the disk; the machine's id comes from its UUID
    before = lab.on("w2", key)
    gone = lab.result("scale", lab.name, "--workers", "1")
    assert gone["left"] == ["w2"]
    assert lab.nodes == ["cp1", "w1"]
    assert {n["metadata"]["name"] for n in lab.get("nodes")["items"]} == {"cp1", "w1"}
    assert "w2" not in lab.on("w1", "cat /etc/hosts")
    assert lab.on("w1", "systemctl is-active chrony").strip() == "active", "an update brings its clock's files, too"
    assert lab.result("scale", lab.name, "--workers", "1")["left"] == []
    with lab.crashing("w2"):
        back = lab.result("scale", lab.name, "--workers", "2")
    assert back["joined"] == ["w2"]
    retried = [
        e for e in map(json.loads, (lab.folder / "events.jsonl").read_text().splitlines()) if e["state"] == "retry"
    ]
    assert (retried[-1]["node"], retried[-1]["text"]) == ("w2", "its virtual machine crashed")
    assert lab.on("w2", key) != before
    assert "w2" in lab.on("w1", "cat /etc/hosts")
    assert lab.result("status", lab.name)["ready"] is True
    assert not list(lab.folder.rglob("*.iso"))


KILLED = """
import os, signal
from lab.cluster.acts import node_reset
def killed(*_words, **_options):
    os.kill(os.getpid(), signal.SIGKILL)
OWNER.STEP = killed
from lab.cli import app
app.run(WORDS)
"""


def killed_at(lab: Lab, owner: str, step: str, *words: str) -> None:
    """klab, killed when it comes to a step of a node's reset, or of its join."""
    code = KILLED.replace("OWNER", owner).replace("STEP", step).replace("WORDS", repr(list(words)))
    done = subprocess.run([sys.executable, "-c", code], env=lab.env, capture_output=True, text=True, timeout=3600)
    assert done.returncode == -9, done.stdout + done.stderr


def test_a_node_leaves_and_joins_again_though_klab_is_killed(lab: Lab) -> None:
    boot = "cat /proc/sys/kernel/random/boot_id"
    before, reset = lab.on("w2", boot), ("node", "reset", lab.name, "w2")
    for step in ("_clean", "_forget"):
        killed_at(lab, "node_reset._Membership", step, *reset)
    assert lab.result(*reset)["left"] == ["w2"]
    assert left_behind(lab, "w2") == []
    lab.klab("reboot", lab.name, "w2")
    assert left_behind(lab, "w2") == [], "nothing comes back by itself"
    boot_after = lab.on("w2", boot)
    assert boot_after != before
    join = ("node", "join", lab.name, "w2")
    for owner, step in (("node_reset.Watch", "until"), ("node_reset", "revoke_token")):
        killed_at(lab, owner, step, *join)
    lab.klab(*join)
    assert lab.on("w2", boot) == boot_after
    assert lab.on("w2", "ls -d /etc/klab 2> /dev/null || true") == "", "no key is left"
    assert lab.result("status", lab.name)["ready"] is True
    nginx_behind_a_node_port(lab)
    services_by_name(lab, "w2")


def test_power_loss_of_all_then_start(lab: Lab) -> None:
    lab.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    lab.kubectl("create", "deployment", "young", "--image=nginx:latest", "--replicas=2")
    lab.kubectl("rollout", "status", "deployment/young", "--timeout=20m")
    before = lab.addresses
    # What the nodes have written in the last half minute, about these pods' networks for one, is on no disk yet.
    lab.klab("stop", lab.name, "--force")
    off = lab.result("status", lab.name, check=False)
    assert {n["machine"] for n in off["nodes"]} == {"stopped"}
    lab.klab("start", lab.name)
    assert lab.get("configmap", "kept")["data"] == {"a": "b"}
    assert lab.result("status", lab.name)["ready"] is True
    assert lab.addresses == before
    for node in lab.nodes:
        assert lab.on(node, "systemctl is-active chrony").strip() == "active", node
    # Whoever lists them may be told what was before; who runs something in them is not.
    for pod in [p["metadata"]["name"] for p in lab.get("pods", "-l", "app=young")["items"]]:
        assert poll(lambda pod=pod: lab.kubectl("exec", pod, "--", "echo", "up", check=False), Deadline.after(900)), pod
