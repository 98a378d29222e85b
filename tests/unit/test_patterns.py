"""No regular expression of klab's takes more time than a text is long, whoever wrote the text."""

from __future__ import annotations

import importlib
import pkgutil
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lab

LENGTH = 150_000  # quadratic, this takes minutes; linear, milliseconds
SECONDS = 30  # of the processor's, for all patterns of one module; the kernel ends who needs more
WAYS = ("search", "match", "fullmatch", "sub", "finditer")
SOURCE = "\n".join(file.read_text(encoding="utf-8") for file in Path(lab.__file__).parent.rglob("*.py"))
# Built from source that klab names and Go's checksum database vouches for.
PINNED = {("lab.boxes.gomodules", "_STAGING")}


def patterns() -> Iterator[tuple[str, str, re.Pattern[str]]]:
    """Module, name and pattern of every compiled pattern of text."""
    for found in pkgutil.walk_packages(lab.__path__, "lab."):
        if found.name == "lab.cli.main":  # its import begins klab
            continue
        for name, value in vars(importlib.import_module(found.name)).items():
            if (
                isinstance(value, re.Pattern)
                and isinstance(value.pattern, str)
                and f"{name} = re.compile(" in SOURCE
                and (found.name, name) not in PINNED
            ):
                yield found.name, name, value


def hostile(pattern: str) -> Iterator[str]:
    """Long texts made of what the pattern looks for, of what it passes over, and of what ends neither."""
    plain = re.sub(r"\[[^]]*\]|\([^()]*\)\?|\\.|\(\?(?:P<\w+>|:)", "|", pattern)
    words = [word for word in re.split(r"[^\w\"'<> =:/.#-]+", plain) if word]
    joined = ["".join(words[:count]) for count in range(2, len(words) + 1)]
    repeated = [*words, *joined, " ".join(words) or " ", *" \"'\n\t-1aA<.\x1b", "x ", "1-", "\x1b["]
    for beginning in ("", *words[:1], "".join([*words[:1], "x"])):
        for word in repeated:
            for end in ("", "\0"):
                yield beginning + word * (LENGTH // len(word)) + end


def attack(pattern: re.Pattern[str], ways: list[str]) -> None:
    for text in hostile(pattern.pattern):
        for way in ways:
            found: Callable[..., object] = getattr(pattern, way)
            answer = found("", text) if way == "sub" else found(text)
            if way == "finditer":
                list(answer)  # type: ignore[call-overload]


def limited(code: str) -> int:
    """How a program ends that has SECONDS of the processor's."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    path = [str(Path(lab.__file__).parents[1]), str(Path(__file__).parent)]
    code = f"import sys; sys.path[:0] = {path!r}; import re, test_patterns as t; {code}"
    return subprocess.run([sys.executable, "-c", code], preexec_fn=limit, check=False).returncode


def test_every_pattern_is_linear_in_what_it_is_given() -> None:
    code = "[t.attack(p, [w for w in t.WAYS if f'{n}.{w}(' in t.SOURCE]) for m, n, p in t.patterns()]"
    assert limited(code) == 0


def test_the_patterns_are_found_and_used() -> None:
    found = {(module, name) for module, name, _ in patterns()}
    assert {
        ("lab.cluster.wait.console", "_MARK"),
        ("lab.plan.foreign", "_MAC"),
        ("lab.scenario.kinds", "NAME"),
    } <= found
    assert all(any(f"{name}.{way}(" in SOURCE for way in WAYS) for _, name in found)


@pytest.mark.parametrize(
    "pattern", [r"cloud-init.*(warn|error)", r"description:\s*(.+?)\s*$", r"""<(?:\w+:)?lab\b[^>]*\bid=["']"""]
)
def test_a_pattern_that_is_not_linear_is_found(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SECONDS", 1)
    assert limited(f"t.attack(re.compile({pattern!r}), ['search'])") == -signal.SIGXCPU


def test_no_pattern_that_begins_anywhere_escapes_this_test() -> None:
    """What is not compiled under a name of its module is not attacked above."""
    assert re.findall(r"\bre\.(?:search|sub|split|findall|finditer)\(.*", SOURCE) == []
