"""Where Debian's packages come from: this machine's own mirrors."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.boxes.debian import MIRROR_VARIABLE, choose_sources, set_public_sources, sources
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


def test_the_box_asks_debian_itself_and_not_the_builders_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, "http://mirror.example/debian")
    apt = tmp_path / "etc/apt"
    (apt / "sources.list.d").mkdir(parents=True)
    # Where mmdebstrap writes the mirrors that it was given.
    (apt / "sources.list").write_text("\n".join(sources("trixie")))
    set_public_sources(tmp_path, "trixie")
    written = {p.relative_to(apt).as_posix(): p.read_text() for p in apt.rglob("*") if p.is_file()}
    assert list(written) == ["sources.list.d/debian.sources"]
    text = written["sources.list.d/debian.sources"]
    assert [line for line in text.splitlines() if line.startswith(("URIs:", "Suites:"))] == [
        "URIs: http://deb.debian.org/debian",
        "Suites: trixie trixie-updates",
        "URIs: http://deb.debian.org/debian-security",
        "Suites: trixie-security",
    ]
