"""Commands through a guest's agent: how they ended, or that nobody can tell."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any, cast

import libvirt
import libvirt_qemu
import pytest

from lab.errors import ProgramTimeout
from lab.machines.libvirt import guest_agent


class Agent:
    """Answers as QEMU's agent does; `waits` is how often a command has not ended yet."""

    def __init__(self, ended: dict[str, Any] | None = None, *, waits: int = 0) -> None:
        self.ended = ended if ended is not None else {"exitcode": 0}
        self.waits = waits
        self.asked: list[dict[str, Any]] = []

    def name(self) -> str:
        return "klab-demo_cp1"

    def ask(self, _domain: object, question: str, _seconds: int, _flags: int) -> str:
        asked = json.loads(question)
        self.asked.append(asked)
        if asked["execute"] == "guest-exec":
            return json.dumps({"return": {"pid": 7}})
        assert asked == {"execute": "guest-exec-status", "arguments": {"pid": 7}}
        self.waits -= 1
        return json.dumps({"return": {"exited": self.waits < 0, **(self.ended if self.waits < 0 else {})}})

    def run(self, *command: str, timeout: float = 10, ask: Callable[..., str] | None = None) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(libvirt_qemu, "qemuAgentCommand", ask or self.ask)
            return guest_agent.run(cast(Any, self), command, timeout)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_agent, "POLL_SECONDS", 0.001)


def test_a_command_runs_to_its_end() -> None:
    told = {"exitcode": 3, "out-data": b64encode("grün\n".encode()).decode(), "err-data": b64encode(b"no").decode()}
    agent = Agent(told, waits=2)
    done = agent.run("busybox", "nslookup", "a b")
    assert (done.argv, done.code, done.stdout, done.stderr) == (("busybox", "nslookup", "a b"), 3, "grün\n", "no")
    arguments = {"path": "busybox", "arg": ["nslookup", "a b"], "capture-output": True}
    assert agent.asked[0] == {"execute": "guest-exec", "arguments": arguments}
    assert len(agent.asked) == 4


def test_one_that_a_signal_ended_has_failed() -> None:
    assert Agent({"signal": 9}).run("sleep").code == -9


def test_one_that_does_not_end_in_time_is_given_up() -> None:
    with pytest.raises(ProgramTimeout, match=r"sleep in klab-demo_cp1 did not end within 0\.01 s"):
        Agent(waits=1_000_000).run("sleep", timeout=0.01)


@pytest.mark.parametrize("answer", ["", "{}", "[]", '{"return": {}}', '{"return": null}', None])
def test_an_agent_that_does_not_do_it_has_run_nothing(answer: str | None) -> None:
    def ask(*_: object) -> str:
        if answer is None:
            raise libvirt.libvirtError("Guest agent is not responding")
        return answer

    assert Agent().run("true", ask=ask) is None


class Unresponsive(libvirt.libvirtError):
    def get_error_code(self) -> int:
        return int(libvirt.VIR_ERR_AGENT_UNRESPONSIVE)


def test_one_that_is_not_there_yet_is_asked_again() -> None:
    agent, silent = Agent(), [1, 2, 3]

    def ask(*words: Any) -> str:
        if silent:
            silent.pop()
            raise Unresponsive("QEMU guest agent is not connected")
        return agent.ask(*words)

    assert agent.run("true", ask=ask) is not None
    assert silent == []


@pytest.mark.parametrize("error", [libvirt.libvirtError, Unresponsive])
def test_one_that_does_not_come_is_given_up(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_agent, "CONNECT_SECONDS", 0.01)
    asked = []

    def ask() -> None:
        asked.append(1)
        raise error("QEMU guest agent is not connected")

    with pytest.raises(error):
        guest_agent.patiently(ask)
    assert (len(asked) > 1) == (error is Unresponsive)


@pytest.mark.parametrize(
    "ended",
    [
        *({"exitcode": 0, "out-data": data} for data in (1, None, [], "not base64!", "\u00fc", "A")),
        *({"exitcode": code} for code in ("0", None, [], 1.5, True)),
        *({"signal": sign} for sign in ("9", None, [])),
    ],
)
def test_an_answer_of_another_shape_is_none(ended: dict[str, Any]) -> None:
    assert Agent(ended).run("true") is None


@pytest.mark.parametrize("answer", ["", "[]", "1", '{"return": 1}', '{"return": {"exited": 1}}', '{"return": [1]}'])
def test_an_agent_that_is_none(answer: str) -> None:
    assert Agent().run("true", ask=lambda *_: answer) is None
