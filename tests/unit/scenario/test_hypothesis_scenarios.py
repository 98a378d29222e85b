"""Generated scenario files: each gives a LabError or a sound plan, never another exception.

Four tests, so that they run side by side: valid scenarios with a few wrong places, their text
cut and spliced, YAML of any shape, and any text at all. `make test` lets each try 2,500, 10,000 in
all; `make check` is there to be quick, and tries the first 250 of the same.
"""

from __future__ import annotations

import copy
import json
import os
from functools import cache
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lab.errors import LabError, ScenarioError
from lab.plan.decide import decide
from lab.plan.file import from_json, to_json
from lab.plan.model import Plan
from lab.scenario.catalog import Catalog, load_catalog
from lab.scenario.library import find_scenario, read_text, shipped_names
from lab.scenario.model import json_schema
from lab.scenario.parser import parse_scenario
from lab.scenario.schema import INVALID
from lab.scenario.yaml_source import manifest_budget, read_documents, read_tree

EXAMPLES = int(os.environ.get("KLAB_TEST_EXAMPLES", "250"))

EVERY_KEY = """
version: 1
name: all
description: everything
topology:
  nodes:
    - {name: a, role: control-plane, address: 10.10.0.5, cpus: 4, memory: 4Gi, disk: 40G}
    - {name: b, role: control-plane}
    - {name: c, role: control-plane, address: 10.10.0.7}
    - {name: d}
  vip: 10.10.0.9
  allow_even: false
  load_balancers: first-two
cpus: 2
memory: 2048
disk: 30
box: debian-13
kubernetes: {version: v1.35.4, runtime: containerd, cni: none, pod_cidr: 10.1.0.0/16, service_cidr: 10.2.0.0/16}
network: {cidr: 10.10.0.0/24}
bootstrap: full
provider: {libvirt: {cpu_model: Haswell, pool: fast}, virtualbox: {linked_clone: false}}
mirrors: {docker.io: "http://mirror:5000"}
addons: [a.yaml]
"""
COUNTS = "version: 1\nname: counts\ntopology: {control_planes: 3, workers: 2, vip: 192.168.56.9}\nmemory: 4Gi\n"
TEXTS = (EVERY_KEY, COUNTS, *(read_text(find_scenario(name)) for name in shipped_names()))
TREES = tuple(yaml.safe_load(text) for text in TEXTS)
WORDS = [
    *("none", "full", "prepared", "all", "first-two", "worker", "control-plane", "containerd", "flannel", "debian-13"),
    *("1.35.4", "v1.35.4", "1.35", "", " ", "a", "localhost", "-", "x" * 41, "2Gi", "30G", "0", "-1", "1e9", "9" * 400),
    *("10.0.0.0/8", "10.244.0.0/16", "192.168.56.0/24", "192.168.56.0/30", "0.0.0.0/0", "255.255.255.255/32", "::/0"),
    *("172.28.0.0/14", "172.16.0.0/12", "192.168.56.1", "192.168.56.10", "192.168.56.21", "256.1.1.1", "10.10.0.7"),
    *("http://m:5000", "\u0660", "\ud7ff", "0x1F", "1:30", "2020-01-01", "=", "<<", "~", "yes", "!!binary", "*a", "&a"),
]
SCALARS = st.one_of(
    st.sampled_from(WORDS),
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.sampled_from([10**9, 2**63, 10**400, 1.35, -0.0, float("inf"), float("nan"), 1e308, 5e-324]),
    st.text(max_size=8),
)
VALUES = st.one_of(
    SCALARS,
    st.lists(SCALARS, max_size=3),
    st.dictionaries(st.sampled_from(["name", "role", "cidr", "version", "nodes", "x"]), SCALARS, max_size=3),
)
# What a key may well hold, so that many of the files are sound and reach `decide`.
PLAUSIBLE = {
    "control_planes": st.integers(1, 7),
    "workers": st.integers(0, 50),
    "allow_even": st.booleans(),
    "load_balancers": st.sampled_from(["all", "first-two"]),
    "vip": st.sampled_from(["192.168.56.2", "192.168.56.21", "192.168.56.254", "10.10.0.11", "10.10.0.254"]),
    "address": st.sampled_from(["10.10.0.2", "10.10.0.10", "10.10.0.11", "10.10.0.21", "10.10.0.254"]),
    "role": st.sampled_from(["control-plane", "worker"]),
    "name": st.sampled_from(["a", "b", "lab-1", "0", "x" * 40]),
    "cidr": st.sampled_from(["192.168.56.0/28", "192.168.56.0/27", "192.168.0.0/16", "10.10.0.0/26", "172.28.0.0/24"]),
    "pod_cidr": st.sampled_from(["10.64.0.0/16", "172.28.0.0/16", "10.0.0.0/12", "192.168.0.0/18", "10.1.0.0/24"]),
    "service_cidr": st.sampled_from(["10.200.0.0/28", "172.24.0.0/13", "172.30.0.0/15", "192.168.57.0/24"]),
    "memory": st.sampled_from([512, 1700, "2Gi", "1.7G", "64GiB"]),
    "disk": st.sampled_from([6, "20G", 2047, "6144M"]),
    "cpus": st.integers(1, 64),
    "bootstrap": st.sampled_from(["full", "prepared", "none"]),
    "mirrors": st.dictionaries(st.sampled_from(["docker.io", "ghcr.io"]), st.just("https://m/v2"), max_size=2),
}
SEATS = st.integers(0, 70)


