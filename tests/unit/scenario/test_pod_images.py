"""The images that manifests ask for, wherever they name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import NotFound, ScenarioError, UsageError
from lab.scenario import manifest_files
from lab.scenario.manifest_files import load_manifests
from lab.scenario.manifests import read_loosely
from lab.scenario.pod_images import images_of
from lab.scenario.yaml_source import manifest_budget

MANY = """\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: one}
  spec:
    initContainers: [{name: first, image: "busybox:1"}]
    containers: [{name: main, image: nginx, imagePullPolicy: Never}]
    ephemeralContainers: [{name: debug, image: "busybox:2"}]
    volumes:
    - {name: model, image: {reference: "ghcr.io/team/model:1", pullPolicy: IfNotPresent}}
    - {name: temporary, emptyDir: {}}
- apiVersion: batch/v1
  kind: CronJob
  metadata: {generateName: tick-}
  spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: "perl:5"}]}}}}}
---
apiVersion: example.org/v1
kind: Own
metadata: {name: own}
spec:
  podTemplate: {spec: {containers: [{name: c, image: "NOT AN IMAGE"}, {name: none}, {name: empty, image: ""}]}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: owns.example.org}
spec: {properties: {containers: {type: array, items: {properties: {image: {type: string}}}}, image: {type: string}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: text}, data: {image: nginx}}
"""


def test_every_place_that_can_name_one() -> None:
    found = images_of(read_loosely(MANY, "many", manifest_budget()))
    assert [(use.text, use.at) for use in found] == [
        ("busybox:1", "Pod one, container first"),
        ("nginx", "Pod one, container main"),
        ("busybox:2", "Pod one, container debug"),
        ("ghcr.io/team/model:1", "Pod one, volume model"),
        ("perl:5", "CronJob None, container c"),
        ("NOT AN IMAGE", "Own own, container c"),
    ]
    assert [use.never for use in found] == [False, True, False, False, False, False]
    assert str(found[1].reference) == "docker.io/library/nginx:latest"
    assert found[5].reference is None
    assert "is not an image" in found[5].problem or "invalid" in found[5].problem


@pytest.mark.parametrize(
    "value", [[], "x", 7, None, [1, [2]], {"containers": [1, {"image": {}}], "volumes": [{"image": {"reference": 3}}]}]
)
def test_what_is_shaped_otherwise_has_none(value: object) -> None:
    assert images_of([{"kind": "X", "spec": value}]) == []


def test_a_folder_is_read_without_what_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "deep" / ".git").mkdir(parents=True)
    (tmp_path / "deep" / "pod.yaml").write_text(MANY)
    (tmp_path / "deep" / ".git" / "config.yaml").write_text("{{ broken")
    (tmp_path / "chart.yaml").write_text("image: {{ .Values.image }}")
    (tmp_path / "kustomization.yaml").write_text("resources: [deep/pod.yaml]")
    (tmp_path / "notes.txt").write_text("image: x")
    found = load_manifests([str(tmp_path)])
    assert [Path(name).name for name in found.objects] == ["pod.yaml", "kustomization.yaml"] or [
        Path(name).name for name in found.objects
    ] == ["kustomization.yaml", "pod.yaml"]
    (left,) = found.left_out
    assert left.endswith("chart.yaml")


def test_a_file_that_was_named_has_to_be_yaml(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: {{ b }}: c")
    with pytest.raises(ScenarioError, match="cannot be read") as caught:
        load_manifests([str(tmp_path / "x.yaml")])
    assert "helm template" in caught.value.hint
    with pytest.raises(NotFound, match="there is no file"):
        load_manifests([str(tmp_path / "y.yaml")])
    with pytest.raises(UsageError, match="names a user that does not exist"):
        load_manifests(["~no.such.user/y.yaml"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="there is no manifest in"):
        load_manifests([str(tmp_path / "empty")])


def test_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_files, "MOST_FILES", 1)
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match="has 2 manifests"):
        load_manifests([str(tmp_path)])


class Stdin:
    def __init__(self, data: bytes) -> None:
        import io

        self.buffer = io.BytesIO(data)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Stdin(MANY.encode()))
    assert len(images_of(load_manifests(["-"]).objects["standard input"])) == 6
    monkeypatch.setattr("sys.stdin", Stdin(b"\xff"))
    with pytest.raises(ScenarioError, match="not UTF-8"):
        load_manifests(["-"])
    monkeypatch.setattr(manifest_files, "MANIFEST_BYTES", 3)
    monkeypatch.setattr("sys.stdin", Stdin(b"a: bcd"))
    with pytest.raises(UsageError, match="more than"):
        load_manifests(["-"])
