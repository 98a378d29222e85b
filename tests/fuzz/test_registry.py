"""The table of targets is whole and says what is so: a parser that is not fuzzed fails here."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from fuzz.harness import Target, judged
from fuzz.registry import NOT_FUZZED, TARGETS

import lab

ROOT = Path(lab.__file__).parent
# Calls that take apart what came from outside, and names of functions that do.
CALLS = {
    *("json.loads", "yaml.load", "yaml.safe_load", "yaml.safe_load_all", "yaml.compose", "ElementTree.fromstring"),
    *("x509.load_pem_x509_certificate", "x509.load_der_x509_certificate", "serialization.load_pem_private_key"),
    *("serialization.load_ssh_private_key", "datetime.datetime.fromisoformat", "parsedate_to_datetime"),
    *("tarfile.TarInfo.frombuf", "struct.unpack", "struct.unpack_from", "base64.b64decode"),
}
NAMES = ("parse", "from_json", "read_")
ONE_OF_A_KIND = {target.name for target in TARGETS}


def parsers() -> Iterator[str]:
    """Every function of klab's that is called as a parser is, or calls one."""
    for file in sorted(ROOT.rglob("*.py")):
        module = ".".join(("lab", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        yield from _in(ast.parse(file.read_text()), f"{module}:")


def _in(tree: ast.AST, prefix: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _in(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            named = node.name.removeprefix("_").startswith(NAMES)
            if named or any(ast.unparse(n.func) in CALLS for n in ast.walk(node) if isinstance(n, ast.Call)):
                yield f"{prefix}{node.name}"


def test_every_parser_is_fuzzed() -> None:
    covered = {name for target in TARGETS for name in target.covers}
    missing = set(parsers()) - covered - set(NOT_FUZZED)
    assert not missing, f"give these a target in tests/fuzz/kinds, or a reason in NOT_FUZZED: {sorted(missing)}"


def test_what_is_not_fuzzed_exists_and_has_a_reason() -> None:
    there, covered = set(parsers()), {name for target in TARGETS for name in target.covers}
    assert set(NOT_FUZZED) <= there, "remove what is gone"
    assert not set(NOT_FUZZED) & covered
    assert all(len(reason) > 10 for reason in NOT_FUZZED.values())


def test_every_target_has_its_own_name() -> None:
    assert len(ONE_OF_A_KIND) == len(TARGETS)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "-").replace("/", "-"))
def test_a_target_accepts_a_seed_and_reaches_what_it_covers(target: Target, tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    seeds = target.seeds(tmp_path / "seeds")
    entered: set[CodeType] = set()

    def note(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            entered.add(frame.f_code)

    accepted = 0
    for number, seed in enumerate(seeds):
        work = tmp_path / f"work-{number}"
        work.mkdir()
        sys.setprofile(note)
        try:
            target.act(seed, work)
            accepted += 1
        except target.refuses:
            pass
        finally:
            sys.setprofile(None)
        assert judged(target, seed, tmp_path / "again") == ""
    assert accepted, "no seed is accepted: nothing is tried but refusals"
    for name in target.covers:
        assert _code(name) in entered, f"{name} is not reached"


def _code(name: str) -> CodeType:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = found.__dict__[part] if isinstance(found, type) else getattr(found, part)
    if isinstance(found, property):
        found = found.fget
    code: CodeType = getattr(found, "__wrapped__", found).__code__
    return code
