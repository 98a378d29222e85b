"""A libvirt guest's agent: it runs a command without a login, which alone takes a slow guest seconds.

Source: libvirt.org, virDomainQemuAgentCommand; QEMU, qga/qapi-schema.json, guest-exec.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity

from lab.errors import ProgramTimeout, Remedy
from lab.machines.libvirt.connection import library
from lab.process import Completed
from lab.waiting import Deadline, poll

if TYPE_CHECKING:
    import libvirt

# How long the agent itself may take to answer; what it has started takes as long as it takes.
ANSWER_SECONDS = 10
POLL_SECONDS = 0.1
# So long after a machine was restored libvirt may not know yet that the agent in it is there.
CONNECT_SECONDS = 3.0

T = TypeVar("T")


def run(domain: libvirt.virDomain, command: Sequence[str], timeout: float) -> Completed | None:
    """Run a command as root and wait for its end.

    Args:
        domain: the guest's.
        command: program and arguments.
        timeout: seconds it may take.

    Returns:
        How it ended; None where no agent runs it, or none tells how it ended: it may have run then.

    Raises:
        ProgramTimeout: it did not end in time.
    """

    def ended() -> dict[str, Any] | None:
        status: dict[str, Any] = _told(domain, "guest-exec-status", {"pid": pid})
        return status if status["exited"] else None

    wanted = {"path": command[0], "arg": list(command[1:]), "capture-output": True}
    try:
        pid = patiently(lambda: _told(domain, "guest-exec", wanted))["pid"]
        status = poll(ended, Deadline.after(timeout), every=POLL_SECONDS)
        done = None if status is None else _completed(command, status)
    # All but the first: who answers is the guest, which may answer anything.
    except (library().libvirtError, ValueError, LookupError, TypeError, AttributeError):
        return None
    if done is None:
        raise ProgramTimeout(
            f"{command[0]} in {domain.name()} did not end within {timeout:g} s",
            hint=(Remedy("doctor"), " shows what is wrong with the node"),
        )
    return done


def _completed(command: Sequence[str], status: dict[str, Any]) -> Completed:
    """How a command ended.

    Raises:
        ValueError, TypeError, AttributeError: the agent does not say it as its protocol has it.
    """
    # One that a signal ended has no exit code.
    code = status.get("exitcode", -status.get("signal", 1))
    if type(code) is not int:
        raise ValueError("an exit code is a number")
    return Completed(tuple(command), code, _text(status, "out-data"), _text(status, "err-data"))


def patiently(ask: Callable[[], T]) -> T:
    """What an agent answers, asked again for a moment while it does not seem to be there.

    Raises:
        libvirtError: it is not there, or refuses.
    """
    library_ = library()

    def away(error: BaseException) -> bool:
        unresponsive = library_.VIR_ERR_AGENT_UNRESPONSIVE
        return isinstance(error, library_.libvirtError) and error.get_error_code() == unresponsive

    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception(away),
        stop=tenacity.stop_after_delay(CONNECT_SECONDS),
        wait=tenacity.wait_fixed(POLL_SECONDS),
        reraise=True,
    )
    return retry(ask)


def _told(domain: libvirt.virDomain, execute: str, arguments: dict[str, Any]) -> Any:
    """What the agent returns for one command of its protocol."""
    import libvirt_qemu

    question = json.dumps({"execute": execute, "arguments": arguments})
    return json.loads(libvirt_qemu.qemuAgentCommand(domain, question, ANSWER_SECONDS, 0))["return"]


def _text(status: dict[str, str], name: str) -> str:
    return base64.b64decode(status.get(name, "")).decode("utf-8", "replace")
