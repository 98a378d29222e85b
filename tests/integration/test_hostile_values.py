"""No value becomes code: every text of a scenario and of a plan, hostile to each language that klab writes.

What is refused is no danger. What is accepted is written into every file, and each language's own parser has to find
the same structure there as with a harmless value.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from golden.test_seeds import SECRETS
from integration.test_judges import keepalived_says, write_haproxy
from integration.test_vagrantfile import EMULATED, KVM, VIRTUALBOX

from lab import process
from lab.errors import HostError, LabError, ScenarioError
from lab.machines.libvirt.definitions import lab_network, management_network
from lab.machines.libvirt.domain_xml import new_domain
from lab.machines.ownership import Owner
from lab.plan.decide import decide
from lab.plan.file import from_json, to_data
from lab.plan.foreign import plan_problems
from lab.plan.model import Plan
from lab.render.balancer import render_haproxy, render_keepalived
from lab.render.cloudinit import render_seed
from lab.render.domain import domain_spec
from lab.render.inventory import Way, render_ansible, render_host_lines, render_ssh
from lab.render.kubeadm import render_init, render_join
from lab.render.pod_network import render_manifest
from lab.render.vagrantfile import render_libvirt, render_virtualbox
from lab.scenario.catalog import load_catalog
from lab.scenario.model import Scenario
from lab.scenario.parser import parse_scenario
from lab.scenario.schema import Section

CATALOG = load_catalog()
LANGUAGES = (".yaml", ".xml", ".toml", ".rb", ".sh")
OWNER = Owner("00000000-0000-4000-8000-000000000000", 0, 1.5)
# What a scenario may hold, every key of it.
TREE: dict[str, Any] = {
    "version": 1,
    "name": "harmless",
    "description": "everything",
    "topology": {
        "nodes": [
            {"name": "n1", "role": "control-plane", "address": "10.10.0.5", "cpus": 2, "memory": "4Gi", "disk": "40G"},
            {"name": "n2", "role": "control-plane"},
            {"name": "n3", "role": "control-plane"},
            {"name": "n4", "role": "worker"},
        ],
        "vip": "10.10.0.9",
        "allow_even": False,
        "load_balancers": "all",
    },
    "cpus": 2,
    "memory": "2Gi",
    "disk": "30G",
    "box": "debian-13",
    "kubernetes": {
        "version": "1.35.4",
        "runtime": "containerd",
        "cni": "flannel",
        "proxy_mode": "iptables",
        "pod_cidr": "10.1.0.0/16",
        "service_cidr": "10.2.0.0/16",
    },
    "network": {"cidr": "10.10.0.0/24", "management": "172.20.0.0/16", "allow_public": False},
    "bootstrap": "full",
    "provider": {"libvirt": {"cpu_model": "Haswell", "pool": "fast"}, "virtualbox": {"linked_clone": False}},
    "mirrors": {"docker.io": "http://mirror:5000/v2", "quay.io": "https://mirror.example"},
    "addons": ["a.yaml"],
    "images": ["redis", "registry.lan:5000/team/app:1.0"],
}
NOT_BESIDE_NODES = {"control_planes", "workers"}
HOSTILE = [
    *("#{`id`}", "' + `id` + '", "\\' + `id`#", "<%= `id` %>", "=begin\n", "{{ 7 * 7 }}", "{% raw %}"),
    *("x</model><emulator>/bin/sh</emulator><model>", "x'/><y z='", 'x"/>', "&xxe;", "<![CDATA[", "]]>"),
    *("x: y", "- x", "x\n  y: z", "!!python/object/apply:os.system [id]", "*x", "&x", "# x", "x #", "%TAG", "---\n"),
    *("$(id)", "`id`", "; id", "| id", "> /x", "${IFS}", "x\nid", "-rf", "..", "../../x", "/etc/passwd", "~", "%p"),
    *('x"]\n[y]', "x\\", "x\n    server y 8.8.8.8:80", "x }\nvrrp_script y {", "x!", "x\n10.0.0.1 y"),
    *(
        "x\0y",
        "\x1b[2J",
        "x\ry",
        "x\u2028y",
        "x\x85y",
        "\u202ex",
        "x\ty",
        "\ud800".encode("utf-16", "surrogatepass").hex(),
    ),
    *("08", "1e3", "0o10", "0x1f", "yes", "null", "2020-01-01", "1:30", "=", "<<", "", " ", "x" * 5000),
]
# RFC 1123 labels, and so names, that some YAML reader takes for something else than text.
ODD_NAMES = ["08", "09", "1e3", "0o10", "0x1f", "0b1", "yes", "no", "y", "n", "on", "null", "true", "2020-01-01", "7"]


def leaves(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all texts; of the four nodes those of the first and the last."""
    if at[-2:] in {("nodes", 1), ("nodes", 2)}:
        return
    if isinstance(tree, str):
        yield at
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield from leaves(tree[key], (*at, key))


