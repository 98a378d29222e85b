"""Errors: what a machine refuses is told from a defect, and each error says what to try next."""

from __future__ import annotations

import ast
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import lab
from lab import errors
from lab.cli.overview import COMMANDS
from lab.errors import LabError, Remedy, refusal

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


# --- what klab itself can do is a value ---------------------------------------------------------------

COMMAND = re.compile(rf"\bklab ({'|'.join(COMMANDS)})\b")


def commands_in_text() -> Iterator[str]:
    """Each hint, below the command line, that has a command of klab's in its text: file, line, the text."""
    root = Path(lab.__file__).parent
    for file in sorted(root.rglob("*.py")):
        place = file.relative_to(root)
        if place.parts[0] == "cli":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            for keyword in node.keywords:
                text = ast.unparse(keyword.value) if keyword.arg == "hint" else ""
                if COMMAND.search(text):
                    yield f"{place}:{keyword.value.lineno} {text}"


def test_a_hint_holds_its_commands_as_values() -> None:
    assert list(commands_in_text()) == []


def test_a_remedy_is_worded_by_each_face() -> None:
    error = LabError("it is off", hint=("look, then ", Remedy("start", lab="demo", node="cp1"), " starts it"))
    assert error.hint == "look, then klab start demo cp1 starts it"
    assert str(error).endswith("hint: look, then klab start demo cp1 starts it")
    assert error.hint.remedies == (Remedy("start", lab="demo", node="cp1"),)
    assert error.hint.worded(lambda remedy: f"<{remedy.action} {remedy.node}>") == "look, then <start cp1> starts it"


def test_a_hint_that_is_handed_on_keeps_its_values() -> None:
    first = LabError("inner", hint=Remedy("snapshot prune", options=("--keep", "3")))
    second = LabError("outer", hint=first.hint)
    assert second.hint.remedies == first.hint.remedies
    second.advise("make room")
    assert (second.hint, second.hint.remedies) == ("make room", ())
