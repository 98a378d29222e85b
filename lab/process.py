"""The only module that starts other programs.

Every program klab starts is started here, so that each has a time limit, runs in a
process group of its own (killed as a whole when the limit passes or the person presses
Ctrl-C), and its output is kept, so that an error message can show its last lines.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from lab.errors import Advice, HostError, ProgramError, ProgramTimeout
from lab.log import command_line
from lab.packages import install_hint
from lab.signals import SIGNALLED
from lab.text import shortened

TAIL_LINES = 20
MOST_IN_TAIL = 1000  # characters of a line
TERMINATE_GRACE_SECONDS = 10.0
# Of each stream of a program's; none that klab runs prints so much, and a guest or a mirror may not be trusted.
MOST_OUTPUT = 16 << 20  # characters
MOST_IN_LINE = 1 << 16  # characters; a longer line comes in parts
BLOCK = 1 << 16

_LOG = logging.getLogger("klab.process")
# Daemons: held, since Python complains of a child that is forgotten while it runs.
_SPAWNED: list[subprocess.Popen[bytes]] = []


class _Together:
    """Programs that are ended together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._over = False

    @contextlib.contextmanager
    def having(self, child: subprocess.Popen[str]) -> Iterator[None]:
        with self._lock:
            self._running.add(child)
            late = self._over
        if late:
            kill_group(child)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(child)

    def end(self) -> None:
        with self._lock:
            self._over = True
            running = list(self._running)
        for child in running:
            kill_group(child)


_TOGETHER: contextvars.ContextVar[_Together | None] = contextvars.ContextVar("together", default=None)


@contextlib.contextmanager
def ended_together() -> Iterator[Callable[[], None]]:
    """What ends the programs of the block, those of the threads that it starts as well, and any that begins later.

    Ctrl-C reaches the main thread alone: where others run programs that may take minutes, and may be killed at any
    moment, this is the `stop` of `lab.waiting.map_parallel`.
    """
    together = _Together()
    token = _TOGETHER.set(together)
    try:
        yield together.end
    finally:
        _TOGETHER.reset(token)


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended: its exit code and what it printed."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def tail(self) -> list[str]:
        """The last lines printed, standard error first where there is any; long ones are cut."""
        text = self.stderr.strip() or self.stdout.strip()
        return [shortened(line, MOST_IN_TAIL) for line in text.splitlines()[-TAIL_LINES:]]


def find(program: str) -> str:
    """The full path of `program`.

    Raises:
        HostError: it is not installed; the hint tells how to install it.
    """
    # Debian keeps sbin out of an ordinary user's PATH; half of what klab starts lives there.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
    found = shutil.which(program, path=path)
    if found is None:
        raise HostError(f"{program} is not installed", hint=install_hint(program))
    return found


def have(program: str) -> bool:
    """Whether `program` is installed."""
    try:
        find(program)
    except HostError:
        return False
    return True


def _environment(changes: Mapping[str, str | None] | None) -> dict[str, str] | None:
    """klab's own environment with these changes; None where there is none."""
    if not changes:
        return None
    kept = {name: value for name, value in os.environ.items() if name not in changes}
    return kept | {name: value for name, value in changes.items() if value is not None}


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout: float,
    check: bool = True,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    stdin: str | Path | None = None,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    on_start: Callable[[subprocess.Popen[str]], None] | None = None,
    hint: Advice = "",
) -> Completed:
    """Run a program until it ends.

    Args:
        argv: the program and its arguments; no shell is involved.
        timeout: seconds it may take; then its whole process group is killed.
        check: raise when it exits with anything but 0.
        cwd: the folder it runs in.
        env: variables added to klab's own environment; those that are None are taken out of it.
        stdin: text handed to it, or a file; without it, it reads nothing.
        log: file that its output (both streams) is appended to, line by line.
        on_line: called with each line as it is printed (both streams).
        on_start: called with the child once it runs; another thread may end it with `kill_group`.
        hint: the hint of the error raised when it fails.

    Raises:
        HostError: the program is not installed.
        ProgramError: it failed and `check` was set; or it printed more than MOST_OUTPUT and was stopped.
        ProgramTimeout: it did not end in time; it and its children are gone.
    """
    with start(argv, cwd=cwd, env=env, stdin=stdin if isinstance(stdin, Path) else stdin is not None) as child:
        lines = _Lines(child, log, on_line)
        try:
            if on_start is not None:
                on_start(child)
            if isinstance(stdin, str) and child.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.write(stdin)
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.close()
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            kill_group(child)
            lines.join()
            name = Path(child.args[0]).name  # type: ignore[index, arg-type]
            raise ProgramTimeout(
                f"{name} did not end within {timeout:g} s and was stopped", details=lines.done(1).tail, hint=hint
            ) from None
        except BaseException:
            kill_group(child)
            lines.join()
            raise
        lines.join()
        done = lines.done(child.returncode)
    if check and done.code != 0:
        raise failed(done, hint)
    return done


