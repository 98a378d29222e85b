"""Downloads: they continue where they broke off, wait for a busy server, and end with the published checksum.

What has come of a file lies beside it until it is whole: NAME.CHECKSUM.begun. The checksum is known before the first
byte, so what was begun may be finished from any server.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from lab.boxes.upstream.addresses import Site
from lab.boxes.upstream.checksum import Checksum
from lab.boxes.upstream.patience import ELSEWHERE, Patience, Tell, Trials, parse_retry_after
from lab.errors import Advice, BoxError, LabError, Remedy, refusal
from lab.text import shortened, visible

if TYPE_CHECKING:
    import urllib3

BEGUN = ".begun"
MOST_BYTES = 1 << 30  # of one program; the largest has some 60 MB
FULL: Advice = ("make room, ", Remedy("box prune"), " for example; KLAB_HOME names a folder on a larger disk")
CERTIFICATES = "SSL_CERT_FILE=FILE names the CAs to trust, a company's for example; a wrong clock is another reason"
_BLOCK = 1 << 13  # bytes; what is begun of one is lost with the connection
_REDIRECTS = 5
_EVERY = 10.0  # seconds between two lines of progress
BUSY = {408, 429, 500, 502, 503, 504}
_MISSING = {404, 410}
_REFUSED = {401, 403, 407, 451}
_RANGE = re.compile(r"bytes ([0-9]{1,15})-[0-9]{1,15}/(?:[0-9]{1,15}|\*)")


class Missing(BoxError):
    """The server answers, and does not have it."""


class BrokenOffError(Exception):
    """A trial that may succeed later.

    Args:
        why: in words.
        asked: how many seconds the server asks to wait.
    """

    def __init__(self, why: str, asked: float | None = None) -> None:
        super().__init__(why)
        self.why, self.asked = why, asked


class Meter:
    """Tells every ten seconds how much of something has come.

    Args:
        what: its name.
        total: bytes; 0 where nobody knows.
        tell: told.
    """

    def __init__(self, what: str, total: int, tell: Tell) -> None:
        self.what, self._total, self._tell = what, total, tell
        self._told = time.monotonic()

    def at(self, count: int) -> None:
        """So many bytes are there."""
        if time.monotonic() - self._told >= _EVERY:
            self._told = time.monotonic()
            of = f" of {self._total / (1 << 20):.0f}" if self._total else ""
            self._tell(f"{self.what}: {count / (1 << 20):.0f}{of} MiB")


class Web:
    """Web servers, asked with patience, through the proxy that the environment names.

    Args:
        tell: told of pauses and of progress.
        patience: how long to wait.
    """

    def __init__(self, tell: Tell, patience: Patience) -> None:
        self._tell, self._patience = tell, patience
        self._pools: dict[str, urllib3.PoolManager] = {}

    def status(self, site: Site) -> int:
        """The HTTP status with which a server answers.

        Raises:
            BoxError: there is no answer; the message says why.
        """
        try:
            with self._answered(site) as answer:
                return answer.status
        except BrokenOffError as broken:
            raise BoxError(broken.why, hint=ELSEWHERE) from broken

    def text(self, site: Site, most: int) -> str:
        """The beginning of a text, with at most so many bytes.

        Raises:
            Missing: the server does not have it.
            BoxError: it cannot be had.
        """
        trials = Trials(site.host, self._patience, self._tell)
        while True:
            try:
                with self._answered(site) as answer:
                    _refuse_failure(site, answer)
                    return b"".join(_blocks(answer, self._patience, most))[:most].decode("utf-8", "replace")
            except BrokenOffError as broken:
                trials.again(broken.why, broken.asked)

    def file(self, site: Site, target: Path, wanted: Checksum) -> None:
        """A whole file, with the right checksum.

        Raises:
            Missing: the server does not have it.
            BoxError: it cannot be had, or is another one.
            HostError: the disk is full; what has come is kept.
        """
        partial = target.with_name(f"{target.name}.{wanted.hex[:12]}{BEGUN}")
        partial.parent.mkdir(parents=True, exist_ok=True)
        trials = Trials(site.host, self._patience, self._tell)
        again = False
        while not wanted.fits(partial):
            there = partial.stat().st_size if partial.exists() else 0
            try:
                self._receive(site, partial, there, trials)
            except BrokenOffError as broken:
                trials.again(broken.why, broken.asked)
                continue
            if (found := wanted.of(partial)) != wanted.hex:
                partial.unlink()
                if again or not there:
                    raise _another(target.name, site, wanted, found)
                again = True
                self._tell(f"{target.name}: what had come before does not fit; from the start")
        partial.replace(target)

    def _receive(self, site: Site, partial: Path, there: int, trials: Trials) -> None:
        """Add to a file what is missing of it, or write it from the start where the server cannot go on."""
        with self._answered(site, there) as answer:
            if answer.status == 416 and there:  # nothing comes behind this byte: what is there is of another file
                os.truncate(partial, 0)
                return
            _refuse_failure(site, answer)
            start = there if answer.status == 206 and parse_range(answer.headers.get("Content-Range")) == there else 0
            if answer.status == 206 and start != there:
                os.truncate(partial, 0)
                raise BrokenOffError("it does not go on where it was asked to")
            total = start + _length(answer)
            meter = Meter(partial.name.partition(".")[0], total, self._tell)
            blocks = _blocks(answer, self._patience, MOST_BYTES - start)
            for count in _written(blocks, partial, start):
                trials.progressed()
                meter.at(count)
        if (came := partial.stat().st_size) < total:
            raise BrokenOffError(f"the connection ended after {came} of {total} bytes")
        if came > MOST_BYTES:
            partial.unlink()
            raise BoxError(
                f"{site.host} sends more than {MOST_BYTES >> 20} MiB",
                details=[visible(site.url)],
                hint="no program is so large; take another --mirror",
            )

    @contextmanager
    def _answered(self, site: Site, there: int = 0) -> Iterator[urllib3.BaseHTTPResponse]:
        """The answer of a server, or of the one that it leads to.

        Raises:
            BrokenOffError: there is none now.
            BoxError: there will be none.
        """
        import urllib3

        url = site.url
        sent = {"User-Agent": "klab", "Accept-Encoding": "identity"}
        sent |= {"Range": f"bytes={there}-"} if there else {}
        if site.user or site.password:
            sent |= urllib3.make_headers(basic_auth=f"{site.user}:{site.password}")
        for _ in range(_REDIRECTS + 1):
            with _in_words(self._patience):
                answer = self._pool(url).request(
                    "GET",
                    url,
                    headers=sent,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    timeout=urllib3.Timeout(connect=self._patience.connect, read=self._patience.stall),
                )
            place = answer.get_redirect_location()
            if not place:
                try:
                    yield answer
                finally:
                    answer.close()
                return
            answer.close()
            following = urljoin(url, place)
            if not following.startswith(("https://", "http://")[: 2 if url.startswith("http://") else 1]):
                break
            if urlsplit(following).netloc != urlsplit(url).netloc:
                sent.pop("authorization", None)
            url = following
        raise BoxError(
            f"{site.host} leads elsewhere without end, or to a server without TLS",
            details=[visible(shortened(url))],
            hint="the page of a portal may want a login first; or take another --mirror",
        )

    def _pool(self, url: str) -> urllib3.PoolManager:
        """The connections to a server: direct, or by the proxy that is for it (urllib.request.getproxies)."""
        import urllib3

        parts = urlsplit(url)
        proxy = "" if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme, "")
        if proxy not in self._pools:
            if proxy:
                address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
                login, _, host = address.netloc.rpartition("@")
                headers = urllib3.make_headers(proxy_basic_auth=unquote(login)) if login else {}
                self._pools[proxy] = urllib3.ProxyManager(address._replace(netloc=host).geturl(), proxy_headers=headers)
            else:
                self._pools[proxy] = urllib3.PoolManager()
        return self._pools[proxy]


def parse_range(text: str | None) -> int | None:
    """The first byte that an answer has, by its Content-Range; None where it does not say (RFC 9110, 14.4)."""
    found = _RANGE.fullmatch((text or "").strip())
    return int(found[1]) if found else None


def _length(answer: urllib3.BaseHTTPResponse) -> int:
    said = answer.headers.get("Content-Length") or ""
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 16 else 0


def _blocks(answer: urllib3.BaseHTTPResponse, patience: Patience, most: int) -> Iterator[bytes]:
    """The body as it comes, until it ends or there is more than `most` bytes of it."""
    came = 0
    with _in_words(patience):
        for block in answer.stream(_BLOCK):
            yield block
            came += len(block)
            if came > most:
                return


def _written(blocks: Iterator[bytes], file: Path, start: int) -> Iterator[int]:
    """Write blocks to the end of a file, or in place of it; yields how many bytes it has.

    Raises:
        HostError: the disk is full, or the file cannot be written.
    """
    count = start
    try:
        with file.open("ab" if start else "wb") as out:
            for block in blocks:
                out.write(block)
                count += len(block)
                yield count
    except OSError as error:
        if (refused := refusal(error, said="what has come is kept", hint=FULL)) is None:
            raise
        raise refused from error


def _refuse_failure(site: Site, answer: urllib3.BaseHTTPResponse) -> None:
    """Make sure that an answer is a success.

    Raises:
        Missing, BoxError: it is not, and will not be.
        BrokenOffError: the server is busy.
    """
    status = answer.status
    if status in {200, 206}:
        return
    said = f"{status} {visible(shortened(answer.reason or '', 100))}".strip()
    if status in BUSY:
        raise BrokenOffError(said, parse_retry_after(answer.headers.get("Retry-After"), time.time()))
    details = [visible(shortened(site.url))]
    if status in _MISSING:
        raise Missing(
            f"{site.host} has no {visible(shortened(urlsplit(site.url).path, 200))}",
            details=[said, *details],
            hint="a mirror may lack this version, or lie below another path; --mirror names another one",
        )
    if status in _REFUSED:
        whose = "the proxy" if status == 407 else site.host
        hint = "https_proxy=http://USER:PASSWORD@HOST:PORT" if status == 407 else "https://USER:PASSWORD@HOST/PATH"
        raise BoxError(
            f"{whose} refuses: {said}", details=details, hint=f"give user and password, {hint}, or another --mirror"
        )
    raise BoxError(f"{site.host} answers {said}", details=details, hint=ELSEWHERE)


def _another(name: str, site: Site, wanted: Checksum, found: str) -> BoxError:
    return BoxError(
        f"{name} from {site.host} is not what was published",
        details=[
            visible(site.url),
            f"published: {wanted.algorithm} {wanted.hex}",
            f"received:  {wanted.algorithm} {found}",
        ],
        hint="the server, or somebody on the way, gives another file; take another --mirror",
    )


@contextmanager
def _in_words(patience: Patience) -> Iterator[None]:
    """Say in words what goes wrong on the way to a server."""
    import urllib3

    try:
        yield
    except LabError:
        raise
    except (urllib3.exceptions.HTTPError, OSError) as error:
        chain = list(_chain(error))
        for each in chain:
            if isinstance(each, ssl.SSLCertVerificationError):
                raise BoxError(
                    f"the server's certificate is refused: {each.verify_message}",
                    hint=CERTIFICATES,
                ) from error
        raise BrokenOffError(_reason(chain, patience)) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(chain: list[BaseException], patience: Patience) -> str:
    """Why there is no answer; from the outside in, a library's own error tells more than the one that it wraps."""
    from urllib3 import exceptions

    for each in chain:
        if isinstance(each, exceptions.ProxyError):
            return "the proxy does not let it pass"
        if isinstance(each, exceptions.NameResolutionError):
            return "its name is not known"
        if isinstance(each, exceptions.ConnectTimeoutError) and not isinstance(each, exceptions.NewConnectionError):
            return f"no connection within {patience.connect:g} s"
        if isinstance(each, exceptions.ReadTimeoutError | TimeoutError):
            return f"not a byte for {patience.stall:g} s"
        if isinstance(each, ssl.SSLError):
            return f"TLS fails: {visible(str(each.reason or each))}"
        if isinstance(each, exceptions.IncompleteRead):
            return "the connection broke off"
        if isinstance(each, OSError) and each.errno is not None:
            return os.strerror(each.errno).lower()
    return visible(shortened(str(chain[0]), 200))
