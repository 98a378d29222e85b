"""What people write: scenarios, add-ons, kubeconfigs, names, sizes and durations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from fuzz.harness import Target
from fuzz.mutations import octets, texts

from lab.bundles.format import check_bundle_name
from lab.cli.terminal.words import parse_duration
from lab.cluster.pki import make_ca
from lab.errors import ScenarioError
from lab.kubeconfig import merge_files
from lab.plan.decide import decide
from lab.plan.file import from_json, to_json
from lab.scenario.catalog import load_catalog
from lab.scenario.kinds import check_name
from lab.scenario.library import find_scenario, load_scenario, read_text, shipped_names
from lab.scenario.mirror_access import parse_ca, parse_login
from lab.scenario.parser import parse_scenario
from lab.scenario.sizes import parse_mib
from lab.text import visible

SCENARIO = """\
version: 1
name: every-key
description: everything
topology:
  nodes:
    - {name: a, role: control-plane, address: 10.10.0.5, cpus: 4, memory: 4Gi, disk: 40G}
    - {name: b, role: control-plane}
    - {name: c, role: control-plane, address: 10.10.0.7}
    - {name: d}
  vip: 10.10.0.9
  load_balancers: first-two
cpus: 2
memory: 2048
disk: 30
box: debian-13
kubernetes: {version: 1.35.4, runtime: containerd, cni: none, pod_cidr: 10.1.0.0/16, service_cidr: 10.2.0.0/16}
network: {cidr: 10.10.0.0/24}
provider: {libvirt: {cpu_model: Haswell, pool: fast}, virtualbox: {linked_clone: false}}
mirrors: {docker.io: "http://mirror:5000", _default: {url: "https://m/v2/all", ca: ca.pem, login: login.txt}}
"""
CA = make_ca("mirror").public
ADDON = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: lesson, namespace: default, labels: {a: b}}
data: {text: hello, number: "1"}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 3
  template: {spec: {containers: [{name: web, image: "nginx:1.27", ports: [{containerPort: 80}]}]}}
"""
WITH_ADDON = "version: 1\nname: lesson\naddons: [addon.yaml]\n"
OWN = """\
apiVersion: v1
kind: Config
current-context: prod
clusters:
- name: prod
  cluster: {server: "https://prod:6443", certificate-authority-data: QUJD}
users:
- name: me
  user:
    token: "0123"
    exec: {command: aws, args: [eks, get-token]}
contexts:
- name: prod
  context: {cluster: prod, user: me, namespace: default}
preferences: {}
extra: 0o17
"""
LAB = """\
apiVersion: v1
kind: Config
current-context: klab-demo
clusters:
- {name: klab-demo, cluster: {server: "https://192.168.56.10:6443", certificate-authority-data: QUJD}}
users:
- {name: klab-demo, user: {client-certificate-data: QUJD, client-key-data: QUJD}}
contexts:
- {name: klab-demo, context: {cluster: klab-demo, user: klab-demo}}
"""
SECTIONS = ("clusters", "users", "contexts")


def scenarios(_folder: Path) -> list[str]:
    return [SCENARIO, *(read_text(find_scenario(name)) for name in shipped_names())]


def scenario(text: str, _folder: Path) -> None:
    try:
        found = parse_scenario(text, load_catalog())
    except ScenarioError as error:
        assert error.details, "a refusal without a line"
        raise
    plan = decide(found, load_catalog())
    assert from_json(to_json(plan)) == plan


def scenario_file(data: bytes, folder: Path) -> None:
    file = folder / "scenario.yaml"
    file.write_bytes(data)
    (folder / "ca.pem").write_text(CA)
    (folder / "login.txt").write_text("class:secret")
    load_scenario(str(file), load_catalog())


def addon_file(data: bytes, folder: Path) -> None:
    import json

    (folder / "scenario.yaml").write_text(WITH_ADDON)
    (folder / "addon.yaml").write_bytes(data)
    for item in load_scenario(str(folder / "scenario.yaml"), load_catalog()).addons:
        assert isinstance(item["metadata"]["name"], str)
        # As it goes to the API server.
        json.dumps(item, allow_nan=False).encode()


def mirror_ca(text: str, _folder: Path) -> None:
    found = parse_ca(text)
    assert parse_ca(found) == found
    assert "PRIVATE" not in found


def mirror_login(text: str, _folder: Path) -> None:
    user, colon, password = parse_login(text).partition(":")
    assert colon
    assert user
    assert (user + password).isprintable()


