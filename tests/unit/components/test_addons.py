"""Add-ons: what each has to hold to, and what some of them promise of their own."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
import yaml

from lab import resources
from lab.boxes.recipe import Recipe, load_pack, load_recipe
from lab.components.addons import addons
from lab.components.addons.base import LABEL, Addon
from lab.components.addons.local_path import HELPER_IMAGE
from lab.components.cluster import Minor
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.plan.versions import with_version
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario

# Every box has it.
BUSYBOX = "docker.io/library/busybox:latest"
RBAC = "rbac.authorization.k8s.io/v1"
CLUSTER_WIDE = {
    "Namespace": "v1",
    "ClusterRole": RBAC,
    "ClusterRoleBinding": RBAC,
    "StorageClass": "storage.k8s.io/v1",
    "IngressClass": "networking.k8s.io/v1",
    "APIService": "apiregistration.k8s.io/v1",
    "CustomResourceDefinition": "apiextensions.k8s.io/v1",
    "ValidatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    "MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
}
NAMESPACED = {
    "ServiceAccount": "v1",
    "ConfigMap": "v1",
    "Secret": "v1",
    "Service": "v1",
    "Role": RBAC,
    "RoleBinding": RBAC,
    "Deployment": "apps/v1",
    "DaemonSet": "apps/v1",
    "StatefulSet": "apps/v1",
    "PodDisruptionBudget": "policy/v1",
    "Ingress": "networking.k8s.io/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
}
# What every cluster of kubeadm has.
NAMESPACES = {"default", "kube-system", "kube-public", "kube-node-lease"}
ROLES = {"system:auth-delegator", "extension-apiserver-authentication-reader", "cluster-admin", "admin", "edit", "view"}
DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
RBAC_NAME = re.compile(r"[a-z0-9]([-:a-z0-9.]{0,251}[a-z0-9])?")
QUANTITY = {"cpu": re.compile(r"[0-9]{1,3}m"), "memory": re.compile(r"[0-9]{1,3}Mi")}

each = pytest.mark.parametrize("addon", [pytest.param(addon, id=name) for name, addon in addons().items()])


@functools.cache
def plan_of(minor: Minor | None = None) -> Plan:
    catalog = load_catalog()
    text = "version: 1\nname: a\ntopology: {control_planes: 1, workers: 2}\n"
    plan = decide(parse_scenario(text, catalog), catalog)
    if minor is None:
        return plan
    return with_version(plan, replace(plan.kubernetes.versions, version=f"{minor[0]}.{minor[1]}.0"))


def manifest(addon: Addon) -> list[dict[str, Any]]:
    return list(addon.manifest(plan_of(max(addon.since, plan_of().kubernetes.versions.minor))))


def key(thing: Mapping[str, Any]) -> tuple[str, str, str]:
    return thing["kind"], thing["metadata"].get("namespace", ""), thing["metadata"]["name"]


def names(things: list[dict[str, Any]], kind: str) -> set[str]:
    return {thing["metadata"]["name"] for thing in things if thing["kind"] == kind}


def pods(addon: Addon) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each object of the add-on that makes pods, and the pods' spec."""
    for thing in manifest(addon):
        if thing["kind"] in {"Deployment", "DaemonSet", "StatefulSet"}:
            yield thing, thing["spec"]["template"]["spec"]


def containers(addon: Addon) -> Iterator[dict[str, Any]]:
    for _, pod in pods(addon):
        yield from (*pod.get("initContainers", ()), *pod["containers"])


@functools.cache
def recipe(addon: Addon) -> Recipe:
    return load_pack(addon, load_recipe("debian-13", plan_of().kubernetes.versions.version))


def own_kinds(things: list[dict[str, Any]]) -> dict[str, tuple[str, bool]]:
    """The kinds that the add-on itself brings: their API version, and whether they are in a namespace."""
    return {
        thing["spec"]["names"]["kind"]: (
            f"{thing['spec']['group']}/{thing['spec']['versions'][0]['name']}",
            thing["spec"]["scope"] == "Namespaced",
        )
        for thing in things
        if thing["kind"] == "CustomResourceDefinition"
    }