def failed(done: Completed, hint: Advice = "") -> ProgramError:
    """The error that tells how a program failed."""
    name = Path(done.argv[0]).name
    return ProgramError(
        f"{name} failed with exit code {done.code}", details=[" ".join(done.argv), *done.tail], hint=hint
    )


@contextlib.contextmanager
def start(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    stdin: bool | Path = False,
) -> Iterator[subprocess.Popen[str]]:
    """Start a program in a process group of its own, with both output streams piped, and its input where it has one.

    Leaving the context kills whatever of the group still runs.

    Raises:
        HostError: the program is not installed.
    """
    words = [os.fspath(word) for word in argv]
    words[0] = find(words[0])
    began = _begun(words)
    with _input(stdin) as opened:
        child = subprocess.Popen(
            words,
            cwd=cwd,
            env=_environment(env),
            stdin=opened,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    together = _TOGETHER.get()
    try:
        with contextlib.nullcontext() if together is None else together.having(child):
            yield child
    finally:
        if child.poll() is None:
            kill_group(child)
        _ended(words, began, child.returncode)
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


@contextlib.contextmanager
def _input(stdin: bool | Path) -> Iterator[int]:
    """What a child reads from, as Popen wants it: a file, a pipe, or nothing."""
    if isinstance(stdin, Path):
        with stdin.open("rb") as file:
            yield file.fileno()
    else:
        yield subprocess.PIPE if stdin else subprocess.DEVNULL


def attach(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str | None] | None = None,
    through: Callable[[bytes], None] | None = None,
) -> int:
    """Run a program on the person's own terminal (ssh, kubectl) and return its exit code, as a shell would.

    Ctrl-C reaches the program, not klab.

    Args:
        argv: the program and its arguments.
        env: variables added to klab's own environment; those that are None are taken out of it.
        through: prints what the program prints (both streams), instead of the program itself.

    Raises:
        HostError: the program is not installed.
    """
    words = [os.fspath(word) for word in argv]
    words[0] = find(words[0])
    began = _begun(words)
    child: subprocess.Popen[bytes] = subprocess.Popen(
        words,
        env=_environment(env),
        stdout=subprocess.PIPE if through else None,
        stderr=subprocess.STDOUT if through else None,
    )
    with contextlib.ExitStack() as stack:
        if child.stdout is not None:
            stack.callback(child.stdout.close)
        while True:
            try:
                while through and child.stdout is not None and (data := os.read(child.stdout.fileno(), BLOCK)):
                    through(data)
                code = child.wait()
            except KeyboardInterrupt:
                continue
            _ended(words, began, code)
            return code if code >= 0 else SIGNALLED - code


