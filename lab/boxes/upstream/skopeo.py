"""Images from a registry, by skopeo: it knows registries' protocols, logins, proxies and mirrors.

skopeo itself waits where a registry answers 429 (github.com/containers/image, docker/docker_client.go); klab tells
that, ends a skopeo that hears nothing any more, and tries again what broke off.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from lab import process
from lab.boxes.upstream.addresses import IMAGES, Registry
from lab.boxes.upstream.patience import ELSEWHERE, Patience, Tell, Trials
from lab.boxes.upstream.web import CERTIFICATES, FULL, BrokenOffError, Meter, Missing
from lab.errors import Advice, BoxError, HostError, ProgramTimeout
from lab.text import shortened, visible
from lab.waiting import background

if TYPE_CHECKING:
    import subprocess

# However large an image and slow a line; what ends a skopeo is that nothing comes.
_MOST_SECONDS = 6 * 3600.0
# The longest that skopeo pauses by itself.
_PAUSE_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_NO_ANSWER = "no answer"
# How logrus writes a line where there is no terminal (github.com/sirupsen/logrus, text_formatter.go).
_LINE = re.compile(r'level=([a-z]{1,10}) msg=("(?:[^"\\]|\\.){0,4000}"|\S{1,4000})')
_ESCAPED = re.compile(r"\\(.)")
_SLEEPS = re.compile(r"Too many requests to \S+: sleeping for ([0-9.]{1,20}) seconds")
_OF_ALL = ("--override-os", "linux", "--override-arch", "amd64")
# What skopeo says of each failure, in the order in which they are told apart.
_BUSY = re.compile(
    r"too ?many ?requests|(?:StatusCode:|HTTP status:|from registry) ?(?:429|408|50[0234])\b", re.IGNORECASE
)
_BROKEN = re.compile(
    r"unexpected EOF|(?:^|: )EOF$|connection (?:reset|refused|timed out)|broken pipe|timeout|no such host"
    r"|server misbehaving|network is unreachable|no route to host|temporary failure|connection closed",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"unauthorized|authentication required|denied|forbidden|(?:StatusCode:|from registry) ?40[13]\b", re.IGNORECASE
)
_MISSING = re.compile(r"manifest unknown|name unknown|not found|(?:StatusCode:|from registry) ?404\b", re.IGNORECASE)
# What skopeo says before it comes to the point; the caller names registry and image.
_PREAMBLE = re.compile(
    r'(?:Error parsing image name|initializing source) "?docker://[^ ]*: |pinging container registry [^ ]*: '
    r'|(?:Get|Head) "[^" ]*": |dial tcp(?: [^ ]*)?: (?:lookup [^ ]*(?: on [^ ]*)?: )?'
)
_FULL = re.compile(r"no space left|quota exceeded", re.IGNORECASE)
_UNTRUSTED = re.compile("x509: ")
_PLAIN = re.compile("HTTP response to HTTPS client|does not look like a TLS handshake")


@dataclass(frozen=True, slots=True)
class Advices:
    """What a person can do where a registry gives no image.

    full: the disk is full. missing: it has no such image. elsewhere: it does not deliver. plain: it has no TLS.
    refused: it wants a login.
    """

    full: Advice
    missing: Advice
    elsewhere: Advice
    plain: Callable[[Registry, str], Advice]
    refused: Callable[[Registry, str], Advice]


# Where a box is built.
OF_BOXES = Advices(
    full=FULL,
    missing="a mirror may lack this version, or lie below another path; --mirror names another one",
    elsewhere=ELSEWHERE,
    plain=lambda registry, _name: f"say so, if you trust the network: --mirror {IMAGES}=http://{registry.prefix}",
    refused=lambda registry, _name: f"skopeo login {registry.host}, as root where sudo builds; or another --mirror",
)


class Skopeo:
    """skopeo, called with patience.

    Args:
        tell: told of pauses and of progress.
        patience: how long to wait.
        advices: the hints of its errors.
    """

    def __init__(self, tell: Tell, patience: Patience, advices: Advices = OF_BOXES) -> None:
        self._tell, self._patience, self._advices = tell, patience, advices

    def raw(self, registry: Registry, name: str) -> str:
        """The manifest of an image, or the index of its manifests, as the registry has it.

        Args:
            registry: where.
            name: the image there: HOST/PATH:TAG or HOST/PATH@DIGEST.

        Raises:
            HostError: skopeo is not installed.
            Missing: there is no such image.
            BoxError: it cannot be had.
        """
        words = ["inspect", "--raw", *_tls(registry, "--tls-verify=false"), f"docker://{name}"]
        return self._run(registry, name, words, None, 0)

    def obstacle(self, registry: Registry, name: str, seconds: float) -> str:
        """What keeps an image from being had, asked once; empty where nothing does."""
        argv = ["skopeo", *_OF_ALL, "inspect", "--raw", *_tls(registry, "--tls-verify=false"), f"docker://{name}"]
        try:
            done = process.run(argv, timeout=seconds, check=False)
        except ProgramTimeout:
            return f"{_NO_ANSWER} within {seconds:g} s"
        except HostError as error:
            return f"{error.message} ({error.hint})"
        return "" if done.code == 0 else complaint(done.stderr)

    def copy(self, registry: Registry, name: str, folder: Path, size: int) -> None:
        """Write an image as skopeo's `dir:` has it: manifest.json as it is, and a file HEX for each blob.

        Args:
            registry: where.
            name: the image there, by digest.
            folder: written anew.
            size: bytes of its blobs.

        Raises:
            As `raw`.
        """
        words = ["copy", *_tls(registry, "--src-tls-verify=false"), f"docker://{name}", f"dir:{folder}"]
        self._run(registry, name, words, folder, size)

    def _run(self, registry: Registry, name: str, words: Sequence[str], folder: Path | None, size: int) -> str:
        trials = Trials(registry.host, self._patience, self._tell, hint=self._advices.elsewhere)
        furthest = 0
        while True:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
                folder.parent.mkdir(parents=True, exist_ok=True)
            watch = _Watch(folder, Meter(name.rpartition("/")[2].partition("@")[0], size, self._tell), self._patience)
            done = watch.run(["skopeo", "--debug", *_OF_ALL, *words], self._tell)
            if done.code == 0:
                return done.stdout
            if watch.came > furthest:  # each trial begins anew: only one that came further is progress
                furthest = watch.came
                trials.progressed()
            if watch.stalled:
                trials.again(f"not a byte for {self._patience.stall:g} s")
                continue
            try:
                refuse(registry, name, complaint(done.stderr), self._advices)
            except BrokenOffError as broken:
                trials.again(broken.why)


class _Watch:
    """One skopeo, and whether it still lives: it says something, or its folder grows."""

    def __init__(self, folder: Path | None, meter: Meter, patience: Patience) -> None:
        self._folder, self._meter, self._stall = folder, meter, patience.stall
        self._over = threading.Event()
        self._child: subprocess.Popen[str] | None = None
        self._lives(0)
        self.came = 0  # bytes
        self.stalled = False

    def run(self, argv: Sequence[str], tell: Tell) -> process.Completed:
        """Run it to its end, or to where nothing comes any more."""

        def hear(line: str) -> None:
            pause = parse_pause(line)
            self._lives(pause)
            if pause:
                tell(f"{self._meter.what}: the registry asks to wait (429 Too Many Requests); again in {pause:.0f} s")

        def begun(child: subprocess.Popen[str]) -> None:
            self._child = child

        # A klab that is killed outright takes it along: another klab would write into the same folder.
        dies_too = ["setpriv", "--pdeathsig", "KILL", process.find(argv[0]), *argv[1:]]
        with background(self._watch):
            try:
                return process.run(dies_too, timeout=_MOST_SECONDS, check=False, on_line=hear, on_start=begun)
            finally:
                self._over.set()

    def _lives(self, pause: float) -> None:
        self._until = time.monotonic() + pause + self._stall

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            self._look()
            if self._child is not None and time.monotonic() > self._until:
                self.stalled = True
                process.kill_group(self._child)
                return
        self._look()

    def _look(self) -> None:
        if self._folder is not None and (size := _size(self._folder)) > self.came:
            self.came = size
            self._meter.at(size)
            self._lives(0)


def _tls(registry: Registry, without: str) -> list[str]:
    return [without] if registry.plain else []


def _size(folder: Path) -> int:
    """Bytes of the files in a folder that somebody is writing."""
    count = 0
    for file in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            count += file.stat().st_size
    return count


def parse_pause(line: str) -> float:
    """How many seconds skopeo pauses since a registry answered 429, by a line of its log; 0 for any other line."""
    found = _SLEEPS.search(line)
    try:
        return min(float(found[1]), _PAUSE_SECONDS) if found else 0.0
    except ValueError:
        return 0.0


def complaint(log: str) -> str:
    """What skopeo complains of, by what it has printed on standard error.

    >>> complaint('time="2026-11-29T22:33:41Z" level=fatal msg="reading \\\\"x\\\\": manifest unknown"')
    'reading "x": manifest unknown'
    """
    lines = [found[2] for found in _LINE.finditer(log) if found[1] in {"fatal", "error", "panic"}]
    text = lines[-1] if lines else next((line for line in reversed(log.splitlines()) if line.strip()), "")
    plain = _ESCAPED.sub(r"\1", text.strip().strip('"'))
    return visible(shortened(_PREAMBLE.sub("", plain), 500))


def is_busy(why: str) -> bool:
    """Whether a complaint of skopeo's is that the registry asks to come again."""
    return _BUSY.search(why) is not None


