"""Bundles for a program: written, listed and made labs of, without a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.fake_lab import lab_on_disk
from support.shelved import shelve

from lab.app import bundles as app
from lab.app import create
from lab.app.labs import Labs
from lab.bundles.import_lab import Made
from lab.cluster.events import Event
from lab.cluster.lab import Lab
from lab.errors import Conflict, Interrupted, LabError, NotFound, UsageError
from lab.host.capacity import DiskRoom, HostFacts
from lab.machines.fake.disk_transfer import FakeDiskTransfer
from lab.machines.fake.machines import FakeMachines
from lab.plan.model import import_command
from lab.store import Home

pytestmark = pytest.mark.usefixtures("quick_watch")


@pytest.fixture
def demo(home: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab without a cluster, of two machines that are off, on a host that can make more of them."""
    folder, plan = lab_on_disk(Home(home), control_planes=1, workers=1, bootstrap="none")
    shelve(Home(home), folder, plan)
    FakeMachines(Home(home), folder, plan, folder.record(), None).power_off(["cp1", "w1"])
    facts = HostFacts(memory=32_000, cpus=8, disks=DiskRoom(Path("/"), 100 << 30, ""), routes=())
    for module in (app, create):
        monkeypatch.setattr(module, "host_facts", lambda *_: facts)
    monkeypatch.setattr(create, "choose_provider", lambda wanted: "fake" if wanted == "auto" else wanted)
    return Labs().open("demo")


@pytest.fixture
def other(tmp_path: Path) -> Home:
    return Home(tmp_path / "student")


def interrupted(*_: object, **__: object) -> Any:
    raise KeyboardInterrupt


def names(home: Home) -> list[str]:
    return Labs(home).names


def test_a_program_exports_lists_and_imports(demo: Lab, other: Home, tmp_path: Path) -> None:
    told: list[Event] = []
    file = app.export_lab(demo, app.Export("lesson-3", tmp_path / "x.klab"), listener=told.append)
    assert ("w1", "pack", "done") in {(e.node, e.phase, e.state) for e in told}
    assert app.bundles([file.path]) == {file.path: file}
    assert app.bundles(home=other) == {}
    made = app.import_lab(app.Request(file.path, "mine"), home=other, listener=told.append)
    assert (made.folder.name, made.already, made.power.running) == ("mine", False, ("cp1", "w1"))
    assert ("", "disks", "done") in {(e.node, e.phase, e.state) for e in told}
    assert names(other) == ["mine"]
    assert app.import_lab(app.Request(file.path, "mine"), home=other).already


def test_a_lab_is_prepared_before_anything_is_made(demo: Lab, other: Home, tmp_path: Path) -> None:
    file = app.export_lab(demo, app.Export("lesson-3", tmp_path / "x.klab"))
    prepared = app.prepare_import(app.Request(file.path), home=other)
    assert (prepared.plan.name, prepared.provider, prepared.signer) == ("demo", "fake", None)
    assert (prepared.foreign_box, prepared.kept) == (True, False)
    assert names(other) == []
    with app.importing(prepared):
        made: Made = app.make_imported(prepared)
    assert made.folder.name == "demo"


def test_the_file_is_called_as_the_bundle(tmp_path: Path) -> None:
    assert app.Export("lesson-3").file == Path("lesson-3.klab")
    assert app.Export("lesson-3", tmp_path / "x").file == tmp_path / "x"
    with pytest.raises(UsageError, match="is not a valid bundle name"):
        _ = app.Export("../x").file


def test_the_command_line_once_more_is_about_the_same_lab() -> None:
    assert str(app.Request(Path("x.klab")).command) == "klab import x.klab"
    assert str(import_command("my file.klab", "l3")) == "klab import 'my file.klab' --name l3"


def test_files_that_cannot_be_used_are_listed_with_their_errors(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("nothing")
    found = app.bundles([tmp_path / "text", tmp_path / "none"])
    assert [type(each) for each in found.values()] == [UsageError, NotFound]
    assert all(isinstance(each, LabError) and each.hint for each in found.values())


def test_kept_snapshots_are_found_by_name(demo: Lab, home: Path, other: Home) -> None:
    from lab.snapshots.commands import take

    take(demo, "lesson-1")
    (kept,) = app.keep_snapshots(demo)
    assert list(app.bundles()) == [kept.path]
    with pytest.raises(Conflict, match="exists and is not from this bundle"):
        app.prepare_import(app.Request(Path("demo-lesson-1")))
    with pytest.raises(NotFound):
        app.prepare_import(app.Request(Path("demo-lesson-1")), home=other)


def test_ctrl_c_says_what_it_has_left(demo: Lab, other: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.klab"
    with monkeypatch.context() as patch:
        patch.setattr(FakeDiskTransfer, "export", interrupted)
        with pytest.raises(Interrupted) as caught:
            app.export_lab(demo, app.Export("x", target))
    assert "the lab has not been touched" in "; ".join((caught.value.message, *caught.value.details))
    assert not target.exists()
    app.export_lab(demo, app.Export("x", target))
    with monkeypatch.context() as patch:
        patch.setattr(FakeDiskTransfer, "import_disks", interrupted)
        with pytest.raises(Interrupted) as caught:
            app.import_lab(app.Request(target, "mine"), home=other)
    assert caught.value.hint.startswith(f"klab import {target} --name mine again continues")
    assert app.import_lab(app.Request(target, "mine"), home=other).folder.name == "mine"


def test_a_bundle_that_is_not_the_one_wanted_is_refused(demo: Lab, other: Home, tmp_path: Path) -> None:
    file = app.export_lab(demo, app.Export("x", tmp_path / "x.klab"))
    with pytest.raises(UsageError, match="the bundle does not have that digest"):
        app.import_lab(app.Request(file.path, digest="0" * 64), home=other)
    (tmp_path / "allowed").write_text("")
    with pytest.raises(UsageError, match="this bundle is not signed"):
        app.import_lab(app.Request(file.path, allowed_signers=tmp_path / "allowed"), home=other)
    assert names(other) == []
    assert app.import_lab(app.Request(file.path, digest=f"sha256:{file.digest}"), home=other).power.running
