"""Components by name, and that nobody else knows a name."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lab
from lab.components.cni import DEFAULT as DEFAULT_NETWORK
from lab.components.cni import network, networks
from lab.components.cni.base import PodNetwork
from lab.components.registry import components
from lab.components.runtime import DEFAULT as DEFAULT_RUNTIME
from lab.components.runtime import runtime, runtimes

LAB = Path(lab.__file__).parent
# Names that are words of their own elsewhere; no comparison with a text is allowed either.
# Debian's docker-registry, the registry docker.io and the protocol docker:// are not the runtime Docker.
PRODUCTS = re.compile(
    "|".join(sorted({*networks(), *runtimes()} - {"none", "bridge", "docker"}))
    + r"|\bctr\b|\bcni0\b|docker(?!-registry|\.io|://)|\bcrictl\b"
)
COMPARED = re.compile(r"\b(?:cni|runtime)\s(?:==|!=|(?:not )?in)\s['\"([{]")
ALLOWED = {
    # An image's name in an OCI layout stands in an annotation of containerd's; a registry has its files below docker/.
    *("boxes/images.py", "boxes/registry.py"),
    # The archives that docker save writes, and skopeo's name for them.
    "images/archive.py",
    # Docker on this machine, which is in the way of a lab's network.
    *("host/firewalls.py", "app/report.py"),
}


def code_of(file: Path) -> Iterator[str]:
    """The texts and names of a module, without docstrings and comments."""
    tree = ast.parse(file.read_text())
    docs = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docs.add(node.body[0].value)  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docs:
            yield node.value
        elif isinstance(node, ast.Name | ast.Attribute | ast.ImportFrom | ast.Compare):
            yield ast.unparse(node)


def test_no_other_part_knows_a_product_by_name() -> None:
    found = set()
    for file in sorted(LAB.rglob("*.py")):
        name = file.relative_to(LAB).as_posix()
        if name.startswith("components/") or name in ALLOWED:
            continue
        for text in code_of(file):
            if PRODUCTS.search(text.lower()) or COMPARED.search(text):
                found.add(f"{name}: {text}")
    assert found == set()


def test_the_places_that_are_allowed_to_know_one_do() -> None:
    """An entry that is no longer needed goes."""
    assert {name for name in ALLOWED if any(PRODUCTS.search(text.lower()) for text in code_of(LAB / name))} == ALLOWED


def test_every_module_is_a_component_of_its_name() -> None:
    assert {"flannel", "none"} <= networks().keys()
    assert set(runtimes()) == {"containerd", "cri-o", "docker"}
    for name, each in (*networks().items(), *runtimes().items()):
        assert each.name == name
    assert network(DEFAULT_NETWORK).present
    assert runtime(DEFAULT_RUNTIME).socket((1, 35)).startswith("unix:///")


def test_a_new_file_is_a_new_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "more_networks"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "base.py").write_text("raise AssertionError('not a component')\n")
    (package / "other.py").write_text(
        "from lab.components.cni.base import PodNetwork\n"
        "class Other(PodNetwork):\n    name = 'other'\n"
        "COMPONENT = Other()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (package / "two_words.py").write_text((package / "other.py").read_text().replace("'other'", "'two-words'"))
    assert list(components("more_networks", PodNetwork)) == ["other", "two-words"]


@pytest.mark.parametrize("text", ["", "COMPONENT = 1\n", "from lab.components.cni.none import COMPONENT\n"])
def test_a_module_without_a_component_of_its_name_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "wrong_networks"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "wrong.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("wrong_networks", "wrong_networks.wrong"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    components.cache_clear()
    with pytest.raises(TypeError, match="no PodNetwork called 'wrong'"):
        components("wrong_networks", PodNetwork)
