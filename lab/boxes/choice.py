"""Where Kubernetes' programs and images come from, and which of it this machine reaches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from lab.boxes.lock import Lock
from lab.boxes.upstream.addresses import ARCHIVES, NETWORK_IMAGES, OPTIONAL, UPSTREAM, Addresses, parse_mirrors
from lab.boxes.upstream.patience import Tell
from lab.boxes.upstream.upstream import Obstacle
from lab.components.kubernetes.sources import AUTO, MIRROR, RELEASE, SOURCE
from lab.errors import BoxError, Remedy, UsageError

_COMPILED = {
    NETWORK_IMAGES: "the pod network is compiled, since its image cannot be had",
    ARCHIVES: "what other projects publish is compiled, since it cannot be had",
}


@dataclass(frozen=True, slots=True)
class Way:
    """One source, and the addresses that belong to it; None where all is compiled.

    `strict`: nothing may be compiled that the addresses have a place for.
    """

    source: str
    addresses: Addresses | None
    strict: bool = False

    def without(self, *names: str) -> Way:
        """The same, but what is at these is compiled. names: of `OPTIONAL`."""
        return self if self.addresses is None else replace(self, addresses=self.addresses.without(*names))

    @property
    def variants(self) -> tuple[Way, ...]:
        """What may become of it, by what is reached."""
        if self.strict or self.addresses is None:
            return (self,)
        optional = [name for name in OPTIONAL if name in self.addresses.shown]
        return tuple(self.without(*names) for n in range(len(optional) + 1) for names in combinations(optional, n))


def ways(source: str, mirrors: Sequence[str], lock: Lock | None = None) -> tuple[Way, ...]:
    """The sources to try, in this order.

    A mirror that a person names comes first; compiling, which takes the longest, last. A lock of upstream's programs is
    never met by compiled ones, nor the other way round.

    Args:
        source: one of `lab.components.kubernetes.sources`, a bundle apart, which holds a whole box.
        mirrors: what `--mirror` says.
        lock: what the result must be.

    Raises:
        UsageError: they contradict one another, or a mirror is not understood.
    """
    if source == MIRROR and not mirrors:
        raise UsageError(
            "--source mirror needs a mirror",
            hint=("give --mirror as well; ", Remedy("box build", options=("--help",)), " shows how"),
        )
    if source in {RELEASE, SOURCE} and mirrors:
        raise UsageError(f"--source {source} asks no mirror", hint="leave out --mirror, or --source")
    mirrored = [Way(MIRROR, parse_mirrors(mirrors))] if mirrors else []
    every = [*mirrored, Way(RELEASE, UPSTREAM), Way(SOURCE, None)]
    chosen = [way for way in every if source in {AUTO, way.source}]
    if lock is None:
        return tuple(chosen)
    chosen = [way.without(*(set(OPTIONAL) - lock.made_from.addresses.keys())) for way in chosen]
    compiled = lock.made_from.source == SOURCE
    fitting = tuple(replace(way, strict=True) for way in chosen if (way.addresses is None) == compiled)
    if not fitting:
        raise UsageError(
            f"the lock is of a box from {lock.made_from.source}, which --source {source} does not make",
            hint="leave out --source",
        )
    return fitting


def choose(ways: Sequence[Way], obstacles: Callable[[Addresses], Sequence[Obstacle]], tell: Tell) -> Way:
    """The first source that this machine reaches; what was found out is told.

    Args:
        ways: those to try. The last one is taken where its servers are but busy: they will be waited for.
        obstacles: what keeps upstream's programs and images from being had at these addresses.
        tell: told one line for each.

    Raises:
        BoxError: none is reached.
    """
    seen: list[str] = []
    for way in ways:
        if way.addresses is None:
            tell(f"{way.source}: Go modules, compiled here")
            return way
        found = obstacles(way.addresses)
        needed = [each for each in found if way.strict or not each.optional]
        why = "; ".join(each.why for each in needed)
        if not needed:
            tell(f"{way.source}: programs from {way.addresses.programs}, images from {way.addresses.images}")
        elif way == ways[-1] and all(each.busy for each in needed):
            tell(f"{way.source} is busy: {why}")
        else:
            tell(f"{way.source} cannot be used: {why}")
            seen += [f"{way.source}: {each.why}" for each in found]
            continue
        missing = [each for each in found if each not in needed]
        for each in missing:
            tell(f"{_COMPILED[each.name]}: {each.why}")
        return way.without(*(each.name for each in missing))
    raise BoxError(
        "no source of Kubernetes can be used",
        details=seen,
        hint="--mirror names other addresses; --source source compiles, and needs only a Go module proxy and a Debian "
        "mirror; --bundle takes a whole box that somebody else built, without any server",
    )
