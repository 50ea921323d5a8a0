"""Whose output is kept, for how long, and what is told of it."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from ndactors.actors.log import LogActor
from ndactors.core.containers import ContainerStatus
from ndactors.core.logrecords import LogSource
from ndactors.core.model import App, Logs, Retain, Settings
from ndactors.errors import EngineUnreachable, Invalid, LogsAway, StateError
from ndactors.messages.containers import ApplySettings, ContainersSeen
from ndactors.messages.logs import (
    AskedLines,
    GetLogReport,
    GetLogs,
    KeepLogs,
    LineCounts,
    LogPage,
    LogsReport,
    Loss,
    WantLines,
)
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref

APPS = {name: App(name=name, image="i", processes={}) for name in ("shop", "blog")}
SETTINGS = Settings(project="test", environment="dev", apps=APPS)


class State:
    """Saved as it is on disk."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.error: StateError | None = None

    def load(self, name, kind):
        return msgspec.json.decode(self.records[name], type=kind) if name in self.records else None

    def save(self, name, value):
        if self.error is not None:
            raise self.error
        self.records[name] = msgspec.json.encode(value)


class Service:
    """A scripted log process."""

    def __init__(self) -> None:
        self.did: list[object] = []
        self.page: LogPage | Exception = LogPage()
        self.listeners = ()

    def listen(self, *listeners) -> None:
        self.listeners = listeners

    def start(self) -> None:
        self.did.append("start")

    def keep(self, keep: KeepLogs) -> None:
        self.did.append(keep)

    def follow(self, sources, *, complete: bool) -> None:
        self.did.append((tuple(source.container for source in sources), complete))

    def lines(self, lines: AskedLines) -> None:
        self.did.append(lines)

    def query(self, query: GetLogs) -> LogPage:
        if isinstance(self.page, Exception):
            raise self.page
        return self.page

    def close(self) -> None:
        self.did.append("close")

    def stop(self) -> None:
        self.did.append("stop")


class World:
    def __init__(self, state: State | None = None) -> None:
        self.service = Service()
        self.events, self.ref = Ref("events"), Ref("logs")
        self.clock = 0.0
        self.leave = True
        self.rows = {"docker": lambda container, since: self.told(container, since), "process": lambda *_: ()}
        self.answer: object = ()
        self.asked: list = []
        """What the engine was asked for, as it answered."""
        self.state, self.heard = state or State(), Ref("metrics")
        actor = (
            *(lambda: SETTINGS, self.service, self.rows, self.events, lambda: self.leave, lambda: self.clock),
            *(self.state, self.state.save, (self.heard,), lambda: self.clock),
        )
        child = Child(self.ref, LogActor, *actor)
        self.root = Root(Child(supervisor_ref("root"), Supervisor, [child], Strategy.ONE_FOR_ONE, Intensity(10, 60.0)))
        assert self.root.wait_started(5)

    def told(self, container: str, since: str):
        self.asked.append(self.answer)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def saw(self, *containers: str, engine: str = "docker", **more) -> None:
        self.ref.tell(ContainersSeen(engine=engine, containers=tuple(map(status, containers)), **more))
        self.ref.ask(GetLogReport())  # and so it was seen

    @property
    def followed(self) -> list:
        return [each for each in self.service.did if isinstance(each, tuple)]

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events.mailbox.items]


def status(id: str) -> ContainerStatus:
    own = {"nextdeploy.app": "shop", "nextdeploy.process": "web", "nextdeploy.replica": "2"}
    return ContainerStatus(id=id, name=id, labels=own, state="running", log_path=f"/logs/{id}")


@pytest.fixture
def world():
    made = World()
    yield made
    assert made.root.stop(5)


def report(pid: int = 1, **more) -> LogsReport:
    return LogsReport(**{"pid": pid, "started_at": float(pid), **more})


def test_it_tells_how_long_to_keep_and_starts(world):
    assert isinstance(world.service.did[0], KeepLogs)
    assert world.service.did[1] == "start"
    changed = replace(SETTINGS, logs=Logs(retain=Retain(days=1, bytes=5)))
    world.ref.tell(ApplySettings(settings=changed))
    world.ref.ask(GetLogReport())
    assert world.service.did[-1] == KeepLogs(days=1, bytes=5)


