"""Every way klab can fail, as one tree.

    LabError                     exit code 1
    |-- UsageError               2   a file, an option or an argument is wrong
    |   `-- ScenarioError        2   the scenario file; holds every problem with its line
    |-- NotFound                 3   no such lab, node, box or scenario
    |-- Conflict                 4   what is asked for contradicts what exists
    |-- HostError                5   this machine lacks something (program, RAM, right)
    |   `-- RootNeeded           5   ... root's rights, with which the same would work
    |-- ProgramError             6   a program that klab started failed
    |   `-- ProgramTimeout       6   ... or did not end in time
    |-- BoxError                 7   a box is damaged or cannot be built
    |-- MachineError             8   a virtual machine does not do what it should
    |-- ClusterError             9   Kubernetes on the nodes does not come up
    |   `-- NotReadyInTime       9   ... before the deadline
    |-- ImageError              10   a container image cannot be read, fetched or brought to the nodes
    `-- Interrupted            130   the person pressed Ctrl-C, or a signal that klab takes for it has come

Each error tells what happened (`message`), shows what was seen (`details`) and what
to try next (`hint`). The CLI prints these three and exits with `exit_code`; no
traceback reaches a person unless they ask for one with --debug.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

# What a machine may refuse anywhere and at any moment; any other error of the system's is a defect of klab's.
_REFUSALS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO),
    *(errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
}


@dataclass(frozen=True, slots=True)
class Remedy:
    """Something that klab can do about a failure, as a value that each face words for itself.

    Args:
        action: what is to be done, by the name of the command: "start", "node replace".
        lab: which lab; empty where any is meant, or the only one.
        node: which node of it.
        options: what else the action needs, as the command line has it.
    """

    action: str
    lab: str = ""
    node: str = ""
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The command: short flags first, as in klab destroy -y demo."""
        flags = [option for option in self.options if option.startswith("-") and len(option) == 2 and option != "--"]
        others = [option for option in self.options if option not in flags]
        return " ".join(("klab", self.action, *flags, *filter(None, (self.lab, self.node)), *others))


class Hint(str):
    """What to do next: text with remedies in it. As a string it reads as the command line has it.

    >>> hint = Hint.of(("it is off; ", Remedy("start", lab="demo"), " starts it"))
    >>> str(hint)
    'it is off; klab start demo starts it'
    >>> hint.worded(lambda remedy: f"[{remedy.action}]")
    'it is off; [start] starts it'
    """

    __slots__ = ("parts",)
    parts: tuple[str | Remedy, ...]

    @classmethod
    def of(cls, parts: str | Remedy | Sequence[str | Remedy]) -> Hint:
        """A hint of these parts, in their order; one that is a hint already stays as it is."""
        if isinstance(parts, Hint):
            return parts
        several = (parts,) if isinstance(parts, str | Remedy) else tuple(parts)
        made = cls("".join(map(str, several)))
        made.parts = several
        return made

    @property
    def remedies(self) -> tuple[Remedy, ...]:
        """What klab itself can do."""
        return tuple(part for part in self.parts if isinstance(part, Remedy))

    def worded(self, word: Callable[[Remedy], str]) -> str:
        """The hint for another face than the command line.

        Args:
            word: what stands for a remedy there.
        """
        return "".join(word(part) if isinstance(part, Remedy) else part for part in self.parts)


Advice: TypeAlias = str | Remedy | Sequence[str | Remedy]


class LabError(Exception):
    """Base of all failures klab knows how to explain.

    Args:
        message: one sentence, no trailing full stop: what happened, to what.
        details: lines a person needs to see (log lines, the values compared).
        hint: what to do next, as a sentence or a command; what klab itself can do as a `Remedy` in it.
    """

    exit_code = 1

    def __init__(self, message: str, *, details: Sequence[str] = (), hint: Advice = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.advise(hint)

    def advise(self, hint: Advice) -> None:
        """Give another hint."""
        self.hint = Hint.of(hint)

    def __str__(self) -> str:
        lines = [self.message, *(f"  {line}" for line in self.details)]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class UsageError(LabError):
    """A file, an option or an argument is wrong."""

    exit_code = 2


class ScenarioError(UsageError):
    """The scenario file cannot be used; `details` lists every problem, each with its line."""


class NotFound(LabError):
    """No lab, node, box or scenario has this name."""

    exit_code = 3


class Conflict(LabError):
    """What was asked for contradicts what already exists."""

    exit_code = 4


class HostError(LabError):
    """This machine lacks something klab needs: a program, memory, disk, a permission."""

    exit_code = 5


class RootNeeded(HostError):
    """Only root may do this; the command line asks sudo, other programs show the error."""


class ProgramError(LabError):
    """A program that klab started failed; `details` holds the last lines it printed."""

    exit_code = 6


class ProgramTimeout(ProgramError):
    """A program that klab started did not end in the time it was given."""


class BoxError(LabError):
    """A box is missing, damaged or cannot be built."""

    exit_code = 7


class MachineError(LabError):
    """A virtual machine cannot be made, started, reached or removed."""

    exit_code = 8


class ClusterError(LabError):
    """The nodes run, but do not become a Kubernetes cluster."""

    exit_code = 9


class NotReadyInTime(ClusterError):
    """The deadline passed before every node was Ready."""


class ImageError(LabError):
    """A container image cannot be read, fetched from its registry, or brought to the nodes."""

    exit_code = 10


class Interrupted(LabError):
    """The person pressed Ctrl-C (143: kill; 129: the terminal was closed); `create` can continue what was begun."""

    exit_code = 130


def refusal(error: BaseException | None, *, said: str = "", hint: Advice) -> HostError | None:
    """The error for what this machine has refused; None where it has not, and `error` is a defect of klab's.

    Args:
        error: any exception.
        said: a line more for `details`.
        hint: what to do.
    """
    if not isinstance(error, OSError) or error.errno not in _REFUSALS:
        return None
    where = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return HostError(
        f"this machine refuses: {error.strerror or error}", details=[*where, *([said] if said else [])], hint=hint
    )
