from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lab.cli.commands.doctor import command
from lab.errors import HostError
from lab.machines import doctor
from lab.machines.doctor import Finding
from lab.store import Home

MISSING = Finding("vagrant", ok=False, seen="vagrant is not installed", hint="sudo apt-get install vagrant")
NOTE = Finding("boxes", ok=False, seen="no box has been built yet", hint="klab box build", fatal=False)
FINE = Finding("disk", ok=True, seen="50.0 GiB free")


def run(monkeypatch: pytest.MonkeyPatch, findings: list[Finding], *words: str) -> tuple[int, str]:
    monkeypatch.setattr(doctor, "examine", lambda _home: iter(findings))
    result = CliRunner().invoke(command, list(words))
    return result.exit_code, result.output


def test_something_needed_that_is_missing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(monkeypatch, [FINE, MISSING])
    assert code == HostError.exit_code
    assert "MISSING" in output
    assert "sudo apt-get install vagrant" in output


def test_a_note_does_not_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(monkeypatch, [FINE, NOTE])
    assert code == 0
    assert "MISSING" not in output
    assert "klab box build" in output


def test_json_holds_every_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(monkeypatch, [FINE, MISSING], "--json")
    assert code == HostError.exit_code
    assert [(f["name"], f["ok"]) for f in json.loads(output)] == [("disk", True), ("vagrant", False)]


def test_every_missing_program_is_found_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nothing(program: str) -> str:
        raise HostError(f"{program} is not installed", hint=f"sudo apt-get install {program}")

    monkeypatch.setattr(doctor.process, "find", nothing)
    monkeypatch.setattr(doctor, "Vagrant", nothing)
    monkeypatch.setattr(doctor, "why_not_accelerated", lambda _home: "")
    monkeypatch.setattr(doctor, "host_facts", nothing)
    monkeypatch.setattr(doctor.providers, "system_answers", lambda: False)
    findings = {finding.name: finding for finding in doctor.examine(Home(tmp_path))}
    for name in (*doctor.PROGRAMS, "libvirtd", "plugin vagrant-libvirt"):
        assert not findings[name].ok
        assert findings[name].hint


def test_looking_starts_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.providers, "system_answers", lambda: False)
    monkeypatch.setattr(doctor.os, "geteuid", lambda: 0)
    monkeypatch.setattr(doctor.process, "find", str)
    assert "private one" in doctor._libvirtd(Home(tmp_path))
    assert not (tmp_path / "realm").exists()