@each
def test_it_says_what_it_is(addon: Addon) -> None:
    assert DNS_NAME.fullmatch(addon.name)
    assert 0 < len(addon.summary) <= 60
    assert addon.summary == addon.summary.strip().rstrip(".")
    assert re.fullmatch(r"\d+(\.\d+){1,2}", addon.version)
    for image in addon.images.values():
        assert re.fullmatch(r"[a-z0-9.-]+\.[a-z]+(/[a-z0-9-]+)+:v?[0-9.]+", image)


@each
def test_its_objects_are_of_kinds_that_there_are_and_have_names(addon: Addon) -> None:
    things = manifest(addon)
    own = own_kinds(things)
    known = {**CLUSTER_WIDE, **NAMESPACED, **{kind: version for kind, (version, _) in own.items()}}
    assert things
    for thing in things:
        assert thing["apiVersion"] == known[thing["kind"]]
        form = RBAC_NAME if thing["apiVersion"] == RBAC else DNS_NAME
        assert form.fullmatch(thing["metadata"]["name"])
    keys = [key(thing) for thing in things]
    assert len(set(keys)) == len(keys)


@each
def test_its_objects_can_be_sent_and_are_the_same_each_time(addon: Addon) -> None:
    things = manifest(addon)
    assert json.loads(json.dumps(things)) == things
    assert manifest(addon) == things
    assert "None" not in json.dumps(things)
    assert "null" not in json.dumps(things)


@each
def test_a_namespace_is_there_before_what_is_in_it(addon: Addon) -> None:
    things = manifest(addon)
    inside = {*NAMESPACED, *(kind for kind, (_, namespaced) in own_kinds(things).items() if namespaced)}
    there = set(NAMESPACES)
    for thing in things:
        if thing["kind"] == "Namespace":
            there.add(thing["metadata"]["name"])
        if thing["kind"] in inside:
            assert thing["metadata"]["namespace"] in there
        else:
            assert "namespace" not in thing["metadata"]


@each
def test_what_it_says_of_its_objects_is_so(addon: Addon) -> None:
    things = manifest(addon)
    assert sorted(addon.namespaces) == sorted(names(things, "Namespace"))
    assert all(thing["metadata"]["name"].startswith(addon.pods) for thing, _ in pods(addon))
    assert {addon.storage_class} - {""} == names(things, "StorageClass")


@each
def test_its_objects_come_after_those_that_they_need(addon: Addon) -> None:
    things = manifest(addon)
    own, seen = own_kinds(things), set[tuple[str, str, str]]()
    made: set[str] = set()
    for thing in things:
        assert thing["kind"] not in own or thing["kind"] in made
        if thing["kind"] == "CustomResourceDefinition":
            made.add(thing["spec"]["names"]["kind"])
        if thing["kind"] in {"Deployment", "DaemonSet", "StatefulSet"}:
            pod, namespace = thing["spec"]["template"]["spec"], thing["metadata"]["namespace"]
            who = pod.get("serviceAccountName", "default")
            assert who == "default" or ("ServiceAccount", namespace, who) in seen
            for volume in pod.get("volumes", ()):
                if "configMap" in volume:
                    assert ("ConfigMap", namespace, volume["configMap"]["name"]) in seen
        seen.add(key(thing))


@each
def test_every_binding_is_of_a_role_and_an_account_that_there_are(addon: Addon) -> None:
    things = manifest(addon)
    accounts = {key(thing)[1:] for thing in things if thing["kind"] == "ServiceAccount"}
    bound = [thing for thing in things if "roleRef" in thing]
    for thing in bound:
        to = thing["roleRef"]
        assert to["name"] in names(things, to["kind"]) | ROLES
        assert {(who["namespace"], who["name"]) for who in thing["subjects"]} <= accounts
    for thing in things:
        if thing["kind"] in {"Role", "ClusterRole"}:
            assert all(set(rule) <= {"apiGroups", "resources", "verbs", "resourceNames"} for rule in thing["rules"])
            into = [name for name in thing["metadata"]["labels"] if "/aggregate-to-" in name]
            assert into or thing["metadata"]["name"] in {each["roleRef"]["name"] for each in bound}


