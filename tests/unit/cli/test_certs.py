"""klab certs, as a person meets it; what it finds and does is tested with lab.cluster."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.cluster.acts import certificates
from lab.cluster.acts.certificates import Renewed
from lab.cluster.lab import Lab
from lab.cluster.observe import validity
from lab.cluster.observe.validity import Entry, Survey
from lab.errors import ClusterError
from lab.plan.decide import decide
from lab.plan.file import to_json
from lab.plan.model import Plan
from lab.scenario.catalog import Catalog
from lab.scenario.parser import parse_scenario
from lab.store import Home, Record

CLOCK = datetime.datetime(2027, 5, 4, 12, tzinfo=datetime.UTC)
Klab = Callable[..., tuple[str, str]]


@pytest.fixture
def make_lab(home: Path, catalog: Catalog) -> Callable[..., Plan]:
    def make(name: str = "demo", bootstrap: str = "full") -> Plan:
        text = f"version: 1\nname: demo\nbootstrap: {bootstrap}\n"
        plan = decide(parse_scenario(text, catalog), catalog, name=name)
        folder = Home(home).lab(name)
        folder.path.mkdir(parents=True)
        (folder.path / "plan.json").write_text(to_json(plan))
        folder.write_record(Record("id", name, "fake", "box", 0, "ready", 1.7e9))
        return plan

    return make


def entry(days: float | None, node: str = "cp1", error: str = "") -> Entry:
    expires = None if days is None else CLOCK + datetime.timedelta(days=days)
    return Entry(node, "/etc/kubernetes/pki/apiserver.crt", "API server, to its clients", expires, days, error)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Lets there be these certificates; returns the names of the labs that were looked at."""

    def seen(*entries: Entry, unseen: tuple[str, ...] = ()) -> list[str]:
        looked: list[str] = []

        def survey(folder: Any, plan: Plan, *_: object, **__: object) -> Survey:
            looked.append(plan.name)
            return Survey(CLOCK, entries, unseen)

        monkeypatch.setattr(validity, "survey", survey)
        monkeypatch.setattr("lab.cluster.lab.Lab.machines", lambda *_: None)
        return looked

    return seen


def test_what_there_is_is_shown(klab: Klab, make_lab: Callable[..., Plan], seen: Callable[..., list[str]]) -> None:
    make_lab()
    seen(entry(364.6), entry(None, "w1", "connection refused"), entry(3000, ""), unseen=("w2: its machine is stopped",))
    out, _ = klab("certs")
    assert out.splitlines() == [
        "NODE          WHERE                              WHAT FOR                    LEFT",
        "cp1           /etc/kubernetes/pki/apiserver.crt  API server, to its clients  365 days",
        "w1            /etc/kubernetes/pki/apiserver.crt  API server, to its clients  not seen: connection refused",
        "this machine  /etc/kubernetes/pki/apiserver.crt  API server, to its clients  3000 days",
        "not seen: w2: its machine is stopped",
        "it is 2027-05-04 by the guests' clocks; the first certificate expires on 2028-05-03",
    ]


def test_what_has_expired_is_said_with_what_repairs_it(
    klab: Klab, make_lab: Callable[..., Plan], seen: Callable[..., list[str]]
) -> None:
    make_lab()
    seen(entry(-35.2), entry(300))
    out, _ = klab("certs", code=9)
    assert "EXPIRED 35 days ago" in out
    assert out.endswith("; 1 certificate has expired: klab certs renew demo renews them all\n")
    seen(entry(-35.2), entry(-1))
    assert "2 certificates have expired" in klab("certs", code=9)[0]
    seen(entry(None, error="x"))
    assert "no certificate could be seen" in klab("certs")[0]


def test_as_json(klab: Klab, make_lab: Callable[..., Plan], seen: Callable[..., list[str]]) -> None:
    make_lab()
    seen(entry(-35.2), entry(None, error="connection refused"), unseen=("w1: off",))
    found = json.loads(klab("certs", "--json", code=9)[0])
    assert (found["lab"], found["guest_time"], found["unseen"]) == ("demo", "2027-05-04T12:00:00+00:00", ["w1: off"])
    assert found["certificates"] == [
        {
            "node": "cp1",
            "where": "/etc/kubernetes/pki/apiserver.crt",
            "use": "API server, to its clients",
            "expires": "2027-03-30T07:12:00+00:00",
            "days": -35.2,
            "error": "",
        },
        {
            "node": "cp1",
            "where": "/etc/kubernetes/pki/apiserver.crt",
            "use": "API server, to its clients",
            "expires": None,
            "days": None,
            "error": "connection refused",
        },
    ]


def test_show_may_be_left_out(klab: Klab, make_lab: Callable[..., Plan], seen: Callable[..., list[str]]) -> None:
    for name in ("one", "two", "renew"):
        make_lab(name)
    looked = seen(entry(300))
    for words in (
        ["two"],
        ["two", "--json"],
        ["--json", "two"],
        ["show", "two"],
        ["--debug", "two"],
        ["show", "renew"],
    ):
        klab("certs", *words)
    assert looked == ["two"] * 5 + ["renew"]
    _, err = klab("certs", code=4)
    assert "more than one lab" in err
    _, err = klab("certs", "none", code=3)
    assert "no lab called 'none'" in err


