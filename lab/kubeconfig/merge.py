"""A lab's entries put into a person's kubeconfig files, by the rules of kubectl config.

Those are client-go's (tools/clientcmd, PathOptions and ModifyConfig): an entry that is there is changed in the first
file that has it; a new one goes into the first of the files that exists, else the last that is named.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lab.errors import Conflict, LabError, NotFound, Remedy, UsageError
from lab.files import read_limited, refuse_special, write_outside
from lab.kubeconfig.document import OTHER_FILE, Document
from lab.text import visible

MOST_BYTES = 1 << 20


class Merged(NamedTuple):
    """A file that was changed, and the copy of what it was before, if it was anything."""

    file: Path
    backup: Path | None


def kubectl_files() -> list[Path]:
    """The files kubectl reads, in order: those in KUBECONFIG, each once, else ~/.kube/config.

    Raises:
        UsageError: KUBECONFIG is set and names no file.
    """
    named = os.environ.get("KUBECONFIG", "")
    if not named:
        return [Path.home() / ".kube" / "config"]
    files = list(dict.fromkeys(Path(part) for part in named.split(os.pathsep) if part))
    if not files:
        raise UsageError(
            "KUBECONFIG names no file",
            hint=("unset it, or name a file: ", Remedy("kubeconfig", options=("--merge", "FILE"))),
        )
    return files


def find_user(name: str) -> Path | None:
    """The first file kubectl reads that has a user of that name; files that cannot be used are passed over."""
    with contextlib.suppress(UsageError):
        for file in kubectl_files():
            with contextlib.suppress(LabError, OSError):
                if Document(_decoded(_read(file), file), str(file)).has("users", name):
                    return file
    return None


def merge_files(files: Sequence[Path], lab_text: str) -> list[Merged]:
    """Put a lab's entries in, in place of those that klab made before for the same lab.

    The current context is set where none of the files has one.

    Args:
        files: what kubectl reads, in order; at least one.
        lab_text: the lab's own kubeconfig.

    Returns:
        The files that were changed; none where the entries are there already.

    Raises:
        UsageError: one of the files is not a kubeconfig; all are left as they are.
        Conflict: one has an entry of that name which klab did not make, or another program is changing it.
        LabError: one cannot be read or written.
    """
    default = files[0] if len(files) == 1 else next((file for file in files if file.exists()), files[-1])
    try:
        for file in files:
            refuse_special(file, hint=OTHER_FILE)
        default.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = [file for file in files if file.exists() or file == default]
        with _locked(known):
            before = {file: _read(file) for file in known}
            documents = {file: Document(_decoded(raw, file), visible(str(file))) for file, raw in before.items()}
            _merge(documents, default, Document(lab_text, "the lab's kubeconfig"))
            return [
                _write(file, before[file], text)
                for file, document in documents.items()
                if document.changed and (text := document.text().encode()) != before[file]
            ]
    except OSError as error:
        where = error.filename or default
        raise LabError(f"{visible(str(where))} cannot be changed", details=[str(error)], hint=OTHER_FILE) from error


def _merge(documents: dict[Path, Document], default: Path, lab: Document) -> None:
    for section, name, entry in lab.entries():
        origin = next((file for file, document in documents.items() if document.has(section, name)), default)
        if documents[origin].has(section, name) and not documents[origin].is_marked(section, name):
            raise Conflict(
                f"{visible(str(origin))} has an entry {name!r} that klab did not make",
                hint="rename that entry, or merge into another file: --merge FILE",
            )
        documents[origin].put(section, name, entry)
    if not any(document.current_context for document in documents.values()):
        documents[default].set_current_context(lab.current_context)


def _read(file: Path) -> bytes:
    try:
        return read_limited(file, MOST_BYTES, hint=OTHER_FILE)
    except NotFound:
        return b""


def _decoded(raw: bytes, file: Path) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{visible(str(file))} is not UTF-8 text; nothing was changed", hint=OTHER_FILE) from None


def _write(file: Path, before: bytes, text: bytes) -> Merged:
    backup = _back_up(file.resolve(), before) if before else None
    write_outside(file, text)
    return Merged(file, backup)


def _back_up(file: Path, raw: bytes) -> Path:
    """A copy beside the file under a name that nothing has; one that is there already with that content will do."""
    number = 0
    while True:
        backup = file.with_name(f"{file.name}.before-klab{f'.{number}' if number else ''}")
        number += 1
        if os.path.lexists(backup):
            if _holds(backup, raw):
                return backup
            continue
        with contextlib.suppress(FileExistsError):
            write_outside(backup, raw, replaces=False, like=file)
            return backup


def _holds(file: Path, raw: bytes) -> bool:
    return not file.is_symlink() and file.is_file() and file.stat().st_size == len(raw) and file.read_bytes() == raw


@contextlib.contextmanager
def _locked(files: Sequence[Path]) -> Iterator[None]:
    """Hold the locks that kubectl takes too: FILE.lock, made exclusively, in order; a link's and its target's."""
    names = {path.parent.resolve() / f"{path.name}.lock" for file in files for path in (file, file.resolve())}
    with contextlib.ExitStack() as held:
        for lock in sorted(names):
            try:
                os.close(os.open(lock, os.O_CREAT | os.O_EXCL, 0o600))
            except FileExistsError:
                raise Conflict(
                    f"{visible(str(lock.with_suffix('')))} is being changed by another program",
                    hint=f"if none is running, remove {visible(str(lock))} and try again",
                ) from None
            held.callback(lock.unlink, missing_ok=True)
        yield
