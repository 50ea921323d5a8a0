"""Jobs over a scripted engine and a clock in our hands: started once, whatever dies in between, and their end told."""

from __future__ import annotations

import datetime
import time

import gevent
import msgspec
import pytest

from ndactors.actors import job as job_module
from ndactors.actors.inventory import InventoryActor
from ndactors.actors.job import JobsActor, JobsSurroundings
from ndactors.actors.job_work import LookDue
from ndactors.core.containers import ContainerSpec
from ndactors.core.model import App, Process
from ndactors.errors import EngineError, EngineUnreachable, Invalid
from ndactors.messages.containers import OrphansFound
from ndactors.messages.jobs import CancelJob, GetJobs, JobEnded, JobOutput, JobsChanged, JobSettings, RunJob
from ndactors.runtime.actor import Actor
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Backoff, Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()


class Heard(Actor):
    def __init__(self, heard: list) -> None:
        self._heard = heard

    def receive(self, message):
        self._heard.append(message)


class Records:
    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}

    def load(self, name, kind):
        return msgspec.json.decode(self.records[name], type=kind) if name in self.records else None

    def save(self, name, value):
        self.records[name] = msgspec.json.encode(value)

    def delete(self, name):
        self.records.pop(name, None)


class Outputs:
    """What each container printed, by its name."""

    def __init__(self) -> None:
        self.printed: dict[str, list[str]] = {}
        self.open_now = 0

    def open(self, container):
        self.open_now += 1
        return Reader(self, iter(self.printed.get(container.name, [])))


class Reader:
    def __init__(self, outputs, texts) -> None:
        self._outputs, self._texts = outputs, texts

    def read(self):
        gevent.sleep(0)
        return next(self._texts, "")

    def close(self):
        self._outputs.open_now -= 1


MIGRATE = Process(name="migrate", command=("migrate",), schedule="@deploy", stop_grace=1.0)
NIGHTLY = Process(name="nightly", command=("clean",), schedule="0 3 * * *", timeout=3600.0)
SHOP = App(name="shop", image="shop:1", processes={"web": Process(name="web"), "migrate": MIGRATE, "nightly": NIGHTLY})
RECORD = "jobs/shop@docker"


class World:
    """What outlives a daemon, and the daemons on it."""

    def __init__(self, engine) -> None:
        self.engine, self.state, self.outputs = engine, Records(), Outputs()
        self.clock = time.time()
        self.events: list = []
        self.specs: list[ContainerSpec] = []
        self.spec_error: Exception | None = None
        self.daemons: list[Daemon] = []
        change = engine._change
        # the engine's clock is ours too
        engine._change = lambda container, kind=None, **fields: change(
            container, kind, **{name: self.clock if name.endswith("ed_at") else value for name, value in fields.items()}
        )

    def daemon(self) -> Daemon:
        return Daemon(self)

    def make_spec(self, app, process, name, labels):
        if self.spec_error is not None:
            raise self.spec_error
        own = {"nextdeploy.app": app.name, "nextdeploy.daemon": "d1", **labels}
        spec = ContainerSpec(name=name, labels=own, image=app.image, command=process.command)
        self.specs.append(spec)
        return spec

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def count(self, verb: str) -> int:
        return sum(call[0] == verb for call in self.engine.calls)

    def container(self):
        (status,) = self.engine.now.values()
        return status


