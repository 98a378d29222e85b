"""Single questions over HTTPS to any server of a lab: quick, bounded, with a client certificate of klab's.

`lab.cluster.clients.api` is for whole conversations with the API server; the official client that it
uses takes most of a second to import and knows one address. Here klab asks many servers once.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from lab.errors import ClusterError

if TYPE_CHECKING:
    import urllib3

    from lab.cluster.secrets import ClientFiles

ASK_SECONDS = 5.0
MOST_IN_ANSWER = 64 << 20  # bytes; a list of some thousand pods has some MB

# Where a port of a node is reached from here; a test has its servers elsewhere.
Reach = Callable[[IPv4Address, int], tuple[str, int]]


def direct(address: IPv4Address, port: int) -> tuple[str, int]:
    """The port at the node's own address."""
    return str(address), port


class NoAnswer(ClusterError):
    """A server does not answer, or not with success. `status` is the HTTP status, 0 without one."""

    def __init__(self, message: str, *, status: int = 0, hint: str = "klab status shows the lab's nodes") -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered: HTTP status, body, and what its clock shows (RFC 9110, Date), None where it does not say.

    A server in a guest has the guest's clock.
    """

    status: int
    text: str
    clock: datetime.datetime | None = None


class Https:
    """The servers that trust one of klab's client certificates and are themselves signed by one CA.

    Args:
        files: the certificate, its key, the CA.
        reach: where a node's port is reached.
        seconds: how long an answer may take.
    """

    def __init__(self, files: ClientFiles, reach: Reach = direct, seconds: float = ASK_SECONDS) -> None:
        self._files = files
        self._reach = reach
        self._seconds = seconds
        self._manager: urllib3.PoolManager | None = None

    def get(self, address: IPv4Address, port: int, path: str, *, seconds: float | None = None) -> Answer:
        """GET a path, whatever the status of the answer.

        Raises:
            NoAnswer: there is none in time, or the server is not who it should be; the message says which.
        """
        return self._ask("GET", address, port, path, None, seconds or self._seconds)

    def get_json(self, address: IPv4Address, port: int, path: str) -> Any:
        """GET a path and return its JSON.

        Raises:
            NoAnswer: as `get`, or the answer is no success.
        """
        return _json(self.get(address, port, path))

    def post_json(self, address: IPv4Address, port: int, path: str, body: Any, *, seconds: float | None = None) -> Any:
        """POST JSON and return the answer's; errors as `get_json`."""
        return _json(self._ask("POST", address, port, path, json.dumps(body), seconds or self._seconds))

    def peer_certificate(self, address: IPv4Address, port: int) -> bytes:
        """The certificate that a server shows, as DER; it is not verified: an expired one is to be seen, too.

        Raises:
            NoAnswer: as `get`.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            # etcd writes a line in its log about each client that shows none.
            context.load_cert_chain(self._files.certificate, self._files.key)
            with (
                socket.create_connection(self._reach(address, port), timeout=self._seconds) as plain,
                context.wrap_socket(plain) as connection,
            ):
                found = connection.getpeercert(binary_form=True)
        except OSError as error:  # ssl.SSLError and TimeoutError are of this kind
            raise NoAnswer(_reason(error, self._seconds)) from error
        if found is None:
            raise NoAnswer("no certificate was shown")
        return found

    def _ask(self, method: str, address: IPv4Address, port: int, path: str, body: str | None, seconds: float) -> Answer:
        import urllib3

        host, at = self._reach(address, port)
        try:
            answer = self._connections().request(
                method,
                f"https://{host}:{at}{path}",
                body=body,
                headers={"Accept": "application/json, */*", "Content-Type": "application/json"},
                timeout=urllib3.Timeout(total=seconds),
                retries=False,
                preload_content=False,
            )
            data = answer.read(MOST_IN_ANSWER + 1)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise NoAnswer(_reason(error, seconds)) from error
        if len(data) > MOST_IN_ANSWER:
            answer.close()
            raise NoAnswer(f"the answer is longer than {MOST_IN_ANSWER >> 20} MiB")
        answer.release_conn()
        return Answer(answer.status, data.decode("utf-8", "replace"), clock(answer.headers.get("Date")))

    def _connections(self) -> urllib3.PoolManager:
        """Made at the first question: loading the certificate may fail, and belongs to that question."""
        import urllib3

        if self._manager is None:
            context = ssl.create_default_context(cafile=str(self._files.ca))
            context.load_cert_chain(self._files.certificate, self._files.key)
            # Room for every server and every question at once: what does not fit is logged as a warning.
            self._manager = urllib3.PoolManager(num_pools=64, maxsize=16, ssl_context=context)
        return self._manager


def clock(date: str | None) -> datetime.datetime | None:
    """The moment in a Date header (RFC 9110); None where there is none that a clock shows."""
    try:
        found = parsedate_to_datetime(date) if date else None
        # A date is sound only if it can be counted in seconds.
        return found if found is None or found.timestamp() >= 0 else None
    except (ValueError, OverflowError):
        return None


def _json(answer: Answer) -> Any:
    try:
        found = json.loads(answer.text)
    except (ValueError, RecursionError):
        found = None
    if answer.status >= 300:
        said = found.get("message") if isinstance(found, dict) else None
        raise NoAnswer(f"{answer.status} {str(said or answer.text).strip()[:300]}", status=answer.status)
    if not isinstance(found, dict):
        raise NoAnswer(f"the answer is no JSON object: {answer.text.strip()[:100]}", status=answer.status)
    return found


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it came from: urllib3 wraps a refused connection more than once."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: BaseException, seconds: float) -> str:
    """In a few plain words why there is no answer."""
    import urllib3

    timeouts = (TimeoutError, urllib3.exceptions.TimeoutError)
    # From the outside in: what a library makes of an error says more than the error.
    for each in _chain(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is refused: {each.verify_message}"
        if isinstance(each, ssl.SSLError):
            return f"TLS fails: {each.reason or each}"
        if isinstance(each, timeouts) and not isinstance(each, urllib3.exceptions.NewConnectionError):
            return f"no answer within {seconds:g} s"
        if isinstance(each, OSError) and each.errno is not None:
            where = f" ({each.filename})" if each.errno == errno.ENOENT and each.filename else ""
            return os.strerror(each.errno).lower() + where
    return str(error).rpartition(": ")[2][:200] or type(error).__name__
