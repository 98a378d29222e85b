"""Scenarios on a cloud image: plain machines and nothing else, and each refusal says what to write instead."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from golden.test_seeds import SECRETS

from lab.cli.commands.plan import command as plan_command
from lab.cli.commands.scenarios import command as scenarios_command
from lab.errors import ScenarioError
from lab.plan.decide import decide
from lab.plan.file import from_json, to_json
from lab.plan.foreign import plan_problems
from lab.plan.model import Plan
from lab.plan.needs import lacking
from lab.render.cloudinit import render_seed
from lab.scenario.catalog import Catalog
from lab.scenario.parser import parse_scenario
from lab.scenario.yaml_source import read_tree

PLAIN = "version: 1\nname: x\nbox: rocky-9\nbootstrap: none\n"


def plan_of(catalog: Catalog, text: str) -> Plan:
    return decide(parse_scenario(text, catalog), catalog)


def problems(catalog: Catalog, text: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        parse_scenario(text, catalog)
    return list(caught.value.details)


def test_plain_machines_need_no_version_and_may_name_one(catalog: Catalog) -> None:
    for more in ("", "kubernetes: {version: '1.28.0', runtime: docker, cni: calico}\n"):
        plan = plan_of(catalog, PLAIN + more)
        assert plan.cloud_image
        assert plan.box_kubernetes == ""
        assert lacking(plan, catalog) == []
        assert plan_problems(plan) == []
    assert not plan_of(catalog, "version: 1\nname: x\nbootstrap: none\n").cloud_image


@pytest.mark.parametrize("bootstrap", ["bootstrap: full\n", "bootstrap: prepared\n", ""])
def test_a_cluster_is_refused_with_what_to_write(catalog: Catalog, bootstrap: str) -> None:
    (problem,) = problems(catalog, PLAIN.replace("bootstrap: none\n", bootstrap))
    assert problem.startswith(f"line {4 if bootstrap else 3}: bootstrap: " if bootstrap else "line 3: box: ")
    assert "the cloud image of Rocky Linux 9, in which nothing of Kubernetes is" in problem
    assert "bootstrap: none" in problem
    assert "box: debian-12 or debian-13" in problem


def test_a_disk_that_the_image_does_not_fit_on(catalog: Catalog) -> None:
    (problem,) = problems(catalog, f"{PLAIN}disk: 8G\n")
    assert "needs 10 GiB" in problem
    nodes = "topology: {nodes: [{name: a, role: control-plane, disk: 8G}, {name: b}]}\n"
    (problem,) = problems(catalog, PLAIN + nodes)
    assert "topology.nodes[0].disk: the box alone needs 10 GiB" in problem
    assert plan_of(catalog, PLAIN.replace("rocky-9", "ubuntu-24.04") + "disk: 8G\n").disk == 8


def test_its_plan_is_read_as_it_was_written_and_others_stay_as_they_were(catalog: Catalog) -> None:
    plan = plan_of(catalog, PLAIN)
    assert json.loads(to_json(plan))["cloud_image"] is True
    assert from_json(to_json(plan)) == plan
    other = plan_of(catalog, "version: 1\nname: x\n")
    assert "cloud_image" not in json.loads(to_json(other))
    assert from_json(to_json(other)) == other


def test_a_strangers_plan_cannot_ask_for_a_cluster_on_it(catalog: Catalog) -> None:
    (problem,) = plan_problems(replace(plan_of(catalog, PLAIN), bootstrap="full"))
    assert "of a cloud image" in problem


def test_the_seed_starts_its_script_and_takes_for_granted_nothing_of_klabs_box(catalog: Catalog) -> None:
    plan = plan_of(catalog, PLAIN)
    seed = read_tree(render_seed(plan, plan.nodes[0], SECRETS, slow_host=True)["user-data"]).data
    files = {file["path"]: file["content"] for file in seed["write_files"]}
    assert list(files) == ["/etc/hosts", "/etc/klab/node.sh", "/etc/systemd/system/klab-node.service"]
    unit = files["/etc/systemd/system/klab-node.service"]
    assert "ExecStart=/bin/bash /etc/klab/node.sh\n" in unit
    assert [command[:2] for command in seed["runcmd"]] == [
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable"],
        ["systemctl", "start"],
    ]
    script = files["/etc/klab/node.sh"]
    assert not [word for word in ("chrony", "containerd", "kubelet", "docker", "br_netfilter") if word in script]
    assert "rm -f /etc/systemd/system/klab-node.service" in script


def test_plan_and_scenarios_are_read_easily() -> None:
    shown = CliRunner().invoke(plan_command, ["bare-rocky-9"]).stdout
    assert "box      rocky-9, the cloud image of Rocky Linux 9: nothing of Kubernetes is in it" in shown
    assert "SELinux enforcing" in shown
    assert "kubernetes" not in shown
    listed = CliRunner().invoke(scenarios_command, []).stdout
    assert "6 CPUs and 6 GiB RAM in all, Rocky Linux 9, no Kubernetes" in listed
    build = "klab box build ubuntu-24.04 --image noble-server-cloudimg-amd64.img"
    assert f"missing: a box: {build}, from https://cloud-images.ubuntu.com/noble/current/" in listed
    found = {each["name"]: each for each in json.loads(CliRunner().invoke(scenarios_command, ["--json"]).stdout)}
    assert found["bare-rocky-9"]["kubernetes"] is None