class Daemon:
    def __init__(self, world: World) -> None:
        self.world, self.heard, self.told, self.alive = world, [], [], True
        world.daemons.append(self)
        self.jobs, self.inventory = Ref("jobs:shop"), Ref("engine:docker")
        self.apps, self.events, self.deploy = Ref("apps"), Ref("events"), Ref("deploy:shop")
        around = JobsSurroundings(
            engine=world.engine,
            inventory=self.inventory,
            apps=self.apps,
            events=self.events,
            state=world.state,
            outputs=world.outputs,
            make_spec=world.make_spec,
            mask=lambda text: text.replace("hunter2", "********"),
            now=lambda: world.clock,
        )
        quick = {"backoff": lambda: Backoff(0.001, 0.01)}
        self.root = Root(
            Child(
                supervisor_ref("root"),
                Supervisor,
                [
                    Child(self.events, Heard, world.events),
                    Child(self.apps, Heard, self.told),
                    Child(self.deploy, Heard, self.heard),
                    Child(self.inventory, InventoryActor, world.engine, self.events, self.apps, Ref("logs"), **quick),
                    Child(self.jobs, JobsActor, "shop", around, **quick),
                ],
                Strategy.REST_FOR_ONE,
                Intensity(None),
            )
        )
        assert self.root.wait_started(5)

    def run(self, key: str = "migrate-7", kind="release", process=MIGRATE, operation="op1", timeout=None) -> None:
        self.jobs.tell(
            RunJob(
                key=key,
                process=process,
                app=SHOP,
                revision=7,
                kind=kind,
                operation=operation,
                timeout=timeout,
                reply_to=self.deploy,
            )
        )

    def settings(self, app: App | None = SHOP, revision: int = 7) -> None:
        self.jobs.tell(JobSettings(app=app, revision=revision))

    def cancel(self, key: str = "migrate-7") -> None:
        self.jobs.tell(CancelJob(key=key))

    def look(self, moment: str) -> None:
        self.world.clock = at(moment)
        self.jobs.tell(LookDue())

    @property
    def ends(self) -> list[JobEnded]:
        return [message for message in self.heard if isinstance(message, JobEnded)]

    @property
    def output(self) -> str:
        return "".join(message.text for message in self.heard if isinstance(message, JobOutput))

    def row(self):
        (row,) = self.jobs.ask(GetJobs())
        return row

    def idle(self) -> bool:
        changes = [message for message in self.told if isinstance(message, JobsChanged)]
        return bool(changes) and changes[-1].idle

    def kill(self) -> None:
        """As SIGKILL would."""
        supervisor = self.root._life.actor
        for slot in supervisor._slots:
            if slot.life is not None:
                slot.life.supervisor = None
                slot.life.kill()
        self.root._stopped = True
        self.root._life.kill()
        self.alive = False


