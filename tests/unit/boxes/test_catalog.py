"""The catalog: what a scenario may name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab import resources
from lab.components.kubernetes import DEFAULT
from lab.errors import BoxError
from lab.scenario.catalog import load_catalog, merge, parse_recipe

COMPONENTS = {
    "etcd": "3.6.6",
    "etcd_image": "3.6.6-0",
    "coredns": "1.13.1",
    "pause": "3.10.1",
    "flannel": "0.28.4",
    "flannel_cni": "0.9.1",
}


def recipe(**changes: Any) -> dict[str, Any]:
    base = {"name": "a", "runtimes": ["containerd"], "cnis": ["none"], "kubernetes": {"1.35.4": COMPONENTS}}
    return {**base, **changes}


def test_the_shipped_recipes_make_a_catalog() -> None:
    catalog = load_catalog()
    assert [box for box in catalog.boxes if box not in catalog.images] == ["debian-12", "debian-13"]
    assert list(catalog.kubernetes) == [
        "1.16.3", "1.23.0", "1.28.0", "1.31.14", "1.32.13", "1.33.13", "1.34.4", "1.35.4", "1.36.3", "1.37.2",
    ]  # fmt: skip
    assert DEFAULT in catalog.kubernetes
    assert catalog.runtimes == ("containerd", "docker")
    assert {box: each.runtimes for box, each in catalog.recipes.items() if box not in catalog.images} == {
        "debian-12": ("docker",),
        "debian-13": ("containerd",),
    }
    assert catalog.cnis == ("bridge", "flannel", "none")


def test_the_table_of_versions_has_every_cell_once() -> None:
    table = (resources.path("docs") / "versions.md").read_text(encoding="utf-8")
    rows = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in table.splitlines() if line[:3] == "| 1"]
    cells = [(version, box) for box, each in load_catalog().recipes.items() for version in each.kubernetes]
    assert sorted(rows) == sorted(cells)
    assert f"which is {DEFAULT}" in table


def test_image_references_are_the_ones_kubeadm_asks_for() -> None:
    # kubeadm config images list --kubernetes-version v1.35.4, and flannel's manifest
    assert sorted(load_catalog().kubernetes["1.35.4"].images.values()) == [
        "ghcr.io/flannel-io/flannel:v0.28.4",
        "registry.k8s.io/coredns/coredns:v1.13.1",
        "registry.k8s.io/etcd:3.6.6-0",
        "registry.k8s.io/kube-apiserver:v1.35.4",
        "registry.k8s.io/kube-controller-manager:v1.35.4",
        "registry.k8s.io/kube-proxy:v1.35.4",
        "registry.k8s.io/kube-scheduler:v1.35.4",
        "registry.k8s.io/pause:3.10.1",
    ]


def test_a_minor_version_means_its_newest_patch() -> None:
    patches = dict.fromkeys(("1.9.2", "1.9.10", "1.10.1", "1.35.4"), COMPONENTS)
    catalog = merge([parse_recipe(recipe(kubernetes=patches))])
    assert [catalog.full_version(v) for v in ("1.9", "1.10", "1.35", "1.9.2")] == [
        "1.9.10",
        "1.10.1",
        "1.35.4",
        "1.9.2",
    ]
    # What is not known stays as it was written, for the message.
    assert [catalog.full_version(v) for v in ("1.1", "1", "", "1.35.4.1")] == ["1.1", "1", "", "1.35.4.1"]


def test_a_network_that_needs_packages_only_is_there_where_they_are() -> None:
    packages = ["containernetworking-plugins", "nftables", "curl"]
    assert parse_recipe(recipe(debian={"packages": packages})).cnis == ("none", "bridge")
    assert parse_recipe(recipe(debian={"packages": packages[1:]})).cnis == ("none",)
    assert parse_recipe(recipe(cnis=["bridge"], debian={"packages": packages})).cnis == ("bridge",)


def test_a_recipe_names_the_versions_of_its_networks() -> None:
    without = {key: value for key, value in COMPONENTS.items() if not key.startswith("flannel")}
    assert parse_recipe(recipe(kubernetes={"1.35.4": without})).kubernetes["1.35.4"].components == ()
    with pytest.raises(ValueError, match=r"name exactly these components: .*flannel_cni"):
        parse_recipe(recipe(cnis=["flannel"], kubernetes={"1.35.4": without}))


def test_versions_are_sorted_by_number() -> None:
    catalog = merge([parse_recipe(recipe(kubernetes=dict.fromkeys(("1.35.10", "1.9.0", "1.35.9"), COMPONENTS)))])
    assert list(catalog.kubernetes) == ["1.9.0", "1.35.9", "1.35.10"]
    assert catalog.kubernetes["1.35.10"].minor == (1, 35)


def test_two_recipes_may_not_disagree_on_a_version() -> None:
    other = {**COMPONENTS, "etcd": "3.5.0"}
    with pytest.raises(BoxError, match=r"different components for Kubernetes 1\.35\.4"):
        merge([parse_recipe(recipe()), parse_recipe(recipe(name="b", kubernetes={"1.35.4": other}))])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "mapping"),
        (recipe(kubernetes={}), "kubernetes"),
        (recipe(kubernetes={1.35: COMPONENTS}), "not a full version"),
        (recipe(kubernetes={"1.35.4": {"etcd": "3.6.6"}}), "name exactly these components"),
        (recipe(kubernetes={"1.35.4": {**COMPONENTS, "pause": 3.1}}), "pause: a text is missing"),
        (recipe(name=""), "name"),
        (recipe(cnis="flannel"), "cnis"),
    ],
)
def test_a_recipe_of_another_shape_is_refused(data: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_recipe(data)


def test_a_damaged_recipe_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "recipe.yaml").write_text("name: [")
    with pytest.raises(BoxError, match="recipe broken cannot be read"):
        load_catalog(tmp_path)
