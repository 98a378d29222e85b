"""Programs from source: Go modules through the machine's module proxy, and C files.

Go's checksum database vouches for the modules, whatever this machine's Go settings say: what is built is what
everybody else gets under that version, wherever it was downloaded from.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab import process
from lab.boxes.recipe import Program
from lab.errors import BoxError, HostError, LabError

TIMEOUT = 7200.0
_STAGING = re.compile(r"^\s*(k8s\.io/[a-z0-9-]+) => \./staging/", re.MULTILINE)
# A module's own replacements of others (go.dev/ref/mod, "go.mod files"); those by a folder are not among them.
_REPLACED = re.compile(r"^(?:replace|\t)[ \t]*(\S+)(?: v\S+)? => (\S+) (v\S+)", re.MULTILINE)
_GO_VERSION = re.compile(r"^go (1\.\d+)", re.MULTILINE)
_GODEBUG = re.compile(r"^godebug default=(go1\.\d+)$", re.MULTILINE)
_GODEBUG_SINCE = [1, 23]
# The oldest behaviour that GODEBUG can ask of the standard library (go.dev/doc/godebug).
_OLDEST_GODEBUG = 20
_OPENAPI_TAG = b"+k8s:openapi-gen="
_OPENAPI_GENERATOR = "k8s.io/kube-openapi/cmd/openapi-gen"
# Staging modules of no use to a cluster; some versions of them no proxy has.
_NOT_SERVED = {
    "k8s.io/code-generator",
    "k8s.io/sample-apiserver",
    "k8s.io/sample-cli-plugin",
    "k8s.io/sample-controller",
}
# The host's own settings must not change what comes out, nor excuse a module from the checksum database; its proxy
# stays. "none" matches no module; an empty value would let those of `go env -w` through.
_ENV = {
    "GOFLAGS": "-mod=mod -buildvcs=false",
    "CGO_ENABLED": "0",
    "GOOS": "linux",
    "GOARCH": "amd64",
    "GOWORK": "off",
    "GONOSUMDB": "none",
    "GOPRIVATE": "none",
    "GONOPROXY": "none",
    "GOINSECURE": "none",
}
# Names of Go's checksum database whose key the go command itself holds (go help module-auth).
_DATABASES = ("sum.golang.org", "sum.golang.google.cn")


def need_go() -> None:
    """Refuse to go on without a Go compiler.

    Raises:
        HostError: there is none.
    """
    if not process.have("go"):
        raise HostError(
            "go is not installed; Kubernetes is built from its Go modules",
            hint="install Go (any version since 1.21 fetches the right one by itself)",
        )


def toolchain(wanted: str, caches: Path) -> dict[str, str]:
    """The variables under which to call the go command.

    GOTOOLCHAIN is the recipe's compiler where it can be had, so that all hosts make the same bytes; else this host's
    ("auto"), which makes a working box with other digests.

    Args:
        wanted: the recipe's version of Go: 1.26.8.
        caches: the folder for what Go downloads and compiles, where HOME is another user's; see `apart`.

    Raises:
        HostError: the go command does not work.
    """
    elsewhere = apart(caches)
    for choice in (f"go{wanted}", "auto"):
        chosen = {"GOTOOLCHAIN": choice, **elsewhere}
        try:
            done = process.run(["go", "version"], timeout=600, env=chosen, cwd=Path("/"), check=False)
        except LabError:
            continue
        if done.code == 0:
            return chosen
    raise HostError("go does not run", details=done.tail, hint="go version")


def apart(caches: Path) -> dict[str, str]:
    """The variables by which Go writes below `caches` only, where HOME is another user's; none where it is one's own.

    Under sudo HOME is the person's. What root left in there, the person's own Go could neither read nor replace. What
    the person has set (`go env -w`) is still read. (go help environment; Go's telemetry follows XDG_CONFIG_HOME.)
    """
    home = Path(os.environ.get("HOME", "/"))
    if not home.is_dir() or home.stat().st_uid == os.geteuid():
        return {}
    config = os.environ.get("XDG_CONFIG_HOME") or str(home / ".config")
    return {
        "GOENV": os.environ.get("GOENV") or f"{config}/go/env",
        "GOPATH": str(caches),
        "GOMODCACHE": str(caches / "pkg" / "mod"),
        "GOCACHE": str(caches / "build"),
        "XDG_CONFIG_HOME": str(caches / "config"),
    }


def compiler(go: Mapping[str, str]) -> str:
    """What `go version` says under the variables of `toolchain`: "go version go1.26.8 linux/amd64"."""
    return process.run(["go", "version"], timeout=600, env=go, cwd=Path("/")).stdout.strip()


def build(program: Program, folder: Path, target: Path, *, go: Mapping[str, str], log: Path) -> None:
    """Compile one program of a recipe.

    Args:
        program: what to compile.
        folder: the recipe's folder.
        target: an empty folder; gets `bin/NAME` for each of `program.build`.
        go: the variables of `toolchain`.
        log: file that the output is appended to.

    Raises:
        HostError: the compiler is not installed.
        BoxError: it does not compile, or a module cannot be had.
    """
    out = target / "bin"
    out.mkdir()
    try:
        if program.c:
            (name,) = program.build
            process.run(["gcc", "-static", "-Os", "-s", "-o", out / name, folder / program.c], timeout=300, log=log)
        else:
            own = {"GOTOOLCHAIN": f"go{program.go}"} if program.go else {}
            _build_go(program, folder, target, out, _Go({**go, **own}, log))
    except HostError:
        raise
    except LabError as error:
        raise BoxError(
            f"{program.name} cannot be built", details=error.details, hint=f"the whole output: {log}"
        ) from error


def checksum_database(configured: str) -> str:
    """The GOSUMDB to build with, given this machine's: one whose key the go command holds, at whatever address.

    >>> checksum_database("sum.golang.org https://sums.example.org")
    'sum.golang.org https://sums.example.org'
    >>> checksum_database("off")
    'sum.golang.org'
    """
    words = configured.split()
    return " ".join(words) if words and words[0] in _DATABASES else _DATABASES[0]


class _Go:
    """The go command with klab's settings; `cwd` is the module it works in."""

    def __init__(self, go: Mapping[str, str], log: Path) -> None:
        configured = process.run(["go", "env", "GOSUMDB"], timeout=60, env=go, cwd=Path("/")).stdout
        self._env = {**_ENV, **go, "GOSUMDB": checksum_database(configured)}
        self._log = log

    def run(self, cwd: Path, *argv: str, program: Path = Path("go")) -> str:
        """Run the go command, or a program that was built here and itself asks the go command."""
        return process.run([program, *argv], timeout=TIMEOUT, env=self._env, cwd=cwd, log=self._log).stdout

    def download(self, cwd: Path, module: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.run(cwd, "mod", "download", "-json", module))
        return answer


def _build_go(program: Program, folder: Path, target: Path, out: Path, go: _Go) -> None:
    work = target / "src"
    if program.without_imports:
        package_root = _edited_copy(program, work, go)
    else:
        package_root = _own_module(program, folder, work, go)
    flags = " ".join(["-s", "-w", *program.linker, *(f"-X {key}={value}" for key, value in program.variables)])
    packages = [f"{package_root}/{path}" if path else package_root for path in program.build.values()]
    # With several packages go names the programs itself, after the last part of the path.
    place = f"{out}/" if len(packages) > 1 else str(out / next(iter(program.build)))
    tags = ["-tags", ",".join(program.tags)] if program.tags else []
    go.run(work, "build", "-trimpath", *tags, "-ldflags", flags, "-o", place, *packages)
    missing = [name for name in program.build if not (out / name).is_file()]
    if missing:
        raise BoxError(f"{program.name} was built without {', '.join(missing)}")
    shutil.rmtree(work)


def _own_module(program: Program, folder: Path, work: Path, go: _Go) -> str:
    """A module that requires the program's; returns the path its packages stand under."""
    work.mkdir()
    at = f"{program.module}@{program.version}"
    go.run(work, "mod", "init", f"klab.local/{program.name}")
    go.run(work, "mod", "edit", "-require", at)
    mod = Path(go.download(work, at)["GoMod"]).read_text()
    go.run(work, "mod", "edit", *as_its_own(program, mod))
    if program.openapi:
        _generate_openapi(program, mod, work, go)
    if program.main:
        for file in (folder / program.main).glob("*.go"):
            shutil.copy(file, work)
        return "."
    packages = [f"{program.module}/{path}" if path else program.module for path in program.build.values()]
    go.run(work, "get", *(f"{package}@{program.version}" for package in packages))
    return program.module


def as_its_own(program: Program, mod: str) -> list[str]:
    """Options of `go mod edit`, so that a module that requires the program's builds it as its own repository does.

    A go.mod's replacements, and what it says of GODEBUG, count for the main module only (go.dev/ref/mod).

    Args:
        program: the recipe's entry.
        mod: the go.mod of the program's module.
    """
    replaced = _replaced(program, mod)
    behaviour = godebug(mod)
    # A Go that does not know godebug lines follows the module's own go line (go.dev/doc/godebug, "History").
    own = program.go and [int(part) for part in program.go.split(".")[:2]] < _GODEBUG_SINCE
    as_then = f"-go={behaviour.removeprefix('go')}" if own else f"-godebug=default={behaviour}"
    return [as_then, *(f"-replace={module}={to}" for module, to in sorted(replaced.items()))]


def _replaced(program: Program, mod: str) -> dict[str, str]:
    """What stands for a module in the build of a program whose go.mod this is: {module: "module@version"}."""
    replaced = {found[1]: f"{found[2]}@{found[3]}" for found in _REPLACED.finditer(mod)}
    if program.staging:
        replaced |= {module: f"{module}@{program.staging}" for module in _STAGING.findall(mod)}
    # A replacement by another module has that one's name before its version: github.com/fvbommel/util@v0.0.3.
    return replaced | {
        module: version if "@" in version else f"{module}@{version}" for module, version in program.replace
    }


def godebug(mod: str) -> str:
    """The Go version whose behaviour a module's programs get, given its go.mod.

    >>> godebug("module m\\n\\ngo 1.26.0\\n\\ngodebug default=go1.24\\n")
    'go1.24'
    >>> godebug("module m\\n\\ngo 1.22.0\\n"), godebug("module m\\n\\ngo 1.16\\n")
    ('go1.22', 'go1.20')
    """
    if said := _GODEBUG.search(mod):
        return said[1]
    written = _GO_VERSION.search(mod)
    return f"go1.{max(int(written[1].removeprefix('1.')) if written else 0, _OLDEST_GODEBUG)}"


def _edited_copy(program: Program, work: Path, go: _Go) -> str:
    """A copy of the module whose main does without some imports."""
    _copy_module(program, work, go)
    main = work / "main.go"
    main.write_text(without_imports(main.read_text(), program.without_imports))
    return "."


def _copy_module(program: Program, target: Path, go: _Go) -> None:
    """Write a copy of a program's module, which is not read-only as those in Go's cache are."""
    source = Path(go.download(target.parent, f"{program.module}@{program.version}")["Dir"])
    shutil.copytree(source, target, copy_function=shutil.copyfile)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _generate_openapi(program: Program, mod: str, work: Path, go: _Go) -> None:
    """Build from a copy of the module with the one generated file that its repository leaves out.

    As build/root/Makefile.generated_files of Kubernetes 1.23 does: kube-openapi's generator, of the version that the
    module requires, reads every package of the module and of its staging modules that asks for it by a tag.
    """
    copy = work / "module"
    _copy_module(program, copy, go)
    go.run(work, "mod", "edit", f"-replace={program.module}=./{copy.name}")
    go.run(work, "build", "-o", "openapi-gen", _OPENAPI_GENERATOR)
    staging = [module for module in _STAGING.findall(mod) if module not in _NOT_SERVED]
    folders = {program.module: copy}
    replaced = _replaced(program, mod)
    folders |= {module: Path(go.download(work, replaced[module])["Dir"]) for module in staging}
    tagged = sorted(package for module, folder in folders.items() for package in tagged_packages(module, folder))
    target = f"{program.module}/{program.openapi}"
    header, report = work / "header.txt", work / "violations.txt"
    header.touch()
    argv = ["-i", ",".join(tagged), "-p", target, "-O", "zz_generated.openapi", "-h", str(header), "-r", str(report)]
    go.run(work, *argv, "--output-base", str(work / "generated"), program=work / "openapi-gen")
    shutil.copy(work / "generated" / target / "zz_generated.openapi.go", copy / program.openapi)


def tagged_packages(module: str, folder: Path) -> set[str]:
    """The packages of a module in a folder that ask for OpenAPI definitions."""
    files = (
        file for file in folder.rglob("*.go") if "testdata" not in file.parts and _OPENAPI_TAG in file.read_bytes()
    )
    return {"/".join((module, *file.parent.relative_to(folder).parts)) for file in files}


def without_imports(source: str, endings: tuple[str, ...]) -> str:
    """Go source without the import lines whose path ends so.

    Raises:
        BoxError: one of them is not imported; the recipe is out of date.
    """
    lines = source.splitlines(keepends=True)
    for ending in endings:
        kept = [line for line in lines if not line.rstrip().endswith(f'{ending}"')]
        if len(kept) == len(lines):
            raise BoxError(f"main.go does not import {ending}")
        lines = kept
    return "".join(lines)