@pytest.fixture
def world(engine, monkeypatch):
    monkeypatch.setattr(job_module, "ENGINE_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(job_module, "POLL_SECONDS", 0.005)
    made = World(engine)
    yield made
    for each in made.daemons:
        if each.alive:
            each.root.stop(10)


def running(world) -> bool:
    return any(status.state == "running" for status in world.engine.now.values())


# -- to the end ------------------------------------------------------------------------------------


def test_a_job_runs_and_its_output_and_end_are_told(world, until):
    daemon = world.daemon()
    daemon.run()
    until(lambda: running(world))
    (spec,) = world.specs
    assert spec.name.startswith("nd-shop-migrate-7-d")
    assert spec.labels["nextdeploy.role"] == "job"
    assert spec.labels["nextdeploy.revision"] == "7"
    assert not daemon.idle()
    world.engine.exits(world.container().id, 0)
    until(lambda: daemon.ends)
    (end,) = daemon.ends
    assert (end.key, end.exit_code, end.reason) == ("migrate-7", 0, "")
    until(lambda: not world.engine.now)
    until(daemon.idle)
    (event,) = [e for e in world.events if e.kind == "job.succeeded"]
    assert (event.app, event.process, event.detail["kind"], event.detail["exit_code"]) == (
        "shop",
        "migrate",
        "release",
        0,
    )
    assert world.outputs.open_now == 0


def name_of(world, until, daemon, **run) -> str:
    daemon.run(**run)
    until(lambda: running(world))
    return world.container().name


def test_output_comes_in_order_and_before_the_end_and_without_secrets(world, until, monkeypatch):
    texts = ["one\n", "two hunter2\n", "thr", "ee\n"]
    monkeypatch.setattr(world.outputs, "open", lambda container: Opened(texts))

    class Opened:
        def __init__(self, texts):
            self._texts = list(texts)

        def read(self):
            return self._texts.pop(0) if self._texts else ""

        def close(self): ...

    daemon = world.daemon()
    name_of(world, until, daemon)
    world.engine.exits(world.container().id, 3)
    until(lambda: daemon.ends)
    assert daemon.output == "one\ntwo ********\nthree\n"
    assert isinstance(daemon.heard[-1], JobEnded)
    (end,) = daemon.ends
    assert (end.exit_code, end.reason, end.tail) == (3, "exited 3", ("one", "two ********", "three"))
    (event,) = [e for e in world.events if e.kind == "job.failed"]
    assert event.detail["output"] == ["one", "two ********", "three"]
    assert "hunter2" not in repr(world.state.records)


def test_too_much_output_is_cut_and_said_so(world, until, monkeypatch):
    monkeypatch.setattr(job_module, "MAX_OUTPUT", 10)
    monkeypatch.setattr(Reader, "read", lambda self: next(self._texts, ""))
    monkeypatch.setattr(world.outputs, "open", lambda c: Reader(world.outputs, iter(["12345678", "abcdef\n", "end\n"])))
    daemon = world.daemon()
    name_of(world, until, daemon)
    world.engine.exits(world.container().id, 0)
    until(lambda: daemon.ends)
    assert daemon.output == "12345678ab\n[more output than can be kept here]\n"
    assert daemon.ends[0].tail == ("12345678abcdef", "end")


def test_out_of_memory_is_named(world, until):
    daemon = world.daemon()
    name_of(world, until, daemon)
    world.engine.exits(world.container().id, 137, oom_killed=True)
    until(lambda: daemon.ends)
    assert daemon.ends[0].reason == "exited 137 (out of memory)"


def test_the_same_key_again_is_answered_from_the_record(world, until):
    daemon = world.daemon()
    name_of(world, until, daemon)
    world.engine.exits(world.container().id, 5)
    until(lambda: daemon.ends and not world.engine.now)
    daemon.run()
    until(lambda: len(daemon.ends) == 2)
    assert daemon.ends[0] == daemon.ends[1]
    assert world.count("create") == 1
    daemon.run(operation="op2")
    until(lambda: world.count("create") == 2)


def test_an_image_that_is_missing_is_told(world, until):
    world.engine.images.clear()
    daemon = world.daemon()
    daemon.run()
    until(lambda: daemon.ends)
    assert daemon.ends[0].exit_code is None
    assert daemon.ends[0].reason == "it could not be started: there is no image shop:1"


def test_a_container_that_cannot_start_does_not_stay(world, until):
    world.engine.start_error = EngineError("no such file: migrate")
    daemon = world.daemon()
    daemon.run()
    until(lambda: daemon.ends)
    assert daemon.ends[0].reason == "it could not be started: no such file: migrate"
    assert not world.engine.now


def test_a_spec_that_cannot_be_made_is_told(world, until):
    world.spec_error = Invalid("the secret X is not set")
    daemon = world.daemon()
    daemon.run()
    until(lambda: daemon.ends)
    assert daemon.ends[0].reason == "it could not be started: the secret X is not set"


def test_a_container_that_somebody_removes_is_told(world, until):
    daemon = world.daemon()
    name_of(world, until, daemon)
    world.engine.remove(world.container().id)
    until(lambda: daemon.ends)
    assert (daemon.ends[0].exit_code, daemon.ends[0].reason) == (None, "its container was removed by somebody else")


# -- time-outs and cancelling ----------------------------------------------------------------------


def test_what_takes_too_long_is_stopped(world, until):
    daemon = world.daemon()
    daemon.run(timeout=0.05)
    until(lambda: daemon.ends)
    assert (daemon.ends[0].exit_code, daemon.ends[0].reason) == (143, "took longer than 0.05 s")
    assert world.count("stop") == 1


def test_a_timeout_counts_on_over_a_restart(world, until):
    first = world.daemon()
    first.run(timeout=3600.0)
    until(lambda: running(world))
    first.kill()
    world.clock += 3601
    second = world.daemon()
    second.run(timeout=3600.0)
    until(lambda: second.ends)
    assert second.ends[0].reason == "took longer than 1 h"


def test_a_job_that_nobody_asks_for_has_its_timeout_too(world, until, monkeypatch):
    monkeypatch.setattr(job_module, "CLAIM_SECONDS", 0.02)
    first = world.daemon()
    first.run(timeout=60.0)
    until(lambda: running(world))
    first.kill()
    world.clock += 61
    world.daemon()
    until(lambda: not world.engine.now)
    assert "job.failed" in world.kinds()


def test_a_running_job_is_cancelled(world, until):
    daemon = world.daemon()
    name_of(world, until, daemon)
    daemon.cancel()
    daemon.cancel()
    until(lambda: daemon.ends and not world.engine.now)
    assert [(end.exit_code, end.reason) for end in daemon.ends] == [(143, "cancelled")]


def test_one_that_waits_for_the_engine_is_cancelled(world, until):
    world.engine.goes_away()
    daemon = world.daemon()
    daemon.run()
    daemon.cancel()
    until(lambda: daemon.ends)
    assert daemon.ends[0].reason == "cancelled"
    world.engine.comes_back()


def test_one_that_is_just_starting_is_cancelled(world, until, monkeypatch):
    gate = gevent.event.Event()
    create = world.engine.create
    monkeypatch.setattr(world.engine, "create", lambda spec: (gate.wait(), create(spec))[1])
    daemon = world.daemon()
    daemon.run()
    until(lambda: world.specs)
    daemon.cancel()
    gevent.sleep(0.01)
    gate.set()
    until(lambda: daemon.ends and not world.engine.now)
    assert daemon.ends[0].reason == "cancelled"


# -- an engine that goes away ----------------------------------------------------------------------


def test_it_starts_when_the_engine_is_back(world, until, monkeypatch):
    failures = [EngineUnreachable("away"), EngineUnreachable("away")]
    create = world.engine.create

    def flaky(spec):
        if failures:
            raise failures.pop()
        return create(spec)

    monkeypatch.setattr(world.engine, "create", flaky)
    daemon = world.daemon()
    daemon.run()
    until(lambda: running(world))
    assert world.count("create") == 1


def test_an_engine_that_dies_after_creating_it_starts_it_once(world, until, monkeypatch):
    start, failed = world.engine.start, []

    def flaky(container):
        if not failed:
            failed.append(True)
            raise EngineUnreachable("away")
        return start(container)

    monkeypatch.setattr(world.engine, "start", flaky)
    daemon = world.daemon()
    daemon.run()
    until(lambda: running(world))
    assert (world.count("create"), world.count("start")) == (1, 1)


def test_it_gives_up_when_its_time_is_over(world, until, monkeypatch):
    def away(spec):
        world.clock += 30
        raise EngineUnreachable("away")

    monkeypatch.setattr(world.engine, "create", away)
    daemon = world.daemon()
    daemon.run(timeout=60.0)
    until(lambda: daemon.ends)
    assert daemon.ends[0].reason == "it could not be started: away"


def test_an_end_while_the_engine_was_away_is_noticed(world, until):
    daemon = world.daemon()
    name_of(world, until, daemon)
    world.engine.goes_away()
    until(lambda: "engine.lost" in world.kinds())
    world.engine.exits(world.container().id, 4)
    world.engine.comes_back()
    until(lambda: daemon.ends)
    assert daemon.ends[0].exit_code == 4


# -- daemons that die ------------------------------------------------------------------------------


def test_a_running_job_is_adopted_and_its_end_noticed(world, until):
    first = world.daemon()
    name_of(world, until, first)
    first.kill()
    second = world.daemon()
    second.run()
    gevent.sleep(0.05)
    assert not second.ends
    world.engine.exits(world.container().id, 0)
    until(lambda: second.ends and not world.engine.now)
    assert second.ends[0].exit_code == 0
    assert world.count("create") == world.count("start") == 1
    assert second.output.startswith("[the daemon was restarted")


def test_an_end_while_no_daemon_was_there_is_read_from_the_engine(world, until):
    first = world.daemon()
    name_of(world, until, first)
    first.kill()
    world.engine.exits(world.container().id, 9)
    second = world.daemon()
    gevent.sleep(0.05)
    assert world.engine.now, "it waits until somebody asks"
    second.run()
    until(lambda: second.ends and not world.engine.now)
    assert (second.ends[0].exit_code, world.count("create")) == (9, 1)


def test_nobody_asks_and_it_is_cleaned_up_but_not_forgotten(world, until, monkeypatch):
    monkeypatch.setattr(job_module, "CLAIM_SECONDS", 0.02)
    first = world.daemon()
    name_of(world, until, first)
    first.kill()
    world.engine.exits(world.container().id, 9)
    second = world.daemon()
    until(lambda: not world.engine.now)
    second.run()
    until(lambda: second.ends)
    assert second.ends[0].exit_code == 9
    assert world.count("create") == 1


def test_a_crash_of_the_actor_is_no_different(world, until):
    daemon = world.daemon()
    name_of(world, until, daemon)
    daemon.jobs.tell(object())
    until(lambda: daemon.jobs.restarts == 1 and daemon.jobs.state == "running")
    daemon.run()
    world.engine.exits(world.container().id, 0)
    until(lambda: daemon.ends and not world.engine.now)
    assert world.count("create") == 1


CALLS = ("containers", "create", "start", "inspect", "remove")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 8))
def test_killed_at_any_call_to_the_engine_it_runs_once_and_its_end_is_told(world, until, monkeypatch, number, when):
    """The daemon dies before or after the nth call to the engine or its state; the next one asks again. The job itself
    ends soon."""
    count = [0]

    def wrapped(call):
        def step(*args, **kwargs):
            count[0] += 1
            mine = count[0] == number
            if mine and when == "before":
                dies()
            result = call(*args, **kwargs)
            if mine and when == "after":
                dies()
            return result

        return step

    def dies():
        world.daemons[0].kill()
        raise gevent.GreenletExit

    started: list[str] = []
    begin = world.engine.start

    def start(container):
        status = begin(container)
        if status.id not in started:
            started.append(status.id)
            gevent.spawn_later(0.02, world.engine.exits, status.id, 6)
        return status

    monkeypatch.setattr(world.engine, "start", start)
    for name in CALLS:
        monkeypatch.setattr(world.engine, name, wrapped(getattr(world.engine, name)))
    monkeypatch.setattr(world.state, "save", wrapped(world.state.save))
    daemon = world.daemon()
    daemon.run()
    deadline = time.monotonic() + 5
    while daemon.alive and not (daemon.ends and not world.engine.now):
        assert time.monotonic() < deadline
        gevent.sleep(0.001)
    assert not daemon.alive
    daemon = world.daemon()
    daemon.run()
    until(lambda: daemon.ends and not world.engine.now)
    assert daemon.ends[0].exit_code == 6
    assert world.count("start") == 1
    assert world.count("create") == 1


