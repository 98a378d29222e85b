"""The report for somebody who helps: what is in it, and that no secret is."""

from __future__ import annotations

import json
import platform
import pwd
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import fake_lab

from lab.app import report
from lab.app.anonymous import anonymous, own_names
from lab.cli import app
from lab.errors import Conflict, HostError, UsageError
from lab.machines.doctor import Finding
from lab.process import Completed
from lab.store import Home, LabFolder

KEY = "-----BEGIN {kind}PRIVATE KEY-----\nMHcCAQEEIAsecretkey0\nAoGBAsecretkey1==\n-----END {kind}PRIVATE KEY-----"
LONG = "TUhjQ0FRRUVJQXNlY3JldGtleUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
# By kind, as the programs and files that the report quotes write them; SECRET stands for what must not be left.
PLANTED = {
    "RSA key": KEY.format(kind="RSA "),
    "OpenSSH key": KEY.format(kind="OPENSSH "),
    "key without a name": KEY.format(kind=""),
    "bootstrap token": "kubeadm join 192.168.56.11:6443 --token abcdef.0123456789abcdef",
    "bare token": "made abcdef.0123456789abcdef",
    "JSON Web Token": "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnc2VjcmV0",
    "certificate key": "--certificate-key 5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2",
    "password": 'vnc_password = "s3cr3tword"',
    "password in JSON": json.dumps({"password": "s3cr3tword"}),
    "libvirt's password": "<graphics type='vnc' passwd='s3cr3tword'/>",
    "proxy": "Acquire::http::Proxy http://anna.b:s3cr3tword@proxy.example:3128",
    "proxy's user": "https_proxy=http://s3cr3tword@proxy.example:3128/",
    "kubeconfig's key": f"    client-key-data: {LONG}",
    "kubeconfig's certificate": f"    client-certificate-data: {LONG}",
    "data without a name": LONG,
    "header": "Authorization: Bearer s3cr3tword",
    "user": "/home/anna/labs of Anna Beispiel, drwx------ anna anna",
    "machine": "anna@ws-17 ws-17.school.example is WS-17",
    "public address": "inet 93.184.216.34/24, 2606:2800:220:1:248:1893:25c8:1946/64",
    "network card": "enp3s0 UP 8c:16:45:aa:bb:cc",
}
SECRETS = (
    *("secretkey", "MHcCAQ", "0123456789abcdef", "c2lnc2VjcmV0", "5ec2e7", "s3cr3tword", "TUhjQ0", "QUFBQ"),
    *("anna", "Anna", "Beispiel", "ws-17", "WS-17", "school.example", "93.184", "2606:", "aa:bb:cc"),
)
NAMES = {"anna": "USER", "Anna Beispiel": "USER", "ws-17.school.example": "HOST", "ws-17": "HOST"}


def leaks(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize("kind", PLANTED)
def test_no_secret_of_any_kind_is_left(kind: str) -> None:
    assert leaks(PLANTED[kind]), "nothing to be found: the test would prove nothing"
    for text in (
        PLANTED[kind],
        f"klab| {PLANTED[kind]}\n",
        f"\x1b[1m{PLANTED[kind]}\x1b[0m",
        json.dumps(PLANTED[kind]),
    ):
        assert leaks(anonymous(text, NAMES)) == []


def test_a_key_whose_beginning_was_cut_off_is_no_better() -> None:
    whole = PLANTED["RSA key"]
    for start in range(len(whole.splitlines()[0]), whole.index("-----END")):
        assert leaks(anonymous(whole[start:], NAMES)) == []


@pytest.mark.parametrize(
    "text",
    [
        "inet 192.168.56.1/24 brd 192.168.56.255, fe80::1, 10.0.0.1, 127.0.0.1, ::1",
        "enp1s0 52:54:00:12:34:56, lo 00:00:00:00:00:00",
        "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
        "/sys/devices/system/clocksource/clocksource0/current_clocksource: tsc",
        "libvirt 11.3.0, QEMU 10.0.13, kernel 6.12.57+deb13-amd64, vagrant 2.3.4+dfsg-1",
        "2026-11-29T15:30:00 12:34:56 debian root klab hannah",
    ],
)
def test_what_helps_stays(text: str) -> None:
    assert anonymous(text, NAMES) == text


def test_own_names_are_found_and_those_of_thousands_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    account = SimpleNamespace(pw_name="anna", pw_gecos="Anna Beispiel,,,")
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: account)
    monkeypatch.setattr(platform, "node", lambda: "ws-17.school.example")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/anna"))
    for variable in ("SUDO_USER", "LOGNAME", "USER"):
        monkeypatch.setenv(variable, "root")
    assert own_names() == NAMES
    account.pw_name = account.pw_gecos = "student"
    monkeypatch.setattr(Path, "home", lambda: Path("/home/student"))
    monkeypatch.setattr(platform, "node", lambda: "debian")
    assert own_names() == {}


# --- a whole report ---------------------------------------------------------------------------


