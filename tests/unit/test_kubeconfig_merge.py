"""Merging into a person's kubeconfig: nothing of theirs is ever lost."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml

from lab.errors import Conflict, LabError, UsageError
from lab.kubeconfig import Merged, find_user, kubectl_files, merge_files

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


EXTRA = """\
apiVersion: v1
kind: Config
clusters: [{name: spare, cluster: {server: "https://spare.example:6443"}}]
users: [{name: spare, user: {token: none}}]
contexts: [{name: spare, context: {cluster: spare, user: spare}}]
"""
PROD = """\
# precious: ask the operations desk before you change this file
apiVersion: v1
kind: Config
current-context: prod  # precious, too
clusters: [{name: prod, cluster: {server: "https://prod.example:6443"}}]
users: [{name: prod, user: {token: none}}]
contexts: [{name: prod, context: {cluster: prod, user: prod}}]
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "dir" / "config"


def put(target: Path, text: str) -> None:
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)


def merge(target: Path, lab_text: str) -> Path | None:
    """Merge into one file; the backup, if there is one."""
    changed = merge_files([target], lab_text)
    return changed[0].backup if changed else None


def names(target: Path, section: str) -> list[str]:
    return [entry["name"] for entry in yaml.safe_load(target.read_text())[section]]


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def context(*files: Path) -> str:
    """The current context of the merged view of files (client-go: the first that has one)."""
    found = [yaml.safe_load(file.read_text()) for file in files if file.exists()]
    return next((each["current-context"] for each in found if each.get("current-context")), "")


@pytest.mark.parametrize(
    "before",
    [
        *(None, "", "# nothing yet\n", "{}\n", "clusters: null\nusers: []\n", "null\n", "~\n", "---\n", "\ufeff"),
        *("clusters: []\n---\n", "---\nusers:\n---\n---\n", "kind:\napiVersion:\n", "current-context: null\n"),
    ],
)
def test_into_nothing(target: Path, before: str | None) -> None:
    if before is not None:
        put(target, before)
    merge(target, lab_config("1m2w"))
    merged = yaml.safe_load(target.read_text())
    assert [merged[s][0]["name"] for s in ("clusters", "users", "contexts")] == ["klab-1m2w"] * 3
    assert merged["current-context"] == "klab-1m2w"


def test_a_new_file_is_for_its_owner_alone(target: Path) -> None:
    assert merge_files([target], lab_config("1m2w")) == [Merged(target, None)]
    assert mode(target) == 0o600


def test_everything_else_keeps_its_very_text(target: Path) -> None:
    put(target, OWN)
    backup = merge(target, lab_config("1m2w"))
    text = target.read_text()
    for line in OWN.splitlines():
        assert line in text.splitlines()
    assert names(target, "contexts") == ["work", "klab-1m2w"]
    assert yaml.safe_load(text)["current-context"] == "work"
    assert backup is not None
    assert backup.read_text() == OWN


def test_a_tag_keeps_what_it_says(target: Path) -> None:
    put(target, "users: [{name: me, user: {name: !!str 5, token: a}}]\n")
    merge(target, lab_config("1m2w"))
    assert yaml.safe_load(target.read_text())["users"][0]["user"]["name"] == "5"


def test_again_replaces_its_own_entries_only(target: Path) -> None:
    put(target, OWN)
    merge(target, lab_config("1m2w"))
    merge(target, lab_config("other"))
    merge(target, lab_config("1m2w", server="https://10.0.0.1:8443"))
    assert names(target, "clusters") == ["work", "klab-1m2w", "klab-other"]
    servers = {c["name"]: c["cluster"]["server"] for c in yaml.safe_load(target.read_text())["clusters"]}
    assert servers["klab-1m2w"] == "https://10.0.0.1:8443"
    assert servers["klab-other"] == "https://192.168.56.11:6443"


def test_the_same_again_changes_nothing(target: Path) -> None:
    put(target, OWN)
    merge(target, lab_config("1m2w"))
    once, files = target.read_bytes(), set(target.parent.iterdir())
    assert merge_files([target], lab_config("1m2w")) == []
    assert target.read_bytes() == once
    assert set(target.parent.iterdir()) == files