# -- schedules -------------------------------------------------------------------------------------


def ready(world, until, moment: str = "2026-11-25T02:00") -> Daemon:
    world.clock = at(moment)
    daemon = world.daemon()
    daemon.settings()
    until(daemon.idle)
    return daemon


def test_a_schedule_runs_when_it_is_due_and_its_success_is_remembered(world, until):
    daemon = ready(world, until)
    row = daemon.row()
    assert (row.process, row.schedule, row.next, row.running) == ("nightly", "0 3 * * *", at("2026-11-25T03:00"), False)
    daemon.look("2026-11-25T02:59:59")
    assert not world.specs
    daemon.look("2026-11-25T03:00")
    until(lambda: running(world))
    assert world.container().name == f"nd-shop-nightly-7-s{int(at('2026-11-25T03:00')) // 60}"
    until(lambda: daemon.row().running)
    world.engine.exits(world.container().id, 0)
    until(lambda: not world.engine.now and not daemon.row().running)
    row = daemon.row()
    assert row.last_exit == 0
    assert row.last_success == row.last_end
    assert row.next == at("2026-11-26T03:00")
    until(lambda: "job.succeeded" in world.kinds())
    daemon.kill()
    again = world.daemon()
    again.settings()
    until(again.idle)
    assert again.row().last_success == row.last_success


