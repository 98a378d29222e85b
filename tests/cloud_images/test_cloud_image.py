"""A lab on another distribution's image: klab finds nothing of its own in it, and the lab lives all the same.

The image is made of Debian's packages alone (`support.strangers_image`). Each step of the lab's life is looked at on
the nodes; the last one leaves nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import strangers_image
from support.host import look_at_host
from support.real_lab import Lab, import_disks

from lab.store import Home

pytestmark = [
    pytest.mark.incremental,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make the image"),
]

BOX = "debian-12-cloud"
NAME = "stranger"
SCENARIO = f"""version: 1
name: {NAME}
topology: {{control_planes: 1, workers: 1}}
cpus: 1
memory: 768
disk: 6G
box: {BOX}
bootstrap: none
"""
NODES = ["cp1", "w1"]


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest) -> Path:
    assert request.config.cache is not None
    return strangers_image.build(request.config.cache.mkdir("strangers-image"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if kept := os.environ.get("KLAB_TEST_HOME"):  # as in support.real_lab
        yield import_disks(Path(kept), str(Path(kept).parent / "scenario.yaml"), NAME)
        return
    folder = Path(tmp_path_factory.mktemp("stranger"))
    (folder / "scenario.yaml").write_text(SCENARIO)
    home = folder / "home"
    home.mkdir()
    found = Lab(home, str(folder / "scenario.yaml"), NAME, look_at_host(home))
    yield found
    found.destroy()


def on(lab: Lab, node: str, command: str) -> str:
    return lab.klab("ssh", NAME, node, "--", command).stdout.strip()


def test_a_lab_is_refused_until_there_is_the_box(lab: Lab) -> None:
    done = lab.klab("create", lab.scenario, check=False)
    assert done.returncode == 7
    assert f"klab box build {BOX} --image FILE" in done.stderr
    assert "https://cloud.debian.org/images/cloud/bookworm/latest/" in lab.klab("box", "build", BOX, check=False).stderr


def test_the_box_is_made_of_the_image(lab: Lab, image: Path) -> None:
    built = lab.result("box", "build", BOX, "--image", str(image))
    assert (built["name"], built["kubernetes"]) == (BOX, None)
    assert lab.result("box", "build", BOX, "--image", str(image))["digest"] == built["digest"]
    lab.klab("box", "verify")


def test_create(lab: Lab) -> None:
    assert lab.create() == 0
    assert lab.created is not None
    assert [node["name"] for node in lab.created["nodes"]] == NODES


# One login for all of it, which alone takes an emulated node seconds.
LOOK = """
echo "hostname $(hostname)"
for nic in eth0 eth1; do
    echo "$nic $(cat /sys/class/net/$nic/address) $(ip -4 -o addr show dev $nic | awk '{print $4}')"
done
for name in NODES; do echo "$name $(getent ahostsv4 $name | awk '{print $1; exit}')"; done
echo "gib $(df --output=size -BG / | tail -n 1 | tr -dc 0-9)"
echo "root $(sudo id -u)"
echo "boot $(cat /proc/sys/kernel/random/boot_id)"
echo "key $(cat /etc/ssh/ssh_host_ed25519_key.pub)"
echo "klab's $(ls -d /usr/bin/kubelet /usr/bin/containerd /usr/sbin/chronyd /usr/sbin/qemu-ga 2> /dev/null | wc -l)"
echo "left $(sudo ls -d /etc/klab /etc/systemd/system/klab-node.service /var/lib/cloud/instance 2> /dev/null | wc -l)"
echo "failed $(systemctl --failed --no-legend --plain | wc -l)"
echo "other $(ssh-keyscan -T 60 OTHER 2> /dev/null | grep -c ed25519)"
echo "marker $(cat marker 2> /dev/null)"
echo "now $(date +%s)"
"""


def look(lab: Lab, node: str) -> dict[str, str]:
    """Names, addresses, time and disk of a node, which are as the plan has them; what it said of itself."""
    (other,) = set(NODES) - {node}
    said = on(lab, node, LOOK.replace("NODES", " ".join(NODES)).replace("OTHER", other))
    seen = dict(line.split(" ", 1) for line in said.splitlines())
    planned = next(each for each in lab.plan["nodes"] if each["name"] == node)
    length = lab.plan["networks"]["cidr"].partition("/")[2]
    assert seen["hostname"] == node
    assert seen["eth0"].startswith(planned["management_mac"])
    assert seen["eth1"] == f"{planned['mac']} {planned['address']}/{length}"
    assert {name: seen[name] for name in NODES} == lab.addresses
    assert int(seen["gib"]) >= planned["disk"] - 1, "the disk has not grown"
    assert (seen["root"], seen["other"], seen["failed"]) == ("0", "1", "0")
    assert seen["klab's"] == "0", "it is no stranger's image"
    assert seen["left"] == "0", "something of the seed is left"
    record = json.loads((lab.folder / "lab.json").read_text())
    clock = record["epoch"] + (time.time() - record["epoch"]) * record["dilation"]
    assert abs(float(seen["now"]) - clock) < 60
    return seen


@pytest.mark.parametrize("node", NODES)
def test_a_node_is_what_the_plan_says(lab: Lab, node: str) -> None:
    look(lab, node)


def test_status_and_doctor_say_that_it_is_well(lab: Lab) -> None:
    assert f"box {BOX}" in lab.klab("status", NAME).stdout
    assert lab.result("status", NAME)["kubernetes"] is None
    lab.klab("doctor", NAME)


def test_snapshot_and_restore(lab: Lab) -> None:
    on(lab, "w1", "echo first > marker; sync")
    lab.klab("snapshot", "take", NAME, "one")
    on(lab, "w1", "echo second > marker")
    lab.klab("restore", NAME, "one")
    assert look(lab, "w1")["marker"] == "first"


def test_reboot(lab: Lab) -> None:
    before = {node: look(lab, node) for node in NODES}
    lab.klab("reboot", NAME)
    for node in NODES:
        seen = look(lab, node)
        assert seen["boot"] != before[node]["boot"]
        assert seen["key"] == before[node]["key"]


def test_destroy_leaves_nothing(lab: Lab) -> None:
    lab.klab("destroy", "-y", NAME)
    assert not lab.folder.exists()
    assert look_at_host(lab.home) == lab.before
    lab.klab("box", "rm", BOX)
    assert not list(Home(lab.home).boxes.iterdir())
