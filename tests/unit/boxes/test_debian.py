"""Where Debian's packages come from: this machine's own mirrors."""

from __future__ import annotations

import pytest

from lab.boxes.debian import MIRROR_VARIABLE, choose_sources, sources
from lab.errors import HostError

TARGETS = """http://mirror.example/debian bookworm
http://mirror.example/debian bookworm
http://mirror.example/debian bookworm-updates
http://mirror.example/security bookworm-security
https://vendor.example/apt stable
"""


def test_the_box_comes_from_the_mirror_of_this_machine() -> None:
    assert choose_sources("trixie", "bookworm", TARGETS) == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/security trixie-security main",
    ]


def test_no_security_mirror_is_no_reason_to_stop() -> None:
    found = choose_sources("trixie", "bookworm", "http://mirror.example/debian bookworm")
    assert [line.split()[2] for line in found] == ["trixie", "trixie-updates"]


def test_a_machine_of_another_kind_names_a_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HostError) as caught:
        choose_sources("trixie", "noble", "http://vendor.example/ubuntu jammy")
    assert MIRROR_VARIABLE in caught.value.hint
    monkeypatch.setenv(MIRROR_VARIABLE, "http://mirror.example/debian")
    assert sources("trixie") == ["deb http://mirror.example/debian trixie main"]
