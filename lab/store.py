"""What klab keeps on disk: its home, the folder of each lab, and the lock on it.

KLAB_HOME (default: the platform's user data folder, ~/.local/share/klab)
|-- labs/NAME/     one lab; an ordinary Vagrant project (see LabFolder)
|-- boxes/         built boxes
|-- cache/         what a second build need not make again
|-- images/        images of lessons, for the nodes of all labs (see lab.images.store)
|-- checkpoints/   bundles that `klab destroy --keep-snapshots` has kept, by the box that they need
`-- realm/         the private libvirt, where the machine has no libvirtd of its own
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lab import locks, log, records
from lab.errors import Conflict, HostError, LabError, NotFound, Remedy, UsageError
from lab.files import make_private, write_atomic
from lab.guest_clock import GuestClock
from lab.text import visible


@dataclass(frozen=True, slots=True)
class Home:
    """The folder that holds everything klab keeps for one person."""

    root: Path

    @classmethod
    def default(cls, *, gives_back: bool = False) -> Home:
        """KLAB_HOME where it is set, else the platform's user data folder; whether it exists or not.

        Args:
            gives_back: the caller, as root, leaves nothing of root's in another person's folder.

        Raises:
            UsageError: a program that klab starts would misread a character of its name.
            HostError: klab runs as root, and the folder is another person's.
        """
        found = cls(_usable(_chosen()))
        if not gives_back:
            _refuse_root(found.root)
        return found

    def way_back(self, error: BaseException) -> str:
        """How a person gets back what another user, such as root, has left in this folder; empty if that is not it.

        Args:
            error: what klab has met.
        """
        if not isinstance(error, PermissionError) or error.filename is None:
            return ""
        met = Path(os.fsdecode(error.filename)).absolute()
        for path in (met, *met.parents):
            if not path.is_relative_to(self.root):
                return ""
            with contextlib.suppress(OSError):
                if path.lstat().st_uid != os.geteuid():
                    root = shlex.quote(str(self.root))
                    return f"another user has left files there: sudo chown -R $USER: {root} gives them back"
        return ""

    @property
    def labs(self) -> Path:
        return self.root / "labs"

    @property
    def boxes(self) -> Path:
        return self.root / "boxes"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def private_libvirt(self) -> Path:
        return self.root / "realm"

    def lab(self, name: str) -> LabFolder:
        """The folder of the lab called `name`, whether it exists or not."""
        return LabFolder(self.labs / name)

    def existing(self) -> list[LabFolder]:
        """Every lab there is, by name."""
        if not self.labs.is_dir():
            return []
        return [lab for p in sorted(self.labs.iterdir()) if (lab := LabFolder(p)).exists]

    def pick(self, name: str | None) -> LabFolder:
        """The lab that a person means: by name, or the only one there is.

        Raises:
            NotFound: no lab of that name, or none at all.
            Conflict: no name given and several labs exist.
        """
        labs = self.existing()
        names = ", ".join(lab.name for lab in labs)
        if name is not None:
            for lab in labs:
                if lab.name == name:
                    return lab
            hint = f"labs here: {names}" if labs else (Remedy("create", options=("1m2w",)), " makes one")
            raise NotFound(f"there is no lab called {name!r}", hint=hint)
        if not labs:
            raise NotFound("there is no lab yet", hint=(Remedy("create", options=("1m2w",)), " makes one"))
        if len(labs) > 1:
            raise Conflict("there is more than one lab", details=[names], hint="name the one you mean")
        return labs[0]


def _refuse_root(root: Path) -> None:
    """Keep root from leaving its files in a person's folder, where that person could not change or delete them."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(FileNotFoundError):
        there = next(path for path in (root, *root.parents) if path.exists())
        owner = there.stat().st_uid
        if owner != 0:
            name = _user(owner)
            raise HostError(
                f"klab runs as root, but {there} belongs to {name}",
                hint=f"run the same command as {name}, without sudo: klab asks for root where it needs it; "
                "labs of root's own need a KLAB_HOME of root's own",
            )


def _user(uid: int) -> str:
    import pwd  # late: not every system has it

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _chosen() -> Path:
    chosen = os.environ.get("KLAB_HOME")
    if not chosen:
        from platformdirs import user_data_path

        return user_data_path("klab", appauthor=False)
    try:
        return Path(chosen).expanduser().absolute()
    except RuntimeError:
        raise UsageError(
            f"KLAB_HOME is {visible(chosen)}, and there is no such user", hint="write the path out, without ~"
        ) from None


