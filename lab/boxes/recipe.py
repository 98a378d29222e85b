"""A recipe: what goes into a box, with every version filled in.

`lab.scenario.catalog` reads the same file for the versions a scenario may name; this module
reads the rest: Debian packages, programs to compile, images to pack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import yaml

from lab import records, resources
from lab.boxes.cache import digest_tree, key_of
from lab.components.kubernetes.versions import KubernetesVersion
from lab.errors import BoxError, NotFound
from lab.scenario.catalog import EXTENDS, PROGRAMS, RECIPE, parse_recipe, read_recipe
from lab.scenario.references import Reference

# The program that takes dates and chance out of containerd's databases; every recipe has it.
SETTLE = "bolt-settle"
# The folder beside the recipes with a file for each add-on.
PACKS = "addons"
# The folder beside them with the images of lessons that klab can build, and their file.
LESSONS, OWN_BUILDS = "lessons", "images.yaml"
# What an image's configuration says of who has built it (image-spec, annotations.md).
VENDOR_LABEL, VENDOR = "org.opencontainers.image.vendor", "klab"
_UNREADABLE = (OSError, yaml.YAMLError, LookupError, ValueError)


@dataclass(frozen=True, slots=True)
class Program:
    """Something to compile: one Go module or one C file.

    `build` maps the name of each program to its package, a path inside the module
    ("" for the module itself). `main` is a folder of the recipe with a main package of
    its own; `without_imports` are import path endings taken out of the module's main.
    `replace` maps modules it requires to the versions to build with instead; `tags` are Go's build tags,
    `linker` its linker's flags, `go` the version of Go, the recipe's when empty. `openapi` is a package of
    the module whose zz_generated.openapi.go upstream's own build makes.
    """

    name: str
    build: Mapping[str, str]
    module: str = ""
    version: str = ""
    staging: str = ""
    main: str = ""
    c: str = ""
    without_imports: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    replace: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()
    linker: tuple[str, ...] = ()
    go: str = ""
    openapi: str = ""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """A container image: an optional base layer of Debian packages and one layer of klab's own.

    `programs` maps paths in the image to program names, `links` paths to link targets, `folders` paths of empty
    folders to the number of the user and the group that own them. `labels` are the configuration's.
    """

    ref: str
    base: str = ""
    overlay: str = ""
    programs: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    user: str = ""
    stop_signal: str = ""
    pinned: bool = False
    workdir: str = ""
    folders: tuple[tuple[str, int], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a box holds, apart from the state of Debian's mirror.

    `epoch` is the newest date inside the box, in seconds since 1970. `install` maps a
    path in the node to a program's name. `runtime` starts its containers. `folders` hold the recipe's files: its own,
    after those of the recipe that it extends. `leave_out` has by base what paths of its files begin with that no
    image needs, as of Perl where only a package's maintainer scripts ask for it: usr/share/perl.
    """

    name: str
    folders: tuple[Path, ...]
    runtime: str
    kubernetes: KubernetesVersion
    epoch: int
    suite: str
    packages: tuple[str, ...]
    go: str
    programs: tuple[Program, ...]
    install: tuple[tuple[str, str], ...]
    bases: Mapping[str, tuple[str, ...]]
    images: tuple[ImageSpec, ...]
    leave_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where its programs, images and configure.sh are."""
        return self.folders[0]

    @property
    def box_name(self) -> str:
        """The name of the box that this recipe makes: debian-13-k8s-1.35.4."""
        return f"{self.name}-k8s-{self.kubernetes.version}"

    @property
    def markers(self) -> dict[str, str]:
        """What replaces @NAME@ in the recipe's *.in files."""
        return {**self.kubernetes.as_data(), **self.kubernetes.images}

    def digest(self) -> str:
        """SHA-256 over what the recipe says for its Kubernetes version, and over the files beside it.

        What it says for other versions does not count: a version more leaves the boxes of all others as they are.
        """
        said = {key: value for key, value in asdict(self).items() if key not in {"folders", "kubernetes"}}
        files = [digest_tree(folder, leave_out=RECIPE) for folder in self.folders]
        return key_of(files, said, self.kubernetes.as_data())