def _others(text: str) -> dict[str, Any]:
    """By section every entry but klab's own, as kubectl would see them."""
    found = yaml.load(text, Loader=yaml.BaseLoader) or {}  # noqa: S506 - every value as text
    kept = {
        key: value for key, value in found.items() if key not in {*SECTIONS, "current-context", "apiVersion", "kind"}
    }
    return kept | {
        section: [e for e in (found.get(section) or []) if e not in ("", "~", "null") and e.get("name") != "klab-demo"]
        for section in SECTIONS
        if isinstance(found.get(section), list)
    }


def kubeconfig(text: str, folder: Path) -> None:
    file = folder / "config"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    merge_files([file], LAB)
    merged = file.read_text()
    before, after = _others(text), _others(merged)
    for key, value in before.items():
        assert after[key] == value, f"{key} is another"
    result = yaml.safe_load(merged)
    for section in SECTIONS:
        names = [entry["name"] for entry in result[section]]
        assert names.count("klab-demo") == 1, f"{section} has the lab {names.count('klab-demo')} times"
    assert merge_files([file], LAB) == [], "a second merge changes something"


def kubeconfig_file(data: bytes, folder: Path) -> None:
    file = folder / "config"
    file.write_bytes(data)
    try:
        changed = merge_files([file], LAB)
    except BaseException:
        assert file.read_bytes() == data, "refused, and changed all the same"
        raise
    assert all(each.backup is None or each.backup.read_bytes() == data for each in changed)


def _lines(*lines: str) -> Any:
    def made(_folder: Path) -> Sequence[str]:
        return lines

    return made


def name(text: str, _folder: Path) -> None:
    for check in (check_name, check_bundle_name):
        assert visible(check(text)) == text


def size(text: str, _folder: Path) -> None:
    assert parse_mib(text, default_unit="M") > 0


def duration(text: str, _folder: Path) -> None:
    assert 0 < parse_duration(text) < float("inf")


def shown(text: str, _folder: Path) -> None:
    written = visible(text)
    assert visible(written) == written
    written.encode("utf-8")


TARGETS = (
    Target(
        "scenario",
        ("lab.scenario.parser:parse_scenario", "lab.scenario.yaml_source:read_tree"),
        scenarios,
        texts,
        scenario,
    ),
    Target(
        "scenario file",
        ("lab.scenario.library:load_scenario", "lab.scenario.library:read_text"),
        lambda _: [SCENARIO.encode()],
        octets,
        scenario_file,
    ),
    Target(
        "add-on",
        ("lab.scenario.manifests:read_manifests", "lab.scenario.yaml_source:read_documents"),
        lambda _: [ADDON.encode()],
        octets,
        addon_file,
    ),
    Target(
        "add-on text",
        (),
        lambda _: [ADDON],
        texts,
        lambda text, folder: addon_file(text.encode("utf-8", "surrogatepass"), folder),
    ),
    Target(
        "mirror's CA",
        ("lab.scenario.mirror_access:parse_ca",),
        lambda _: [CA, make_ca("a").public + "text\n" + make_ca("b").public],
        texts,
        mirror_ca,
        refuses=(ValueError,),
    ),
    Target(
        "mirror's login",
        ("lab.scenario.mirror_access:parse_login",),
        _lines("class:secret", "robot$class+pull:x: y"),
        texts,
        mirror_login,
        refuses=(ValueError,),
    ),
    Target(
        "kubeconfig",
        ("lab.kubeconfig.merge:merge_files", "lab.kubeconfig.document:Document.put"),
        lambda _: [OWN, LAB, OWN + LAB[40:]],
        texts,
        kubeconfig,
    ),
    Target("kubeconfig file", ("lab.kubeconfig.merge:merge_files",), lambda _: [OWN.encode()], octets, kubeconfig_file),
    Target(
        "names",
        ("lab.scenario.kinds:check_name",),
        _lines("demo", "lesson-3"),
        texts,
        name,
        refuses=(ValueError, *Target.refuses),
    ),
    Target(
        "size", ("lab.scenario.sizes:parse_mib",), _lines("4Gi", "2048", "1.7 G"), texts, size, refuses=(ValueError,)
    ),
    Target("duration", ("lab.cli.terminal.words:parse_duration",), _lines("90s", "1h30m", "20m"), texts, duration),
    Target("text shown", ("lab.text:visible",), _lines("good\x1b[2J", "plain"), texts, shown),
)
