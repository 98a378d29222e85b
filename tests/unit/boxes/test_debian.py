"""Where Debian's packages come from: this machine's own mirrors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lab.boxes.debian import MIRROR_VARIABLE, choose_sources, set_public_sources, sources
from lab.errors import BoxError, HostError

# Recorded on Debian 12 (apt-get indextargets), with other addresses; UBUNTU's fields are those of its Release files.
TARGETS = """http://mirror.example/debian|Debian|Debian|bookworm
http://mirror.example/debian|Debian|Debian|bookworm
http://mirror.example/debian|Debian|Debian|bookworm-updates
http://mirror.example/debian|Debian Backports|Debian Backports|bookworm-backports
http://mirror.example/security|Debian|Debian-Security|bookworm-security
https://vendor.example/apt|vendor|vendor|stable
"""
UBUNTU = """http://mirror.example/ubuntu|Ubuntu|Ubuntu|noble
http://mirror.example/ubuntu|Ubuntu|Ubuntu|noble-updates
http://mirror.example/ubuntu|Ubuntu|Ubuntu|noble-security
"""


def test_the_box_comes_from_the_mirror_of_this_machine() -> None:
    assert choose_sources("trixie", TARGETS) == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/security trixie-security main",
    ]


def test_no_security_mirror_is_no_reason_to_stop() -> None:
    found = choose_sources("trixie", "http://mirror.example/debian|Debian|Debian|bookworm")
    assert [line.split()[2] for line in found] == ["trixie", "trixie-updates"]


def test_the_mirror_that_has_the_suite_is_preferred() -> None:
    both = "http://old.example/debian|Debian|Debian|bookworm\nhttp://new.example/debian|Debian|Debian|trixie\n"
    assert choose_sources("trixie", both)[0] == "deb http://new.example/debian trixie main"


def test_a_cd_is_no_mirror() -> None:
    disc = "cdrom:[Debian GNU/Linux 13.1.0 _Trixie_ - Official amd64 DVD]|Debian|Debian|trixie\n"
    assert choose_sources("trixie", disc + TARGETS)[0] == "deb http://mirror.example/debian trixie main"
    with pytest.raises(HostError, match="no Debian mirror"):
        choose_sources("trixie", disc)


def test_ubuntus_mirror_has_no_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HostError, match="no Debian mirror") as caught:
        choose_sources("trixie", UBUNTU)
    assert MIRROR_VARIABLE in caught.value.hint
    # One that has a source of Debian's beside its own needs no variable.
    assert choose_sources("trixie", UBUNTU + TARGETS)[0] == "deb http://mirror.example/debian trixie main"
    monkeypatch.setenv(MIRROR_VARIABLE, "http://mirror.example/debian")
    assert sources("trixie") == ["deb http://mirror.example/debian trixie main"]


CLOUD_CFG = """
system_info:
  distro: debian
  package_mirrors:
    - arches: [i386, amd64]
      failsafe: {primary: "http://ports.example/debian", security: "http://ports.example/security"}
    - arches: [default]
      failsafe: {primary: "https://public.example/debian", security: "https://public.example/security"}
"""


def system(root: Path, cloud_cfg: str) -> Path:
    """A root as mmdebstrap leaves it: with the mirrors that it was given."""
    (root / "etc/apt/sources.list.d").mkdir(parents=True)
    (root / "etc/apt/sources.list").write_text("deb http://mirror.example/debian trixie main\n")
    (root / "etc/cloud").mkdir()
    (root / "etc/cloud/cloud.cfg").write_text(cloud_cfg)
    return root / "etc/apt"


def test_the_box_asks_debians_servers_and_not_the_builders_mirror(tmp_path: Path) -> None:
    apt = system(tmp_path, CLOUD_CFG)
    set_public_sources(tmp_path, "trixie")
    written = {p.relative_to(apt).as_posix(): p.read_text() for p in apt.rglob("*") if p.is_file()}
    assert list(written) == ["sources.list.d/debian.sources"]
    text = written["sources.list.d/debian.sources"]
    assert [line for line in text.splitlines() if line.startswith(("URIs:", "Suites:"))] == [
        "URIs: https://public.example/debian",
        "Suites: trixie trixie-updates",
        "URIs: https://public.example/security",
        "Suites: trixie-security",
    ]


WITHOUT = (
    "",
    "[",
    "system_info: {}",
    "system_info: {package_mirrors: []}",
    CLOUD_CFG.replace("default", "arm64"),
    CLOUD_CFG.replace("https://public.example/security", "no address"),
)


@pytest.mark.parametrize("text", WITHOUT)
def test_a_cloud_init_that_names_no_servers(tmp_path: Path, text: str) -> None:
    apt = system(tmp_path, text)
    with pytest.raises(BoxError, match="does not say where Debian's packages are"):
        set_public_sources(tmp_path, "trixie")
    assert (apt / "sources.list").exists()


def test_the_apt_of_this_machine_tells_what_is_asked() -> None:
    if shutil.which("apt-get") is None:
        pytest.skip("this machine has no apt")
    assert all(line.startswith("deb ") for line in sources("trixie"))
