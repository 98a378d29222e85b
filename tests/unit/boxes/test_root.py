"""What of a recipe's programs a box has as Debian packages, and what its recipe says of a node's tools."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lab.boxes.recipe import load_recipe
from lab.boxes.root import packaged


@pytest.mark.parametrize(("box", "version"), [("debian-13", "1.37.2"), ("debian-12", "1.16.3")])
def test_kubernetes_programs_and_the_cris_are_packages(box: str, version: str) -> None:
    found = {package.name: of for package, of in packaged(load_recipe(box, version)).items()}
    assert found == {"kubeadm": version, "kubelet": version, "kubectl": version, "cri-tools": "1.37.0"}


def test_a_program_that_is_not_in_the_box_is_no_package() -> None:
    recipe = load_recipe("debian-13", "1.37.2")
    without = tuple(place for place in recipe.install if place[1] != "crictl")
    assert "cri-tools" not in {package.name for package in packaged(replace(recipe, install=without))}


@pytest.mark.parametrize(("box", "version"), [("debian-13", "1.37.2"), ("debian-12", "1.23.0")])
def test_a_node_has_what_volumes_profiles_and_charts_need(box: str, version: str) -> None:
    recipe = load_recipe(box, version)
    assert {"apparmor", "apparmor-utils", "nfs-common", "open-iscsi"} <= set(recipe.packages)
    (helm,) = (program for program in recipe.programs if program.name == "helm")
    assert helm.module.endswith(helm.version.partition(".")[0])
    assert dict(recipe.install)["/usr/bin/helm"] == "helm"