# What no quoting protects, where klab hands paths to other programs.
_UNUSABLE = {
    ":": "KUBECONFIG and other lists of paths are divided by it",
    "${": "ssh puts a variable of the environment in its place",
}


def _usable(root: Path) -> Path:
    text = str(root)
    said = {visible(character): "it is not visible" for character in text if visible(character) != character}
    said |= {part: why for part, why in _UNUSABLE.items() if part in text}
    if said:
        raise UsageError(
            f"klab cannot keep its files in {visible(text)}",
            details=[f"its name has {part} in it: {why}" for part, why in said.items()],
            hint="set KLAB_HOME to a folder without that in its name",
        )
    return root


# Seconds since 1970, up to what a date can be written of.
_LAST_MOMENT = 253402300799.0


@dataclass(frozen=True, slots=True)
class Record:
    """What klab knows of one lab beyond its plan: lab.json.

    `phase` is one of creating, ready, destroying. `dilation` is the rate at which the
    guests' clocks run (1.0 on hardware virtualization), `epoch` the host's time in
    seconds since 1970 from which dilated clocks are counted. `checkpoint` is the digest of the
    bundle that the lab was made from, empty where it was made from its scenario. `more_boxes` are
    those, beside `box`, that nodes were made from which joined after an upgrade. `upgrading_to` is the
    version that an unfinished upgrade leads to, `upgrade_snapshot` the snapshot from before it.
    What lab.json holds beyond that, as another version of klab may have written it, is passed over.
    """

    id: str
    name: str
    provider: str
    box: str
    seat: int
    phase: str
    created: float
    accelerated: bool = True
    dilation: float = 1.0
    epoch: float = 0.0
    checkpoint: str = ""
    more_boxes: tuple[str, ...] = ()
    upgrading_to: str = ""
    upgrade_snapshot: str = ""

    @property
    def boxes(self) -> tuple[str, ...]:
        """Every box that a machine of the lab was made from, the first one first."""
        return (self.box, *self.more_boxes)

    @property
    def guest_clock(self) -> GuestClock:
        """The clock of the lab's guests."""
        return GuestClock(self.epoch, self.dilation)


def _checked(record: Record) -> Record:
    """The same record.

    Raises:
        ValueError: a number is out of its bounds; the message names it.
    """
    for name in ("epoch", "created"):
        moment = getattr(record, name)
        if not 0 <= moment <= _LAST_MOMENT:
            raise ValueError(f"{name} is {moment}, which is not a time between 1970 and 9999")
    if not 0 < record.dilation <= 1:
        raise ValueError(f"dilation is {record.dilation}; it must be above 0 and at most 1")
    return record


# What a copy of a lab begins with. All other files in a lab's folder are made for each lab, or come with its use.
COPIED = frozenset({"scenario.yaml", "pki", "ssh"})