@each
def test_its_pods_have_the_labels_that_they_are_found_by(addon: Addon) -> None:
    templates = [thing["spec"]["template"]["metadata"]["labels"] for thing, _ in pods(addon)]
    wanted = [thing["spec"]["selector"]["matchLabels"] for thing, _ in pods(addon)]
    assert all(some.items() <= labels.items() for some, labels in zip(wanted, templates, strict=True))
    for thing in manifest(addon):
        if thing["kind"] == "Service":
            assert any(thing["spec"]["selector"].items() <= labels.items() for labels in templates)


@each
def test_its_pods_run_images_that_a_lab_has(addon: Addon) -> None:
    used = {container["image"] for container in containers(addon)}
    assert used <= {*addon.images.values(), BUSYBOX}
    assert set(addon.images.values()) <= used
    assert BUSYBOX not in addon.images.values()


@each
def test_its_pods_mount_what_they_have_and_are_small(addon: Addon) -> None:
    for _, pod in pods(addon):
        there = {volume["name"] for volume in pod.get("volumes", ())}
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= there
            assert container.get("imagePullPolicy", "IfNotPresent") == "IfNotPresent"
            for kind, amount in container.get("resources", {}).get("requests", {}).items():
                assert QUANTITY[kind].fullmatch(amount)


@each
def test_its_pods_are_let_in_everywhere_it_says_it_runs(addon: Addon) -> None:
    """Before 1.17 the API server forbids critical pods outside kube-system, and says so to the controller alone."""
    for thing in addon.manifest(plan_of(addon.since)):
        pod = thing.get("spec", {}).get("template", {}).get("spec", {})
        if addon.since < (1, 17) and thing["metadata"].get("namespace") != "kube-system":
            assert not pod.get("priorityClassName", "").startswith("system-")


@each
def test_every_object_has_the_add_ons_label_beside_its_own(addon: Addon) -> None:
    plan = plan_of()
    for before, after in zip(addon.objects(plan), addon.manifest(plan), strict=True):
        assert after["metadata"]["labels"] == {**before["metadata"].get("labels", {}), LABEL: addon.name}
        assert LABEL not in before["metadata"].get("labels", {})


@each
def test_an_older_kubernetes_is_refused(addon: Addon) -> None:
    major, minor = addon.since
    assert addon.refusal(plan_of(addon.since)) == ""
    assert addon.refusal(plan_of((major, minor - 1))) == (
        f"{addon.name} {addon.version} needs Kubernetes {major}.{minor} or newer; the lab has {major}.{minor - 1}"
    )
    assert addon.refusal(plan_of()) == "", "the default version of a lab takes every add-on"


@each
def test_its_images_are_compiled_from_its_own_version(addon: Addon) -> None:
    pack = recipe(addon)
    assert sorted(image.ref for image in pack.images) == sorted(addon.images.values())
    assert addon.version in {program.version.removeprefix("v") for program in pack.programs}
    built = {name for program in pack.programs for name in program.build}
    assert {name for image in pack.images for _, name in image.programs} == built
    assert {image.base for image in pack.images} <= {"", *pack.bases}


@each
def test_its_containers_start_a_program_of_their_image(addon: Addon) -> None:
    """Either the container names it, or the image does."""
    by_ref = {image.ref: image for image in recipe(addon).images}
    for container in containers(addon):
        if container["image"] == BUSYBOX:
            continue
        image = by_ref[container["image"]]
        first = (container.get("command", image.entrypoint), container.get("args", image.command))
        assert next(words for words in first if words)[0] in dict((*image.programs, *image.links))


def test_add_ons_are_there() -> None:
    assert {"local-path", "metrics-server", "network-policy"} <= addons().keys()
    assert addons()["metrics-server"].images == {
        "metrics-server": f"registry.k8s.io/metrics-server/metrics-server:v{addons()['metrics-server'].version}"
    }


def flags(addon: Addon) -> list[str]:
    (container,) = containers(addon)
    return [*container.get("command", ()), *container.get("args", ())]


