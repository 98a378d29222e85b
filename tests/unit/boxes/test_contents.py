"""Contents: two builds compared file by file."""

from __future__ import annotations

import os
from pathlib import Path

from lab.boxes.contents import Difference, compare_contents, list_contents


def tree(root: Path) -> Path:
    (root / "etc").mkdir(parents=True)
    (root / "etc/a file").write_text("one")
    (root / "etc/link").symlink_to("a file")
    os.link(root / "etc/a file", root / "etc/same")
    return root


def test_equal_trees_have_equal_lists(tmp_path: Path) -> None:
    one, two = list_contents(tree(tmp_path / "1")), list_contents(tree(tmp_path / "2"))
    assert one == two
    assert compare_contents(one, two) == []
    assert len(one.splitlines()) == 4


def test_content_modes_links_and_absence_are_seen(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "1"), tree(tmp_path / "2")
    before = list_contents(one)
    (two / "etc/same").unlink()
    (two / "etc/link").unlink()
    (two / "etc/link").symlink_to("elsewhere")
    (two / "etc/a file").chmod(0o600)
    (two / "etc/new").write_text("")
    assert compare_contents(before, list_contents(two)) == [
        Difference("/etc/a file", "differs"),
        Difference("/etc/link", "differs"),
        Difference("/etc/new", "only in the second"),
        Difference("/etc/same", "only in the first"),
    ]
