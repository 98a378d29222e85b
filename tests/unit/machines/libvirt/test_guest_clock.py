"""Setting a guest's clock: forward only, by its agent where that can, else by what the caller does over ssh."""

from __future__ import annotations

from dataclasses import dataclass, field

import libvirt
import pytest

from lab.errors import MachineError
from lab.machines import ssh_clock
from lab.machines.libvirt import guest_clock
from lab.machines.libvirt.connection import library
from lab.process import Completed

NOW = 2_000_000_000.25


@dataclass
class Guest:
    """A domain whose agent sets the clock (or not), and a shell that does."""

    shows: float
    agent: bool = True
    sets: bool = True
    works: bool = True
    ran: list[list[str]] = field(default_factory=list)

    def agentSetResponseTimeout(self, _seconds: int) -> None:  # noqa: N802 - libvirt's name
        if not self.agent:
            raise libvirt.libvirtError("Guest agent is not responding")

    def getTime(self) -> dict[str, int]:  # noqa: N802
        return {"seconds": int(self.shows), "nseconds": int(self.shows % 1 * 1e9)}

    def setTime(self, told: dict[str, int]) -> None:  # noqa: N802
        if self.sets:
            self.shows = told["seconds"] + told["nseconds"] / 1e9
        if not self.works:
            raise libvirt.libvirtError("hwclock failed")

    def run(self, words: list[str]) -> Completed:
        self.ran.append(words)
        if words != ssh_clock.SHOW:
            self.shows = float(words[-1].removeprefix("@"))
        return Completed(tuple(words), 0, f"{int(self.shows)}\n", "")


@pytest.fixture(autouse=True)
def quiet() -> None:
    library()


def test_the_agent_sets_it_forward() -> None:
    guest = Guest(NOW - 5000)
    assert guest_clock.through_agent(guest, lambda: NOW) == pytest.approx(5000)
    assert guest.shows == pytest.approx(NOW)


@pytest.mark.parametrize("shows", [NOW, NOW - 0.05, NOW + 1000])
def test_one_that_is_right_or_ahead_is_left(shows: float) -> None:
    guest = Guest(shows)
    assert guest_clock.through_agent(guest, lambda: NOW) == 0
    assert guest.shows == shows
    assert ssh_clock.set_clock(guest.run, lambda: NOW) == 0
    assert guest.shows == shows


def test_an_agent_that_cannot_set_the_hardwares_clock_has_set_the_systems() -> None:
    guest = Guest(NOW - 5000, works=False)
    assert guest_clock.through_agent(guest, lambda: NOW) == pytest.approx(5000)


def test_no_agent_or_one_that_does_not_do_it() -> None:
    assert guest_clock.through_agent(Guest(NOW - 5000, agent=False), lambda: NOW) is None
    assert guest_clock.through_agent(Guest(NOW - 5000, sets=False, works=False), lambda: NOW) is None


def test_over_ssh_to_the_second() -> None:
    guest = Guest(NOW - 5000)
    assert ssh_clock.set_clock(guest.run, lambda: NOW) == pytest.approx(5000, abs=1)
    assert guest.shows == int(NOW)
    assert guest.ran == [["date", "+%s"], ["sudo", "date", "-s", f"@{int(NOW)}"]]


def test_a_node_that_talks_before_it_answers_is_named_as_such() -> None:
    with pytest.raises(MachineError, match="did not report its clock") as caught:
        ssh_clock.set_clock(lambda words: Completed(tuple(words), 0, "Welcome!\n2000000000\n", ""), lambda: NOW)
    assert "Welcome!" in caught.value.details[0]


@pytest.mark.parametrize("text", ["", "\u00b2", "\u0663", "nan", "-1", "1e9"])
def test_a_clock_that_no_date_prints(text: str) -> None:
    with pytest.raises(MachineError, match="did not report its clock"):
        ssh_clock.set_clock(lambda words: Completed(tuple(words), 0, text, ""), lambda: NOW)