def test_help_names_both(klab: Klab) -> None:
    for words in (["--help"], ["-h"]):
        out, _ = klab("certs", *words)
        assert "\n  renew  " in out
        assert "\n  show   " in out


def test_a_students_cluster_is_left_to_the_student(klab: Klab, make_lab: Callable[..., Plan]) -> None:
    make_lab(bootstrap="prepared")
    _, err = klab("certs", code=2)
    assert "kubeadm certs check-expiration" in err
    _, err = klab("certs", "renew", code=2)
    assert "kubeadm certs renew all" in err


@pytest.fixture
def renews(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Lab]]:
    """Lets a renewal end so; returns what was asked for."""

    def renews(error: BaseException | None = None, **result: Any) -> list[Lab]:
        asked: list[Lab] = []
        until = CLOCK + datetime.timedelta(days=365)
        done = {"nodes": ("cp1", "w1"), "off": (), "left": (), "until": until, "lost_quorum": False, "seconds": 83.0}

        def renew(renewal: Lab) -> Renewed:
            asked.append(renewal)
            if error is not None:
                raise error
            return Renewed(**{**done, **result})

        monkeypatch.setattr(certificates, "renew", renew)
        return asked

    return renews


def test_a_renewal_says_where_and_until_when(
    klab: Klab, make_lab: Callable[..., Plan], renews: Callable[..., list[Lab]]
) -> None:
    make_lab()
    asked = renews()
    out, err = klab("certs", "renew", "demo", "--timeout", "20m")
    assert (out, err) == ("", "demo: new certificates on cp1, w1 after 1:23, which hold until 2028-05-03\n")
    assert (asked[0].plan.name, asked[0].timeout) == ("demo", 1200)


def test_what_was_left_out_is_said(klab: Klab, make_lab: Callable[..., Plan], renews: Callable[..., list[Lab]]) -> None:
    make_lab()
    renews(nodes=("cp1",), off=("cp2", "cp3"), left=("cp1: /etc/kubernetes/admin.conf is missing",), lost_quorum=True)
    _, err = klab("certs", "renew")
    assert err.splitlines()[1:] == [
        "left as it was: cp1: /etc/kubernetes/admin.conf is missing",
        "cp2, cp3 are off and left out: when they run, klab certs renew demo again",
        "too few control planes run for etcd's quorum, so the API server cannot answer: "
        "klab start demo starts the others",
    ]
    renews(off=("w1",))
    assert "w1 is off and left out: when it runs, klab certs renew demo again" in klab("certs", "renew")[1]


def test_a_renewal_as_json(klab: Klab, make_lab: Callable[..., Plan], renews: Callable[..., list[Lab]]) -> None:
    make_lab()
    renews(off=("w2",))
    assert json.loads(klab("certs", "renew", "--json")[0]) == {
        "lab": "demo",
        "renewed": ["cp1", "w1"],
        "off": ["w2"],
        "left": [],
        "lost_quorum": False,
        "until": "2028-05-03T12:00:00+00:00",
        "seconds": 83.0,
    }


def test_a_renewal_that_fails_or_is_stopped(
    klab: Klab, make_lab: Callable[..., Plan], renews: Callable[..., list[Lab]]
) -> None:
    make_lab()
    renews(ClusterError("w1 cannot", details=["exit code 4"], hint="again"))
    assert klab("certs", "renew", code=9)[1] == "error: w1 cannot\n  exit code 4\nhint: again\n"
    renews(KeyboardInterrupt())
    _, err = klab("certs", "renew", code=130)
    assert err == "error: stopped half-way\nhint: run the same command again to continue\n"


@pytest.mark.parametrize(("context", "told"), [("klab-demo", True), ('"klab-demo"', True), ("klab-demo2", False)])
def test_a_kubeconfig_that_the_labs_was_merged_into_is_named(
    klab: Klab, make_lab: Callable[..., Plan], renews: Callable[..., list[Lab]], context: str, told: bool
) -> None:
    make_lab()
    renews()
    file = Path.home() / ".kube" / "config"
    file.parent.mkdir(parents=True)
    file.write_text(f"users:\n- name: {context}\n  user: {{}}\n")
    _, err = klab("certs", "renew")
    assert (f"{file} has the lab's old certificate: klab kubeconfig demo --merge" in err) is told


def test_completion_offers_the_subcommands_and_the_labs(make_lab: Callable[..., Plan], home: Path) -> None:
    make_lab()

    def offered(*words: str) -> list[str]:
        env = {
            "KLAB_HOME": str(home),
            "_KLAB_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["klab", "certs", *words]),
            "COMP_CWORD": str(1 + max(1, len(words))),
        }
        done = subprocess.run([sys.executable, "-m", "lab.cli.main"], env=env, capture_output=True, text=True)
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert offered() == ["renew", "show"]
    assert offered("renew", "d") == ["demo"]