@pytest.mark.parametrize("file_mode", [0o644, 0o640, 0o600])
def test_owner_and_mode_stay_and_the_backup_has_them_too(target: Path, file_mode: int) -> None:
    put(target, OWN)
    target.chmod(file_mode)
    owner = 4711 if os.geteuid() == 0 else os.geteuid()
    os.chown(target, owner, -1)
    backup = merge(target, lab_config("1m2w"))
    assert backup is not None
    assert (target.stat().st_uid, mode(target)) == (backup.stat().st_uid, mode(backup)) == (owner, file_mode)


def test_comments_are_in_the_file_or_in_a_backup_after_any_number_of_merges(target: Path) -> None:
    put(target, PROD)
    for name in ("1m2w", "other", "1m2w", "third"):
        merge(target, lab_config(name, server=f"https://{name}.example:6443"))
    backups = sorted(target.parent.glob("config.before-klab*"))
    assert backups[0].read_text() == PROD
    assert [file.name for file in backups] == [
        "config.before-klab",
        "config.before-klab.1",
        "config.before-klab.2",
    ]


def test_a_backup_with_the_same_content_will_do(target: Path) -> None:
    for _ in range(3):
        put(target, PROD)
        assert merge(target, lab_config("1m2w")) == target.with_name("config.before-klab")
    assert len(list(target.parent.iterdir())) == 2


def test_a_backup_goes_through_no_link_and_over_no_file(target: Path, tmp_path: Path) -> None:
    put(target, PROD)
    target.with_name("config.before-klab").symlink_to(tmp_path / "elsewhere")
    target.with_name("config.before-klab.1").write_text("mine")
    os.mkfifo(target.with_name("config.before-klab.2"))
    assert merge(target, lab_config("1m2w")) == target.with_name("config.before-klab.3")
    assert not (tmp_path / "elsewhere").exists()
    assert target.with_name("config.before-klab.1").read_text() == "mine"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (b"a: [", "is not YAML"),
        (b"- a\n", "not a set of keys"),
        (b"text", "not a set of keys"),
        (b"clusters: {a: b}\n", "clusters is not a list"),
        (b"\xff\xfe", "not UTF-8"),
        (b"a: 1\n---\nb: 2\n", "line 3: kubectl reads nothing from here on"),
        (b"\0", "is not YAML"),
        (b'a: "\\UFFFFFFFF"\n', "is not YAML"),
        (b"[" * 100_000, "is not YAML"),
        (b"apiVersion: v2\n", "apiVersion is not v1"),
        (b"kind: Pod\n", "kind is not Config"),
        (b"current-context: [a]\n", "line 1: current-context is not text"),
        (b"current-context: 5\n", "current-context is not text"),
        (b"current-context: yes\n", "current-context is not text"),
        (b"clusters: [a]\n", "line 1: an entry of clusters is not a set of keys"),
        (b"clusters: [{name: 1, cluster: {}}]\n", "name is not text"),
        (b"clusters: [{name: a, cluster: [b]}]\n", "something in cluster that is not a set of keys"),
        (b"users: [{name: a}, {name: a}]\n", "an entry of users has the name of another: 'a'"),
        (b"clusters: []\nusers: []\nclusters: []\n", "line 3: clusters is here twice; first in line 1"),
        (b"users: [{name: a, user: {token: a, token: b}}]\n", "token is here twice"),
        (b"a: &a {clusters: []}\n<<: *a\n", "line 2: klab cannot merge keys"),
        (b"current-context: '\\ud800'\nkind: !foo Config\n", "the tag !foo has no meaning"),
    ],
)
def test_a_file_that_is_no_kubeconfig_is_left_alone(target: Path, broken: bytes, words: str) -> None:
    target.parent.mkdir()
    target.write_bytes(broken)
    with pytest.raises(UsageError, match="nothing was changed") as caught:
        merge(target, lab_config("1m2w"))
    assert words in str(caught.value)
    assert target.read_bytes() == broken
    assert list(target.parent.iterdir()) == [target]


