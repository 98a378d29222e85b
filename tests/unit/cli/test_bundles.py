"""klab export, import, bundles, destroy --keep-snapshots: what a person reads and a program gets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from support.fake_lab import lab_on_disk, register
from support.shelved import flipped, shelve

from lab import process
from lab.app import bundles as flow
from lab.app import create
from lab.boxes import store
from lab.bundles.file import BundleFile, open_bundle
from lab.bundles.writer import Writer
from lab.cli.app import cli
from lab.components.kubernetes import DEFAULT
from lab.errors import Interrupted
from lab.host.capacity import DiskRoom, HostFacts, Route
from lab.machines.captures import PartKind
from lab.machines.fake.machines import FakeMachines
from lab.machines.fake.provider import FakeProvider
from lab.store import Home, LabFolder

pytestmark = pytest.mark.usefixtures("quick_watch")

Klab = Callable[..., tuple[str, str]]


@pytest.fixture
def klab(klab: Klab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Klab:
    """As everywhere, in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return klab


@pytest.fixture
def demo(home: Path) -> LabFolder:
    """A lab without a cluster, of two machines that are off."""
    folder, plan = lab_on_disk(Home(home), control_planes=1, workers=1, bootstrap="none")
    shelve(Home(home), folder, plan)
    FakeMachines(Home(home), folder, plan, folder.record(), None).power_off(["cp1", "w1"])
    return folder


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> HostFacts:
    return host(monkeypatch)


def host(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> HostFacts:
    """A host of that size, on which fake machines are made."""
    known: dict[str, Any] = {"memory": 32_000, "cpus": 8, "disks": DiskRoom(Path("/"), 100 << 30, ""), "routes": ()}
    made = HostFacts(**{**known, **changes})
    for module in (flow, create):
        monkeypatch.setattr(module, "host_facts", lambda *_: made)
    monkeypatch.setattr(FakeProvider, "disk_room", lambda *_: made.disks)
    monkeypatch.setattr(create, "choose_provider", lambda wanted: "fake" if wanted == "auto" else wanted)
    return made


@pytest.fixture
def student(demo: LabFolder, klab: Klab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: HostFacts) -> Path:
    """A bundle, seen from another home."""
    klab("export", "lesson-3")
    monkeypatch.setenv("KLAB_HOME", str(tmp_path / "student"))
    return Path("lesson-3.klab").absolute()


def there(home: Path | None = None) -> list[str]:
    return [folder.name for folder in (Home(home) if home else Home.default()).existing()]


# --- export ---------------------------------------------------------------------------------------


def test_it_says_where_the_file_is_and_what_is_in_it(klab: Klab, demo: LabFolder, tmp_path: Path) -> None:
    out, err = klab("export", "lesson-3")
    file = tmp_path / "here" / "lesson-3.klab"
    assert out == ""
    assert re.search(r"demo: bundle lesson-3 written after \d:\d\d", err)
    assert str(file) in err
    assert "it holds the lab's private keys" in err
    assert "klab import lesson-3.klab makes the lab" in err
    assert "w1: pack done" in err
    open_bundle(file).verify(lambda _size: None)
    other = tmp_path / "my course" / "x.klab"
    other.parent.mkdir()
    assert f"klab import '{other}' makes the lab" in klab("export", "x", "-o", str(other))[1]


def test_programs_get_events_and_a_result(klab: Klab, demo: LabFolder, tmp_path: Path) -> None:
    out, _ = klab("export", "demo", "lesson-3", "-o", str(tmp_path / "x.klab"), "--without-box", "--json")
    *events, result = (json.loads(line) for line in out.splitlines())
    assert ("w1", "pack", "done") in {(e["event"]["node"], e["event"]["phase"], e["event"]["state"]) for e in events}
    told = result["bundle"]
    assert (result["lab"], told["name"], told["with_box"]) == ("demo", "lesson-3", False)
    assert told["size"] == Path(told["file"]).stat().st_size
    assert told["nodes"] == ["cp1", "w1"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "the bundle needs a name"),
        (("demo",), 2, "the bundle needs a name"),
        (("a", "b"), 2, "a bundle needs one name"),
        (("a/b",), 2, "is not a valid bundle name"),
        (("there",), 4, "exists"),
        (("a", "-o", "/none/a.klab"), 2, "there is no folder"),
        (("a", "-o", "."), 2, "is a folder"),
    ],
)
def test_mistakes(klab: Klab, demo: LabFolder, words: tuple[str, ...], code: int, said: str) -> None:
    Path("there.klab").write_text("")
    _, err = klab("export", *words, code=code)
    assert said in err
    assert "hint: " in err
    assert [file.name for file in Path().iterdir()] == ["there.klab"]