def changed(tree: Any, at: tuple[Any, ...], value: str) -> Any:
    found = copy.deepcopy(tree)
    inner = functools.reduce(lambda node, key: node[key], at[:-1], found)
    inner[at[-1]] = value
    return found


def keys_of(kind: type) -> Iterator[tuple[type, str]]:
    for field in dataclasses.fields(kind):
        yield kind, field.name
        inner = field.metadata["kind"]
        inner = getattr(inner, "item", inner)
        if isinstance(inner, Section):
            yield from keys_of(inner.model)


def test_the_tree_has_every_key_of_a_scenario() -> None:
    """A key that is new is tried, too, or this fails."""
    assert {name for _, name in keys_of(Scenario)} - set(_keys(TREE)) == NOT_BESIDE_NODES


def _keys(tree: Any) -> Iterator[str]:
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield str(key)
        yield from _keys(value)


# --- everything that klab writes, and its structure ---------------------------------------------------


def files_of(plan: Plan) -> dict[str, str]:
    """By name, whose ending says which language it is."""
    settings = {"User": "vagrant", "IdentityFile": '"/key"', "ConnectTimeout": "9"}
    ways = {node.name: Way({"HostName": str(node.address), **settings}) for node in plan.nodes}
    made = {
        "libvirt.rb": render_libvirt(plan, KVM),
        "emulated.rb": render_libvirt(plan, EMULATED),
        "virtualbox.rb": render_virtualbox(
            plan, replace(VIRTUALBOX, boxes={node.disk: "klab/box" for node in plan.nodes})
        ),
        "lab.xml": lab_network(plan.networks, OWNER),
        "management.xml": management_network(plan.networks, plan.nodes, OWNER),
        "flannel.yaml": render_manifest(plan),
        "inventory.yaml": render_ansible(plan, OWNER.lab_id, ways),
        "ssh.lines": render_ssh(plan, ways),
        "hosts.lines": render_host_lines(plan),
    }
    for number, node in enumerate(plan.nodes):
        made[f"{number}.xml"] = new_domain(domain_spec(plan, node, EMULATED), OWNER, "/disk")
        seed = render_seed(plan, node, SECRETS)
        made |= {f"{number}-{name}.yaml": text for name, text in seed.items()}
        for at, file in enumerate(yaml.load(seed["user-data"], yaml.CSafeLoader)["write_files"]):
            ending = Path(file["path"]).suffix
            made[f"{number}-{at}{ending if ending in LANGUAGES else '.lines'}"] = file["content"]
    return made


@functools.cache
def harmless_files() -> dict[str, str]:
    return files_of(plan_from(TREE))


def skeleton(name: str, text: str) -> Any:
    """What a value must not change."""
    match Path(name).suffix:
        case ".yaml":
            return [_shape(document) for document in yaml.load_all(text, yaml.CSafeLoader)]
        case ".xml":
            return [(e.tag, sorted(e.attrib)) for e in ElementTree.fromstring(text).iter()]  # noqa: S314  (klab's own)
        case ".toml":
            return _shape(list(tomllib.loads(text)["host"].values()))
        case ".rb":
            return _ruby_tokens(text)
        case ".sh":
            return text
    return [len(line.split()) for line in text.splitlines()]


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return [_shape(each) for each in value.values()]
    return [_shape(each) for each in value] if isinstance(value, list) else type(value).__name__


@functools.cache
def _ruby_tokens(text: str) -> str:
    program = "require 'ripper'; puts Ripper.lex(STDIN.read).map { |t| t[1] }.join(' ')"
    # A name that Vagrant may take for an id brings a block of its own, of names as literals.
    guarded = re.sub(r"\n# Vagrant takes a name.*?\nend\)\n", "", text, flags=re.DOTALL)
    return process.run(["ruby", "-e", program], stdin=guarded, timeout=60).stdout


@functools.cache
def assert_same_structure(plan: Plan) -> None:
    harmless, found = harmless_files(), files_of(plan)
    assert found.keys() == harmless.keys()
    for name, text in found.items():
        if text != harmless[name]:
            assert skeleton(name, text) == skeleton(name, harmless[name]), name
        if name.endswith(".rb"):
            # vagrant-libvirt puts these into XML as they are.
            assert not set('<>&"') & set(text.replace('"', "").replace("=>", "").replace("class=", "")) or "#" in text


