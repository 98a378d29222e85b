"""The commands that touch no machine: scenarios, plan, validate, schema, list, kubeconfig, completion."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.fake_lab import lab_on_disk
from support.shelved import shelved_box

from lab.cli import app
from lab.cli.terminal.picture import picture
from lab.components.kubernetes import DEFAULT
from lab.machines.fake.machines import FakeMachines
from lab.plan.decide import decide
from lab.plan.file import from_json, to_json
from lab.scenario.library import load_scenario, shipped_names
from lab.store import Home, Record


@pytest.fixture
def klab(capsys: pytest.CaptureFixture[str]):
    def run(*words: str, code: int = 0) -> str:
        assert app.run(words) == code, capsys.readouterr().err
        return capsys.readouterr().out

    return run


@pytest.fixture
def make_lab(home: Path, catalog):
    """A lab as it lies on disk."""

    def make(name: str, scenario: str = "1m2w") -> Path:
        plan = decide(load_scenario(scenario, catalog).scenario, catalog, name=name)
        folder = Home(home).lab(name)
        folder.path.mkdir(parents=True)
        (folder.path / "plan.json").write_text(to_json(plan))
        folder.kubeconfig.write_text(f"contexts:\n- name: klab-{name}\n  context: {{cluster: a}}\n")
        folder.write_record(Record("id", name, "libvirt", "box", 0, "ready", 1.7e9))
        return folder.path

    return make


def test_scenarios_shows_each_with_its_picture(klab) -> None:
    out = klab("scenarios")
    for name in shipped_names():
        assert f"{name}: " in out
    assert "[cp1]  [cp2]  [cp3]   virtual IP 192.168.56.10" in out


def test_a_picture_of_many_nodes_stays_narrow(catalog) -> None:
    from lab.scenario.parser import parse_scenario

    plan = decide(parse_scenario("version: 1\nname: x\ntopology: {workers: 50}", catalog), catalog)
    lines = picture(plan)
    assert max(map(len, lines)) < 100
    assert "..." in lines[-1]
    assert "[w50]" in lines[-1]


def test_scenarios_as_json(klab) -> None:
    found = json.loads(klab("scenarios", "--json"))
    assert [s["name"] for s in found] == shipped_names()
    assert all(Path(s["path"]).is_file() for s in found)


def test_scenarios_tell_what_is_missing_here(klab, home: Path) -> None:
    needs = {s["name"]: s["needs"] for s in json.loads(klab("scenarios", "--json"))}
    assert needs["1m2w"] == [f"a box: klab box build debian-13 --kubernetes {DEFAULT}"]
    assert [line.partition(" (")[0] for line in needs["cka-1.28"]] == ["the runtime docker", "the pod network calico"]
    assert "  missing: the runtime docker (Debian's docker.io" in klab("scenarios")
    shelved_box(Home(home))
    needs = {s["name"]: s["needs"] for s in json.loads(klab("scenarios", "--json"))}
    assert needs["1m2w"] == []


def test_what_no_box_has_can_be_checked_and_planned(klab) -> None:
    assert "cka-1.28: good, 3 nodes; klab create refuses it, since no box has:" in klab("validate", "cka-1.28")
    assert json.loads(klab("validate", "cka-1.28", "1m2w", "--json"))[1]["lacking"] == []
    assert "klab create refuses it; missing:\n  the runtime docker" in klab("plan", "cka-1.28")
    found = json.loads(klab("plan", "cka-1.28", "--json"))
    assert (found["plan"]["name"], found["plan"]["scenario"], len(found["lacking"])) == ("cka-1-28", "cka-1.28", 2)


def test_a_scenarios_file(klab) -> None:
    assert yaml.safe_load(klab("scenarios", "1m2w"))["name"] == "1m2w"


@pytest.mark.parametrize("name", shipped_names())
def test_plan_names_every_node_and_what_it_needs(klab, name: str) -> None:
    out = klab("plan", name)
    plan = from_json(json.dumps(json.loads(klab("plan", name, "--json"))["plan"]))
    for node in plan.nodes:
        for shown in (node.name, str(node.address), node.mac):
            assert shown in out
    assert str(plan.networks.cidr) in out
    assert f"{plan.cpus} CPUs" in out
    assert "fit on this machine" in out or "It fits" in out


def test_plan_takes_name_and_seat(klab) -> None:
    found = json.loads(klab("plan", "1m2w", "--name", "mine", "--seat", "3", "--json"))["plan"]
    assert (found["name"], found["seat"]) == ("mine", 3)
    assert found["networks"]["cidr"] == "192.168.59.0/24"


def test_plan_says_what_does_not_fit(klab, tmp_path: Path) -> None:
    file = tmp_path / "huge.yaml"
    file.write_text("version: 1\nname: huge\nmemory: 100T\n")
    found = json.loads(klab("plan", str(file), "--json"))
    assert found["fits"] is False
    assert any("GiB" in line or "MiB" in line for line in found["problems"])
    assert "does not fit" in klab("plan", str(file))


def test_plan_touches_nothing(klab, home: Path) -> None:
    klab("plan", "1m2w")
    assert not home.exists()


def test_validate_reports_each_file(klab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\nname: x\ncpu: 2\nmemory: 1\n")
    assert app.run(["validate", str(bad), "1m2w", str(tmp_path / "none.yaml")]) == 2
    out, err = capsys.readouterr()
    assert "1m2w: good, 3 nodes" in out
    assert "line 3: cpu: unknown key; did you mean cpus?" in err
    assert "line 4: memory: " in err
    assert "there is no file" in err


def test_a_scenario_from_standard_input(klab, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["validate", "-"], ["plan", "-"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"version: 1\nname: piped\n")))
        assert "1 nodes" in klab(*words)


def test_validate_as_json(klab, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\n")
    found = json.loads(klab("validate", "3m", str(bad), "--json", code=2))
    assert [each["ok"] for each in found] == [True, False]
    assert found[1]["problems"] == ["line 1: name: this key is required"]


def test_the_schema_describes_every_key(klab) -> None:
    schema = json.loads(klab("schema"))
    assert schema["$schema"].endswith("/schema")
    assert schema["required"] == ["version", "name"]

    def walk(node: dict) -> None:
        for key, each in node.get("properties", {}).items():
            assert each["description"], key
            walk(each)
            walk(each.get("items", {}))

    walk(schema)


def test_list_without_a_lab(klab, capsys: pytest.CaptureFixture[str]) -> None:
    assert klab("list") == ""
    assert json.loads(klab("list", "--json")) == []


def test_list_shows_labs_and_damaged_ones(klab, make_lab) -> None:
    make_lab("one")
    (make_lab("two", "3m") / "plan.json").write_text("{")
    out = klab("list")
    assert out.splitlines()[0].split() == ["NAME", "SCENARIO", "PROVIDER", "PHASE", "NODES", "CREATED"]
    assert "one" in out
    assert "cp1 w1 w2" in out
    found = json.loads(klab("list", "--json"))
    assert [(lab["name"], lab["phase"]) for lab in found] == [("one", "ready"), ("two", "damaged")]


def test_kubeconfig_prints_or_says_where(klab, make_lab) -> None:
    folder = make_lab("one")
    assert klab("kubeconfig") == (folder / "kubeconfig").read_text()
    assert klab("kubeconfig", "one", "--path").strip() == str(folder / "kubeconfig")


def test_kubeconfig_merges_where_kubectl_looks(klab, make_lab) -> None:
    make_lab("one")
    for words in (["one", "--merge"], ["--merge", "one"], ["--merge"]):
        klab("kubeconfig", *words)
        file = Path(os.environ["HOME"]) / ".kube" / "config"
        assert [c["name"] for c in yaml.safe_load(file.read_text())["contexts"]] == ["klab-one"]


def test_kubeconfig_merges_into_a_named_file(klab, make_lab, tmp_path: Path) -> None:
    make_lab("one")
    klab("kubeconfig", "--merge", str(tmp_path / "k"))
    assert "klab-one" in (tmp_path / "k").read_text()


def test_kubeconfig_says_what_a_proxy_needs(
    klab, make_lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_lab("one")
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert app.run(["kubeconfig", "--path"]) == 0
    assert "proxy" not in capsys.readouterr().err
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert app.run(["kubeconfig", "--path"]) == 0
    assert "export NO_PROXY=192.168.56.0/24," in capsys.readouterr().err


def test_kubeconfig_of_a_lab_without_one(make_lab, capsys: pytest.CaptureFixture[str]) -> None:
    (make_lab("one") / "kubeconfig").unlink()
    assert app.run(["kubeconfig"]) == 1
    assert "klab create again" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_its_shell_accepts(klab, shell: str) -> None:
    script = klab("completion", shell)
    assert "_KLAB_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def complete(home: Path, *words: str) -> list[str]:
    env = os.environ | {
        "KLAB_HOME": str(home),
        "_KLAB_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["klab", *words]),
        "COMP_CWORD": str(len(words)),
    }
    out = subprocess.run([sys.executable, "-m", "lab.cli.main"], env=env, capture_output=True, text=True).stdout
    return [line.partition(",")[2] for line in out.splitlines() if line]


def test_names_complete(home: Path, make_lab) -> None:
    make_lab("one")
    make_lab("other", "3m")
    assert complete(home, "cre") == ["create"]
    assert complete(home, "plan", "1m") == ["1m1w", "1m2w"]
    assert complete(home, "destroy", "o") == ["one", "other"]
    assert complete(home, "ssh", "w") == ["w1", "w2"]
    assert complete(home, "box", "b") == ["build"]


def test_completion_never_fails(home: Path, make_lab) -> None:
    (make_lab("one") / "plan.json").write_text("{")
    make_lab("two")
    assert complete(home, "ssh", "") == ["one", "two", "cp1", "w1", "w2"]
    assert complete(home / "none", "ssh", "") == []


@pytest.mark.parametrize(
    ("text", "lines", "shown"),
    [
        ("a\nb\nc\n", "1", "c\n"),
        ("a\r\nb\r\nc\r\n", "2", "b\nc\n"),
        ("a\nb\nlogin: ", "2", "b\nlogin: "),
        ("", "5", ""),
    ],
)
def test_logs_shows_as_many_lines_as_were_asked_for(klab, home: Path, text: str, lines: str, shown: str) -> None:
    folder, plan = lab_on_disk(Home(home), control_planes=1, workers=0, bootstrap="none")
    console = FakeMachines(Home(home), folder, plan, folder.record(), None).consoles()["cp1"]
    console.write_bytes(text.encode())
    assert klab("logs", "cp1", "-n", lines) == shown


def test_a_timeline_goes_into_a_file_or_says_why_not(
    klab, make_lab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_lab("one")
    klab("timeline", "--svg", str(tmp_path / "one.svg"))
    assert (tmp_path / "one.svg").read_text().startswith("<svg")
    assert app.run(["timeline", "--svg", str(tmp_path / "none" / "one.svg")]) == 2
    err = capsys.readouterr().err
    assert "one.svg cannot be written" in err
    assert "No such file or directory" in err
    assert "hint: " in err


def test_logs_follows_a_node_that_is_started_again(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, plan = lab_on_disk(Home(home), control_planes=1, workers=0, bootstrap="none")
    console = FakeMachines(Home(home), folder, plan, folder.record(), None).consoles()["cp1"]
    console.write_text("the first boot, with much to say\n")
    moments = iter(["the second boot\n", "the second boot\nand more\n"])

    def later(_seconds: float) -> None:
        text = next(moments, None)
        if text is None:
            raise KeyboardInterrupt
        console.write_text(text)

    monkeypatch.setattr("lab.app.consoles.time.sleep", later)
    assert app.run(["logs", "cp1", "-f"]) == 130
    assert capsys.readouterr().out == "the first boot, with much to say\nthe second boot\nand more\n"


@pytest.mark.parametrize("field", ["created", "epoch", "dilation", "id"])
def test_a_lab_with_a_damaged_record_is_listed_beside_the_others(klab, make_lab, field: str) -> None:
    make_lab("one")
    file = make_lab("two") / "lab.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {field: {}}))
    rows = klab("list").splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["one", "two"]
    assert ["damaged" in row for row in rows] == [False, True]
    assert app.run(["status", "two"]) == 1


def test_a_damaged_record_is_named_with_file_and_field(make_lab, capsys: pytest.CaptureFixture[str]) -> None:
    file = make_lab("one") / "lab.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"created": "yesterday"}))
    assert app.run(["status"]) == 1
    assert f'{file}: created is "yesterday", which is not a number' in capsys.readouterr().err
