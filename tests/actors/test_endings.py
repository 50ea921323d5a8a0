"""Changes that meet something in the way, and must come to an end all the same: the right one."""

from __future__ import annotations

import gevent.event
import pytest
from msgspec.structs import replace

from ndactors.actors.config import ConfigActor
from ndactors.core.model import Deploy, Process, SecretRef, Settings
from ndactors.errors import StateError
from ndactors.messages.operations import (
    CancelOperation,
    DeployApp,
    Origin,
    RefreshApp,
    ReserveOperation,
    RollbackApp,
    ScaleApp,
    StopApp,
)
from ndactors.messages.projects import Bundle, DeployProject
from ndactors.ports import CheckedProject
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Backoff, Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref


@pytest.fixture
def done(until):
    def wait(d, id: str):
        until(lambda: d.operation(id).state != "running")
        return d.operation(id)

    return wait


def idle(d) -> bool:
    return all(o.state != "running" for o in d.operations())


def test_a_release_process_may_be_called_as_it_likes(daemon, make_app, until):
    app = make_app()
    migrate = Process(name="run-migrations", command="x", schedule="@deploy")
    d = daemon(replace(app, processes={**app.processes, "run-migrations": migrate}), settled=False)
    until(lambda: d.operations() and idle(d))
    assert d.operations()[0].state == "succeeded"


def test_many_refused_versions_do_not_hide_the_one_to_go_back_to(daemon, engine, make_app, until, done):
    d = daemon(make_app(replicas=1))
    until(lambda: idle(d))
    engine.exits_at_once.add("shop:2")
    for _ in range(21):
        assert done(d, d.begin(DeployApp(image="shop:2"))).state == "failed"
    engine.exits_at_once.clear()
    assert done(d, d.begin(DeployApp(image="shop:2"))).state == "succeeded"
    assert [r.state for r in d.revisions() if r.state != "refused"] == ["current", "former"]
    assert done(d, d.begin(RollbackApp())).state == "succeeded"


def test_another_projects_deploy_does_not_end_a_count(daemon, engine, make_app, until, done, monkeypatch):
    monkeypatch.setattr("ndactors.actors.deploy_end.AFTER_SECONDS", 0.3)
    d = daemon(make_app())
    until(lambda: idle(d))
    d.hooks.clear()
    id = d.begin(DeployApp(image="shop:2"))
    until(lambda: any(step.name == "receipt" for step in d.operation(id).steps))
    d.apply(make_app(), make_app(name="other"))
    operation = done(d, id)
    assert (operation.state, operation.receipt is not None) == ("succeeded", True)
    until(lambda: [hook.event for hook in d.hooks if hook.app == "shop"] == ["deploy.succeeded"])
    assert d.app().revision == 2


def test_a_diagnosis_that_comes_late_is_nobodys(daemon, engine, make_app, until, done):
    d = daemon(make_app())
    until(lambda: idle(d))
    engine.exits_at_once.add("shop:2")
    engine.images.add("shop:3")
    gate, asked = gevent.event.Event(), gevent.event.Event()

    def slow(container, lines):
        asked.set()
        gate.wait()
        return []

    engine.output = slow
    id = d.begin(DeployApp(image="shop:2"))
    assert asked.wait(5)
    d.refs.operations.ask(CancelOperation(id=id))
    assert done(d, id).state == "cancelled"
    d.prober.failing.update({f"10.0.0.{n}": "not yet" for n in range(3, 30)})
    id = d.begin(DeployApp(image="shop:3"))
    until(lambda: any(status.image == "shop:3" for status in engine.now.values()))
    gate.set()
    gevent.sleep(0.05)
    d.prober.failing.clear()
    assert done(d, id).state == "succeeded"
    assert d.node("deploy:shop").restarts == 0


