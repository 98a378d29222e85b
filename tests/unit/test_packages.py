"""What an error tells a person to install is what `make install` installs."""

from __future__ import annotations

from pathlib import Path

from lab.packages import PACKAGES, install_hint

LIST = Path(__file__).parents[2] / "tools" / "packages.txt"
# Part of every Debian.
NOT_LISTED = {"util-linux"}


def listed() -> set[str]:
    lines = (line.partition("#")[0].split() for line in LIST.read_text().splitlines())
    return {words[0] for words in lines if words}


def test_every_package_that_an_error_names_is_installed_by_make_install() -> None:
    named = {package for packages in PACKAGES.values() for package in packages.split()}
    assert named - listed() == NOT_LISTED


def test_the_way_to_a_program() -> None:
    assert install_hint("mke2fs") == "sudo apt-get install e2fsprogs"
    assert install_hint("tmux") == "sudo apt-get install tmux"
    assert "klab box build" in install_hint("kubectl")
    assert install_hint("vagrant").startswith("sudo apt-get install vagrant vagrant-libvirt; Ubuntu")