def test_a_lab_that_runs_is_refused(klab: Klab, demo: LabFolder) -> None:
    klab("start")
    _, err = klab("export", "lesson-3", code=4)
    assert "klab stop demo first" in err
    klab("stop", "--force")
    klab("export", "lesson-3")
    assert "--force replaces it" in klab("export", "lesson-3", code=4)[1]
    klab("export", "lesson-3", "--force")


def interrupted(*_: object, **__: object) -> Any:
    raise KeyboardInterrupt


def test_ctrl_c_leaves_nothing(klab: Klab, demo: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Callable[[pytest.MonkeyPatch], None]] = [
        lambda patch: patch.setattr(Writer, "add", interrupted),
        lambda patch: register(patch, size_estimate=interrupted),
    ]
    for step in steps:
        with monkeypatch.context() as patch:
            step(patch)
            _, err = klab("export", "lesson-3", code=Interrupted.exit_code)
        assert "the lab has not been touched" in err
        assert list(Path().iterdir()) == []


# --- import -------------------------------------------------------------------------------------------


def test_a_lab_from_a_file(klab: Klab, student: Path) -> None:
    out, err = klab("import", str(student))
    assert "demo: 2 nodes on fake, hardware virtualization" in err
    for line in ("verify done", "box done", "cp1: disk done", "w1: start done"):
        assert line in err
    assert re.search(r"demo, from bundle lesson-3, is up after \d:\d\d", err)
    assert "klab ssh demo cp1" in out
    assert there() == ["demo"]
    assert "disks" in klab("timeline")[0]
    out, err = klab("import", str(student))
    assert "demo existed already and is up after" in err
    _, err = klab("import", str(student), "--provider", "libvirt", code=4)
    assert "exists on fake, not on libvirt" in err


def test_programs_get_the_new_lab(klab: Klab, student: Path) -> None:
    out, _ = klab("import", str(student), "--name", "mine", "--json")
    *events, result = (json.loads(line) for line in out.splitlines())
    assert ("", "verify", "done") in {(e["event"]["node"], e["event"]["phase"], e["event"]["state"]) for e in events}
    assert (result["lab"], result["already"], result["warnings"]) == ("mine", False, [])
    assert result["running"] == ["cp1", "w1"]
    assert result["bundle"]["name"] == "lesson-3"
    assert [node["name"] for node in result["nodes"]] == ["cp1", "w1"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--name", "Not A Name"), 2, "cannot have this name"),
        (("--provider", "virtualbox"), 5, "on VirtualBox yet"),
        (("--timeout", "soon"), 2, "'soon' is not a duration"),
    ],
)
def test_mistakes_with_a_file(klab: Klab, student: Path, words: tuple[str, ...], code: int, said: str) -> None:
    _, err = klab("import", str(student), *words, code=code)
    assert said in err
    assert "hint: " in err
    assert there() == []


def test_neither_a_scenario_nor_a_file(klab: Klab) -> None:
    assert "which scenario?" in klab("create", code=2)[1]
    assert klab("import", code=2)[1] != ""
    assert "there is no file" in klab("import", "none.klab", code=3)[1]
    Path("scenario.yaml").write_text("version: 1\n")
    assert "is not a bundle" in klab("import", "scenario.yaml", code=2)[1]


