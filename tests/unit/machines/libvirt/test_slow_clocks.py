"""The slower clocks of machines: in whose definitions they are, and how their absence is noticed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from support.libvirt_host import Host

from lab.errors import HostError
from lab.guest_clock import GuestClock
from lab.machines.libvirt import slow_clocks
from lab.machines.libvirt.slow_clocks import SlowClocks, moment

LIBRARY = Path("/usr/lib/klab/slow_clock-1.so")
EPOCH = 1_700_000_000.0
QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
# As klab 0.1 defined a machine on an emulated host, shortened.
OLDER = """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>klab-demo_cp1</name>
  <devices><emulator>/root/.local/share/klab/bin/qemu-dilated</emulator><disk type='file'/></devices>
  <qemu:commandline><qemu:env name='KLAB_EPOCH' value='1.5'/><qemu:env name='KLAB_RATE' value='0.3'/></qemu:commandline>
</domain>"""


def slow(library: Path | None = LIBRARY) -> SlowClocks:
    return SlowClocks(library, GuestClock(EPOCH, 0.3))


def variables(xml: str) -> dict[str | None, str | None]:
    return {env.get("name"): env.get("value") for env in ElementTree.fromstring(xml).iter(f"{QEMU}env")}  # noqa: S314


def test_a_machine_of_an_older_klab_loses_the_script_and_keeps_its_timeline() -> None:
    fitted = slow().fitted(OLDER)
    assert variables(fitted) == {"KLAB_EPOCH": "1.5", "KLAB_RATE": "0.3", "LD_PRELOAD": str(LIBRARY)}
    assert "emulator" not in fitted
    assert "<disk" in fitted
    assert slow().fitted(fitted) == fitted, "once is enough"


def test_a_machine_with_another_klabs_library_gets_this_ones() -> None:
    newer = slow(Path("/usr/lib/klab/slow_clock-2.so")).fitted(slow().fitted(OLDER))
    assert variables(newer)["LD_PRELOAD"] == "/usr/lib/klab/slow_clock-2.so"
    assert newer.count("LD_PRELOAD") == 1


def test_another_emulator_is_a_persons_own_and_stays() -> None:
    own = OLDER.replace("/root/.local/share/klab/bin/qemu-dilated", "/opt/qemu/bin/qemu-system-x86_64")
    assert "/opt/qemu/bin/qemu-system-x86_64" in slow().fitted(own)


def test_in_real_time_nothing_is_touched() -> None:
    assert slow(None).fitted(OLDER) == OLDER


# --- what QEMU's clock shows ---------------------------------------------------------------------------------


def answer(seconds: float) -> str:
    """As QEMU 10.0 answers (recorded; hw/rtc/mc146818rtc.c)."""
    t = time.gmtime(seconds)
    told = {"tm_year": t.tm_year - 1900, "tm_mon": t.tm_mon - 1, "tm_mday": t.tm_mday}
    return json.dumps({"return": {**told, "tm_hour": t.tm_hour, "tm_min": t.tm_min, "tm_sec": t.tm_sec}})


def test_the_recorded_answer_is_the_moment_at_which_it_was_given() -> None:
    told = '{"return": {"tm_year": 126, "tm_sec": 7, "tm_hour": 15, "tm_min": 16, "tm_mon": 10, "tm_mday": 29}}'
    assert moment(told) == 1795965367.0
    assert moment(answer(EPOCH)) == EPOCH


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"return": 1}', '{"return": {"tm_year": 1e400}}', "[" * 100_000])
def test_any_other_answer_tells_nothing(text: str) -> None:
    assert moment(text) is None


@pytest.mark.parametrize("age", [30.0, 86400.0 * 365])
def test_a_machine_in_real_time_is_refused_and_a_slow_one_is_not(
    age: float, make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = {"cp1": make_host(cp1="running").domain("cp1")}
    shown = [0.0]
    monkeypatch.setattr(slow_clocks.time, "time", lambda: EPOCH + age)
    monkeypatch.setattr(slow_clocks, "_machine_time", lambda _domain: shown[0])
    shown[0] = EPOCH + age * 0.3 - 0.9  # whole seconds
    slow().check(domains)
    shown[0] = EPOCH + age - 0.9
    with pytest.raises(HostError, match="cp1 runs in real time") as caught:
        slow().check(domains)
    assert str(LIBRARY) in caught.value.details[0]
    slow(None).check(domains)


def test_what_cannot_be_told_is_not_refused(make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> None:
    domains: dict[str, Any] = {"cp1": make_host(cp1="running").domain("cp1")}
    monkeypatch.setattr(slow_clocks.time, "time", lambda: EPOCH + 1.0)
    monkeypatch.setattr(slow_clocks, "_machine_time", lambda _domain: EPOCH + 1.0)
    slow().check(domains)
    monkeypatch.setattr(slow_clocks.time, "time", lambda: EPOCH + 100.0)
    monkeypatch.setattr(slow_clocks, "_machine_time", lambda _domain: None)
    slow().check(domains)


def test_a_machine_that_is_off_is_defined_anew_and_one_that_runs_is_not(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="off", w1="running")
    defined: list[str] = []

    class Connection:
        def defineXML(self, xml: str) -> None:  # noqa: N802
            defined.append(xml)

    slow().fit(Connection(), {name: host.domain(name) for name in ("cp1", "w1")})  # type: ignore[arg-type]
    (xml,) = defined
    assert "klab-demo_cp1" in xml
    assert variables(xml) == {"LD_PRELOAD": str(LIBRARY)}
