"""Finding and loading scenarios: the shipped ones, anyone's, and what can be wrong with a file."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
import yaml

from lab.errors import LabError, NotFound, ScenarioError, UsageError
from lab.scenario.library import find_scenario, load_scenario, shipped_names

HEAD = "version: 1\nname: test\n"
NGINX = "apiVersion: v1\nkind: Pod\nmetadata: {name: nginx}\n"


def test_every_scenario_of_the_issue_is_shipped() -> None:
    assert set(shipped_names()) >= {"1m2w", "1m1w", "3m", "ha-3m2w", "bare-1m2w"}


def test_a_shipped_file_is_named_like_its_scenario(catalog) -> None:
    for name in shipped_names():
        loaded = load_scenario(name, catalog)
        assert loaded.scenario.name == name
        assert loaded.scenario.description


def test_a_path_is_a_path(catalog, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(HEAD)
    loaded = load_scenario(str(file), catalog)
    assert (loaded.text, loaded.path) == (HEAD, file)


@pytest.mark.parametrize(
    ("name", "words"),
    [("1m3w", "did you mean 1m2w"), ("ha-3m2", "did you mean ha-3m2w"), ("no/such.yaml", "shipped are"), ("", "")],
)
def test_what_is_not_there(name: str, words: str) -> None:
    with pytest.raises(LabError) as caught:
        find_scenario(name)
    assert words in caught.value.hint


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_what_cannot_be_a_file(name: str) -> None:
    with pytest.raises(NotFound):
        find_scenario(name)


def test_a_folder_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "lesson.yaml").touch()
    with pytest.raises(UsageError, match="is a folder") as caught:
        find_scenario(str(tmp_path))
    assert "lesson.yaml" in caught.value.hint


def test_not_utf8_names_the_line(catalog, tmp_path: Path) -> None:
    file = tmp_path / "latin1.yaml"
    file.write_bytes(HEAD.encode() + "description: Übung".encode("latin-1"))
    with pytest.raises(ScenarioError, match="not UTF-8") as caught:
        load_scenario(str(file), catalog)
    assert caught.value.details == ("line 3: byte 0xdc begins no character",)


def test_a_file_that_cannot_be_read(catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret.yaml"
    file.write_text(HEAD)

    def refuse(*_arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root reads everything, so chmod proves nothing
    with pytest.raises(UsageError, match="cannot be read") as caught:
        load_scenario(str(file), catalog)
    assert caught.value.details == ("Permission denied",)


def test_addons_beside_the_scenario_in_order(catalog, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.yaml").write_text(f"{NGINX}---\n---\n{NGINX.replace('nginx', 'second')}")
    (tmp_path / "s.yaml").write_text(HEAD + "addons: [more/a.yaml]\n")
    loaded = load_scenario(str(tmp_path / "s.yaml"), catalog)
    assert [item["metadata"]["name"] for item in loaded.addons] == ["nginx", "second"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        ("a: [", "not YAML"),
        ("just text", "not a Kubernetes object"),
        (f"{NGINX}---\nkind: Pod\n", "document 2"),
        ("apiVersion: v1\nkind: Pod\nmetadata: []\n", "not a Kubernetes object"),
    ],
)
def test_addons_that_cannot_be_used(catalog, tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "a.yaml").write_text(content)
    (tmp_path / "s.yaml").write_text(HEAD + "addons: [a.yaml]\n")
    with pytest.raises(ScenarioError, match=words):
        load_scenario(str(tmp_path / "s.yaml"), catalog)


def scenario(folder: Path, *addons: str) -> str:
    file = folder / "s.yaml"
    file.write_text(HEAD + f"addons: {json.dumps(addons)}\n")
    return str(file)


def addon(catalog, folder: Path, text: str):
    (folder / "a.yaml").write_text(text)
    return load_scenario(scenario(folder, "a.yaml"), catalog).addons


def config_map(data: str) -> str:
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n  x: {data}\n"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *(
            ("=", "="),
            ("12:30", "12:30"),
            ("2024-01-01", "2024-01-01"),
            ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z"),
        ),
        *(("010", 8), ("0o10", 8), ("0x1F", 31), ("0b11", 3), ("-0b11", -3), ("1_000", 1000), ("08", 8), ("-010", -8)),
        *(("y", True), ("No", False), ("on", True), ("~", None), ("", None), ("TRUE", True), ("yEs", "yEs")),
        *((".5", 0.5), ("1.0", 1), ("1e3", 1000), ("1e400", "1e400"), ("1.2.3", "1.2.3"), ("1:30", "1:30")),
        *(("9223372036854775807", 2**63 - 1), ("9223372036854775808", 2.0**63), ("9" * 40, 1e40), ("_1", "_1")),
        *(
            ("!!binary aGVsbG8=", "hello"),
            ("!!str 010", "010"),
            ("!!float 1", 1),
            ("!!timestamp 2024-01-01", "2024-01-01"),
        ),
        *(("'010'", "010"), ('"yes"', "yes"), ("1_0x", "1_0x"), ("+5", 5), ("-", "-"), ("0x", "0x")),
    ],
)
def test_a_value_of_an_addon_is_what_kubectl_reads(catalog, tmp_path: Path, written: str, read: object) -> None:
    if written == "-":
        written = "'-'"
    value = addon(catalog, tmp_path, config_map(written))[0]["data"]["x"]
    assert (value, type(value)) == (read, type(read))


def test_keys_of_an_addon_are_what_json_has(catalog, tmp_path: Path) -> None:
    text = config_map("1") + "  010: a\n  y: b\n  1.5: c\n  '010': d\n  \"=\": e\n  =: f\n"
    with pytest.raises(ScenarioError, match="stands here twice"):
        addon(catalog, tmp_path, text)
    data = addon(catalog, tmp_path, text.replace("  =: f\n", ""))[0]["data"]
    assert data == {"x": 1, "8": "a", "true": "b", "1.5": "c", "010": "d", "=": "e"}


def test_merge_keys_of_an_addon(catalog, tmp_path: Path) -> None:
    text = config_map("1") + "  <<: [{a: 1, b: 1}, {b: 2, c: 2}]\n  c: 3\n"
    assert addon(catalog, tmp_path, text)[0]["data"] == {"x": 1, "a": 1, "b": 1, "c": 3}


NESTED = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: " + "{a: " * 150 + "1" + "}" * 150
ALIASES = config_map("&x0 [1,1,1,1,1,1,1,1,1,1]") + "".join(
    f"  y{n}: &x{n} [{','.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 8)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NESTED, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        (ALIASES, "aliases (*) count each time they are used"),
        (config_map(f"&x {'x' * 100_000}") + f"  y: [{','.join(['*x'] * 40)}]\n", "aliases (*) count"),
        (config_map("&x [*x]"), "an alias (*) makes this file refer to itself"),
        (config_map("&x {<<: *x}"), "an alias (*) makes this file refer to itself"),
        (config_map("1") + "data: {}\n", "line 6: this key stands here twice; first in line 4"),
        (config_map("1") + "  x: 2\n", "line 6: this key stands here twice; first in line 5"),
        (config_map(".inf"), "line 5: .inf is a number that JSON does not have"),
        (config_map("!!binary _w=="), "!!binary that is not text"),
        (config_map("!!binary /w=="), "!!binary that is not text"),
        (config_map("!foo x"), "line 5: the tag !foo has no meaning here"),
        (config_map("!!set {a, b}"), "has no meaning here"),
        (config_map("!!int x"), "cannot be read as int"),
        (config_map("1") + "  ~: 2\n", "a key must be a word"),
        (config_map("1") + "  [a]: 2\n", "a key must be a word"),
        (config_map("1") + "  <<: 2\n", "only keys can be merged"),
        (config_map('"\\UFFFFFFFF"'), "not YAML"),
        (config_map("*x"), "not YAML"),
        (config_map("1") + "...\n%YAML 9.9\n---\n", "not YAML"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: ''}\n", "not a Kubernetes object"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: a}\n", "has a generateName and no name"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\n", "make no namespace b"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: kube-flannel2}\n",
            "make no namespace kube-flannel2",
        ),
        ("apiVersion: v1\nkind: List\nitems: [1]\n", "not a Kubernetes object"),
    ],
)
def test_addons_that_kubectl_would_not_take_or_that_have_no_end(catalog, tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        addon(catalog, tmp_path, text)
    assert words in str(caught.value)
    assert caught.value.hint


def test_a_list_is_its_items(catalog, tmp_path: Path) -> None:
    text = """
        {apiVersion: v1, kind: List, items: [
          {apiVersion: v1, kind: ConfigMap, metadata: {name: one}},
          {apiVersion: v1, kind: SecretList, items: [{metadata: {name: two}}]},
          {apiVersion: v1, kind: List, items: []}]}
    """
    found = addon(catalog, tmp_path, text)
    assert [(each["kind"], each["metadata"]["name"]) for each in found] == [("ConfigMap", "one"), ("Secret", "two")]


def test_an_honest_alias_is_no_problem(catalog, tmp_path: Path) -> None:
    found = addon(catalog, tmp_path, config_map("&x {a: 1}") + "  z: *x\n")
    assert json.loads(json.dumps(found[0]))["data"] == {name: {"a": 1} for name in "xz"}


def test_addons_are_read_with_one_limit_for_all(catalog, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(config_map("1") + "#" * (2 << 20))
    assert load_scenario(scenario(tmp_path, "a.yaml"), catalog).addons
    with pytest.raises(ScenarioError, match=r"larger than 3 MiB in all, with .*b\.yaml"):
        load_scenario(scenario(tmp_path, "a.yaml", "b.yaml"), catalog)


@pytest.mark.parametrize("name", ["../a.yaml", "/etc/passwd", "link.yaml", "folder/a.yaml"])
def test_addons_outside_of_the_folder(catalog, tmp_path: Path, name: str) -> None:
    (tmp_path / "a.yaml").write_text(NGINX)
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "link.yaml").symlink_to("../a.yaml")
    (inner / "folder").symlink_to(tmp_path)
    with pytest.raises(ScenarioError, match="is outside of the scenario's folder") as caught:
        load_scenario(scenario(inner, name), catalog)
    assert "copy them there" in caught.value.hint


def test_an_address_is_no_addon(catalog, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"https://x\.example/a\.yaml is an address; klab reads files") as caught:
        load_scenario(scenario(tmp_path, "https://x.example/a.yaml"), catalog)
    assert "curl -fsSLO" in caught.value.hint


def test_a_namespace_may_come_later_from_another_file_or_be_kubernetes_own(catalog, tmp_path: Path) -> None:
    def pod(namespace: str) -> str:
        return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: {namespace}}}\n"

    (tmp_path / "a.yaml").write_text("---\n".join(map(pod, ("mine", "kube-system", "default", "kube-flannel", '""'))))
    (tmp_path / "b.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: mine}\n")
    assert len(load_scenario(scenario(tmp_path, "a.yaml", "b.yaml"), catalog).addons) == 6
    with pytest.raises(ScenarioError, match="make no namespace mine") as caught:
        load_scenario(scenario(tmp_path, "a.yaml"), catalog)
    assert list(caught.value.details) == ["Pod a: in the namespace mine"]


@pytest.mark.parametrize("kind", ["ClusterRole", "Gateway", "Namespace"])
def test_the_namespace_of_a_kind_that_may_have_none_is_not_judged(kind: str, catalog, tmp_path: Path) -> None:
    text = f"apiVersion: x.example/v1\nkind: {kind}\nmetadata: {{name: a, namespace: elsewhere}}\n"
    assert addon(catalog, tmp_path, text)


# --- folders ------------------------------------------------------------------------------------------


def folder_of(tmp_path: Path, name: str = "kustomization.yaml") -> str:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / name).write_text("resources: [a.yaml]\n")
    return scenario(tmp_path, "web")


@pytest.mark.parametrize("name", ["kustomization.yaml", "kustomization.yml", "Kustomization"])
def test_a_folder_with_a_kustomization_is_built(name: str, catalog, tmp_path: Path) -> None:
    asked: list[Path] = []

    def build(folder: Path) -> str:
        asked.append(folder)
        return config_map("12:30")

    loaded = load_scenario(folder_of(tmp_path, name), catalog, build)
    assert asked == [(tmp_path / "web").resolve()]
    assert loaded.addons[0]["data"] == {"x": "12:30"}


def test_a_folder_is_as_limited_as_files(catalog, tmp_path: Path) -> None:
    name = folder_of(tmp_path)
    with pytest.raises(ScenarioError, match=r"larger than 3 MiB in all, with .*web"):
        load_scenario(name, catalog, lambda _: "#" * (4 << 20))
    with pytest.raises(ScenarioError, match="web is a folder"):
        load_scenario(name, catalog)


def test_addons_through_a_link_inside_of_the_folder(catalog, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.yaml").write_text(NGINX)
    (tmp_path / "link.yaml").symlink_to("more/a.yaml")
    assert load_scenario(scenario(tmp_path, "link.yaml", "more/../more/a.yaml"), catalog).addons


def test_a_link_to_a_scenario_has_the_addons_beside_the_file(catalog, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.yaml").write_text(NGINX)
    scenario(tmp_path / "real", "a.yaml")
    link = tmp_path / "lesson.yaml"
    link.symlink_to("real/s.yaml")
    loaded = load_scenario(str(link), catalog)
    assert (len(loaded.addons), loaded.path) == (1, link)


def test_what_is_no_regular_file_is_refused(catalog, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in (str(tmp_path / "fifo"), "/dev/zero", "/dev/null"):
        with pytest.raises(UsageError, match=r"is a (FIFO|character device)") as caught:
            load_scenario(name, catalog)
        assert "standard input where the name is -" in caught.value.hint
    with pytest.raises(UsageError, match="is a FIFO"):
        load_scenario(scenario(tmp_path, "fifo"), catalog)
    with pytest.raises(ScenarioError, match=r"is a folder without a kustomization\.yaml"):
        load_scenario(scenario(tmp_path, "."), catalog)


def test_a_scenario_is_read_up_to_its_limit(catalog, tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    with file.open("wb") as out:
        out.truncate(1 << 40)
    with pytest.raises(UsageError, match="is larger than 64 KiB"):
        load_scenario(str(file), catalog)


def standard_input(monkeypatch: pytest.MonkeyPatch, raw: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))


def test_standard_input_with_addons_in_the_current_folder(
    catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text(NGINX)
    monkeypatch.chdir(tmp_path)
    standard_input(monkeypatch, HEAD.encode() + b"addons: [a.yaml]\n")
    loaded = load_scenario("-", catalog)
    assert (loaded.scenario.name, len(loaded.addons)) == ("test", 1)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"x" * (65 * 1024), "standard input has more than 64 KiB"),
        (b"\xff", "standard input is not UTF-8"),
        (b"", "standard input has a problem"),
        (HEAD.encode() + b"addons: [../a.yaml]\n", "outside of the scenario's folder"),
    ],
)
def test_standard_input_that_cannot_be_used(catalog, monkeypatch: pytest.MonkeyPatch, raw: bytes, words: str) -> None:
    standard_input(monkeypatch, raw)
    with pytest.raises(UsageError, match=words):
        load_scenario("-", catalog)


def test_standard_input_that_is_closed_or_a_folder(catalog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ScenarioError, match="standard input has a problem"):
        load_scenario("-", catalog)
    handle = os.open(tmp_path, os.O_RDONLY)
    with os.fdopen(os.open(os.devnull, os.O_RDONLY)) as stream:
        os.dup2(handle, stream.fileno())
        os.close(handle)
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(UsageError, match="standard input cannot be read"):
            load_scenario("-", catalog)


def test_an_address_is_not_fetched() -> None:
    with pytest.raises(UsageError, match="is an address; klab reads files") as caught:
        find_scenario("https://lessons.example/3.yaml")
    assert "klab create -" in caught.value.hint


def test_libyaml_and_pyyaml_read_the_same(catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lab.scenario import yaml_source

    assert yaml.__with_libyaml__
    text = f"{config_map('=')}---\n{config_map('[010, {a: yes}]')}---\n"
    quick = addon(catalog, tmp_path, text)
    monkeypatch.setattr(yaml_source, "QuickLoader", yaml_source.PlainLoader)
    assert addon(catalog, tmp_path, text) == quick