@dataclass(frozen=True, slots=True)
class _DebianKeys:
    """`more` packages a recipe adds to the list of the one that it extends, and takes `without` from it."""

    suite: str
    packages: tuple[str, ...]
    more: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _ProgramKeys:
    """As `Program`, with {VERSIONS} to be filled in; in variables, {this} is the program's own.

    A module without a version is built only for versions of Kubernetes whose entry gives it one.
    """

    name: str
    build: Mapping[str, str]
    module: str = ""
    version: str = ""
    staging: str = ""
    main: str = ""
    c: str = ""
    without_imports: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    replace: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    linker: tuple[str, ...] = ()
    go: str = ""
    openapi: str = ""


@dataclass(frozen=True, slots=True)
class _ImageKeys:
    """As `ImageSpec`; `component` stands for the ref of that component's image."""

    component: str = ""
    ref: str = ""
    base: str = ""
    overlay: str = ""
    programs: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    user: str = ""
    stop_signal: str = ""
    pinned: bool = False
    workdir: str = ""
    folders: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _RecipeKeys:
    """The keys of recipe.yaml, but for most of those that `lab.scenario.catalog` reads."""

    name: str
    runtimes: tuple[str, ...]
    epoch: int
    debian: _DebianKeys
    go: str
    programs: tuple[_ProgramKeys, ...]
    install: Mapping[str, Any]  # a program's name, or a list of them
    bases: Mapping[str, tuple[str, ...]]
    images: tuple[_ImageKeys, ...]


@dataclass(frozen=True, slots=True)
class _PackKeys:
    """The keys of boxes/addons/NAME.yaml: as in a recipe."""

    programs: tuple[_ProgramKeys, ...]
    images: tuple[_ImageKeys, ...]
    bases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _OwnImageKeys(_ImageKeys):
    """As an image of a recipe, under each of `repositories` and any tag; `about` is what it has, for a person."""

    repositories: tuple[str, ...] = ()
    about: str = ""