def test_what_was_cancelled_before_its_switch_does_not_come_back(daemon, engine, make_app, until, done):
    migrate = Process(name="migrate", command="x", schedule="@deploy")
    first, second = make_app(), make_app("shop:2")
    first, second = (replace(app, processes={**app.processes, "migrate": migrate}) for app in (first, second))
    d = daemon(first)
    until(lambda: idle(d))
    d.codes["migrate"] = None
    d.apply(second)
    until(lambda: any(step.name == "release migrate" for step in d.operations()[0].steps))
    id = d.operations()[0].id
    d.refs.operations.ask(CancelOperation(id=id))
    assert done(d, id).state == "cancelled"
    d.codes.clear()
    many = len(d.operations())
    d.apply(second, make_app(name="other"))
    until(lambda: d.app("other") is not None and idle(d))
    assert next(o for o in d.operations() if o.apps == ("shop",)).id == id
    assert len(d.operations()) == many + 1
    assert {status.image for name, status in engine.now.items() if "shop" in status.name} >= {"shop:1"}


def test_a_first_version_that_a_secret_brings_is_not_ended_by_others(daemon, engine, make_app, until, done):
    app = make_app(process={"secrets": (SecretRef(name="KEY", store_name="KEY"),)}, deploy=Deploy(timeout=60))
    d = daemon()
    d.apply(app, operation="from-client")
    until(lambda: d.app() is not None and d.app().state == "failed")
    d.secrets["KEY"] = "x"
    d.prober.failing.update({f"10.0.0.{n}": "not yet" for n in range(1, 60)})
    id = d.begin(RefreshApp())
    until(lambda: engine.now)
    d.apply(app, make_app(name="other"), operation="from-client")
    until(lambda: d.app("other") is not None)
    d.prober.failing.clear()
    assert done(d, id).state == "succeeded"
    assert len(d.backends()) == 2


def test_a_first_version_that_is_cancelled_goes(daemon, engine, make_app, until, done):
    d = daemon()
    d.prober.failing.update({f"10.0.0.{n}": "not yet" for n in range(1, 60)})
    d.apply(make_app(deploy=Deploy(timeout=60)))
    until(lambda: engine.now)
    id = d.operations()[0].id
    d.refs.operations.ask(CancelOperation(id=id))
    assert done(d, id).state == "cancelled"
    until(lambda: not engine.now)
    d.prober.failing.clear()
    assert done(d, d.begin(DeployApp())).state == "succeeded"
    assert len(d.backends()) == 2


def test_a_refusal_whose_answer_was_lost_is_told_again(daemon, engine, make_app, until, monkeypatch):
    from ndactors.actors.deploy import DeployActor

    engine.exits_at_once.add("shop:1")
    reached, real = gevent.event.Event(), DeployActor._refused

    def lost(self, message):
        reached.set()
        gevent.sleep(60)

    monkeypatch.setattr(DeployActor, "_refused", lost)
    d = daemon(make_app(), settled=False)
    assert reached.wait(5)
    d.kill()
    monkeypatch.setattr(DeployActor, "_refused", real)
    d = daemon(make_app(), settled=False)
    until(lambda: idle(d))
    assert d.operations()[-1].state == "failed"


@pytest.mark.parametrize("strategy", ["rolling", "recreate"])
def test_with_skew_what_stops_stops(daemon, engine, make_app, until, done, strategy):
    d = daemon(make_app(replicas=2, deploy=Deploy(skew=60, strategy=strategy)))
    until(lambda: idle(d))
    assert done(d, d.begin(DeployApp(image="shop:2"))).state == "succeeded"
    assert done(d, d.begin(ScaleApp(replicas=1))).state == "succeeded"
    until(lambda: sum(status.image == "shop:2" for status in engine.now.values()) == 1)
    assert done(d, d.begin(StopApp())).state == "succeeded"
    until(lambda: not any(status.image == "shop:2" for status in engine.now.values()))


def test_with_skew_a_refused_version_does_not_stay_aside(daemon, engine, make_app, until, done):
    d = daemon(make_app(deploy=Deploy(skew=60, timeout=0.4)))
    until(lambda: idle(d))
    d.prober.failing["10.0.0.4"] = "no"
    assert done(d, d.begin(DeployApp(image="shop:2"))).state == "failed"
    until(lambda: set(d.states()) == {"nd-shop-web-1-1", "nd-shop-web-1-2"})
    until(lambda: [(b.revision, b.role) for b in d.services["shop"].backends] == [(1, ""), (1, "")])


