"""What mirrors are asked with: files beside a scenario, and the way of what they hold onto a node."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

from lab.cluster.pki import make_ca
from lab.cluster.secrets import keep_mirror_access, load_or_make
from lab.errors import ClusterError, ScenarioError, UsageError
from lab.plan.decide import decide
from lab.plan.file import to_json
from lab.render.cloudinit import render_seed
from lab.scenario.catalog import Catalog
from lab.scenario.library import Loaded, load_scenario
from lab.scenario.mirror_access import MirrorAccess, parse_ca, parse_login
from lab.store import LabFolder

LOGIN = "robot$class+pull:pass: word"


@pytest.fixture(scope="module")
def ca() -> str:
    return make_ca("university").public


def scenario(folder: Path, **keys: str) -> str:
    entry = {"url": "https://harbor.example/quay", **keys}
    file = folder / "s.yaml"
    file.write_text(f"version: 1\nname: lesson\nmirrors: {json.dumps({'quay.io': entry})}\n")
    return str(file)


@pytest.fixture
def loaded(catalog: Catalog, tmp_path: Path, ca: str) -> Loaded:
    (tmp_path / "ca.pem").write_text(f"Subject: university\n{ca}")
    (tmp_path / "login").write_text(f"{LOGIN}\n")
    return load_scenario(scenario(tmp_path, ca="ca.pem", login="login"), catalog)


def test_files_beside_a_scenario_are_read(loaded: Loaded, ca: str) -> None:
    assert loaded.mirror_access == {"quay.io": MirrorAccess(ca, LOGIN)}


def test_neither_the_plan_nor_what_is_printed_of_it_has_the_password(loaded: Loaded, catalog: Catalog) -> None:
    plan = decide(loaded.scenario, catalog)
    assert plan.mirrors == (("quay.io", "https://harbor.example/quay"),)
    for text in (to_json(plan), repr(loaded), repr(loaded.mirror_access), loaded.text):
        assert "word" not in text


def test_they_get_to_the_nodes_and_only_root_reads_the_login(
    loaded: Loaded, catalog: Catalog, tmp_path: Path, ca: str
) -> None:
    folder, plan = LabFolder(tmp_path / "lab"), decide(loaded.scenario, catalog)
    keep_mirror_access(folder, loaded.mirror_access)
    assert stat.S_IMODE(folder.mirror_access.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.pki.stat().st_mode) == 0o700
    secrets = load_or_make(folder)
    assert "word" not in repr(secrets)
    seed = yaml.safe_load(render_seed(plan, plan.nodes[0], secrets)["user-data"])
    files = {each["path"]: each for each in seed["write_files"]}
    hosts = files["/etc/containerd/certs.d/quay.io/hosts.toml"]
    assert f"Basic {MirrorAccess(login=LOGIN).basic}" in hosts["content"]
    assert hosts["permissions"] == "0600"
    assert files["/etc/containerd/certs.d/quay.io/mirror.pem"]["content"] == ca


def test_a_lab_whose_mirrors_want_nothing_keeps_nothing(tmp_path: Path) -> None:
    folder = LabFolder(tmp_path / "lab")
    keep_mirror_access(folder, {})
    assert not folder.path.exists()
    assert load_or_make(folder).mirror_access == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"quay.io": 1}', '{"quay.io": {"ca": ""}}', '{"quay.io": {"ca": 1}}'])
def test_what_was_kept_may_be_damaged(text: str, tmp_path: Path) -> None:
    folder = LabFolder(tmp_path / "lab")
    folder.pki.mkdir(parents=True)
    folder.mirror_access.write_text(text)
    with pytest.raises(ClusterError, match="is damaged") as caught:
        load_or_make(folder)
    assert "delete the file" in caught.value.hint


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"ca": "none.pem"}, "the CA of the mirror of quay.io .*none.pem does not exist"),
        ({"login": "none"}, "the login of the mirror of quay.io .*none does not exist"),
        ({"ca": "../ca.pem"}, "is outside of the scenario's folder"),
        (
            {"login": "/etc/passwd"},
            "the login of the mirror of quay.io /etc/passwd is outside of the scenario's",
        ),
        ({"ca": "https://x.example/ca.pem"}, "is an address; klab reads files"),
        ({"ca": "s.yaml"}, "the CA of the mirror of quay.io, .*s.yaml, cannot be used"),
        ({"login": "s.yaml"}, "the login of the mirror of quay.io, .*s.yaml, cannot be used"),
    ],
)
def test_a_file_that_cannot_be_used_is_told(keys: dict[str, str], words: str, catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=words) as caught:
        load_scenario(scenario(tmp_path, **keys), catalog)
    assert caught.value.hint


def test_a_file_that_is_too_large_is_told(catalog: Catalog, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("x" * (65 << 10))
    with pytest.raises(UsageError, match="is larger than 64 KiB"):
        load_scenario(scenario(tmp_path, ca="ca.pem"), catalog)


def test_a_ca_is_its_certificates_and_nothing_else(ca: str) -> None:
    other = make_ca("other").public
    assert parse_ca(f"text\r\n{ca}# more\n{other}") == ca + other
    assert parse_ca(ca.replace("\n", "\r\n")) == ca


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "is damaged"),
        ("-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n", "is damaged"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is damaged"),
        (make_ca("university").private, "holds a private key"),
    ],
)
def test_what_is_no_ca_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_ca(text)


@pytest.mark.parametrize("text", ["", "user", ":password", "user:", "us er:x", "a:b\nc:d", "ü:x", "a:\x1b", "a:b\n\n"])
def test_what_is_no_login_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="one line, USER:PASSWORD"):
        parse_login(text)


@pytest.mark.parametrize("text", ["user:x", "user:x\n", "user:x\r\n", "user:p:q r"])
def test_a_login_is_one_line(text: str) -> None:
    assert parse_login(text) == text.strip("\r\n")
