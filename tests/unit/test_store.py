"""A lab's lock and its record: what a second klab meets."""

from __future__ import annotations

import ast
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lab import files, locks, store
from lab.bundles import keys
from lab.errors import Conflict, HostError, LabError, NotFound, UsageError
from lab.store import COPIED, Home, LabFolder, Record


@pytest.fixture
def folder(tmp_path: Path) -> LabFolder:
    return Home(tmp_path).lab("demo")


def lock_of(folder: LabFolder) -> Path:
    return folder.path.parent / ".demo.lock"


def test_who_holds_a_lab_is_named(folder: LabFolder) -> None:
    with folder.lock(), pytest.raises(Conflict, match=f"another klab \\(process {os.getpid()}\\)"), folder.lock():
        pass
    assert not lock_of(folder).exists()


def test_a_lock_that_went_with_its_lab_keeps_nobody_out(folder: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A destroy ends, and removes the file, just between opening and locking it here."""
    flock: Callable[[int, int], None] = fcntl.flock
    gone: list[int] = []

    def late(handle: int, operation: int) -> None:
        if not gone:
            gone.append(os.fstat(handle).st_ino)
            lock_of(folder).unlink()
        flock(handle, operation)

    monkeypatch.setattr(locks.fcntl, "flock", late)
    with folder.lock():
        assert gone
        assert lock_of(folder).read_text() == str(os.getpid())
        with pytest.raises(Conflict, match="another klab"), folder.lock():
            pass


def test_a_lab_that_somebody_has_just_destroyed_is_not_called_damaged(folder: LabFolder) -> None:
    with pytest.raises(NotFound, match="lab 'demo' is gone") as caught:
        folder.record()
    assert "klab list" in caught.value.hint


def test_a_damaged_record_is_not_said_to_be_mended_by_what_fails_on_it(folder: LabFolder) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "lab.json").write_bytes(b"\xff{")
    with pytest.raises(LabError, match="the record of lab 'demo' is damaged") as caught:
        folder.record()
    assert "put that file back" in caught.value.hint
    assert "klab destroy" not in caught.value.hint


def test_a_record_by_another_version_of_klab_is_read(folder: LabFolder) -> None:
    folder.path.mkdir(parents=True)
    record = Record(id="1", name="demo", provider="libvirt", box="b", seat=0, phase="ready", created=1.0)
    folder.write_record(record)
    file = folder.path / "lab.json"
    file.write_text(file.read_text().replace("{", '{"of a later day": {},', 1))
    assert folder.record() == record


GOOD = Record(id="1", name="demo", provider="libvirt", box="b", seat=0, phase="ready", created=1.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, value) for name in ("epoch", "created", "dilation") for value in ("1", None, [1], True, float("nan"))),
        *((name, value) for name in ("epoch", "created") for value in (-1, 1e300, 10**400)),
        *(
            (name, value)
            for name in ("id", "name", "provider", "box", "phase", "checkpoint")
            for value in (1, None, {})
        ),
        *(("seat", value) for value in (1.5, "1", True)),
        *(("accelerated", value) for value in (1, "yes")),
        *(("dilation", value) for value in (0, -1, 1.5)),
    ],
)
def test_a_field_of_the_wrong_kind_is_named_with_its_file(folder: LabFolder, field: str, value: object) -> None:
    folder.path.mkdir(parents=True)
    file = folder.path / "lab.json"
    file.write_text(json.dumps(asdict(GOOD) | {field: value}))
    with pytest.raises(LabError, match="the record of lab 'demo' is damaged") as caught:
        folder.record()
    assert caught.value.details[0].startswith(f"{file}: {field} is ")


@pytest.mark.parametrize("text", ["[]", "null", "1", '"text"', "{}", "[" * 100_000])
def test_a_record_that_is_something_else(folder: LabFolder, text: str) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "lab.json").write_text(text)
    with pytest.raises(LabError, match="the record of lab 'demo' is damaged"):
        folder.record()


def test_whole_numbers_are_moments_and_rates_too(folder: LabFolder) -> None:
    folder.path.mkdir(parents=True)
    folder.write_record(replace(GOOD, created=1, epoch=0, dilation=1))
    assert folder.record().created == 1


@pytest.mark.parametrize(
    ("name", "character"),
    [("a\nb", "\\x0a"), ("a\tb", "\\x09"), ("a\x7fb", "\\x7f"), ("a\udcffb", "\\udcff"), ("a\u202eb", "\\u202e"),
     ("a:b", ":"), ("a${HOME}", "${")],
)  # fmt: skip
def test_a_home_that_other_programs_would_read_in_another_way_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, character: str
) -> None:
    monkeypatch.setenv("KLAB_HOME", str(tmp_path / name))
    with pytest.raises(UsageError, match="klab cannot keep its files in") as caught:
        Home.default()
    assert [line.split(" in it: ")[0] for line in caught.value.details] == [f"its name has {character}"]
    assert "KLAB_HOME" in caught.value.hint


def test_a_home_of_a_user_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAB_HOME", "~nobody-of-that-name/klab")
    with pytest.raises(UsageError, match="there is no such user"):
        Home.default()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("made", [True, False])
def test_root_leaves_nothing_in_a_persons_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: bool) -> None:
    (tmp_path / "person").mkdir()
    home = tmp_path / "person" / "klab"
    if made:
        home.mkdir()
        os.chown(home, 65534, 65534)
    else:
        os.chown(tmp_path / "person", 65534, 65534)
    monkeypatch.setenv("KLAB_HOME", str(home))
    with pytest.raises(HostError, match=f"klab runs as root, but {home if made else home.parent} belongs to") as caught:
        Home.default()
    assert "without sudo" in caught.value.hint
    assert Home.default(gives_back=True).root == home, "klab box build gives everything back"
    os.chown(home if made else home.parent, 0, 0)
    assert Home.default().root == home
    assert home.exists() is made


def test_a_person_may_have_labs_below_a_folder_of_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KLAB_HOME", str(tmp_path / "klab"))
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert Home.default().root == tmp_path / "klab"


def test_files_that_root_has_left_are_given_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = Home(tmp_path / "my home")
    file = home.lab("demo").path / "lab.json"
    file.parent.mkdir(parents=True)
    file.touch()
    refused = PermissionError(13, "Permission denied", str(file))
    assert home.way_back(refused) == "", "it is this user's own: a mode keeps it closed"
    assert home.way_back(OSError(28, "No space left on device", str(file))) == ""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert f"sudo chown -R $USER: '{tmp_path}/my home'" in home.way_back(refused)
    assert "chown" in home.way_back(PermissionError(13, "Permission denied", str(file.with_name("new"))))
    assert home.way_back(PermissionError(13, "Permission denied", "/etc/shadow")) == ""
    assert home.way_back(PermissionError("no name")) == ""
    monkeypatch.setattr(
        Path, "read_text", lambda path, **_: (_ for _ in ()).throw(PermissionError(13, "no", str(path)))
    )
    with pytest.raises(LabError) as caught:
        home.lab("demo").record()
    assert "sudo chown -R" in caught.value.hint


@pytest.mark.parametrize("name", ["a b", "it's", 'a"b', "a&b;c", "$(x)", "a%b", "ümläut", "\u96ea"])
def test_other_homes_are_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setenv("KLAB_HOME", str(tmp_path / name))
    assert Home.default().root == tmp_path / name


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_klabs_folder_is_its_owners_alone_under_every_umask(tmp_path: Path) -> None:
    home = Home(tmp_path / "above" / "klab")
    with home.lab("demo").lock():
        made = [tmp_path / "above", home.root, home.labs]
        assert [folder.stat().st_mode & 0o777 for folder in made] == [0o700] * 3
        assert (home.labs / ".demo.lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("umask")
def test_a_folder_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "klab").mkdir()
    (tmp_path / "klab").chmod(0o755)
    files.make_private(tmp_path / "klab" / "labs")
    assert (tmp_path / "klab").stat().st_mode & 0o777 == 0o755


def test_what_a_checkpoint_copies_of_a_lab_is_what_a_copy_begins_with() -> None:
    folders = {name.partition("/")[0] for name in keys.NAMES}
    assert folders | {"scenario.yaml"} == COPIED


def test_the_names_of_a_labs_files_stand_in_one_place(folder: LabFolder) -> None:
    """A file with such a name elsewhere is another thing: a box has a Vagrantfile, too."""
    named = {"plan.json", "scenario.yaml", "lab.json", "pki", ".vagrant", "known_hosts", "events.jsonl", "attempt.json"}
    root = Path(store.__file__).parent
    for file in root.rglob("*.py"):
        if file != Path(store.__file__):
            constants = (n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Constant))
            assert not named & {value for value in constants if isinstance(value, str)}, file
