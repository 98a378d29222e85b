"""The acts as lists of steps, and the loop that runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.cluster_server import refusing
from support.fake_lab import lab_on_disk, opener

from lab.cluster.acts import create
from lab.cluster.acts.apply import NEW_SCHEMA_ROUNDS
from lab.cluster.acts.power import start_steps
from lab.cluster.acts.steps import Context, Step, apply_step, run_steps
from lab.cluster.clients.api import UnreachableError
from lab.cluster.events import Event, read_events
from lab.cluster.lab import Lab
from lab.cluster.wait.watch import Watch
from lab.errors import ClusterError
from lab.scenario.model import Bootstrap
from lab.store import Home
from lab.waiting import Deadline

pytestmark = pytest.mark.usefixtures("quick_watch")

CLUSTER = [
    "the API server answers",
    "pod network",
    "every node is Ready",
    "system pods are ready",
    "every kubelet answers",
    "every etcd member is healthy",
    "cluster DNS answers on every node",
    "the lab's images are on every node",
    "add-ons",
]
SECRETS, STARTED, ANSWERS = "the lab's secrets are there", "the machines are started", "every machine answers"
SEEDS = "the seeds are deleted"


class Run:
    """A lab on which steps are run, and the events of that."""

    def __init__(self, home: Home, bootstrap: Bootstrap = "full", **more: Any) -> None:
        self.events: list[Event] = []
        folder, plan = lab_on_disk(home, control_planes=3, workers=1, bootstrap=bootstrap)
        lab = Lab(home, folder, plan, opener(), 20, self.events.append, reach=refusing)
        machines = lab.machines()
        watch = Watch(folder, plan, machines, lab.journal(), Deadline.after(20))
        self.plan = plan
        self.done: list[str] = []
        self.context = Context.of(lab, lab.record, machines, watch, **more)

    def step(self, name: str, **more: Any) -> Step:
        return Step(name, lambda _context: self.done.append(name), **more)

    @property
    def told(self) -> list[tuple[str, str, str]]:
        return [(e.phase, e.state, e.text) for e in self.events]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(Home(tmp_path))


def names(steps: list[Step]) -> list[str]:
    return [step.name for step in steps]


def test_a_lab_is_made_by_these_steps(run: Run) -> None:
    first = names(create.steps_for("creating", run.plan))
    boot = "every node has finished its first boot"
    assert first == [SECRETS, "every node has its seed", STARTED, *CLUSTER, boot, ANSWERS, SEEDS]


def test_a_lab_that_was_ready_is_asked_before_it_is_waited_for(run: Run) -> None:
    again = names(create.steps_for("ready", run.plan))
    looks = ["every node has a machine", STARTED, ANSWERS, "no certificate has expired"]
    assert again == [SECRETS, *looks, *CLUSTER, ANSWERS, SEEDS]


def test_a_start_waits_for_leases_and_applies_nothing(run: Run) -> None:
    applied = {"pod network", "the lab's images are on every node", "add-ons"}
    ready = [name for name in CLUSTER if name not in applied]
    ready.insert(1, "every node's lease is renewed")
    assert names(start_steps(run.plan, ["cp1"])) == [STARTED, "no certificate has expired", *ready]


def test_nodes_on_which_the_student_runs_kubeadm_get_images_when_they_answer(tmp_path: Path) -> None:
    plan = Run(Home(tmp_path), "prepared").plan
    for phase in ("creating", "ready"):
        assert names(create.steps_for(phase, plan))[-3:] == [ANSWERS, "the lab's images are on every node", SEEDS]


def test_without_a_cluster_no_step_asks_one(tmp_path: Path) -> None:
    plan = Run(Home(tmp_path), "none").plan
    assert not set(CLUSTER) & {*names(create.steps_for("creating", plan)), *names(start_steps(plan, ["cp1"]))}


def test_steps_run_in_order_and_those_that_are_told_are_noted(run: Run) -> None:
    run_steps([run.step("one"), run.step("two", told=True), run.step("three", applies=lambda _: False)], run.context)
    assert run.done == ["one", "two"]
    assert run.told == [("two", "begin", ""), ("two", "done", "")]


def test_whether_a_step_applies_is_asked_when_its_turn_comes(run: Run) -> None:
    def find(context: Context) -> None:
        context.power_on = False

    run_steps([Step("find", find), run.step("start", applies=lambda context: context.power_on)], run.context)
    assert run.done == []


def test_the_step_that_failed_is_named_and_ends_the_list(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    monkeypatch.setattr(run.context.watch, "stop", lambda: stopped.append("stopped"))

    def fail(_context: Context) -> None:
        raise ClusterError("no more")

    with pytest.raises(ClusterError, match="no more"):
        run_steps([run.step("one", told=True), Step("two", fail, told=True), run.step("three", told=True)], run.context)
    assert run.done == ["one"]
    assert run.told[2:] == [("two", "begin", ""), ("two", "failed", "no more")]
    assert stopped == ["stopped"]


def test_ctrl_c_stops_what_is_being_started_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[str] = []
    monkeypatch.setattr(run.context.watch, "stop", lambda: stopped.append("stopped"))

    def interrupt(_context: Context) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_steps([Step("one", interrupt, told=True)], run.context)
    assert run.told == [("one", "begin", "")]
    assert stopped == ["stopped"]


class Refusing:
    """An API server that answers the first applications with these statuses, or messages with a status."""

    def __init__(self, *answers: int | tuple[int, str]) -> None:
        self.answers = [each if isinstance(each, tuple) else (each, "not now") for each in answers]
        self.asked: list[str] = []
        self.applied: list[str] = []

    def apply(self, manifest: dict[str, Any]) -> None:
        self.asked.append(manifest["kind"])
        if self.answers:
            status, message = self.answers.pop(0)
            if status != 200:
                raise UnreachableError(message, status=status)
        self.applied.append(manifest["kind"])


OBJECTS = [{"kind": kind, "metadata": {"name": "a"}} for kind in ("Namespace", "ConfigMap")]
MISFIT = (
    "PATCH /apis/apps/v1/namespaces/default/deployments/typo: 500 failed to create typed patch object "
    "(default/typo; apps/v1, Kind=Deployment): .spec.replica: field not declared in schema"
)
WEBHOOK = (
    '500 Internal error occurred: failed calling webhook "pools.lesson.example": failed to call webhook: '
    'Post "https://webhook.lesson.svc:443/pools": dial tcp 10.96.7.7:443: connect: connection refused'
)


def applied(run: Run, api: Refusing, objects: list[dict[str, Any]] = OBJECTS) -> list[str]:
    run.context.api = api  # type: ignore[assignment]
    run_steps([apply_step("add-ons", lambda _: objects), apply_step("nothing", lambda _: [])], run.context)
    return api.applied


def test_objects_are_applied_in_order(run: Run) -> None:
    api = Refusing()
    assert applied(run, api) == ["Namespace", "ConfigMap"]
    assert api.asked == ["Namespace", "ConfigMap"]
    assert run.told == [("add-ons", "begin", ""), ("add-ons", "done", "")]


@pytest.mark.parametrize("status", [0, 401, 403, 404, 409, 429, 500, 503])
def test_what_may_pass_is_waited_for_and_its_reason_is_told(status: int, run: Run) -> None:
    assert applied(run, Refusing(*[status] * 3)) in (["Namespace", "ConfigMap"], ["ConfigMap", "Namespace"])
    told = [text for _, state, text in run.told if state == "begin" and text]
    assert told[0] in {"Namespace a: not now", "Namespace a: not now, and 1 more"}
    kept = [each.state for each in read_events(run.context.lab.folder.events)]
    assert kept == ["begin", "done"], "what is missing is told, and no part of the journal"


def test_a_webhook_that_is_not_up_yet_is_waited_for_and_told(run: Run) -> None:
    assert applied(run, Refusing((500, WEBHOOK))) == ["ConfigMap", "Namespace"]
    assert ("add-ons", "begin", f"Namespace a: {WEBHOOK}") in run.told


def test_one_that_needs_a_later_one_comes_when_that_is_there(run: Run) -> None:
    """As an object before its Namespace, or before the definition of its kind."""
    api = Refusing((404, 'namespaces "a" not found'))
    assert applied(run, api, [OBJECTS[1], OBJECTS[0]]) == ["Namespace", "ConfigMap"]
    assert api.asked == ["ConfigMap", "Namespace", "ConfigMap"]


def test_where_nobody_answers_the_others_are_not_asked_for(run: Run) -> None:
    api = Refusing(0)
    applied(run, api)
    assert api.asked == ["Namespace", "Namespace", "ConfigMap"]


@pytest.mark.parametrize("answer", [(400, "bad"), (422, "spec.replicas: Invalid value"), (500, MISFIT)])
def test_a_manifest_that_is_wrong_is_not_tried_again(answer: tuple[int, str], run: Run) -> None:
    api = Refusing(answer)
    with pytest.raises(ClusterError, match=r"the API server refuses Namespace a \(add-ons\)") as caught:
        applied(run, api)
    assert api.asked == ["Namespace"]
    assert list(caught.value.details) == [answer[1]]
    assert "correct the manifest" in caught.value.hint
    assert not isinstance(caught.value, UnreachableError)


CUSTOM = [
    {
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "reds.lesson.example"},
        "spec": {"group": "lesson.example"},
    },
    {"apiVersion": "lesson.example/v1", "kind": "Red", "metadata": {"name": "one"}},
]


def test_a_schema_that_has_just_been_applied_is_given_some_rounds(run: Run) -> None:
    api = Refusing(200, *[(500, MISFIT)] * NEW_SCHEMA_ROUNDS)
    assert applied(run, api, CUSTOM) == ["CustomResourceDefinition", "Red"]
    with pytest.raises(ClusterError, match="the API server refuses Red one"):
        applied(run, Refusing(200, *[(500, MISFIT)] * (NEW_SCHEMA_ROUNDS + 1)), CUSTOM)


def test_a_kind_that_kubernetes_does_not_have_ends_the_wait(run: Run) -> None:
    class Unknowing(Refusing):
        def apply(self, manifest: dict[str, Any]) -> None:
            raise ClusterError("the cluster does not know the kind Deploymnet in apps/v1")

    with pytest.raises(ClusterError, match="does not know the kind"):
        applied(run, Unknowing())
