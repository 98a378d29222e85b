"""Builds: what is refused beforehand, what the cache keeps, what a kill leaves."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from lab import process, resources
from lab.boxes import build, chroot, gomodules, host, making
from lab.boxes.cache import PARTIAL, Cache, digest_tree, key_of
from lab.boxes.choice import Way, ways
from lab.boxes.code import STEPS, code_of
from lab.boxes.recipe import load_recipe
from lab.errors import BoxError, Conflict, HostError, NotFound, RootNeeded
from lab.scenario.catalog import load_catalog
from lab.store import Home

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroot.os, "geteuid", lambda: 0)


def test_an_ordinary_user_is_told_about_sudo(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chroot.os, "geteuid", lambda: 1000)
    with pytest.raises(RootNeeded, match="needs root") as caught:
        build.build_box(home, load_catalog(), "debian-13", "1.35.4")
    assert "sudo" in caught.value.hint


def test_a_host_without_go_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch)
    monkeypatch.setattr(process, "have", lambda program: program != "go")
    with pytest.raises(HostError, match="go is not installed"):
        host.check_host(home)


def test_a_missing_program_names_its_package(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch)
    monkeypatch.setattr(gomodules, "need_go", lambda: None)
    monkeypatch.setattr(process.shutil, "which", lambda name, path=None: None)
    with pytest.raises(HostError, match="mmdebstrap is not installed") as caught:
        host.check_host(home)
    assert caught.value.hint == "sudo apt-get install mmdebstrap"


def test_a_full_disk_is_found_in_the_first_second(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch)
    monkeypatch.setattr(gomodules, "need_go", lambda: None)
    monkeypatch.setattr(process, "find", lambda program: program)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 << 30, 97 << 30, 3 << 30))
    with pytest.raises(HostError, match=r"14 GiB of free disk, .* has 3\.0") as caught:
        host.check_host(home)
    assert "KLAB_HOME" in caught.value.hint


def test_unknown_boxes_name_the_known_ones(home: Home) -> None:
    with pytest.raises(NotFound) as caught:
        build.build_box(home, load_catalog(), "debian-13", "1.2.3")
    assert "1.35.4" in caught.value.hint


def test_keys_follow_their_parts() -> None:
    assert key_of("a", {"x": 1, "y": (1, 2)}) == key_of("a", {"y": [1, 2], "x": 1})
    assert key_of("a", "b") != key_of("ab")


def test_a_tree_digest_sees_names_content_and_the_executable_bit(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    seen = {digest_tree(tmp_path)}
    (tmp_path / "a").write_text("2")
    seen.add(digest_tree(tmp_path))
    (tmp_path / "a").chmod(0o755)
    seen.add(digest_tree(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    seen.add(digest_tree(tmp_path))
    assert len(seen) == 4


def test_a_step_is_made_once(tmp_path: Path) -> None:
    made = []

    def make(target: Path) -> None:
        made.append(target)
        (target / "result").write_text("x")

    cache = Cache(tmp_path)
    first = cache.step("s", "k", make)
    assert cache.step("s", "k", make) == first
    assert (first / "result").read_text() == "x"
    assert len(made) == 1


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_step_that_fails_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    def make(target: Path) -> None:
        (target / "half").write_text("x")
        raise failure

    with pytest.raises(failure):
        Cache(tmp_path).step("s", "k", make)
    assert list((tmp_path / "s").iterdir()) == []


def test_what_a_kill_left_is_swept_and_finished_steps_stay(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    done = cache.step("s", "k", lambda target: None)
    (tmp_path / "s" / f"half{PARTIAL}").mkdir()
    (tmp_path / f"root{PARTIAL}" / "etc").mkdir(parents=True)
    cache.sweep()
    assert done.is_dir()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["k", "s"]


@pytest.mark.parametrize("rebuild", [False, True])
def test_what_is_edited_during_a_build_is_for_the_next_one(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rebuild: bool
) -> None:
    shutil.copytree(resources.path("boxes"), tmp_path / "recipes")
    script, step = tmp_path / "recipes/debian-13/configure.sh", tmp_path / "root.py"
    step.write_text("another version of klab")
    seen = []

    def edited_meanwhile(self: build._Build) -> None:
        before = self.inputs
        script.write_text("exit 1\n")
        with monkeypatch.context() as patch:
            patch.setattr(build.root, "__file__", str(step))
            seen.append((before, self.inputs, (self.recipe.folder / "configure.sh").read_text()))

    monkeypatch.setattr(build._Build, "run", edited_meanwhile)
    monkeypatch.setattr(build, "check_host", lambda _: None)
    monkeypatch.setattr(making, "first_line", lambda *_: "gcc 14")
    monkeypatch.setattr(gomodules, "need_go", lambda: None)
    monkeypatch.setattr(gomodules, "toolchain", lambda *_: {})
    monkeypatch.setattr(gomodules, "compiler", lambda _: "go1.26")
    original = script.read_text()
    for _ in range(2):
        build.build_box(home, load_catalog(), "debian-13", "1.35.4", recipes=tmp_path / "recipes", rebuild=rebuild)
    (before, after, content), (of_edited, _, edited) = seen
    assert (content, edited) == (original, "exit 1\n")
    assert before == after != of_edited
    assert [path.name for path in home.cache.iterdir()] == [".lock"]


def test_each_source_and_each_address_has_a_key_of_its_own(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "first_line", lambda *_: "gcc 14")
    monkeypatch.setattr(gomodules, "need_go", lambda: None)
    monkeypatch.setattr(gomodules, "toolchain", lambda *_: {})
    monkeypatch.setattr(gomodules, "compiler", lambda _: "go1.26")
    monkeypatch.setenv("KLAB_DEBIAN_MIRROR", "http://mirror.example/debian")
    recipe = load_recipe("debian-13", "1.35.4")

    def key(way: Way) -> str:
        return build._Build(home, recipe, Cache(home.cache), lambda _: None, way, None).inputs

    mirrors = ("https://me:one@files.example", "https://me:two@files.example", "https://other.example", "/srv/k8s")
    keys = [key(way) for mirror in mirrors for way in ways("mirror", [f"dl.k8s.io={mirror}"])]
    keys += [key(way) for way in ways("auto", ())]
    # A password is no part of an address; all else is.
    assert keys[0] == keys[1]
    assert len(set(keys)) == len(keys) - 1
    # A box from source has the key that it had when there was no other source.
    parts = (code_of(*STEPS), ["go1.26", "gcc 14"], ["trixie"])
    assert keys[-1] == key_of(recipe.digest(), *parts)


def test_a_recipe_is_copied_without_an_editors_lock(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe"
    (recipe / "files").mkdir(parents=True)
    (recipe / "files/run").write_text("#!/bin/sh\n")
    (recipe / "files/run").chmod(0o755)
    (recipe / ".#run").symlink_to("somebody@somewhere.1234")
    build._copy(recipe, tmp_path / "copies/recipe")
    assert digest_tree(tmp_path / "copies/recipe") == digest_tree(recipe)


def test_what_cannot_be_copied_of_a_recipe_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    os.mkfifo(tmp_path / "recipe/pipe")
    with pytest.raises(BoxError, match="files cannot be copied") as caught:
        build._copy(tmp_path / "recipe", tmp_path / "copy")
    assert caught.value.details[0].startswith(f"{tmp_path / 'recipe/pipe'}: ")


def test_who_holds_the_boxes_is_told(tmp_path: Path) -> None:
    mine = rf"process {os.getpid()} \(.*\) is building or changing boxes here"
    with Cache(tmp_path).lock(), pytest.raises(Conflict, match=mine) as caught, Cache(tmp_path).lock():
        pytest.fail("the second one did not stop")
    assert "wait for it to end" in caught.value.hint


def test_a_build_waits_for_the_one_before_and_takes_its_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, made = Home(tmp_path), object()
    told: list[str] = []
    monkeypatch.setattr(build, "check_host", lambda _: None)
    monkeypatch.setattr(build, "given_back", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(build._Build, "find", lambda _: made if told else None)
    monkeypatch.setattr(build._Build, "run", lambda _: pytest.fail("it was built a second time"))

    def tell(text: str) -> None:
        if text.startswith("waiting for"):
            told.append(text)
            first.close()  # the other build ends

    with contextlib.ExitStack() as first:
        first.enter_context(Cache(home.cache).lock())
        found = build.build_box(home, load_catalog(), "debian-13", "1.35.4", tell, source="source")
    assert found is made
    assert told[0].startswith(f"waiting for process {os.getpid()} (")
    assert "which is building or changing boxes here: wait for it to end" in told[0]


def test_the_lock_of_a_killed_build_is_free(tmp_path: Path) -> None:
    code = "import os, sys; from lab.boxes.cache import Cache; from pathlib import Path\n"
    code += f"with Cache(Path({str(tmp_path)!r})).lock(): print('held', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", code]
    root = Path(build.__file__).parents[2]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(Conflict, match=f"process {child.pid} "), Cache(tmp_path).lock():
            pytest.fail("the second build went on")
        child.kill()
        assert child.wait(60) == -signal.SIGKILL
    entered = []
    with Cache(tmp_path).lock():
        entered.append("the lock is free")
    assert entered


def test_imports_are_taken_out_and_missed_when_gone() -> None:
    source = 'import (\n\t_ "x/backend/udp"\n\t_ "x/backend/vxlan"\n)\n'
    assert gomodules.without_imports(source, ("backend/udp",)) == 'import (\n\t_ "x/backend/vxlan"\n)\n'
    with pytest.raises(BoxError, match="does not import backend/ipsec"):
        gomodules.without_imports(source, ("backend/ipsec",))


@pytest.mark.skipif(os.geteuid() != 0, reason="enters a mount namespace")
def test_mounts_end_with_the_script_even_when_it_fails(tmp_path: Path) -> None:
    for name in ("dev", "proc", "sys", "run", "tmp"):
        (tmp_path / name).mkdir()
    before = Path("/proc/self/mounts").read_text()
    # There is no /bin/bash in there: the very last step fails, with every mount made.
    with pytest.raises(process.ProgramError):
        chroot.run_in(tmp_path, "true", timeout=30)
    assert Path("/proc/self/mounts").read_text() == before
    assert list((tmp_path / "dev").iterdir()) == []


def test_this_machines_settings_excuse_no_module_from_the_checksum_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"GOSUMDB": "off", "GONOSUMDB": "*", "GOPRIVATE": "*", "GOINSECURE": "*", "GONOPROXY": "*"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    go = gomodules._Go({"GOTOOLCHAIN": "local"}, tmp_path / "log")
    seen = go.run(tmp_path, "env", *settings).split("\n")[: len(settings)]
    assert seen == ["sum.golang.org", "none", "none", "none", "none"]
    assert gomodules.checksum_database("sum.golang.google.cn") == "sum.golang.google.cn"


def test_a_link_in_the_place_of_the_caches_lock_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    cache = Cache(tmp_path / "cache")
    cache.root.mkdir()
    (cache.root / ".lock").symlink_to(victim)
    with pytest.raises(HostError, match="a symbolic link"), cache.lock():
        pass
    assert victim.read_text() == "precious"


def at_anothers_home(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """As under sudo: HOME and the settings in it are the person's, the process is somebody else's."""
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "GOENV", "GOPATH", "GOCACHE", "GOMODCACHE"):
        monkeypatch.delenv(name, raising=False)
    mine = os.geteuid()
    monkeypatch.setattr(gomodules.os, "geteuid", lambda: mine + 1)


def test_go_writes_nothing_into_another_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, caches, work = tmp_path / "home", tmp_path / "cache" / "go", tmp_path / "work"
    (home / ".config/go").mkdir(parents=True)
    (home / ".config/go/env").write_text("GOSUMDB=sum.golang.org https://sums.example.org\n")
    work.mkdir()
    (work / "main.go").write_text('package main\n\nimport "fmt"\n\nfunc main() { fmt.Println("made") }\n')
    before = sorted(home.rglob("*"))
    at_anothers_home(monkeypatch, home)
    go = gomodules._Go({"GOTOOLCHAIN": "local", **gomodules.apart(caches)}, tmp_path / "log")
    go.run(work, "mod", "init", "klab.local/hello")
    go.run(work, "build", "-o", "hello", ".")
    assert process.run([work / "hello"], timeout=30).stdout == "made\n"
    assert (caches / "build").is_dir()
    assert sorted(home.rglob("*")) == before
    # What the person has set with go env -w holds all the same.
    assert go.run(work, "env", "GOSUMDB").strip() == "sum.golang.org https://sums.example.org"


def test_in_ones_own_home_go_uses_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert gomodules.apart(tmp_path / "cache") == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_what_root_makes_belongs_to_the_owner_of_klabs_folder(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    for folder in (home.cache / "go/pkg/mod", home.boxes / "one", home.labs / "anothers"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("")
    os.chown(home.root, 1234, 1234)
    (home.cache / "go/pkg/mod").chmod(0o555)
    (home.boxes / "link").symlink_to(home.labs / "anothers/file")
    with host.given_back(home):
        pass
    owners = {str(path.relative_to(home.root)): path.lstat().st_uid for path in home.root.rglob("*")}
    assert {uid for name, uid in owners.items() if name.startswith(("cache", "boxes"))} == {1234}
    assert {uid for name, uid in owners.items() if name.startswith("labs")} == {0}
    assert (home.cache / "go/pkg/mod").stat().st_mode & 0o777 == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_klabs_folder_made_under_sudo_is_the_persons(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1234)
    host.make_home(tmp_path / ".local/share/klab")
    assert {path.stat().st_uid for path in tmp_path.rglob("*")} == {1234}
    host.make_home(tmp_path / ".local/share/klab")
