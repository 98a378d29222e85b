"""Errors: what a machine refuses is told from a defect, and each error says what to try next."""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import lab
from lab import errors
from lab.errors import LabError, refusal

# Shown as part of another error, which has the hint.
PARTS = ("it cannot be read: ", "it is damaged: ", "it is about snapshot ", "stopped")
# What goes wrong while a box is built is a defect of its recipe, which the details show. The bytes of these modules are
# part of the key of a box: a hint there would build every box again.
BUILDING = {f"boxes/{name}.py" for name in ("disk", "gomodules", "images", "registry", "root")}
FOR_TESTS = "machines/fake/"


def without_hint() -> Iterator[str]:
    """Each place where klab makes an error without a hint: file, line, how its message begins."""
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, LabError)}
    root = Path(lab.__file__).parent
    for file in sorted(root.rglob("*.py")):
        place = file.relative_to(root)
        if place.as_posix() in BUILDING or place.as_posix().startswith(FOR_TESTS):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in kinds:
                continue
            if any(keyword.arg == "hint" for keyword in node.keywords):
                continue
            message = ast.unparse(node.args[0]).lstrip("f").strip("'\"")
            if not message.startswith(PARTS):
                yield f"{place}:{node.lineno} {message}"


def test_every_error_says_what_to_try_next() -> None:
    assert list(without_hint()) == []


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.ENOSPC, errno.EIO, errno.ENAMETOOLONG, errno.ELOOP, errno.ENFILE]
)
def test_what_a_machine_refuses(number: int) -> None:
    found = refusal(OSError(number, os.strerror(number), "/a/file"), said="nothing was changed", hint="make room")
    assert found is not None
    assert found.message == f"this machine refuses: {os.strerror(number)}"
    assert (found.details, found.hint) == (("/a/file", "nothing was changed"), "make room")


@pytest.mark.parametrize("error", [None, ValueError("x"), KeyboardInterrupt(), OSError("x"), FileNotFoundError(2, "x")])
def test_what_is_no_refusal(error: BaseException | None) -> None:
    assert refusal(error, hint="none") is None