@dataclass(frozen=True, slots=True)
class _OwnBuildsKeys:
    """The keys of boxes/lessons/images.yaml: as in a recipe, and `leave_out` as `Recipe` has it."""

    images: tuple[_OwnImageKeys, ...]
    bases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    leave_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Pack(Protocol):
    """An add-on's images: its name, its version, and the whole names of its images by component."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def images(self) -> Mapping[str, str]: ...


def load_pack(pack: Pack, box: Recipe, *, root: Path | None = None) -> Recipe:
    """Read how an add-on's images are made, as a recipe of a box that holds nothing else.

    Args:
        pack: the add-on.
        box: the recipe whose compiler, dates and layers of Debian packages are used.
        root: the folder of recipes; by default the one klab was installed with.

    Raises:
        BoxError: the file is not readable or contradicts itself.
    """
    file = (root or resources.path("boxes")) / PACKS / f"{pack.name}.yaml"
    try:
        keys = records.build(_PackKeys, _mapping(file))
        if (given := {image.component for image in keys.images}) != pack.images.keys():
            raise ValueError(f"images: of {', '.join(sorted(pack.images))}, not of {', '.join(sorted(given))}")
        made = _of_pack(box, file, keys.bases, tuple(_image(each, pack.images.__getitem__) for each in keys.images))
        values = {"version": pack.version}
        return replace(made, name=pack.name, programs=tuple(_program(each, values) for each in keys.programs))
    except _UNREADABLE as error:
        raise _unusable(f"the images of {pack.name} cannot be made", file, error) from error


def own_builds(*, root: Path | None = None) -> dict[str, str]:
    """The repositories whose images klab can build from Debian packages, each with what its image has.

    Raises:
        BoxError: the file that says so is not readable.
    """
    keys = _own_builds(_own_builds_file(root))
    return {repository: image.about for image in keys.images for repository in image.repositories}


def load_own_builds(references: Sequence[Reference], box: Recipe, *, root: Path | None = None) -> Recipe:
    """Read how images of lessons are made, as a recipe of a box that holds nothing else.

    Args:
        references: the names that they get; by tag, each of a repository of `own_builds`.
        box: the recipe whose dates and layers of Debian packages are used.
        root: the folder of recipes; by default the one klab was installed with.

    Raises:
        BoxError: the file is not readable or contradicts itself.
    """
    file = _own_builds_file(root)
    keys = _own_builds(file)
    said = {repository: image for image in keys.images for repository in image.repositories}
    try:
        images = tuple(_own_image(str(each), said[each.name]) for each in references)
        made = replace(_of_pack(box, file, keys.bases, images), leave_out=keys.leave_out)
        if unknown := sorted({image.base for image in images} - made.bases.keys()):
            raise ValueError(f"no base is called {', '.join(unknown)}")
    except _UNREADABLE as error:
        raise _unusable("images of lessons cannot be made", file, error) from error
    return made


def _own_builds_file(root: Path | None) -> Path:
    return (root or resources.path("boxes")) / LESSONS / OWN_BUILDS


def _own_builds(file: Path) -> _OwnBuildsKeys:
    try:
        return records.build(_OwnBuildsKeys, _mapping(file))
    except _UNREADABLE as error:
        raise _unusable("images of lessons cannot be made", file, error) from error


def _own_image(ref: str, keys: _OwnImageKeys) -> ImageSpec:
    labels = {
        VENDOR_LABEL: VENDOR,
        "org.opencontainers.image.title": ref.rpartition(":")[0],
        "org.opencontainers.image.description": f"{keys.about}; klab's own build from Debian packages",
    }
    return replace(_image(replace(keys, ref=ref), str), labels=tuple(sorted(labels.items())))


def _of_pack(box: Recipe, file: Path, bases: Mapping[str, tuple[str, ...]], images: tuple[ImageSpec, ...]) -> Recipe:
    """A recipe of these images alone, whose files lie beside `file`, with what `box` says of how they are made."""
    return replace(
        box,
        name=file.parent.name,
        folders=(file.parent,),
        packages=(),
        install=(),
        programs=(),
        bases={**box.bases, **bases},
        images=images,
    )


def _mapping(file: Path) -> Mapping[str, Any]:
    said = read_recipe(file)
    if not isinstance(said, dict):
        raise ValueError("it is not a mapping")
    return said


def _unusable(what: str, file: Path, error: Exception) -> BoxError:
    return BoxError(what, details=[f"{file}: {error}"], hint="correct the file, or install klab again")


def load_recipe(name: str, kubernetes: str, *, root: Path | None = None) -> Recipe:
    """Read a recipe for one Kubernetes version.

    Args:
        name: the box's name, a folder of `boxes/`.
        kubernetes: a full version the recipe pins.
        root: the folder of recipes; by default the one klab was installed with.

    Raises:
        NotFound: there is no such box, or it does not know this version.
        BoxError: the recipe is not readable or contradicts itself.
    """
    folder = (root or resources.path("boxes")) / name
    file = folder / RECIPE
    if not file.is_file():
        known = ", ".join(sorted(p.parent.name for p in folder.parent.glob("*/recipe.yaml")))
        raise NotFound(f"there is no box called {name!r}", hint=f"known are: {known}")
    try:
        data = read_recipe(file)
        versions = parse_recipe(data).kubernetes
        if kubernetes not in versions:
            raise NotFound(f"the box {name} has no Kubernetes {kubernetes}", hint=f"known are: {', '.join(versions)}")
        recipe = _recipe(folder, data, versions[kubernetes])
    except _UNREADABLE as error:
        raise _unusable(f"the recipe {name} cannot be used", file, error) from error
    return recipe


def _recipe(folder: Path, data: Mapping[str, Any], version: KubernetesVersion) -> Recipe:
    keys = records.build(_RecipeKeys, data, others=True)
    _check(keys)
    programs = _programs_for(version.version, data, keys.programs)
    there = {name for program in programs for name in program.build}
    values = version.as_data()
    major, minor, patch = version.version.split(".")
    values |= {
        "kubernetes": version.version,
        "kubernetes_major": major,
        "kubernetes_minor": minor,
        "kubernetes_staging": f"{minor}.{patch}",
    }
    return Recipe(
        name=keys.name,
        folders=(folder.parent / data[EXTENDS], folder) if EXTENDS in data else (folder,),
        runtime=_one_runtime(keys.runtimes),
        kubernetes=version,
        epoch=keys.epoch,
        suite=keys.debian.suite,
        packages=_packages(keys.debian),
        go=keys.go,
        programs=tuple(_program(each, values) for each in programs),
        install=tuple((place, program) for place, program in _install(keys.install) if program in there),
        bases=keys.bases,
        images=tuple(_image(each, version.image) for each in keys.images),
    )


def _packages(debian: _DebianKeys) -> tuple[str, ...]:
    if unknown := sorted(set(debian.without) - set(debian.packages)):
        raise ValueError(f"debian.without: no package is called {', '.join(unknown)}")
    return (*(package for package in debian.packages if package not in debian.without), *debian.more)


def _one_runtime(runtimes: tuple[str, ...]) -> str:
    if len(runtimes) != 1:
        raise ValueError(f"runtimes: a box has one, in whose store its images are; given: {', '.join(runtimes)}")
    return runtimes[0]


def _programs_for(version: str, data: Mapping[str, Any], programs: Sequence[_ProgramKeys]) -> list[_ProgramKeys]:
    """The programs of one Kubernetes version: its entry may give some of them another version, or other settings."""
    own = data["kubernetes"][version].get(PROGRAMS, {})
    if not isinstance(own, dict) or not all(isinstance(changes, dict) for changes in own.values()):
        raise ValueError(f"kubernetes: {version}: {PROGRAMS} maps programs to what is different for this version")
    if unknown := sorted(own.keys() - {program.name for program in programs}):
        raise ValueError(f"kubernetes: {version}: no program is called {', '.join(unknown)}")
    listed = {program["name"]: program for program in data["programs"]}
    found = [records.build(_ProgramKeys, {**listed[program.name], **own.get(program.name, {})}) for program in programs]
    return [program for program in found if program.version or not program.module]


def _program(keys: _ProgramKeys, values: Mapping[str, str]) -> Program:
    def fill(text: str, **more: str) -> str:
        try:
            return text.format_map({**values, **more})
        except (LookupError, ValueError) as error:
            raise ValueError(f"{keys.name}: {text!r} names no version that is known: {error}") from error

    version = fill(keys.version)
    this = version.removeprefix("v")
    return Program(
        name=keys.name,
        build=keys.build,
        module=keys.module,
        version=version,
        staging=fill(keys.staging),
        main=keys.main,
        c=keys.c,
        without_imports=keys.without_imports,
        variables=tuple((key, fill(text, this=this)) for key, text in sorted(keys.variables.items())),
        replace=tuple(sorted(keys.replace.items())),
        tags=keys.tags,
        linker=keys.linker,
        go=keys.go,
        openapi=keys.openapi,
    )


def _install(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    places: list[tuple[str, str]] = []
    for place, what in data.items():
        if isinstance(what, list):
            places += [(f"{place}/{program}", program) for program in what]
        else:
            places.append((place, what))
    for place, program in places:
        if not isinstance(program, str):
            raise ValueError(f"install.{place} is {program!r}, which is not the name of a program")
    return places


def _image(keys: _ImageKeys, reference: Callable[[str], str]) -> ImageSpec:
    if bool(keys.component) == bool(keys.ref):
        raise ValueError(f"an image needs either a component or a ref: {keys.component or keys.ref!r}")
    return ImageSpec(
        ref=keys.ref or reference(keys.component),
        base=keys.base,
        overlay=keys.overlay,
        programs=tuple(sorted(keys.programs.items())),
        links=tuple(sorted(keys.links.items())),
        entrypoint=keys.entrypoint,
        command=keys.command,
        ports=keys.ports,
        user=keys.user,
        stop_signal=keys.stop_signal,
        pinned=keys.pinned,
        workdir=keys.workdir,
        folders=tuple(sorted(keys.folders.items())),
    )


def layer_of(packages: Sequence[str], suite: str) -> tuple[str, tuple[str, ...]]:
    """The suite that an image's packages come from, and their names.

    Args:
        packages: as a recipe names them, as apt does: NAME, or NAME/SUITE for those of another suite.
        suite: the recipe's.

    Raises:
        ValueError: they are of several suites, whose libraries would not fit one another.
    """
    named = [package.partition("/") for package in packages]
    suites = {other or suite for _, _, other in named}
    if len(suites) != 1:
        raise ValueError(f"bases: {', '.join(packages)} are of several suites")
    return suites.pop(), tuple(name for name, _, _ in named)


def _check(keys: _RecipeKeys) -> None:
    built = {name for program in keys.programs for name in program.build}
    wanted = {SETTLE} | {name for _, name in _install(keys.install)}
    wanted |= {name for image in keys.images for name in image.programs.values()}
    if missing := sorted(wanted - built):
        raise ValueError(f"no program is called {', '.join(missing)}")
    if unknown := sorted({image.base for image in keys.images if image.base} - set(keys.bases)):
        raise ValueError(f"no base is called {', '.join(unknown)}")
    for packages in keys.bases.values():
        layer_of(packages, keys.debian.suite)
