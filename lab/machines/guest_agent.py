"""A libvirt guest's agent: it runs a command without a login, which alone takes a slow guest seconds.

Source: libvirt.org, virDomainQemuAgentCommand; QEMU, qga/qapi-schema.json, guest-exec.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lab.errors import ProgramTimeout
from lab.machines.connection import library
from lab.process import Completed

if TYPE_CHECKING:
    import libvirt

# How long the agent itself may take to answer; what it has started takes as long as it takes.
ANSWER_SECONDS = 10
POLL_SECONDS = 0.1
# So long after a machine has come back libvirt may not know yet that the agent in it is there.
CONNECT_SECONDS = 3.0

T = TypeVar("T")


def run(
    domain: libvirt.virDomain,
    command: Sequence[str],
    timeout: float,
    *,
    ask: Callable[[libvirt.virDomain, str, int, int], str] | None = None,
) -> Completed | None:
    """Run a command as root and wait for its end.

    Args:
        domain: the guest's.
        command: program and arguments.
        timeout: seconds it may take.
        ask: puts a question to the agent; libvirt's way of it when left out.

    Returns:
        How it ended; None where no agent runs it, or none tells how it ended: it may have run then.

    Raises:
        ProgramTimeout: it did not end in time.
    """
    library_ = library()
    put = ask or _ask

    def told(execute: str, **arguments: Any) -> Any:
        text = put(domain, json.dumps({"execute": execute, "arguments": arguments}), ANSWER_SECONDS, 0)
        return json.loads(text)["return"]

    until = time.monotonic() + timeout
    try:
        wanted = {"path": command[0], "arg": list(command[1:]), "capture-output": True}
        pid = patiently(lambda: told("guest-exec", **wanted))["pid"]
        while not (status := told("guest-exec-status", pid=pid))["exited"]:
            if time.monotonic() > until:
                raise ProgramTimeout(f"{command[0]} in {domain.name()} did not end within {timeout:g} s")
            time.sleep(POLL_SECONDS)
    except (library_.libvirtError, ValueError, LookupError, TypeError):
        return None
    # One that a signal ended has no exit code.
    code = status.get("exitcode", -status.get("signal", 1))
    return Completed(tuple(command), code, _text(status, "out-data"), _text(status, "err-data"))


def patiently(ask: Callable[[], T]) -> T:
    """What an agent answers, asked again for a moment while it does not seem to be there.

    Raises:
        libvirtError: it is not there, or refuses.
    """
    library_ = library()
    until = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return ask()
        except library_.libvirtError as error:
            if error.get_error_code() != library_.VIR_ERR_AGENT_UNRESPONSIVE or time.monotonic() > until:
                raise
        time.sleep(POLL_SECONDS)


def _ask(domain: libvirt.virDomain, question: str, seconds: int, flags: int) -> str:
    import libvirt_qemu

    return str(libvirt_qemu.qemuAgentCommand(domain, question, seconds, flags))


def _text(status: dict[str, str], name: str) -> str:
    return base64.b64decode(status.get(name, "")).decode("utf-8", "replace")