def test_metrics_server_verifies_kubelets_certificates() -> None:
    said = flags(addons()["metrics-server"])
    assert "--kubelet-certificate-authority=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt" in said
    assert "--kubelet-preferred-address-types=InternalIP" in said
    assert not any("insecure" in flag for flag in said)


def test_metrics_server_is_not_killed_for_being_slow() -> None:
    (container,) = containers(addons()["metrics-server"])
    for probe in (container["livenessProbe"], container["readinessProbe"]):
        assert probe["timeoutSeconds"] * 10 >= 100
        assert probe["failureThreshold"] * probe["periodSeconds"] >= 120
    assert container["livenessProbe"]["failureThreshold"] > container["readinessProbe"]["failureThreshold"]


def test_metrics_server_serves_its_api() -> None:
    things = manifest(addons()["metrics-server"])
    (api,) = [thing for thing in things if thing["kind"] == "APIService"]
    (service,) = [thing for thing in things if thing["kind"] == "Service"]
    (container,) = containers(addons()["metrics-server"])
    assert api["spec"]["service"] == {name: service["metadata"][name] for name in ("name", "namespace")}
    assert [port["targetPort"] for port in service["spec"]["ports"]] == [port["name"] for port in container["ports"]]
    assert f"--secure-port={container['ports'][0]['containerPort']}" in container["args"]


@pytest.mark.parametrize("name", ["local-path", "metrics-server"])
@pytest.mark.parametrize("key", ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"])
def test_a_lab_with_nothing_but_control_planes_runs_it(name: str, key: str) -> None:
    ((_, pod),) = pods(addons()[name])
    assert {"key": key, "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]


def test_local_path_gives_the_default_class() -> None:
    (of,) = [thing for thing in manifest(addons()["local-path"]) if thing["kind"] == "StorageClass"]
    assert of["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert (of["provisioner"], of["volumeBindingMode"]) == ("rancher.io/local-path", "WaitForFirstConsumer")


def test_local_paths_helper_pods_have_what_they_need() -> None:
    (config,) = [thing["data"] for thing in manifest(addons()["local-path"]) if thing["kind"] == "ConfigMap"]
    said = json.loads(config["config.json"])
    assert said["nodePathMap"] == [
        {"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": ["/opt/local-path-provisioner"]}
    ]
    assert said["cmdTimeoutSeconds"] == 600
    helper = yaml.safe_load(config["helperPod.yaml"])
    assert (helper["apiVersion"], helper["kind"]) == ("v1", "Pod")
    (container,) = helper["spec"]["containers"]
    assert container["image"] == HELPER_IMAGE == BUSYBOX
    assert container["imagePullPolicy"] == "IfNotPresent"
    # Its log is asked for under this name.
    assert container["name"] == "helper-pod"
    for script in ("setup", "teardown"):
        assert config[script].startswith("#!/bin/sh\nset -eu\n")
        assert '"$VOL_DIR"' in config[script]


def test_network_policies_are_enforced_on_every_node_from_the_start() -> None:
    plan, addon = plan_of(), addons()["network-policy"]
    assert addon.enforces_policies
    ((daemon, pod),) = pods(addon)
    assert (daemon["kind"], pod["hostNetwork"]) == ("DaemonSet", True)
    assert {"operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
    (container,) = pod["containers"]
    assert {"name": "KUBERNETES_SERVICE_HOST", "value": str(plan.api_endpoint[0])} in container["env"]
    assert not any("admin" in flag for flag in container["args"])


def test_network_policies_that_were_removed_cut_no_pod_off() -> None:
    """Its rules may outlive the daemon, unless SIGINT is what stops it."""
    assert "--fail-open" in flags(addons()["network-policy"])
    (image,) = recipe(addons()["network-policy"]).images
    assert image.stop_signal == "SIGINT"


def test_one_add_on_at_most_enforces_policies() -> None:
    assert [name for name, addon in addons().items() if addon.enforces_policies] == ["network-policy"]


def test_the_docs_table_has_every_addon_and_its_version() -> None:
    table = (resources.path("docs") / "how-to" / "addons.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| ([0-9.]+) \|", table, re.MULTILINE))
    assert rows == {name: addon.version for name, addon in addons().items()}
