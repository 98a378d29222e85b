"""A lab of a real cluster goes into a file, and comes out of it in another home, Ready and with what was in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.real_lab import Lab

HOST_KEY = "cat /etc/ssh/ssh_host_ed25519_key.pub"
SKEW_SECONDS = 60.0


def test_a_lab_goes_to_another_home(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Box, disks and keys out of the file alone; the two labs have equal addresses, and libvirts of their own."""
    lab.kubectl("create", "configmap", "travelled", "--from-literal=a=b")
    key = lab.on("w1", HOST_KEY)
    refused = lab.klab("export", lab.name, "lesson", "-o", str(tmp_path / "lesson.klab"), check=False)
    assert refused.returncode == 4
    assert f"klab stop {lab.name} first" in refused.stderr
    lab.klab("stop", lab.name)
    file = Path(lab.result("export", lab.name, "lesson", "-o", str(tmp_path / "lesson.klab"))["bundle"]["file"])
    monkeypatch.setenv("KLAB_LIBVIRT", "private")
    student = Lab(tmp_path / "student", lab.scenario, "mine", lab.before)
    try:
        made = student.result("import", str(file), "--name", "mine")
        assert made["already"] is False
        assert sorted(made["running"]) == sorted(lab.nodes)
        assert student.get("configmap", "travelled")["data"] == {"a": "b"}
        assert student.result("status", "mine")["ready"] is True
        assert student.addresses == lab.addresses
        assert student.on("w1", HOST_KEY) == key
        clocks = [float(student.on(node, "date +%s.%N")) for node in student.nodes]
        assert max(clocks) - min(clocks) < SKEW_SECONDS
        assert "running" in student.klab("vagrant", "mine", "--", "status").stdout
        # A lab like any other: it can grow.
        assert student.result("scale", "mine", "--workers", "1")["left"] == ["w2"]
    finally:
        student.destroy()
        monkeypatch.delenv("KLAB_LIBVIRT")
        lab.klab("start", lab.name)
    assert lab.get("configmap", "travelled")["data"] == {"a": "b"}