@cache
def catalog() -> Catalog:
    return load_catalog()


@cache
def schema() -> Draft202012Validator:
    Draft202012Validator.check_schema(json_schema())
    return Draft202012Validator(json_schema())


def check(text: str, seat: int) -> Plan | None:
    """What must hold for any text whatever."""
    try:
        scenario = parse_scenario(text, catalog())
    except ScenarioError as error:
        assert error.details
        last = max(1, len(text.splitlines()))
        for line in error.details:
            assert 1 <= int(line.removeprefix("line ").split(":")[0]) <= last + 1
        return None
    try:
        plan = decide(scenario, catalog(), seat=seat)
    except LabError:
        assert seat > 0, "a scenario that was accepted must have a plan for its first seat"
        return None
    addresses = [node.address for node in plan.nodes] + [plan.networks.gateway]
    addresses += [plan.load_balancer.vip] if plan.load_balancer else []
    assert len(set(addresses)) == len(addresses)
    assert all(address in plan.networks.cidr for address in addresses)
    for of in ("name", "uuid", "mac", "management_mac"):
        assert len({getattr(node, of) for node in plan.nodes}) == len(plan.nodes)
    assert plan.control_planes
    assert from_json(to_json(plan)) == plan
    # What klab reads, the editor's schema must not mark as wrong.
    schema().validate(read_tree(text.removeprefix("\ufeff")).data)
    return plan


def places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where each value of a tree is."""
    found = [at] if at else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += places(value, (*at, key))
    return found


@st.composite
def wrong_places(draw: st.DrawFn) -> str:
    """A valid scenario in which up to three places are varied, replaced, removed, misspelt, moved or wrapped."""
    tree = copy.deepcopy(draw(st.sampled_from(TREES)))
    for _ in range(draw(st.integers(1, 3))):
        where = places(tree)
        if not where:
            break
        *path, last = draw(st.sampled_from(where))
        parent = tree
        for key in path:
            parent = parent[key]
        change = draw(st.sampled_from(["vary"] * 12 + ["replace"] * 3 + ["remove", "misspell", "move", "wrap", "copy"]))
        if change == "vary":
            parent[last] = draw(PLAUSIBLE.get(last, st.just(parent[last])))
        elif change == "remove":
            del parent[last]
        elif change == "misspell" and isinstance(parent, dict):
            parent[str(last)[: draw(st.integers(0, 5))] + draw(st.sampled_from("xy_-"))] = parent.pop(last)
        elif change == "move":
            tree[str(last)] = parent.pop(last)
        elif change == "wrap":
            parent[last] = [parent[last]]
        elif change == "copy" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
        else:
            parent[last] = draw(VALUES)
    return str(yaml.dump(tree, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True))


@st.composite
def spliced(draw: st.DrawFn) -> str:
    """The text of a valid scenario, cut and with something put in."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.sampled_from([start, start + 1, start + 5, start + 40]))
        new = draw(
            st.one_of(
                st.sampled_from(
                    ["\t", "\n", "\r", ":", ": ", "- ", "#", "---\n", "...\n", "'", '"', "{", "[", "}", "]"]
                ),
                st.sampled_from(
                    ["&a ", "*a", "<<: *a\n", "!x ", "!!map ", "? ", "|", ">", "%YAML 3\n", "\ufeff", "\x00"]
                ),
                st.text(max_size=4),
            )
        )
        text = text[:start] + new + text[end:]
    return text


ANY_YAML = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(["version", "name", "topology", "nodes", "kubernetes", "cpus"]), st.integers()),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
).map(lambda tree: str(yaml.dump(tree, Dumper=yaml.CSafeDumper)))


@settings(max_examples=EXAMPLES)
@given(wrong_places(), SEATS)
def test_a_scenario_with_wrong_places(text: str, seat: int) -> None:
    check(text, seat)


@settings(max_examples=EXAMPLES)
@given(spliced(), SEATS)
def test_a_scenario_whose_text_was_spliced(text: str, seat: int) -> None:
    check(text, seat)


@settings(max_examples=EXAMPLES)
@given(ANY_YAML, SEATS)
def test_yaml_of_any_shape(text: str, seat: int) -> None:
    check(text, seat)


@settings(max_examples=EXAMPLES)
@given(st.text(max_size=200), SEATS)
def test_any_text(text: str, seat: int) -> None:
    check(text, seat)


def test_the_unchanged_scenarios_have_plans() -> None:
    """The check above can succeed: it is not only errors that it sees."""
    for text in TEXTS:
        assert check(text, 0) is not None


ODD = st.lists(
    st.one_of(
        st.text(max_size=6),
        st.sampled_from(WORDS),
        st.sampled_from(
            ['"\\U', '"\\u', "FFFFFFFF", "D800", '"', "!!int ", "!!float ", "!!binary ", "!!bool ", "!!null "]
        ),
        st.sampled_from(
            ["0x", "0b", "0o", "_", ":", "e", ".", "9" * 5000, "\n", "- ", "a: ", "? ", "---\n", "%YAML 9\n"]
        ),
    ),
    max_size=12,
).map("".join)


@settings(max_examples=EXAMPLES)
@given(ODD)
def test_no_yaml_is_too_odd_to_be_read(text: str) -> None:
    tree = read_tree(text)
    assert tree.data is not INVALID or tree.problems
    for document in read_documents(text, manifest_budget()):
        assert document.problems or json.dumps(document.data, allow_nan=False)
