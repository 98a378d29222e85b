"""What is fuzzed, and how: a table of targets, the inputs tried on each, and what counts as a defect.

A target may accept an input, or refuse it with an error that it is documented to raise. Anything else is a
defect: another exception, a warning, a round trip that changes something, memory or processor time without bound.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from hypothesis import Phase, given, settings
from hypothesis import seed as with_seed
from hypothesis.strategies import SearchStrategy

from lab.errors import LabError

Input: TypeAlias = Any  # str or bytes, whichever the target reads

SHORT = 120
CPU_SECONDS = 5.0  # for one input of some kilobytes, which takes milliseconds
ROOM = 1 << 30  # bytes of address space beyond what the test process has
SHRINKING_SECONDS = 3.0
LAB = f"{os.sep}lab{os.sep}"


@dataclass(frozen=True)
class Target:
    """A parser of what somebody else wrote.

    Args:
        name: for the table.
        covers: the functions that it reaches with its seeds, as "lab.module:function" or "lab.module:Class.method".
        seeds: sound samples; gets a folder to make them in.
        inputs: what is tried, made of the seeds.
        act: reads one input; gets an empty folder. It raises AssertionError where a property does not hold.
        refuses: the errors by which an input may be refused.
        share: of the number of examples that others get; less for what is slow.
    """

    name: str
    covers: tuple[str, ...]
    seeds: Callable[[Path], Sequence[Input]]
    inputs: Callable[[Sequence[Input]], SearchStrategy[Input]]
    act: Callable[[Input, Path], object]
    refuses: tuple[type[BaseException], ...] = (LabError,)
    share: float = 1.0


@dataclass
class Outcome:
    """What became of the inputs of one target; `defects` has by kind the shortest input that shows it."""

    accepted: int = 0
    refused: int = 0
    failed: int = 0
    defects: dict[str, Input] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        return self.accepted + self.refused + self.failed


class RunAwayError(BaseException):
    """An input takes more processor time than any may."""


def examples(target: Target) -> int:
    """How many inputs a target gets."""
    return max(10, int(int(os.environ.get("KLAB_FUZZ_EXAMPLES", SHORT)) * target.share))


def fuzz(target: Target, folder: Path) -> Outcome:
    """Try a target's inputs; continues after a defect."""
    (folder / "seeds").mkdir()
    seeds = target.seeds(folder / "seeds")
    outcome, work = Outcome(), folder / "work"
    seed = os.environ.get("KLAB_FUZZ_SEED")

    @settings(max_examples=examples(target), phases=(Phase.explicit, Phase.generate), derandomize=seed is None)
    @given(target.inputs(seeds))
    def each(data: Input) -> None:
        kind = judged(target, data, work, outcome)
        if kind and len(data) < len(outcome.defects.get(kind, data)) + (kind not in outcome.defects):
            outcome.defects[kind] = data

    if seed is not None:
        each = with_seed(f"{seed} {target.name}")(each)
    with _bounded():
        each()
        for kind, data in outcome.defects.items():
            outcome.defects[kind] = _shrunk(data, lambda d, kind=kind: judged(target, d, work) == kind)
    return outcome


def judged(target: Target, data: Input, work: Path, outcome: Outcome | None = None) -> str:
    """What kind of defect an input shows; empty when it is accepted or refused."""
    counted = outcome or Outcome()
    with _fresh(work):
        try:
            with _watched():
                target.act(data, work)
        except target.refuses as error:
            counted.refused += 1
            if isinstance(error, LabError) and not error.message.strip():
                return "an error without a message"
        except (Exception, RunAwayError) as error:
            counted.failed += 1
            return _kind(error)
        else:
            counted.accepted += 1
    return ""


def _kind(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    inside = [f for f in frames if LAB in f.filename and "site-packages" not in f.filename] or frames
    place = f"{Path(inside[-1].filename).name}:{inside[-1].lineno} in {inside[-1].name}"
    # A number or a name out of the input would make many defects of one; what a property says is the defect itself.
    return f"{type(error).__name__} at {place}" + (f": {error}" if isinstance(error, AssertionError) else "")


@contextlib.contextmanager
def _fresh(work: Path) -> Iterator[None]:
    work.mkdir(exist_ok=True)
    try:
        yield
    finally:
        for entry in work.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Ends what takes too much processor time."""
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    def run_away(_signal: int, _frame: object) -> None:
        raise RunAwayError(f"more than {CPU_SECONDS:g} s of processor time")

    old, limits = signal.signal(signal.SIGPROF, run_away), resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGPROF, old)


def _shrunk(data: Input, still: Callable[[Input], bool]) -> Input:
    """A shorter input that shows the same: stretches are left out as long as it does."""
    until = time.monotonic() + SHRINKING_SECONDS
    size = max(1, len(data) // 2)
    while time.monotonic() < until:
        at, before = 0, len(data)
        while at < len(data) and time.monotonic() < until:
            shorter = data[:at] + data[at + size :]
            if still(shorter):
                data = shorter
            else:
                at += size
        if size == 1 and len(data) == before:
            break
        size = max(1, size // 2)
    return data