def is_unreachable(why: str) -> bool:
    """Whether a complaint of skopeo's is that the registry does not answer at all."""
    return why.startswith(_NO_ANSWER) or _BROKEN.search(why) is not None


def refuse(registry: Registry, name: str, why: str, advices: Advices = OF_BOXES) -> NoReturn:
    """Raise the error for a complaint of skopeo's.

    Raises:
        BrokenOffError: another trial may succeed.
        Missing: there is no such image.
        HostError: the disk is full.
        BoxError: anything else.
    """
    details = [name, why]
    if _FULL.search(why):
        raise HostError("the disk is full: no image fits", details=details, hint=advices.full)
    if _PLAIN.search(why):
        raise BoxError(f"{registry.host} speaks HTTP without TLS", details=details, hint=advices.plain(registry, name))
    if _UNTRUSTED.search(why):
        raise BoxError(f"the certificate of {registry.host} is refused", details=details, hint=CERTIFICATES)
    if _BUSY.search(why) or _BROKEN.search(why):
        raise BrokenOffError(why)
    if _MISSING.search(why):
        raise Missing(f"{registry.host} has no {name}", details=[why], hint=advices.missing)
    if _REFUSED.search(why):
        raise BoxError(f"{registry.host} refuses {name}", details=[why], hint=advices.refused(registry, name))
    raise BoxError(f"skopeo cannot copy {name}", details=[why], hint=advices.elsewhere)