@pytest.mark.parametrize(("leave", "end"), [(True, "close"), (False, "stop")])
def test_it_ends_the_log_process_only_if_the_daemon_does_not_leave_it(leave, end):
    world = World()
    world.leave = leave
    assert world.root.stop(5)
    assert world.service.did[-1] == end


def test_containers_are_followed_and_complete_when_every_engine_has_told(world):
    world.saw("a", complete=True)
    world.saw("p", engine="process", complete=True)
    world.saw("b")
    assert world.followed == [(("a",), False), (("a", "p"), True), (("a", "b", "p"), True)]
    world.saw("b", complete=True)
    assert world.followed[-1] == (("b", "p"), True)


def test_what_is_known_already_is_not_told_again(world):
    world.saw("a", complete=True)
    world.saw("a")
    world.saw("a")
    assert len(world.followed) == 1


def test_a_created_container_counts_before_a_listing_has_it(world):
    world.saw("a", complete=True)
    world.saw("new", announced=True)
    world.saw("a", complete=True)
    assert world.followed[-1][0] == ("a", "new")
    world.clock = 61.0
    world.saw("a", complete=True)
    assert world.followed[-1][0] == ("a",)


def test_containers_of_nobody_are_left_out(world):
    stranger = replace(status("x"), labels={})
    world.ref.tell(ContainersSeen(engine="docker", containers=(stranger,), complete=True))
    world.ref.ask(GetLogReport())
    assert world.followed == [((), False)]


def test_queries_are_answered_and_refused(world):
    assert world.ref.ask(GetLogs()) == LogPage()
    for error in (Invalid("q is wrong"), LogsAway("it is away")):
        world.service.page = error
        with pytest.raises(type(error), match=str(error)):
            world.ref.ask(GetLogs())
    assert world.ref.restarts == 0


def test_an_engine_is_asked_for_lines(world, until):
    world.saw("a", complete=True)
    world.answer = (("2026-01-01T00:00:00.000000000Z", "stdout", "x\n"),)
    world.ref.tell(WantLines(container="a"))
    until(lambda: world.service.did[-1] == AskedLines(container="a", rows=world.answer))
    world.answer = EngineUnreachable("away")
    did = len(world.service.did)
    world.ref.tell(WantLines(container="a"))
    until(lambda: world.asked[-1] is world.answer)
    world.ref.tell(WantLines(container="nobody"))
    world.ref.ask(GetLogReport())
    # it can be asked again
    world.answer = (("2026-01-01T00:00:01.000000000Z", "stdout", "y\n"),)
    until(lambda: world.ref.tell(WantLines(container="a")) or len(world.service.did) > did)
    assert world.service.did[did:] == [AskedLines(container="a", rows=world.answer)] * (len(world.service.did) - did)
    assert world.ref.restarts == 0


def test_losses_and_a_full_disk_are_events(world):
    world.ref.tell(report(gaps=1, gap_bytes=100, losses=(Loss(app="shop", gaps=1, bytes=100, reason="rotation"),)))
    world.ref.tell(report(gaps=1, gap_bytes=100))
    losses = Loss(app="shop", gaps=1, bytes=20, reason="x"), Loss(app="blog", gaps=1, bytes=30, reason="x")
    world.ref.tell(report(gaps=3, gap_bytes=150, losses=losses, full=True, notes=("nothing can be stored: No space",)))
    world.ref.tell(report(gaps=2, gap_bytes=150))
    world.ref.tell(report(gaps=2, gap_bytes=150, notes=("the archive refuses",)))
    world.ref.tell(report(gaps=2, gap_bytes=150, notes=("the archive refuses",)))
    world.ref.ask(GetLogReport())
    assert world.kinds == ["logs.lost"] * 3 + ["logs.store_failed", "logs.resumed", "logs.trouble"]
    told = world.events.mailbox.items
    assert [(event.app, event.detail["bytes"]) for event in list(told)[:3]] == [
        ("shop", 100),
        ("shop", 20),
        ("blog", 30),
    ]
    assert told[0].reason == "100 bytes of output were lost: rotation"