@pytest.fixture
def lab(home: Path, monkeypatch: pytest.MonkeyPatch) -> LabFolder:
    """A lab on a machine of Anna's, where every file and every program has secrets to tell."""
    fake_lab.register(monkeypatch)
    folder, plan = fake_lab.lab_on_disk(Home(home), control_planes=1, workers=1, bootstrap="none")
    everything = "\n".join(PLANTED.values())
    folder.log.write_text(f"{everything}\nthe last line of the log\n")
    for node in plan.nodes:
        (folder.logs / f"console-{node.name}.log").write_text(f"{everything}\nthe last line of {node.name}\n")
    monkeypatch.setattr(report, "own_names", lambda: NAMES)
    monkeypatch.setattr(report, "examine_host", lambda _home: [Finding("disk", ok=False, seen=everything, hint="room")])
    monkeypatch.setattr(report, "examine_lab", lambda _lab: [])
    monkeypatch.setenv("HTTPS_PROXY", "http://anna:s3cr3tword@proxy.example:3128")
    monkeypatch.setenv("KLAB_TOKEN", "s3cr3tword")

    def run(argv: Sequence[str], **_: Any) -> Completed:
        if argv[0] == "VBoxManage":
            raise HostError("VBoxManage is not installed", hint="sudo apt-get install virtualbox")
        return Completed(tuple(argv), 1, f"{everything}\nthe last line of {argv[0]}", "")

    monkeypatch.setattr(report.process, "run", run)
    return folder


def test_a_report_has_everything_and_no_secret(
    lab: LabFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "anna.txt"
    assert app.run(["doctor", "demo", "--report", str(file)]) == 0
    text = file.read_text()
    assert leaks(text) == []
    assert str(file) in capsys.readouterr().out
    assert file.stat().st_mode & 0o777 == 0o600
    for words in (
        *("Read this file before you send it", "=== lab demo ===", "=== klab doctor demo ===", "MISSING  disk: "),
        *("the last line of the log", "the last line of cp1", "the last line of w1", "the last line of virsh"),
        *("VBoxManage is not installed", "exit code 1", "machines: cp1 running, w1 running", "HTTPS_PROXY="),
    ):
        assert words in text, words


def test_without_a_lab_no_console_is_in_it(lab: LabFolder, tmp_path: Path) -> None:
    file = tmp_path / "report.txt"
    assert app.run(["doctor", "--report", str(file)]) == 0
    assert "the last line of the log" in file.read_text()
    assert "the last line of cp1" not in file.read_text()


def test_a_report_has_a_name_by_itself_and_json_names_it(
    lab: LabFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert app.run(["doctor", "--report", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    [made] = tmp_path.glob("klab-report-*.txt")
    assert said == {"report": made.name, "bytes": made.stat().st_size}


def test_what_is_there_is_not_overwritten(lab: LabFolder, tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("mine")
    assert app.run(["doctor", "--report", str(file)]) == Conflict.exit_code
    with pytest.raises(Conflict):
        report.write(file, "a report")  # it came while klab looked
    assert file.read_text() == "mine"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert app.run(["doctor", "--report", str(tmp_path / "link")]) == Conflict.exit_code


def test_where_nothing_can_be_written_it_says_so_at_once(
    lab: LabFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "sections", lambda _lab: pytest.fail("a minute is spent"))
    assert app.run(["doctor", "--report", str(tmp_path / "no" / "report.txt")]) == UsageError.exit_code
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(report, "write_outside", lambda *_, **__: (_ for _ in ()).throw(full))
    with pytest.raises(UsageError, match="No space left"):
        report.write(tmp_path / "report.txt", "a report")


def test_a_lab_in_the_place_of_a_file_is_noticed(lab: LabFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["doctor", "--report", "demo"]) == UsageError.exit_code
    assert "klab doctor demo --report" in capsys.readouterr().err


def made(monkeypatch: pytest.MonkeyPatch, *looks: tuple[str, Callable[[], str]]) -> dict[str, str]:
    monkeypatch.setattr(report, "_looks", lambda *_: iter(looks))
    return {each.title: each.text for each in report.sections(None, Home(Path("/nowhere")))}


def test_a_section_that_fails_or_hangs_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise HostError("libvirtd does not answer", details=["a detail"])

    hang = threading.Event()
    monkeypatch.setattr(report, "SECTION_SECONDS", 0.2)
    found = made(
        monkeypatch,
        ("fails", fail),
        ("breaks", lambda: str(1 // 0)),
        ("hangs", lambda: str(hang.wait(60))),
        ("works", lambda: "fine"),
    )
    hang.set()
    assert found == {
        "fails": "not available: libvirtd does not answer\na detail",
        "breaks": "not available: ZeroDivisionError: integer division or modulo by zero",
        "hangs": "not available: it took longer than 0.2 s",
        "works": "fine",
    }


def test_a_section_is_bounded_and_keeps_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    text = made(monkeypatch, ("long", lambda: "first " + "x " * report.MOST + " last"))["long"]
    assert len(text) < report.MOST + 100
    assert text.startswith("first ")
    assert text.endswith(" last")
    assert "characters left out" in text


def test_a_damaged_lab_is_in_it(lab: LabFolder) -> None:
    lab.record_file.write_text("{")
    sections = {each.title: each.text for each in report.sections()}
    assert "demo: damaged" in sections["labs"]
    assert "lab.json" in sections["lab demo"]
    assert "the last line of the log" in sections["lab demo"]