def test_a_failure_is_told_and_the_last_success_stays(world, until):
    daemon = ready(world, until)
    for moment, code in (("2026-11-25T03:00", 0), ("2026-11-26T03:00", 2)):
        daemon.look(moment)
        until(lambda: running(world))
        world.engine.exits(world.container().id, code)
        until(lambda: not world.engine.now)
    until(lambda: "job.failed" in world.kinds())
    row = daemon.row()
    assert row.last_exit == 2
    assert row.last_success is not None
    assert row.last_success < row.last_end


def test_runs_do_not_overlap(world, until):
    daemon = ready(world, until)
    daemon.look("2026-11-25T03:00")
    until(lambda: running(world))
    daemon.look("2026-11-26T03:00")
    until(lambda: daemon.row().skipped == 1)
    assert world.count("create") == 1
    (event,) = [e for e in world.events if e.kind == "job.skipped"]
    assert event.reason == "the run of 2026-11-25 03:00 UTC still goes on"
    world.engine.exits(world.container().id, 0)
    until(lambda: not world.engine.now)
    daemon.look("2026-11-27T03:00")
    until(lambda: world.count("create") == 2)


def test_a_run_missed_within_the_hour_is_made_up_once(world, until):
    daemon = ready(world, until)
    daemon.kill()
    world.clock = at("2026-11-25T03:40")
    second = world.daemon()
    second.settings()
    until(lambda: running(world))
    world.engine.exits(world.container().id, 0)
    until(lambda: not world.engine.now)
    second.look("2026-11-25T03:41")
    second.row()
    assert world.count("create") == 1


