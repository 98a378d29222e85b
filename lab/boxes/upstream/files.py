"""Files that upstream publishes by path, each beside its checksum: on a web server, or in a folder.

What comes is kept under the same path, so that the folder is a mirror itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.boxes.upstream.addresses import Site
from lab.boxes.upstream.checksum import MOST, Checksum, parse_checksum
from lab.boxes.upstream.web import BEGUN, FULL, Missing, Web
from lab.errors import BoxError, LabError, refusal
from lab.files import write_atomic
from lab.text import shortened, visible


class PublishedFiles:
    """What one of upstream's servers publishes, wherever it is taken from.

    Args:
        where: the server, or a folder that holds several.
        name: upstream's own name of the server: the folder's part of it.
        kept: the folder for what comes.
        web: asks the server.
    """

    def __init__(self, where: Site | Path, name: str, kept: Path, web: Web) -> None:
        self.where, self.name = where, name
        self._kept, self._web = kept / name, web
        self._checksums: dict[str, Checksum] = {}

    def checksum(self, path: str, suffixes: Sequence[str]) -> Checksum:
        """The published checksum of a file.

        Args:
            path: below the server's name.
            suffixes: what may stand behind the file's name, the likeliest first.

        Raises:
            Missing: it is not there.
            BoxError: it cannot be had, or what is there is no checksum.
        """
        if path not in self._checksums:
            self._checksums[path] = self._checksum(path, suffixes)
        return self._checksums[path]

    def _checksum(self, path: str, suffixes: Sequence[str]) -> Checksum:
        *likelier, last = suffixes
        for suffix in likelier:
            try:
                return self._checksum_beside(path, suffix)
            except Missing:
                continue
        return self._checksum_beside(path, last)

    def _checksum_beside(self, path: str, suffix: str) -> Checksum:
        text = self._text(f"{path}{suffix}")
        try:
            found = parse_checksum(text)
        except ValueError as error:
            raise BoxError(
                f"{self.where} gives no checksum of {path.rpartition('/')[2]}",
                details=[visible(shortened(text.strip(), 100))],
                hint="the page of a portal may want a login first; or take another --mirror",
            ) from error
        write_atomic(self._kept / f"{path}{suffix}", f"{found.hex}\n")
        return found

    def file(self, path: str, wanted: Checksum) -> Path:
        """A whole file, with its published checksum.

        Raises:
            BoxError: it cannot be had, or is another one.
            HostError: the disk is full.
        """
        target = self._kept / path
        if wanted.fits(target):
            return target
        if isinstance(self.where, Site):
            self._web.file(self.where.at(path), target, wanted)
        else:
            _copy(self.where / self.name / path, target, wanted)
        return target

    def _text(self, path: str) -> str:
        if isinstance(self.where, Site):
            return self._web.text(self.where.at(path), MOST)
        file = self.where / self.name / path
        try:
            with file.open("rb") as source:
                return source.read(MOST).decode("utf-8", "replace")
        except OSError as error:
            raise unread(file, error) from error


def _copy(file: Path, target: Path, wanted: Checksum) -> None:
    begun = target.with_name(f"{target.name}{BEGUN}")
    begun.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(file, begun)
    except OSError as error:
        raise unread(file, error) from error
    if (found := wanted.of(begun)) != wanted.hex:
        begun.unlink()
        raise BoxError(
            f"{file} is not what was published",
            details=[
                f"published: {wanted.algorithm} {wanted.hex}",
                f"found:     {wanted.algorithm} {found}",
            ],
            hint="copy the folder again",
        )
    begun.replace(target)


def unread(file: Path, error: OSError) -> LabError:
    """The error for a file of a mirror that cannot be copied."""
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return Missing(
            f"there is no file {file}",
            hint="a mirror may lack this version; KLAB_HOME/cache/upstream of a machine that has built it has all",
        )
    return refusal(error, hint=FULL) or BoxError(
        f"{file} cannot be copied", details=[str(error)], hint="is the stick still in?"
    )
