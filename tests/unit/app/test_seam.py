"""lab.app is for any program: it has no terminal, does not end the process, and costs no import before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lab.app

MODULES = sorted(Path(lab.app.__file__).parent.glob("*.py"))
# By name, or as an attribute of a module or a stream.
FORBIDDEN = {"print", "input", "SystemExit", "exit", "argv", "stdin", "stdout", "stderr", "isatty", "get_terminal_size"}
# What is no standard stream: a field of Program, what a program printed, and the child of klab connect that is
# never to return.
ALLOWED = {
    ("programs.py", "argv"),
    ("report.py", "stdout"),
    ("report.py", "stderr"),
    ("connect.py", "_exit"),
    ("kustomize.py", "stdout"),
}


@pytest.mark.parametrize("module", MODULES, ids=lambda file: file.stem)
def test_a_module_prints_nothing_and_ends_nothing(module: Path) -> None:
    used = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            used.add(node.id)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
    assert {name for name in used & FORBIDDEN if (module.name, name) not in ALLOWED} == set()


def imported(statement: str) -> set[str]:
    """The modules of klab, and of its largest dependencies, that a statement imports."""
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name for name in done.stdout.split() if name.split(".")[0] in {"lab", "kubernetes", "cryptography", "rich"}}


def test_the_package_itself_imports_nothing() -> None:
    assert imported("import lab.app") == {"lab", "lab.app"}


def test_a_plan_needs_neither_machines_nor_a_cluster() -> None:
    """klab plan answers at once."""
    found = imported("import lab.app.plans")
    assert not {
        name for name in found if name.startswith(("lab.cluster", "lab.machines", "lab.snapshots", "lab.boxes"))
    }
    assert {name.split(".")[0] for name in found} == {"lab"}


def test_finding_a_lab_loads_neither_certificates_nor_scenarios() -> None:
    """klab ssh and klab kubectl start at once."""
    found = imported("import lab.app.labs")
    assert {name.split(".")[0] for name in found} == {"lab"}
    assert not found & {"lab.cluster.clients.https", "lab.cluster.secrets", "lab.scenario.library"}