def plan_from(tree: Any) -> Plan:
    return decide(parse_scenario(json.dumps(tree), CATALOG, source="x"), CATALOG)


def test_a_hostile_value_in_a_scenario_is_refused_or_text() -> None:
    accepted: set[tuple[Any, ...]] = set()
    for at in leaves(TREE):
        for value in HOSTILE:
            try:
                plan = plan_from(changed(TREE, at, value))
            except ScenarioError as error:
                assert error.details
                continue
            accepted.add(at)
            assert_same_structure(plan)
    # Free text, and names: nothing else may be odd.
    names = {("name",), *(("topology", "nodes", i, "name") for i in range(4))}
    assert accepted <= names | {("description",), ("addons", 0)} | {("memory",), ("disk",)} | {
        *((("topology", "nodes", 0, size)) for size in ("memory", "disk")),
        ("mirrors", "docker.io"),
        ("mirrors", "quay.io"),
        ("images", 0),  # "08" is an image of docker.io's
        ("images", 1),
        ("provider", "libvirt", "cpu_model"),
        ("provider", "libvirt", "pool"),
    }


def test_a_hostile_registry_is_refused_or_text() -> None:
    for value in HOSTILE:
        tree = copy.deepcopy(TREE)
        tree["mirrors"] = {value: "http://mirror", "quay.io": "https://mirror.example"}
        try:
            plan = plan_from(tree)
        except ScenarioError:
            continue
        assert_same_structure(plan)


def test_a_hostile_value_in_a_plan_is_refused_or_text() -> None:
    data = to_data(plan_from(TREE))
    for at in leaves(data):
        for value in HOSTILE:
            try:
                plan = from_json(json.dumps(changed(data, at, value)))
            except LabError:
                continue
            if not plan_problems(plan):
                assert_same_structure(plan)


@pytest.mark.parametrize("character", ["<", ">", "&", "'", '"', "\x1b", "\n"])
def test_what_the_host_supplies_is_never_markup_for_vagrant(character: str) -> None:
    plan = plan_from(TREE)
    hostile = f"/srv/a{character}b"
    clock = dataclasses.replace(EMULATED.slow_clock, library=hostile)  # type: ignore[type-var]
    values = dict.fromkeys(("seed_folder", "console_folder", "box_pool", "machine_type", "description"), hostile)
    for field, value in {**values, "slow_clock": clock}.items():
        with pytest.raises(HostError, match="cannot be given to Vagrant"):
            render_libvirt(plan, dataclasses.replace(EMULATED, **{field: value}))


# --- names that are numbers to somebody ----------------------------------------------------------------


def named(lab: str, names: list[str]) -> Plan:
    tree = {
        "version": 1,
        "name": lab,
        "topology": {"nodes": [{"name": name} for name in names]},
        "network": {"cidr": "10.10.0.0/24"},
    }
    for node in tree["topology"]["nodes"][:3]:  # type: ignore[index]
        node["role"] = "control-plane"
    return plan_from(tree)


def test_the_programs_read_odd_names_as_names(kubeadm: Path, tmp_path: Path) -> None:
    for first in range(0, len(ODD_NAMES), 5):
        names = ODD_NAMES[first : first + 5]
        plan = named(names[0], names)
        assert plan.load_balancer is not None
        file = tmp_path / "config"
        for node in plan.nodes[2:4]:  # the last control plane, and a worker
            file.write_text((render_init if node.is_control_plane else render_join)(plan, node, SECRETS))
            assert "ok" in process.run([kubeadm, "config", "validate", "--config", file], timeout=60).stdout
            file.write_text(render_seed(plan, node, SECRETS)["user-data"])
            assert "Valid" in process.run(["cloud-init", "schema", "--config-file", file], timeout=60).stdout
            seed = yaml.safe_load(file.read_text())
            assert seed["hostname"] == node.name
        process.run(["haproxy", "-c", "-f", write_haproxy(plan, tmp_path)], timeout=60)
        file.write_text(render_keepalived(plan, plan.load_balancer, plan.nodes[0]))
        assert keepalived_says(file) == []
        assert render_haproxy(plan, plan.load_balancer).count("\n    server ") == 3


def test_shell_words_stay_words() -> None:
    """Names reach a shell through ssh alone, and are labels: nothing to quote."""
    assert [shlex.quote(name) for name in ODD_NAMES] == ODD_NAMES
