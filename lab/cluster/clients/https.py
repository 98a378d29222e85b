"""HTTPS to any server of a lab, bounded, with a client certificate of klab's: the one way to all of them.

`lab.cluster.clients.api` and `lab.cluster.clients.etcd` speak Kubernetes' and etcd's own protocols over it.
"""

from __future__ import annotations

import datetime
import errno
import json
import os
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

from lab.cluster.clients.reach import Reach, direct
from lab.errors import Advice, ClusterError, Remedy

if TYPE_CHECKING:
    import urllib3

    from lab.cluster.pki import ClientFiles

ASK_SECONDS = 5.0
JSON = "application/json"
MOST_IN_ANSWER = 64 << 20  # bytes; a list of some thousand pods has some MB


_SHOW_NODES = (Remedy("status"), " shows the lab's nodes")


class UnreachableError(ClusterError):
    """A server does not answer, or not with success. `status` is the HTTP status, 0 without one."""

    def __init__(self, message: str, *, status: int = 0, hint: Advice = _SHOW_NODES) -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's answer: HTTP status, body, and the time on its clock (RFC 9110, Date), None where it does not say.

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
        connect_seconds: how long connecting may take, apart from the answer; part of `seconds` when left out.
    """

    def __init__(
        self,
        files: ClientFiles,
        reach: Reach = direct,
        seconds: float = ASK_SECONDS,
        connect_seconds: float | None = None,
    ) -> None:
        self._files = files
        self._reach = reach
        self._seconds = seconds
        self._connect_seconds = connect_seconds
        self._manager: urllib3.PoolManager | None = None

    def get(self, address: IPv4Address, port: int, path: str, *, seconds: float | None = None) -> Answer:
        """GET a path; an answer of any status is returned.

        Raises:
            UnreachableError: no answer in time, or from a server that does not prove its identity; the message says
            which.
        """
        return self.request("GET", address, port, path, seconds=seconds)

    def request(
        self,
        method: str,
        address: IPv4Address,
        port: int,
        path: str,
        *,
        body: str | None = None,
        content: str = JSON,
        seconds: float | None = None,
    ) -> Answer:
        """Send one request whose body has the media type `content`; returns and raises as `get`."""
        return self._ask(method, address, port, path, body, content, seconds or self._seconds)

    def get_json(self, address: IPv4Address, port: int, path: str) -> Any:
        """GET a path and return its JSON.

        Raises:
            UnreachableError: as `get`, or the answer is not a success.
        """
        return _json(self.get(address, port, path))

    def post_json(self, address: IPv4Address, port: int, path: str, body: Any, *, seconds: float | None = None) -> Any:
        """POST JSON and return the answer's; errors as `get_json`."""
        return _json(self.request("POST", address, port, path, body=json.dumps(body), seconds=seconds))

    def peer_certificate(self, address: IPv4Address, port: int) -> bytes:
        """The certificate that a server shows, as DER. It is not verified, so that an expired one is seen, too.

        Raises:
            UnreachableError: as `get`.
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
            raise UnreachableError(_reason(error, self._seconds)) from error
        if found is None:
            raise UnreachableError("the server did not show a certificate")
        return found

    def _ask(
        self, method: str, address: IPv4Address, port: int, path: str, body: str | None, content: str, seconds: float
    ) -> Answer:
        import urllib3

        host, at = self._reach(address, port)
        try:
            answer = self._connections().request(
                method,
                f"https://{host}:{at}{path}",
                body=body,
                headers={"Accept": "application/json, */*", "Content-Type": content},
                timeout=self._timeout(seconds),
                retries=False,
                preload_content=False,
            )
            data = answer.read(MOST_IN_ANSWER + 1)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise UnreachableError(_reason(error, seconds)) from error
        if len(data) > MOST_IN_ANSWER:
            answer.close()
            raise UnreachableError(f"the answer is longer than {MOST_IN_ANSWER >> 20} MiB")
        answer.release_conn()
        return Answer(answer.status, data.decode("utf-8", "replace"), clock(answer.headers.get("Date")))

    def _timeout(self, seconds: float) -> urllib3.Timeout:
        import urllib3

        if self._connect_seconds is None:
            return urllib3.Timeout(total=seconds)
        return urllib3.Timeout(connect=min(self._connect_seconds, seconds), read=seconds)

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


def refuse_failure(answer: Answer, what: str = "") -> None:
    """Make sure that an answer is a success; raises UnreachableError with the server's own reason behind `what`."""
    if answer.status < 300:
        return
    try:
        found = json.loads(answer.text)
    except (ValueError, RecursionError):
        found = None
    message = found.get("message") if isinstance(found, dict) else None
    reason = str(message or answer.text).strip()[:300]
    raise UnreachableError(f"{what}{answer.status} {reason}", status=answer.status)


def _json(answer: Answer) -> Any:
    refuse_failure(answer)
    try:
        found = json.loads(answer.text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UnreachableError(f"the answer is not a JSON object: {answer.text.strip()[:100]}", status=answer.status)
    return found


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it came from: urllib3 wraps a refused connection more than once."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reason(error: BaseException, seconds: float) -> str:
    """Why there is no answer, in a few words."""
    import urllib3

    timeouts = (TimeoutError, urllib3.exceptions.TimeoutError)
    # From the outside in: a library's own error tells more than the one that it wraps.
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