def test_lists_that_share_an_alias_become_two(target: Path) -> None:
    put(target, "apiVersion: v1\nkind: Config\nclusters: &empty []\nusers: *empty\ncontexts: []\n")
    merge(target, lab_config("1m2w"))
    merged = yaml.safe_load(target.read_text())
    assert list(merged["clusters"][0]) == ["cluster", "name"]
    assert list(merged["users"][0]) == ["name", "user"]


def test_an_entry_that_is_null_stays(target: Path) -> None:
    put(target, "clusters: [null]\nusers: [{name: a, user: null}]\n")
    merge(target, lab_config("1m2w"))
    merged = yaml.safe_load(target.read_text())
    assert [entry and entry["name"] for entry in merged["clusters"]] == [None, "klab-1m2w"]


def test_an_entry_of_that_name_which_is_not_klabs_is_left_alone(target: Path) -> None:
    put(target, OWN.replace("work", "klab-1m2w"))
    before = target.read_bytes()
    with pytest.raises(Conflict, match="klab did not make"):
        merge(target, lab_config("1m2w"))
    assert target.read_bytes() == before
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("planted", [False, True])
def test_while_kubectl_changes_the_file(target: Path, tmp_path: Path, planted: bool) -> None:
    put(target, OWN)
    lock = target.with_name("config.lock")
    if planted:
        lock.symlink_to(tmp_path / "elsewhere")
    else:
        lock.touch()
    with pytest.raises(Conflict, match="another program"):
        merge(target, lab_config("1m2w"))
    assert lock.is_symlink() == planted
    assert not (tmp_path / "elsewhere").exists()
    assert target.read_text() == OWN


def test_a_link_stays_a_link_and_both_names_are_locked(target: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_text(OWN)
    target.parent.mkdir()
    target.symlink_to(real)
    merge(target, lab_config("1m2w"))
    assert target.is_symlink()
    assert "klab-1m2w" in real.read_text()
    for lock in (target.with_name("config.lock"), tmp_path / "real.lock"):
        lock.touch()
        with pytest.raises(Conflict, match="another program"):
            merge(target, lab_config("other"))
        lock.unlink()
    merge(target, lab_config("other"))  # no lock of an attempt that failed is left


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="cannot be changed"):
        merge(tmp_path / "file" / "config", lab_config("1m2w"))


def test_what_is_no_regular_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    own = tmp_path / "own"
    own.write_text(OWN)
    for files in ([fifo], [own, fifo], [tmp_path]):
        with pytest.raises(UsageError, match=r"is a (FIFO|folder)"):
            merge_files(files, lab_config("1m2w"))
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert own.read_text() == OWN
    assert sorted(tmp_path.iterdir()) == [fifo, own]


@pytest.mark.parametrize("device", [Path("/dev/null"), Path("/dev/zero")])
def test_a_device_is_refused_and_nothing_is_made_beside_it(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "config"
    link.symlink_to(device)

    def refuse(*_arguments: object, **_more: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UsageError, match="is a character device"):
        merge(link, lab_config("1m2w"))


def test_a_large_file_is_not_read_to_its_end(target: Path) -> None:
    target.parent.mkdir()
    with target.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UsageError, match="is larger than 1 MiB"):
        merge(target, lab_config("1m2w"))