def test_one_missed_longer_ago_is_told(world, until):
    daemon = ready(world, until)
    daemon.kill()
    world.clock = at("2026-11-25T08:00")
    second = world.daemon()
    second.settings()
    until(lambda: "job.missed" in world.kinds())
    second.look("2026-11-25T08:01")
    second.row()
    assert world.kinds().count("job.missed") == 1
    assert not world.specs


@pytest.mark.parametrize("ended", [False, True])
def test_a_scheduled_run_of_the_daemon_before_is_not_made_again(world, until, ended):
    daemon = ready(world, until)
    before = dict(world.state.records)
    daemon.look("2026-11-25T03:00")
    until(lambda: running(world))
    daemon.kill()
    world.state.records = before  # it died before the start was on record
    if ended:
        world.engine.exits(world.container().id, 0)
    second = world.daemon()
    second.settings()
    if not ended:
        until(lambda: second.row().running)
        world.engine.exits(world.container().id, 0)
    until(lambda: not world.engine.now)
    until(second.idle)
    assert world.count("create") == world.count("start") == 1
    assert second.row().last_exit == 0
    assert second.row().last_success is not None


def test_a_scheduled_run_that_was_only_created_is_started(world, until, monkeypatch):
    daemon = ready(world, until)
    start = world.engine.start

    def dies(container):
        daemon.kill()
        raise gevent.GreenletExit

    monkeypatch.setattr(world.engine, "start", dies)
    daemon.look("2026-11-25T03:00")
    until(lambda: not daemon.alive)
    monkeypatch.setattr(world.engine, "start", start)
    second = world.daemon()
    second.settings()
    until(lambda: running(world))
    assert world.count("create") == 1


def test_schedules_follow_the_current_version(world, until):
    daemon = ready(world, until)
    hourly = msgspec.structs.replace(NIGHTLY, schedule="@hourly", timezone="Asia/Kathmandu")
    daemon.settings(msgspec.structs.replace(SHOP, processes={"nightly": hourly}), 8)
    row = daemon.row()
    assert (row.schedule, row.timezone, row.next) == ("@hourly", "Asia/Kathmandu", at("2026-11-25T02:15"))
    daemon.look("2026-11-25T02:15")
    until(lambda: running(world))
    assert world.container().labels["nextdeploy.revision"] == "8"


