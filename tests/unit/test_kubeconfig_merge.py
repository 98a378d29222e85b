"""Merging into a person's kubeconfig: nothing of theirs is ever lost."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from lab.errors import Conflict, LabError, UsageError
from lab.kubeconfig import merge_file, personal_kubeconfig

OWN = """\
apiVersion: v1
clusters:
- cluster:
    insecure-skip-tls-verify: true
    server: "https://work:6443"
  name: 'work'
contexts:
- context: {cluster: work, user: me, namespace: 0123}
  name: work
current-context: work
kind: Config
preferences: {colors: true}
users:
- name: me
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: login, args: ["010", 010, on]}
    expiry: 2024-01-01T00:00:00Z
something-new: {kept: [1.10, ~]}
"""


def lab_config(name: str, server: str = "https://192.168.56.11:6443") -> str:
    entry = f"klab-{name}"
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": entry, "cluster": {"server": server, "certificate-authority-data": "AAAA"}}],
            "users": [{"name": entry, "user": {"client-certificate-data": "BB", "client-key-data": "CC"}}],
            "contexts": [{"name": entry, "context": {"cluster": entry, "user": entry}}],
            "current-context": entry,
        }
    )


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "dir" / "config"


def put(target: Path, text: str) -> None:
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)


def names(target: Path, section: str) -> list[str]:
    return [entry["name"] for entry in yaml.safe_load(target.read_text())[section]]


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


@pytest.mark.parametrize("before", [None, "", "# nothing yet\n", "{}\n", "clusters: null\nusers: []\n"])
def test_into_nothing(target: Path, before: str | None) -> None:
    if before is not None:
        put(target, before)
    merge_file(target, lab_config("1m2w"))
    merged = yaml.safe_load(target.read_text())
    assert [merged[s][0]["name"] for s in ("clusters", "users", "contexts")] == ["klab-1m2w"] * 3
    assert merged["current-context"] == "klab-1m2w"
    assert mode(target) == 0o600


def test_everything_else_keeps_its_very_text(target: Path) -> None:
    put(target, OWN)
    backup = merge_file(target, lab_config("1m2w"))
    text = target.read_text()
    for line in OWN.splitlines():
        assert line in text.splitlines()
    assert names(target, "contexts") == ["work", "klab-1m2w"]
    assert yaml.safe_load(text)["current-context"] == "work"
    assert backup is not None
    assert backup.read_text() == OWN
    assert mode(target) == mode(backup) == 0o600


def test_again_replaces_its_own_entries_only(target: Path) -> None:
    put(target, OWN)
    merge_file(target, lab_config("1m2w"))
    merge_file(target, lab_config("other"))
    merge_file(target, lab_config("1m2w", server="https://10.0.0.1:8443"))
    assert names(target, "clusters") == ["work", "klab-1m2w", "klab-other"]
    servers = {c["name"]: c["cluster"]["server"] for c in yaml.safe_load(target.read_text())["clusters"]}
    assert servers["klab-1m2w"] == "https://10.0.0.1:8443"
    assert servers["klab-other"] == "https://192.168.56.11:6443"


def test_the_same_again_changes_nothing(target: Path) -> None:
    put(target, OWN)
    merge_file(target, lab_config("1m2w"))
    once = target.read_bytes()
    merge_file(target, lab_config("1m2w"))
    assert target.read_bytes() == once


@pytest.mark.parametrize(
    "broken", [b"a: [", b"- a\n", b"text", b"clusters: {a: b}\n", b"\xff\xfe", b"a: 1\n---\nb: 2\n", b"\0"]
)
def test_a_file_that_is_no_kubeconfig_is_left_alone(target: Path, broken: bytes) -> None:
    target.parent.mkdir()
    target.write_bytes(broken)
    with pytest.raises(UsageError, match="nothing was changed"):
        merge_file(target, lab_config("1m2w"))
    assert target.read_bytes() == broken
    assert list(target.parent.iterdir()) == [target]


def test_an_entry_of_that_name_which_is_not_klabs_is_left_alone(target: Path) -> None:
    put(target, OWN.replace("work", "klab-1m2w"))
    before = target.read_bytes()
    with pytest.raises(Conflict, match="klab did not make"):
        merge_file(target, lab_config("1m2w"))
    assert target.read_bytes() == before


def test_while_kubectl_changes_the_file(target: Path) -> None:
    put(target, OWN)
    lock = target.with_name("config.lock")
    lock.touch()
    with pytest.raises(Conflict, match="another program"):
        merge_file(target, lab_config("1m2w"))
    assert lock.exists()
    assert target.read_text() == OWN


def test_a_link_stays_a_link(target: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text(OWN)
    target.parent.mkdir()
    target.symlink_to(real)
    merge_file(target, lab_config("1m2w"))
    assert target.is_symlink()
    assert "klab-1m2w" in real.read_text()


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="cannot be changed"):
        merge_file(tmp_path / "file" / "config", lab_config("1m2w"))


def test_kubectls_own_rule_finds_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert personal_kubeconfig() == Path.home() / ".kube" / "config"
    monkeypatch.setenv("KUBECONFIG", f":{tmp_path}/a:{tmp_path}/b")
    assert personal_kubeconfig() == tmp_path / "a"
