"""klab box: what it prints, for people and for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab import process
from lab.app import boxes
from lab.boxes import build, store
from lab.boxes.manifest import CONTENTS, DISK, MANIFEST, Box, MadeFrom, describe_file, write_manifest
from lab.cli.commands.box import box as command
from lab.components.kubernetes import DEFAULT
from lab.errors import BoxError, Conflict, NotFound, RootNeeded
from lab.store import Home


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("KLAB_HOME", str(tmp_path))
    return Home(tmp_path)


def make_box(home: Home, content: str, created: float) -> Box:
    work = home.boxes / "making"
    work.mkdir(parents=True)
    (work / DISK).write_text(content)
    (work / CONTENTS).write_text(f"{content} 0644 0:0 /etc/file\n")
    files = {p.name: describe_file(p) for p in work.iterdir()}
    digest = files[DISK].sha256
    made = Box(
        f"debian-13-k8s-{DEFAULT}", digest, "i", DEFAULT, "debian-13", created, 8192,
        store.folder_of(home, f"debian-13-k8s-{DEFAULT}", digest), files,
    )  # fmt: skip
    work.rename(made.folder)
    write_manifest(made)
    return made


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command, arguments, catch_exceptions=True)


def test_list_is_readable_by_people_and_programs(home: Home) -> None:
    made = make_box(home, "a", 1.0)
    assert made.short in run("list").stdout
    assert [b["digest"] for b in json.loads(run("list", "--json").stdout)] == [made.digest]


def test_an_empty_list_says_what_to_do(home: Home) -> None:
    done = run("list")
    assert done.stdout == ""
    assert "klab box build" in done.stderr
    assert json.loads(run("list", "--json").stdout) == []


def test_verify_fails_on_a_changed_byte_and_still_prints_its_report(home: Home) -> None:
    made = make_box(home, "a", 1.0)
    assert run("verify").exit_code == 0
    made.disk.write_text("b")
    done = run("verify", "--json")
    assert isinstance(done.exception, BoxError)
    (report,) = json.loads(done.stdout)
    assert (report["whole"], report["digest"]) == (False, made.digest)
    assert DISK in report["problems"][0]


def test_verify_names_all_damaged_boxes(home: Home) -> None:
    for made in (make_box(home, "a", 1.0), make_box(home, "b", 2.0)):
        made.disk.unlink()
    done = run("verify")
    assert isinstance(done.exception, BoxError)
    assert done.exception.message == "2 boxes are damaged"


def test_rm_takes_a_name_or_the_beginning_of_a_digest(home: Home) -> None:
    one, two = make_box(home, "a", 1.0), make_box(home, "b", 2.0)
    assert isinstance(run("rm", one.name).exception, Conflict)
    assert isinstance(run("rm", "nothing").exception, NotFound)
    assert run("rm", one.digest[:6]).exit_code == 0
    assert store.list_boxes(home) == [two]
    assert json.loads(run("rm", two.digest[:6], "--json").stdout) == {"removed": [two.folder.name]}


def test_prune_reports_what_it_removed(home: Home) -> None:
    old = make_box(home, "a", 1.0)
    make_box(home, "b", 2.0)
    assert json.loads(run("prune", "--json").stdout) == {"removed": [old.folder.name]}
    assert "nothing to remove" in run("prune").stderr


@pytest.mark.parametrize(("content", "said"), [("a", "the same disk, byte for byte"), ("b", "/etc/file: differs")])
def test_a_rebuild_is_compared_with_the_box_before(
    home: Home, monkeypatch: pytest.MonkeyPatch, content: str, said: str
) -> None:
    before = make_box(home, "a", 1.0)

    def rebuilt(*_: object, **options: object) -> Box:
        assert options == {"rebuild": True, "source": "auto", "mirrors": (), "lock": None}
        return before if content == "a" else make_box(home, content, 2.0)

    monkeypatch.setattr(build, "build_box", rebuilt)
    assert said in run("build", "--rebuild").stderr
    report = json.loads(run("build", "--rebuild", "--json").stdout) if content == "a" else {}
    assert report.get("rebuilt", {"same_disk": True})["same_disk"] is True


def test_build_takes_a_version_with_or_without_v(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_box(home, "a", 1.0)
    asked = []

    def built(_home: object, _catalog: object, name: str, version: str, *_: object, **__: object) -> Box:
        asked.append((name, version))
        return made

    monkeypatch.setattr(build, "build_box", built)
    for arguments in ((), ("--kubernetes", f"v{DEFAULT}")):
        assert run("build", *arguments).exit_code == 0
    assert asked == [("debian-13", DEFAULT)] * 2


def test_build_hands_over_source_and_mirrors(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_box(home, "a", 1.0)
    asked: list[dict[str, Any]] = []

    def built(*_: object, **options: Any) -> Box:
        asked.append(options)
        return made

    monkeypatch.setattr(build, "build_box", built)
    assert run("build", "--source", "mirror", "--mirror", "/a", "--mirror", "dl.k8s.io=/b").exit_code == 0
    assert [(each["source"], each["mirrors"]) for each in asked] == [("mirror", ("/a", "dl.k8s.io=/b"))]
    assert run("build", "--source", "else").exit_code == 2


def test_a_box_of_another_source_is_not_compared(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    make_box(home, "a", 1.0)
    release = MadeFrom("release", {}, {}, {}, {})
    after = replace(make_box(home, "b", 2.0), made_from=release)
    monkeypatch.setattr(build, "build_box", lambda *_, **__: after)
    assert "rebuilt" not in json.loads(run("build", "--rebuild", "--json").stdout)


def test_a_lock_of_nothing(home: Home) -> None:
    done = run("lock")
    assert isinstance(done.exception, NotFound)
    assert "klab box build" in done.exception.hint


def test_where_a_box_comes_from_and_how_it_is_trusted(home: Home) -> None:
    made = make_box(home, "a", 1.0)
    assert "this machine" in run("list").stdout
    write_manifest(replace(made, origin="lesson-3"))
    assert "came with lesson-3" in run("list").stdout
    assert json.loads(run("list", "--json").stdout)[0]["origin"] == "lesson-3"
    assert made.digest in run("trust", made.short).stderr
    assert json.loads(run("list", "--json").stdout)[0]["origin"] is None
    assert isinstance(run("trust", "nothing").exception, NotFound)


def test_a_damaged_box_is_listed_and_hides_no_other(home: Home) -> None:
    damaged, whole = make_box(home, "a", 1.0), make_box(home, "b", 2.0)
    (damaged.folder / MANIFEST).write_text("{}")
    done = run("list")
    assert whole.short in done.stdout
    assert "is damaged" in done.stderr
    assert "rm -r" in done.stderr
    assert [each.get("digest") for each in json.loads(run("list", "--json").stdout)] == [whole.digest, None]
    assert isinstance(run("verify").exception, BoxError)


def test_a_list_does_not_import_what_builds_boxes() -> None:
    code = "import sys, lab.app.boxes; sys.exit('lab.boxes.build' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_ordinary_user_builds_by_sudo(home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    sudo = programs / "sudo"
    sudo.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/asked\nexit 7\n')
    sudo.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy.example:3128")
    monkeypatch.setenv("KLAB_DEBIAN_MIRROR", "http://mirror.example/debian")
    monkeypatch.setenv("GOPROXY", "http://modules.example")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/home/someone/auth.json")
    monkeypatch.setenv("UNRELATED", "1")
    monkeypatch.setattr(sys, "argv", [".venv/bin/klab", "box", "build", "debian-13"])
    monkeypatch.setattr(boxes, "build", refuse)
    done = run("build", "debian-13")
    assert done.exit_code == 7
    assert "needs root" in done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    named = asked[0].removeprefix("--preserve-env=").split(",")
    assert {"HTTPS_PROXY", "KLAB_DEBIAN_MIRROR", "GOPROXY", "REGISTRY_AUTH_FILE"} <= set(named)
    assert {"UNRELATED", "PATH", "HOME", "KLAB_HOME"}.isdisjoint(named)
    assert asked[1:] == [
        *("env", f"PATH={programs}:/usr/bin:/bin", "HOME=/home/someone", f"KLAB_HOME={tmp_path}"),
        *("PYTHONDONTWRITEBYTECODE=1", f"{Path.cwd()}/.venv/bin/klab", "box", "build", "debian-13"),
    ]
    assert "secret" not in "".join(asked)


def test_without_sudo_the_person_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home.root))
    monkeypatch.setattr(process.shutil, "which", lambda name, path=None: None)
    monkeypatch.setattr(boxes, "build", refuse)
    assert isinstance(run("build").exception, RootNeeded)


def refuse(*_: object, **__: object) -> None:
    raise RootNeeded("building a box needs root", hint="install sudo")