def test_without_a_version_scheduled_runs_end_and_nothing_is_left(world, until):
    daemon = ready(world, until)
    daemon.look("2026-11-25T03:00")
    until(lambda: running(world))
    assert not daemon.idle()
    daemon.settings(None, 0)
    until(daemon.idle)
    assert not world.engine.now
    (event,) = [e for e in world.events if e.kind == "job.failed"]
    assert event.reason == "the app was removed"
    assert world.state.records == {}


def test_a_stopped_app_makes_nothing_up_when_it_starts_again(world, until):
    daemon = ready(world, until)
    daemon.settings(msgspec.structs.replace(SHOP, stopped=True))
    daemon.look("2026-11-25T03:30")
    daemon.settings()
    daemon.look("2026-11-25T03:31")
    assert daemon.row().next == at("2026-11-26T03:00")
    assert not world.specs


def test_a_clock_that_jumps_neither_repeats_nor_stops_a_schedule(world, until):
    daemon = ready(world, until)
    daemon.look("2026-11-25T03:00")
    until(lambda: running(world))
    world.engine.exits(world.container().id, 0)
    until(lambda: not world.engine.now)
    daemon.look("2026-11-25T02:30")
    assert daemon.row().next == at("2026-11-26T03:00")
    daemon.look("2026-11-20T12:00")
    assert daemon.row().next == at("2026-11-21T03:00")
    assert world.count("create") == 1
    daemon.look("2026-11-21T03:00")
    until(lambda: world.count("create") == 2)


def test_what_is_due_while_the_engine_is_away_runs_when_it_is_back(world, until):
    daemon = ready(world, until)
    world.engine.goes_away()
    daemon.look("2026-11-25T03:00")
    until(lambda: daemon.row().running)
    world.engine.comes_back()
    until(lambda: running(world))


def test_the_real_clock_wakes_it(world, until):
    """A timer of its own, no look of ours."""
    daemon = ready(world, until, "2026-11-25T02:59:59.950")
    real, began = world.clock, time.monotonic()
    type(world).clock = property(lambda self: real + time.monotonic() - began, lambda self, value: None)
    try:
        daemon.settings()
        until(lambda: running(world))
        assert daemon.row().last_start is not None
    finally:
        del type(world).clock


def test_many_at_once_are_refused(world, until, monkeypatch):
    monkeypatch.setattr(job_module, "MAX_JOBS", 2)
    daemon = world.daemon()
    for number in range(3):
        daemon.run(key=f"run-{number}", kind="run")
    until(lambda: daemon.ends)
    assert daemon.ends[0].key == "run-2"
    assert daemon.ends[0].reason == "2 jobs of this app run already"


def test_the_app_is_told_nothing_of_jobs_and_jobs_nothing_of_the_app(world, until, engine):
    own = {"nextdeploy.app": "shop", "nextdeploy.process": "web", "nextdeploy.role": "primary"}
    engine.start(engine.create(ContainerSpec(name="nd-shop-web-1-1", labels=own, image="shop:1")).id)
    daemon = world.daemon()
    until(daemon.idle)
    daemon.settings(None, 0)
    assert daemon.jobs.ask(GetJobs()) == ()
    assert engine.now, "it is not the JobsActor's"


def test_an_app_of_which_only_a_job_is_left_is_found(world, until, engine):
    """The daemon before us made it, and no configuration has the app any more."""
    own = {"nextdeploy.app": "gone", "nextdeploy.role": "job", "nextdeploy.job": "x"}
    engine.start(engine.create(ContainerSpec(name="nd-gone-web-1-r1", labels=own, image="shop:1")).id)
    daemon = world.daemon()
    until(lambda: any(isinstance(m, OrphansFound) and m.apps == ("gone",) for m in daemon.told))