class TestSeveralFiles:
    """client-go, tools/clientcmd/config.go: PathOptions.GetDefaultFilename and ModifyConfig."""

    @pytest.fixture
    def files(self, tmp_path: Path) -> list[Path]:
        return [tmp_path / "a", tmp_path / "b", tmp_path / "c"]

    @pytest.mark.parametrize(("there", "written"), [("", 2), ("a", 0), ("b", 1), ("bc", 1), ("ac", 0), ("c", 2)])
    def test_new_entries_go_into_the_first_that_exists_else_the_last(
        self, files: list[Path], there: str, written: int
    ) -> None:
        for file in files:
            if file.name in there:
                file.write_text(EXTRA)
        changed = merge_files(files, lab_config("1m2w"))
        assert [each.file for each in changed] == [files[written]]
        assert {file.name for file in files if file.exists()} == set(there) | {files[written].name}

    def test_an_entry_is_changed_in_the_first_file_that_has_it(self, files: list[Path]) -> None:
        files[0].write_text(EXTRA)
        for file in files[1:]:
            merge_files([file], lab_config("1m2w"))
        last = files[2].read_bytes()
        changed = merge_files(files, lab_config("1m2w", server="https://10.0.0.1:8443"))
        assert [each.file for each in changed] == [files[1]]
        assert files[0].read_text() == EXTRA
        assert files[2].read_bytes() == last
        assert "10.0.0.1" in files[1].read_text()

    def test_entries_of_one_lab_in_two_files(self, files: list[Path]) -> None:
        whole = yaml.safe_load(lab_config("1m2w"))
        merge_files(files[:1], yaml.safe_dump(whole | {"users": [], "contexts": []}))
        merge_files(files[1:2], yaml.safe_dump(whole | {"clusters": []}))
        new = lab_config("1m2w", server="https://10.0.0.1:8443").replace("BB", "DD")
        assert [each.file for each in merge_files(files, new)] == files[:2]
        assert "10.0.0.1" in files[0].read_text()
        assert "DD" in files[1].read_text()
        assert names(files[0], "clusters") == ["klab-1m2w"]
        assert not yaml.safe_load(files[1].read_text()).get("clusters")

    def test_an_entry_in_another_file_which_is_not_klabs(self, files: list[Path]) -> None:
        files[0].write_text(EXTRA)
        files[2].write_text(OWN.replace("work", "klab-1m2w"))
        with pytest.raises(Conflict, match=f"{files[2]} has an entry 'klab-1m2w'"):
            merge_files(files, lab_config("1m2w"))
        assert files[0].read_text() == EXTRA

    @pytest.mark.parametrize(
        ("texts", "expected"), [((EXTRA, PROD), "prod"), ((None, PROD), "prod"), ((EXTRA, EXTRA), "klab-1m2w")]
    )
    def test_the_current_context_is_that_of_all_files(
        self, files: list[Path], texts: tuple[str | None, ...], expected: str
    ) -> None:
        for file, text in zip(files, texts, strict=False):
            if text is not None:
                file.write_text(text)
        merge_files(files, lab_config("1m2w"))
        assert context(*files) == expected

    def test_a_file_that_kubectl_could_not_read(self, files: list[Path]) -> None:
        files[0].write_text(EXTRA)
        files[1].write_text("clusters: {}\n")
        with pytest.raises(UsageError, match=str(files[1])):
            merge_files(files, lab_config("1m2w"))
        assert files[0].read_text() == EXTRA

    def test_one_file_under_two_names(self, files: list[Path]) -> None:
        files[1].write_text(PROD)
        files[0].symlink_to(files[1])
        assert [each.file for each in merge_files(files[:2], lab_config("1m2w"))] == [files[0]]
        assert names(files[1], "contexts") == ["prod", "klab-1m2w"]

    def test_finding_a_user(self, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KUBECONFIG", ":".join(map(str, files)))
        files[0].write_text("no kubeconfig")
        os.mkfifo(files[1])
        assert find_user("klab-1m2w") is None
        merge_files(files[2:], lab_config("1m2w"))
        assert find_user("klab-1m2w") == files[2]


def test_kubectls_own_rule_finds_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert kubectl_files() == [Path.home() / ".kube" / "config"]
    monkeypatch.setenv("KUBECONFIG", f":{tmp_path}/a:{tmp_path}/b::{tmp_path}/a")
    assert kubectl_files() == [tmp_path / "a", tmp_path / "b"]
    monkeypatch.setenv("KUBECONFIG", ":")
    with pytest.raises(UsageError, match="names no file"):
        kubectl_files()
    assert find_user("any") is None