def test_what_a_change_needs_is_not_looked_for_while_old_images_go(daemon, make_app, until, done):
    d = daemon(make_app())
    until(lambda: idle(d))
    until(lambda: d.images.pruned)
    d.images.prunes.clear()
    done(d, d.begin(DeployApp(image="shop:2")))
    until(lambda: len(d.images.pruned) == 2)
    looked = len(d.images.found)
    id = d.begin(RollbackApp())
    until(lambda: any(step.name == "prepare" for step in d.operation(id).steps))
    gevent.sleep(0.05)
    assert len(d.images.found) == looked
    d.images.prunes.set()
    assert done(d, id).state == "succeeded"


def test_parts_that_are_over_stay_over_when_the_daemon_dies(daemon, make_app, until, done):
    slow = make_app("shop:2", deploy=Deploy(timeout=60))
    d = daemon(make_app(), make_app(name="b"))
    until(lambda: idle(d))
    d.prober.failing.update({f"10.0.0.{n}": "not yet" for n in range(5, 60)})
    heard: list = []
    d.refs.operations.tell(
        ReserveOperation(request=1, apps=("b", "shop"), project="p", origin=Origin(by="me"), reply_to=Told(heard))
    )
    until(lambda: heard)
    id = heard[0].operation
    d.apply(slow, make_app(name="b"), operation=id)
    until(lambda: d.operation(id).parts == {"b": "succeeded"})
    done(d, d.begin(StopApp(), app="b"))
    d.kill()
    d = daemon(slow, make_app(name="b"), settled=False)
    operation = done(d, id)
    assert (operation.state, operation.parts) == ("succeeded", {"b": "succeeded", "shop": "succeeded"})
    assert operation.reason.count("b: ") == 1


# -- projects --------------------------------------------------------------------------------------


class Told:
    """Somebody who waits for an answer."""

    def __init__(self, heard: list) -> None:
        self.tell = heard.append


class Texts:
    def observe(self) -> None: ...


class Source:
    """A project of the app shop; ``refuses`` is what accepting it raises."""

    def __init__(self, d, app, there=(), refuses=None) -> None:
        self.d, self.app, self.there, self.refuses = d, app, there, refuses

    def check(self, project, bundle, *, lay_out, only=None):
        return CheckedProject(apps={"shop": self.app}, folder="", digests={}, changed_files=frozenset())

    def judge(self, project, apps, only) -> None: ...

    def apps_of(self, project):
        return dict.fromkeys(self.there, self.app)

    def accept(self, project, checked, origin, gone) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.origin = origin
        self.d.settings = Settings(project="test", apps={"shop": self.app})

    def current(self):
        return self.d.settings

    def origins(self):
        return {"shop": self.origin}


@pytest.fixture
def config():
    made = []

    def start(d, source) -> Ref:
        ref = Ref("config")
        around = (source, Texts(), (d.refs.apps,), d.refs.events, d.refs.operations, lambda name: None)
        child = Child(ref, ConfigActor, *around, backoff=lambda: Backoff(0.001, 0.01))
        made.append(Root(Child(supervisor_ref("more"), Supervisor, [child], Strategy.ONE_FOR_ONE, Intensity(None))))
        assert made[-1].wait_started(5)
        return ref

    yield start
    for root in made:
        root.stop(5)


def test_a_deploy_that_removes_an_app_ends(daemon, make_app, until, done, config):
    d = daemon(make_app(), make_app(name="old"))
    until(lambda: idle(d))
    ref = config(d, Source(d, make_app("shop:2"), there=("shop", "old")))
    ask = DeployProject(project="p", bundle=Bundle(text=""), prune=True, origin=Origin(by="me"))
    answer = ref.ask(ask)
    operation = done(d, answer.operation)
    assert (operation.state, operation.apps) == ("succeeded", ("old", "shop"))


def test_a_deploy_that_cannot_be_written_down_holds_nothing_up(daemon, make_app, until, done, config):
    d = daemon(make_app())
    until(lambda: idle(d))
    ref = config(d, Source(d, make_app("shop:2"), refuses=StateError("the disk is full")))
    with pytest.raises(StateError, match="full"):
        ref.ask(DeployProject(project="p", bundle=Bundle(text=""), origin=Origin(by="me")))
    until(lambda: idle(d))
    assert (d.operations()[0].state, d.operations()[0].reason) == ("failed", "the disk is full")
    assert done(d, d.begin(DeployApp(image="shop:2"))).state == "succeeded"
