"""klab connect"""

from __future__ import annotations

import sys

import click

from lab.errors import UsageError

SSH_PORT = 22


@click.command()
@click.argument("lab")
@click.argument("node")
@click.argument("port", type=click.IntRange(1, 65535), default=SSH_PORT)
def command(lab: str, node: str, port: int) -> None:
    """Connect standard input and output to a TCP port of a node; port 22 unless told otherwise.

    Made to be ssh's ProxyCommand: it goes into klab's private libvirt first, where there is
    one. `klab inventory --format ssh` writes a configuration that uses it.

    It ends when both ends have closed: the end of standard input is passed on to the node,
    and what the node still sends comes out. Exit code 8 when nothing listens there, or when
    the connection is cut.

    \b
    Examples:
      klab connect 1m2w cp1 </dev/null
      printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' | klab connect 1m2w w1 10256
    """
    from lab.app.connect import connected, relay
    from lab.app.labs import Labs
    from lab.cli.app import EXIT_BROKEN_PIPE
    from lab.cli.terminal.output import note

    # With one of them closed, its number would be the next file's that klab opens.
    if sys.stdin is None or sys.stdout is None:
        raise UsageError(
            "klab connect needs standard input and output",
            hint="</dev/null is an empty input, >/dev/null drops what comes",
        )
    found = Labs().find(lab)
    place = found.plan.known(node)
    with connected(found, place, port, note=note) as channel:
        try:
            relay(channel, sys.stdin.fileno(), sys.stdout.fileno(), f"{place.name} port {port}")
        except BrokenPipeError:
            sys.exit(EXIT_BROKEN_PIPE)