def spawn(
    argv: Sequence[str | os.PathLike[str]],
    *,
    log: Path,
    env: Mapping[str, str | None] | None = None,
) -> int:
    """Start a program that outlives klab (a daemon) and return its process id.

    Raises:
        HostError: the program is not installed.
    """
    words = [os.fspath(word) for word in argv]
    words[0] = find(words[0])
    with log.open("ab") as out:
        child = subprocess.Popen(
            words,
            env=_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    _SPAWNED.append(child)
    _LOG.info("%s: runs on as process %d", command_line(words), child.pid)
    return child.pid


def _begun(words: Sequence[str]) -> float:
    """Log that a program begins; returns when, by the monotonic clock."""
    _LOG.debug("%s: begins", command_line(words))
    return time.monotonic()


def _ended(words: Sequence[str], began: float, code: int) -> None:
    """Log that a program has ended. What it read from its standard input, and its variables, are not logged."""
    how = f"exit code {code}" if code >= 0 else f"ended by signal {-code}"
    _LOG.info("%s: %.2f s, %s", command_line(words), time.monotonic() - began, how)


def relay(argv: Sequence[str | os.PathLike[str]], channel: socket.socket) -> None:
    """Start a program that reads from a socket and writes to it, and ends when the other end is closed.

    Raises:
        HostError: the program is not installed.
    """
    words = [os.fspath(word) for word in argv]
    words[0] = find(words[0])
    end = channel.fileno()
    child = subprocess.Popen(words, stdin=end, stdout=end, stderr=subprocess.DEVNULL, start_new_session=True)
    _SPAWNED.append(child)


def kill_group(child: subprocess.Popen[str]) -> None:
    """End a child and everything it started: SIGTERM, a grace, then SIGKILL."""
    for sign, grace in ((signal.SIGTERM, TERMINATE_GRACE_SECONDS), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            continue
        # The leader is gone; its children may linger until SIGKILL reaches the group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        return


class _Lines:
    """Reads both streams of a child in two threads, so that neither pipe fills up."""

    def __init__(self, child: subprocess.Popen[str], log: Path | None, on_line: Callable[[str], None] | None) -> None:
        self._child = child
        self._on_line = on_line
        self._log = log.open("a", encoding="utf-8") if log else None
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._kept = {"stdout": io.StringIO(), "stderr": io.StringIO()}
        self._threads = [
            threading.Thread(target=self._read, args=(self._kept[name], stream), daemon=True)
            for name, stream in (("stdout", child.stdout), ("stderr", child.stderr))
            if stream is not None
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, kept: io.StringIO, stream: IO[str]) -> None:
        with contextlib.suppress(ValueError):  # closed under us after a kill
            while line := stream.readline(MOST_IN_LINE):
                with self._lock:
                    # Read on even if a line cannot be kept (a full disk): a child whose pipe is full waits for ever.
                    if self._failure is None:
                        try:
                            self._take(kept, line)
                        except Exception as error:
                            self._failure = error

    def _take(self, kept: io.StringIO, line: str) -> None:
        kept.write(line)
        if kept.tell() > MOST_OUTPUT:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, signal.SIGKILL)
            raise ProgramError(
                f"{Path(self._argv[0]).name} printed more than {MOST_OUTPUT >> 20} MiB and was stopped",
                details=[" ".join(self._argv), f"the last line: {shortened(line.rstrip())}"],
                hint="klab runs no program that should print so much; check the server or guest it talks to",
            )
        if self._log:
            self._log.write(line)
            self._log.flush()
        if self._on_line:
            self._on_line(line.rstrip("\n"))

    def join(self) -> None:
        """Wait until both streams have ended; a grandchild that keeps one open is not waited for."""
        for thread in self._threads:
            thread.join(timeout=5)
        with self._lock:
            if self._log:
                self._log.close()
                self._log = None

    def done(self, code: int) -> Completed:
        """What was printed.

        Raises:
            ProgramError: it was too much.
            Exception: a line could not be written to the log, or `on_line` failed on it.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failure
            return Completed(self._argv, code, self._kept["stdout"].getvalue(), self._kept["stderr"].getvalue())

    @property
    def _argv(self) -> tuple[str, ...]:
        return tuple(str(word) for word in self._child.args)  # type: ignore[union-attr]