def test_a_damaged_file(klab: Klab, student: Path) -> None:
    found = open_bundle(student)
    flipped(student, found._start(found.bundle.member("nodes/w1.qcow2.gz")))
    _, err = klab("import", str(student), code=2)
    assert "nodes/w1.qcow2.gz has changed" in err
    assert there() == []
    assert store.list_boxes(Home.default()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"memory": 100}, "GiB RAM"),
        ({"cpus": 1}, "has 2 CPUs, this host has 1"),
        ({"disks": DiskRoom(Path("/"), 0, "")}, "the bundle needs"),
    ],
)
def test_a_host_that_is_too_small(
    klab: Klab, student: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    host(monkeypatch, **changes)
    _, err = klab("import", str(student), code=5)
    assert "demo does not fit on this machine" in err
    assert said in err
    assert there() == []


def test_a_network_that_is_in_use(klab: Klab, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = open_bundle(student).bundle.plan
    host(monkeypatch, routes=(Route(plan.networks.cidr, "virbr7"),))
    _, err = klab("import", str(student), code=5)
    assert "overlaps the host's route" in err
    assert "through virbr7" in err
    assert there() == []


def test_the_lab_itself_is_in_the_way(klab: Klab, student: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLAB_HOME", str(home))
    assert "exists and is not from this bundle" in klab("import", str(student), code=4)[1]
    assert "has the same machines" in klab("import", str(student), "--name", "twin", code=4)[1]
    assert there() == ["demo"]


def test_ctrl_c_and_how_to_go_on(klab: Klab, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(BundleFile, "verify", interrupted)
        _, err = klab("import", str(student), code=Interrupted.exit_code)
        assert "stopped before anything of the lab was made" in err
        assert there() == []
    with monkeypatch.context() as patch:
        register(patch, import_disks=interrupted)
        _, err = klab("import", str(student), "--name", "mine", code=Interrupted.exit_code)
    assert f"klab import {student} --name mine again continues from here" in err
    assert there() == ["mine"]
    klab("import", str(student), "--name", "mine")


def test_a_half_made_lab_is_not_mixed_with_the_box(klab: Klab, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        register(patch, import_disks=interrupted)
        klab("import", str(student), "--name", "1m2w", code=Interrupted.exit_code)
    _, err = klab("create", "1m2w", code=4)
    assert "lab '1m2w' is only partly imported from a bundle" in err
    assert "klab import FILE --name 1m2w continues the import" in err


# --- the list, destroy --keep-snapshots ---------------------------------------------------------------


def test_the_list(klab: Klab, demo: LabFolder, student: Path) -> None:
    assert "no bundle is kept" in klab("bundles")[1]
    Path("other").write_text("nothing")
    out, _ = klab("bundles", str(student), "other", code=2)
    assert out.splitlines()[1].split()[:2] == ["lesson-3", "demo"]
    assert "in it" in out.splitlines()[1]
    assert "DAMAGED" in out.splitlines()[2]
    assert "other is not a bundle" in out.splitlines()[2]
    found = json.loads(klab("bundles", str(student), "other", "--json", code=2)[0])["bundles"]
    assert (found[0]["name"], found[0]["with_box"]) == ("lesson-3", True)
    assert found[1]["file"] == "other"


def test_files_that_are_not_there_or_cannot_be_read(klab: Klab, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = klab("bundles", "none.klab", str(student), code=3)
    assert "there is no file none.klab" in out
    assert "lesson-3" in out
    whole = Path.open

    def refused(self: Path, *args: Any, **options: Any) -> Any:
        if self.name == "secret.klab":
            raise PermissionError(13, "Permission denied", str(self))
        return whole(self, *args, **options)

    Path("secret.klab").write_text("of somebody else's")
    monkeypatch.setattr(Path, "open", refused)
    out, _ = klab("bundles", "secret.klab", str(student), code=5)
    assert "secret.klab: it cannot be read: Permission denied" in out
    assert "lesson-3" in out


def test_two_that_are_kept_under_one_name(klab: Klab, home: Path) -> None:
    for folder in ("box@1", "box@2"):
        (home / "checkpoints" / folder).mkdir(parents=True)
        (home / "checkpoints" / folder / "demo-a.klab").write_text("")
    _, err = klab("import", "demo-a", code=4)
    assert "klab has kept 2 bundles called demo-a" in err
    assert str(home / "checkpoints" / "box@2" / "demo-a.klab") in err


def test_destroy_keeps_the_snapshots_and_one_of_them_is_a_lab_again(
    klab: Klab, demo: LabFolder, home: Path, facts: HostFacts
) -> None:
    klab("start")
    klab("snapshot", "lesson-1")
    klab("snapshot", "lesson-2")
    _, err = klab("destroy", "-y", "--keep-snapshots")
    assert "lesson-1 is kept: " in err
    assert "klab import demo-lesson-2 creates a lab from the last" in err
    assert "demo is gone" in err
    assert there() == []
    out, _ = klab("bundles")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["lesson-1", "lesson-2"]
    assert f"needs debian-13-k8s-{DEFAULT}@" in out
    klab("import", "demo-lesson-2")
    plan = open_bundle(flow.kept(Home(home))[1]).bundle.plan
    machines = FakeMachines(Home(home), demo, plan, demo.record(), None)
    assert machines.read("w1", PartKind.DISK) == "disk of w1"
    _, err = klab("box", "rm", f"debian-13-k8s-{DEFAULT}", code=4)


def test_what_cannot_be_written_leaves_the_lab(klab: Klab, demo: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no snapshot to keep" in klab("destroy", "-y", "--keep-snapshots", code=4)[1]
    klab("snapshot", "lesson-1")
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "seal", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert "No space left" in klab("destroy", "-y", "--keep-snapshots", code=5)[1]
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "seal", interrupted)
        klab("destroy", "-y", "--keep-snapshots", code=Interrupted.exit_code)
    assert there() == ["demo"]
    assert demo.record().phase == "ready"
    assert "lesson-1" in klab("snapshots")[0]
    assert flow.kept(Home.default()) == []


def test_programs_get_what_a_destroy_has_kept(klab: Klab, demo: LabFolder) -> None:
    klab("snapshot", "lesson-1")
    out, err = klab("destroy", "-y", "--keep-snapshots", "--json")
    *events, result = (json.loads(line) for line in out.splitlines())
    assert ("w1", "pack", "done") in {(e["event"]["node"], e["event"]["phase"], e["event"]["state"]) for e in events}
    assert (result["lab"], [each["name"] for each in result["kept"]]) == ("demo", ["lesson-1"])
    assert Path(result["kept"][0]["file"]).is_file()
    assert err == ""
    assert there() == []


def test_a_destroy_that_is_stopped_is_finished_by_what_it_says(
    klab: Klab, demo: LabFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        register(patch, destroy=interrupted)
        _, err = klab("destroy", "-y", code=Interrupted.exit_code)
    assert "klab destroy -y demo continues" in err
    assert json.loads(klab("destroy", "-y", "demo", "--json")[0]) == {"lab": "demo", "kept": []}
    assert there() == []


def test_without_the_option_nothing_is_kept(klab: Klab, demo: LabFolder) -> None:
    klab("snapshot", "lesson-1")
    klab("destroy", "-y")
    assert "no bundle is kept" in klab("bundles")[1]


# --- who it is from -----------------------------------------------------------------------------------


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "teacher"
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file], timeout=60)
    return file


@pytest.fixture
def signed(demo: LabFolder, klab: Klab, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    _, err = klab("export", "signed", "--sign", str(key))
    assert "signed with ED25519 SHA256:" in err
    host(monkeypatch)
    monkeypatch.setenv("KLAB_HOME", str(tmp_path / "student"))
    return Path("signed.klab").absolute()


def test_it_says_that_nobody_signed_it(klab: Klab, student: Path) -> None:
    _, err = klab("import", str(student))
    assert "not signed: its digests show that it is whole, not who it is from" in err
    assert "its box was not built here" in err
    (box,) = store.list_boxes(Home.default())
    assert box.origin == "lesson-3"


def test_it_says_who_signed_it(klab: Klab, signed: Path) -> None:
    _, err = klab("import", str(signed))
    assert "signed with ED25519 SHA256:" in err
    *_, result = (json.loads(line) for line in klab("import", str(signed), "--json")[0].splitlines())
    assert (result["signer"]["key"], result["signer"]["principal"]) == ("ED25519", "")


@pytest.mark.parametrize("by", ["an option", "a list in klab's folder"])
def test_signed_files_only(klab: Klab, demo: LabFolder, signed: Path, key: Path, by: str) -> None:
    allowed = Path("allowed_signers").absolute()
    allowed.write_text(f"teacher@example.org {key.with_suffix('.pub').read_text()}")
    words = ["--allowed-signers", str(allowed)] if by == "an option" else []
    if not words:
        Home.default().root.mkdir()
        allowed.rename(Home.default().root / "allowed_signers")
    _, err = klab("import", str(signed), *words)
    assert "signed by teacher@example.org (ED25519 SHA256:" in err


def test_an_unsigned_file_where_only_signed_ones_are_taken(klab: Klab, student: Path) -> None:
    Path("allowed_signers").write_text("")
    _, err = klab("import", str(student), "--allowed-signers", "allowed_signers", code=2)
    assert "this bundle is not signed" in err
    assert "hint: " in err
    assert there() == []


def test_a_digest_pins_a_file(klab: Klab, student: Path) -> None:
    (told,) = json.loads(klab("bundles", str(student), "--json")[0])["bundles"]
    _, err = klab("import", str(student), "--digest", "0" * 64, code=2)
    assert "the bundle does not have that digest" in err
    assert there() == []
    klab("import", str(student), "--digest", f"sha256:{told['digest']}")
    assert there() == ["demo"]
    assert "only bundles have" in klab("create", "1m2w", "--digest", "0" * 64, code=2)[1]


def test_what_klab_has_kept_needs_no_signature(klab: Klab, demo: LabFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    host(monkeypatch)
    (Home.default().root / "allowed_signers").write_text("")
    klab("start")
    klab("snapshot", "a")
    klab("destroy", "-y", "--keep-snapshots", "demo")
    _, err = klab("import", "demo-a")
    assert "kept by klab on this machine" in err


# --- as version 0.1 called them -----------------------------------------------------------------------


OLD = "klab {old} is called klab {new} now\n"


def test_the_old_names_still_work(klab: Klab, demo: LabFolder, facts: HostFacts) -> None:
    out, err = klab("checkpoint", "demo", "lesson-3", "-o", "x.klab", "--without-box", "--force", "--json")
    *_, result = (json.loads(line) for line in out.splitlines())
    assert err == OLD.format(old="checkpoint", new="export")
    assert result["checkpoint"] == result["bundle"]
    assert result["checkpoint"]["name"] == "lesson-3"
    out, err = klab("checkpoints", "x.klab", "--json")
    told = json.loads(out)
    assert err == OLD.format(old="checkpoints", new="bundles")
    assert told["checkpoints"] == told["bundles"]
    assert [each["digest"] for each in told["bundles"]] == [result["bundle"]["digest"]]
    new = json.loads(klab("bundles", "x.klab", "--json")[0])
    assert new == told


def test_create_from_still_works(klab: Klab, signed: Path, key: Path) -> None:
    (told,) = json.loads(klab("bundles", str(signed), "--json")[0])["bundles"]
    Path("allowed").write_text(f"teacher@example.org {key.with_suffix('.pub').read_text()}")
    words = ["--digest", told["digest"], "--allowed-signers", "allowed", "--name", "mine", "--timeout", "20m"]
    out, err = klab("create", "--from", str(signed), *words, "--json")
    *_, result = (json.loads(line) for line in out.splitlines())
    assert err == OLD.format(old="create --from", new="import")
    assert (result["lab"], result["signer"]["principal"]) == ("mine", "teacher@example.org")
    assert result["checkpoint"] == result["bundle"] == told
    assert there() == ["mine"]


@pytest.mark.parametrize(
    ("words", "said"), [(("--seat", "1"), "has its seat already"), (("1m2w",), "a scenario or a bundle, not both")]
)
def test_mistakes_with_create_from(klab: Klab, student: Path, words: tuple[str, ...], said: str) -> None:
    _, err = klab("create", "--from", str(student), *words, code=2)
    assert said in err
    assert "hint: " in err
    assert there() == []


def test_no_help_shows_the_old_names(klab: Klab) -> None:
    for command in ("create", "export", "import", "bundles", "destroy"):
        out, _ = klab(command, "--help")
        assert "checkpoint" not in out
        assert "--from" not in out


def test_completion_says_nothing_about_an_old_name(capsys: pytest.CaptureFixture[str]) -> None:
    completing = click.Context(cli, resilient_parsing=True)
    name, _, rest = cli.resolve_command(completing, ["checkpoint", "less"])
    assert (name, rest) == ("export", ["less"])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("typed", "offered"), [("che", []), ("exp", ["export"]), ("imp", ["import"]), ("bu", ["bundles"])]
)
def test_completion_offers_the_new_names_only(typed: str, offered: list[str]) -> None:
    assert [item.value for item in cli.shell_complete(click.Context(cli), typed)] == offered