@dataclass(frozen=True, slots=True)
class LabFolder:
    """One lab on disk: the names of all files that klab keeps there."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def exists(self) -> bool:
        return self.record_file.is_file()

    @property
    def record_file(self) -> Path:
        """The Record, as JSON. It makes the folder a lab: it is written last and removed last."""
        return self.path / "lab.json"

    @property
    def scenario_file(self) -> Path:
        """The scenario as the person wrote it."""
        return self.path / "scenario.yaml"

    @property
    def plan_file(self) -> Path:
        """What was decided, as `lab.plan.file` writes it."""
        return self.path / "plan.json"

    @property
    def vagrantfile(self) -> Path:
        """What makes the folder an ordinary Vagrant project."""
        return self.path / "Vagrantfile"

    @property
    def vagrant_state(self) -> Path:
        """What Vagrant keeps of the project's machines."""
        return self.path / ".vagrant"

    @property
    def pki(self) -> Path:
        """The cluster's CAs, the admin's certificate and the bootstrap token, for the owner alone."""
        return self.path / "pki"

    @property
    def mirror_access(self) -> Path:
        """What the mirrors of registries are asked with, such as logins, for the owner alone; in no bundle."""
        return self.pki / "mirrors.json"

    @property
    def kubeconfig(self) -> Path:
        """Admin access to the cluster."""
        return self.path / "kubeconfig"

    @property
    def ssh_key(self) -> Path:
        """The key that opens every node, for the owner alone; its public half lies beside it."""
        return self.path / "ssh" / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """The nodes' host keys, as ssh has seen them."""
        return self.path / "ssh" / "known_hosts"

    @property
    def logs(self) -> Path:
        """Logs: klab's own, Vagrant's, each node's console."""
        return self.path / "logs"

    @property
    def log(self) -> Path:
        """klab's own log: the programs it ran and what it decided."""
        return self.logs / "klab.log"

    @property
    def seeds(self) -> Path:
        """cloud-init seeds; removed once the nodes have read them."""
        return self.path / "seeds"

    @property
    def snapshots(self) -> Path:
        """The manifest of each snapshot, and which of them is the current one."""
        return self.path / "snapshots"

    @property
    def attempt(self) -> Path:
        """The snapshot or restore that klab is in the middle of, or was when it was killed."""
        return self.snapshots / "attempt.json"

    @property
    def captures(self) -> Path:
        """Which files hold what of a snapshot, one entry for each."""
        return self.path / "captures"

    @property
    def images(self) -> Path:
        """The images that klab has brought to the nodes, beside those of their box."""
        return self.path / "images.json"

    @property
    def events(self) -> Path:
        """When each phase began and ended, one JSON value a line."""
        return self.path / "events.jsonl"

    def plan_text(self) -> str:
        """What the plan's file holds; `lab.plan.file.from_json` reads it.

        Raises:
            LabError: the file cannot be read.
        """
        try:
            return self.plan_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LabError(
                "the lab's plan is damaged",
                details=[f"{self.plan_file}: {error}"],
                hint=(Remedy("destroy"), " removes what is left of the lab"),
            ) from error

    def record(self) -> Record:
        """Read lab.json.

        Raises:
            NotFound: there is none; the lab has just been destroyed.
            LabError: it is damaged; the details say where.
        """
        file = self.record_file
        try:
            found = records.parse(file.read_text(encoding="utf-8"))
            return _checked(records.build(Record, found, others=True))
        except FileNotFoundError:
            raise NotFound(f"lab {self.name!r} is gone", hint=(Remedy("list"), " shows which labs there are")) from None
        except (OSError, ValueError) as error:
            raise LabError(
                f"the record of lab {self.name!r} is damaged",
                details=[f"{file}: {error}"],
                hint=Home(self.path.parent.parent).way_back(error)
                or "put that file back: without it klab cannot tell which machines are the lab's",
            ) from error

    def write_record(self, record: Record) -> None:
        write_atomic(self.record_file, json.dumps(asdict(record), indent=2) + "\n")

    def update_record(self, **changes: Any) -> Record:
        """Change some fields of lab.json; returns the new record."""
        record = replace(self.record(), **changes)
        self.write_record(record)
        return record

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lab for one command that changes it.

        The kernel lets go of the lock when the process ends, however it ends.

        Raises:
            Conflict: another klab process holds it.
            HostError: the lock's file is not a regular file.
        """
        log.about(self.log)
        make_private(self.path.parent)
        file = self.path.parent / f".{self.name}.lock"
        handle = self._locked(file)
        try:
            locks.sign(handle)
            yield
        finally:
            if not self.path.exists():
                file.unlink(missing_ok=True)
            os.close(handle)

    def _locked(self, file: Path) -> int:
        """The lock's file, open and locked; errors as `lock`."""
        while True:
            handle = locks.open_lock(file)
            try:
                if locks.hold(handle, file):
                    return handle
            except BlockingIOError:
                holder = locks.holder_of(handle)
                os.close(handle)
                raise Conflict(
                    f"lab {self.name!r} is being worked on by another klab (process {holder.pid or 'unknown'})",
                    details=[holder.command] if holder.command else [],
                    hint=holder.way_out,
                ) from None
            os.close(handle)

    def remove(self) -> None:
        """Delete the folder; lab.json goes last, so that a kill in between leaves a lab that `destroy` still finds."""
        if not self.path.exists():
            return
        for entry in self.path.iterdir():
            if entry == self.record_file:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        shutil.rmtree(self.path)
