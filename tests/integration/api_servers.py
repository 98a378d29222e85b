"""Stand-ins for the API servers of a lab behind its HAProxy: TLS servers that say which one they are.

Run in a network namespace of its own:

    python -m integration.api_servers CONFIGURATION CERTIFICATE PORT WAY ADDRESS...

All answer at first; then the first one goes, in the WAY asked for:

- `refusing` connections, as when its process has ended,
- `silent`, as when its machine has lost its power,
- `unready`, as when its etcd has gone: it answers, but says that it is not ready.

Prints as JSON which server answered each connection `before` and `after`, empty where none did in time;
and whether a connection that the first server held was `cut`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from support.lab_servers import Server

from lab import process
from lab.plan.model import API_PORT
from lab.waiting import Deadline, poll

CONNECTIONS = 35
# From the moment on in which the server goes, side by side: some meet it before HAProxy's checks do, some are just
# being made to it when it is given up, three failed checks later, and the last are made well after that.
EVERY_SECONDS = 0.05
FOR_SECONDS = 12.0
# Above each time-out of HAProxy's that may lie between, below the hour that it leaves to idle clients.
SECONDS = 30.0


def go(server: Server, address: str, way: str) -> list[socket.socket]:
    """Let an API server go in one of the ways; returns what must stay open for it."""
    if way == "unready":
        server.answers["/readyz"] = (500, "etcd failed")
        return []
    server.close()
    return silent_port(address) if way == "silent" else []


def silent_port(address: str) -> list[socket.socket]:
    """Hold a port whose queue is full: the kernel lets further connections wait without a word."""
    port = socket.socket()
    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    port.bind((address, API_PORT))
    port.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex((address, API_PORT))
    return [port, *waiting]


def connect(port: int) -> http.client.HTTPSConnection:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=SECONDS, context=context)


def request(connection: http.client.HTTPSConnection) -> str:
    """The address of the API server that a connection leads to; empty where none answers in time."""
    try:
        connection.request("GET", "/version")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return ""


def ask(port: int) -> str:
    with contextlib.closing(connect(port)) as connection:
        return request(connection)


def ask_all_the_time(port: int) -> list[str]:
    """Who answered each of many connections, in the order in which they were begun."""
    with ThreadPoolExecutor(max_workers=64) as pool:
        asked = []
        for _ in range(round(FOR_SECONDS / EVERY_SECONDS)):
            asked.append(pool.submit(ask, port))
            time.sleep(EVERY_SECONDS)
        return [each.result() for each in asked]


def connected(port: int, address: str) -> http.client.HTTPSConnection | None:
    """A connection that leads to that API server; None where a new one leads elsewhere."""
    connection = connect(port)
    if request(connection) == address:
        return connection
    connection.close()
    return None


def within() -> Deadline:
    return Deadline.after(SECONDS)


def main(configuration: str, certificate: str, port: int, way: str, addresses: list[str]) -> None:
    process.run(["ip", "link", "set", "lo", "up"], timeout=SECONDS)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    servers = []
    for address in addresses:
        process.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], timeout=SECONDS)
        servers.append(Server(context, {"/readyz": (200, "ok"), "/version": (200, address)}, (address, API_PORT)))
    balancer = subprocess.Popen(["haproxy", "-db", "-f", configuration], stdout=sys.stderr)
    try:
        poll(lambda: {ask(port) for _ in addresses} == set(addresses), within(), every=0.1)
        before = [ask(port) for _ in range(CONNECTIONS)]
        held = poll(lambda: connected(port, addresses[0]), within(), every=0.1)
        assert held is not None
        kept = go(servers[0], addresses[0], way)
        after = ask_all_the_time(port)
        cut = poll(lambda: request(held) != addresses[0], within(), every=0.1)
        for each in kept:
            each.close()
    finally:
        balancer.terminate()
        balancer.wait()
    json.dump({"before": before, "after": after, "cut": bool(cut)}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5:])