def test_counters_go_on_over_log_processes(world):
    one = LineCounts(app="shop", process="web", levels=(0, 5, 0, 1, 0))
    other = LineCounts(app="blog", process="web", levels=(1, 0, 0, 0, 0))
    assert world.ref.ask(GetLogReport()) is None
    world.ref.tell(report(1, counts=(one,), dropped={"shop": 3}, stored_lines=6))
    world.ref.tell(report(2, counts=(one, other), dropped={"shop": 1, "blog": 2}, stored_lines=7))
    found = world.ref.ask(GetLogReport())
    assert {row.app: row.levels for row in found.counts} == {"shop": (0, 10, 0, 2, 0), "blog": (1, 0, 0, 0, 0)}
    assert found.dropped == {"shop": 4, "blog": 2}
    assert found.stored_lines == 13


def test_sources_say_whose_they_are(world):
    told: list[LogSource] = []
    world.service.follow = lambda sources, complete: told.extend(sources)
    world.saw("a", complete=True)
    assert told == [LogSource(container="a", app="shop", process="web", replica=2, path="/logs/a")]


def test_counters_go_on_over_daemons(world):
    """Both are killed, one after the other: nothing that was told is ever taken back."""
    one = LineCounts(app="shop", process="web", levels=(0, 5, 0, 1, 0))
    world.ref.tell(report(1, counts=(one,), dropped={"shop": 3}))
    assert world.ref.ask(GetLogReport()).counts == (one,)
    # a daemon that was killed tells nobody; the log process lives on, then it is another
    after = World(world.state)
    try:
        assert after.ref.ask(GetLogReport()) is None
        after.ref.tell(report(1, counts=(replace(one, levels=(0, 6, 0, 1, 0)),), dropped={"shop": 3}))
        assert after.ref.ask(GetLogReport()).counts[0].levels == (0, 6, 0, 1, 0)
        after.ref.tell(report(2, counts=(replace(one, levels=(0, 1, 0, 0, 0)),)))
        found = after.ref.ask(GetLogReport())
        assert (found.counts[0].levels, found.dropped) == ((0, 7, 0, 1, 0), {"shop": 3})
    finally:
        assert after.root.stop(5)


def test_an_app_that_is_gone_begins_anew(world):
    one = LineCounts(app="shop", process="web", levels=(0, 5, 0, 0, 0))
    world.ref.tell(report(1, counts=(one,)))
    world.ref.tell(ApplySettings(settings=replace(SETTINGS, apps={"blog": APPS["blog"]})))
    world.ref.tell(report(2, counts=(LineCounts(app="blog", process="web", levels=(0, 1, 0, 0, 0)),)))
    assert [row.app for row in world.ref.ask(GetLogReport()).counts] == ["blog"]


def test_a_disk_that_takes_nothing_hides_no_figures(world):
    world.state.error = StateError("full")
    world.ref.tell(report(1, counts=(LineCounts(app="shop", process="web", levels=(0, 5, 0, 0, 0)),)))
    assert world.ref.ask(GetLogReport()).counts[0].levels == (0, 5, 0, 0, 0)
    assert world.ref.restarts == 0


def test_figures_go_to_the_history(world, until, monkeypatch):
    monkeypatch.setattr("ndactors.actors.log.until_sampling", lambda now: 0.005)
    again = World()
    try:
        row = LineCounts(app="shop", process="web", levels=(0, 5, 0, 1, 0))
        again.ref.tell(report(1, counts=(row,), dropped={"blog": 2}))
        until(lambda: len(again.heard.mailbox.items) == 1)
        told = again.heard.mailbox.items[0]
        assert (told.source, told.from_zero) == ("logs", True)
        found = {(s.name, *s.labels.values()): s.value for s in told.samples}
        assert found["nextdeploy_log_lines_total", "shop", "web", "info"] == 5.0
        assert found["nextdeploy_log_dropped_total", "blog"] == 2.0
        again.ref.tell(report(1, counts=(row,)))
        until(lambda: len(again.heard.mailbox.items) == 2)
    finally:
        assert again.root.stop(5)
