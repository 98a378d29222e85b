"""klab's own log, by the standard library's `logging` under the name `klab`.

What is logged goes to a file of the lab that the command is about: `logs/klab.log` in its folder. What is logged
before klab knows the lab is kept in memory until then. Nothing that klab logs may make a command fail.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import threading
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from contextvars import ContextVar
from pathlib import Path

from lab.text import shortened, visible

MOST_BYTES = 4 << 20  # of a lab's log; then it becomes klab.log.1, in place of the one before
MOST_WAITING = 200  # lines kept until the lab is known
MOST_IN_LINE = 2000  # characters of a command line
REMOVED = "REMOVED"
# A NUL ends a word of a command; in JSON within JSON each quotation mark has backslashes before it.
_VALUE = r"\\{0,4}(?:\"[^\"\0]*\"|'[^'\0]*'|[^\s'\";,\0]+)"
_NAMES = (
    r"(?:certificate-?key|client-?key-?data|token|passw(?:or)?d|passphrase|secret"
    r"|creds|(?:access|api|secret)[_-]?(?:access[_-]?)?key)"
)
_SECRETS = (
    re.compile(
        rf"(?P<before>(?<![^\0])--?[\w=-]{{0,80}}?{_NAMES}[=\0])[^\0]+", re.IGNORECASE
    ),  # a word, blanks included
    re.compile(
        rf"(?P<before>(?<![\w-])--?[\w-]{{0,80}}?{_NAMES}(?:[=\0]|\s+)){_VALUE}", re.IGNORECASE
    ),  # --token VALUE
    re.compile(rf"(?P<before>{_NAMES}\\{{0,4}}[\"']?\s*[=:]\s*){_VALUE}", re.I),  # password: VALUE, "token": "VALUE"
    re.compile(r"(?P<before>-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(?P<before>\w://[^\s/@:\0]*:)[^\s/@\0]+(?=@)"),  # https://USER:PASSWORD@HOST
    # A bootstrap token of kubeadm; a JSON Web Token; the data of a header for HTTP authorization.
    re.compile(r"(?P<before>)(?<![\w.])[a-z0-9]{6}\.[a-z0-9]{16}(?![\w.])"),
    re.compile(r"(?P<before>)eyJ[\w-]{10,2000}\.[\w-]+\.[\w-]*"),
    re.compile(r"(?P<before>Authorization:\s*\w+\s+)[^\s'\"\0]+", re.I),
)
# A pipe in the log's place has no reader: it is refused, not waited for.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_file: ContextVar[Path | None] = ContextVar("klab_log", default=None)


def redacted(text: str) -> str:
    """The text without what looks like a secret: private keys, tokens, passwords, certificate keys."""
    for secret in _SECRETS:
        text = secret.sub(rf"\g<before>{REMOVED}", text)
    return text


def command_line(words: Sequence[str]) -> str:
    """A command as one line that a shell would take, without secrets; long ones are cut."""
    return shortened(visible(shlex.join(redacted("\0".join(words)).split("\0"))), MOST_IN_LINE)


class LabLog(logging.Handler):
    """Appends to the file of the lab that the current context is about; see `about`.

    The file is opened for each line, since the lab may be destroyed, or its log rotated by another klab, meanwhile.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        formatter = logging.Formatter(
            "%(asctime)s.%(msecs)03dZ %(process)d %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
        )
        formatter.converter = time.gmtime
        self.setFormatter(formatter)
        # By the file that they are for; None where the lab is not known yet.
        self._waiting: defaultdict[Path | None, deque[str]] = defaultdict(lambda: deque(maxlen=MOST_WAITING))
        self._latest: Path | None = None
        self._guard = threading.RLock()

    def begin(self) -> None:
        """Forget the lab and the lines of another command."""
        with self._guard:
            self._waiting.clear()
            self._latest = None
            _file.set(None)

    def about(self, file: Path) -> None:
        """Log into this file from now on, and what has waited for it. Threads without a context of theirs follow."""
        with self._guard:
            _file.set(file)
            self._latest = file
            self._waiting[file].extend(self._waiting.pop(None, ()))
            self._flush(file)

    def emit(self, record: logging.LogRecord) -> None:
        with self._guard:
            file = _file.get() or self._latest
            self._waiting[file].append(self.format(record))
            if file is not None:
                self._flush(file)

    def _flush(self, file: Path) -> None:
        lines = self._waiting[file]
        if not lines or _append(file, "".join(f"{line}\n" for line in lines)):
            del self._waiting[file]


def _append(file: Path, text: str) -> bool:
    """Append to a file in a folder that is there; returns whether that was possible."""
    try:
        _rotate(file)
        handle = os.open(file, _FLAGS, 0o600)
        with os.fdopen(handle, "wb") as out:
            out.write(text.encode(errors="backslashreplace"))
    except OSError:
        return False
    return True


def _rotate(file: Path) -> None:
    try:
        if file.stat().st_size > MOST_BYTES:
            file.replace(file.with_name(f"{file.name}.1"))
    except FileNotFoundError:
        pass


_HANDLER = LabLog()
_KLAB = logging.getLogger("klab")
_KLAB.setLevel(logging.DEBUG)
_KLAB.addHandler(_HANDLER)


def about(file: Path) -> None:
    """Let what this thread, and those it makes, log from now on go into a lab's log."""
    _HANDLER.about(file)


def begin(words: Sequence[str]) -> None:
    """Begin the log of one command of a person's."""
    _HANDLER.begin()
    _KLAB.info("%s", command_line(["klab", *words]))
