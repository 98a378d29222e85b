"""An image of one's own on real nodes: brought once to this machine, pulled on each worker, and gone again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from support.lessons import wait_for_end

if TYPE_CHECKING:
    from support.real_lab import Lab

APP = "registry.lan:5000/app:1"
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: app-{node}}}
spec:
  nodeName: {node}
  restartPolicy: Never
  containers:
  - name: app
    image: {image}
    imagePullPolicy: Always
    command: [sh, -c, "exit 0"]
"""


def test_an_image_of_ones_own_is_pulled_on_every_worker(lab: Lab, tmp_path: Path) -> None:
    """By its tag on one, by its digest on the other, from a registry that no node reaches."""
    box = json.loads((lab.folder / "lab.json").read_text())["box"]
    lab.klab("image", "fetch", "--box", box, "busybox")
    archive = tmp_path / "app.tar"
    kept = f"oci:{lab.home / 'images'}:docker.io/library/busybox:latest"
    subprocess.run(["skopeo", "copy", "--quiet", kept, f"oci-archive:{archive}:{APP}"], check=True)
    (loaded,) = lab.result("image", "load", lab.name, str(archive))["images"]
    assert loaded["image"] == APP
    (listed,) = lab.result("image", "list", lab.name)["images"]
    assert listed["complete"] is True
    assert listed["nodes"] == dict.fromkeys(lab.nodes, True)
    by_digest = f"{APP.rpartition(':')[0]}@{loaded['digest']}"
    for node, image in zip(("w1", "w2"), (APP, by_digest), strict=True):
        lab.kubectl("apply", "-f", "-", stdin=POD.format(node=node, image=image))
    for node in ("w1", "w2"):
        wait_for_end(lab, f"app-{node}")
        lab.kubectl("delete", "pod", f"app-{node}", "--now", "--wait=false")


def test_images_of_manifests_are_found_or_told(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "lesson.yaml").write_text(
        POD.format(node="w1", image=APP) + "---" + POD.format(node="w2", image="nginx")
    )
    found = lab.result("image", "check", str(tmp_path), "--lab", lab.name, "--offline")
    assert {each["image"]: each["place"] for each in found["images"]} == {
        APP: "lab",
        "docker.io/library/nginx:latest": "box",
    }


def test_an_image_that_is_removed_is_on_no_node(lab: Lab) -> None:
    lab.klab("image", "rm", lab.name, APP)
    assert lab.result("image", "list", lab.name)["images"] == []
    for node in lab.nodes:
        assert "registry.lan" not in lab.on(node, "ls /var/lib/docker-registry/docker/registry/v2/repositories"), node
