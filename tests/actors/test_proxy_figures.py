"""What the edge counts: it goes on over edges and daemons, and goes to the history."""

from __future__ import annotations

import itertools

import gevent
import msgspec
import pytest
from gevent.event import Event

from ndactors.actors.proxy import TOTALS, ProxyActor
from ndactors.core.model import App, Process, Settings
from ndactors.errors import StateError
from ndactors.messages.edge import EdgeReport, ServiceTotals
from ndactors.messages.queries import GetEdge, GetEdgeTotals
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref

SETTINGS = Settings(project="test", apps={"shop": App(name="shop", image="i", processes={"web": Process(name="web")})})


class Pool:
    def start(self) -> None: ...
    def publish(self, snapshot) -> None: ...
    def close(self) -> None: ...
    def stop(self, deadline) -> None: ...


class Disk:
    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.saves = 0
        self.error: StateError | None = None
        self.may_save = Event()
        self.may_save.set()

    def load(self, name, kind):
        return msgspec.json.decode(self.records[name], type=kind) if name in self.records else None

    def save(self, name, value):
        self.saves += name == TOTALS
        if name == TOTALS:
            self.may_save.wait()
            if self.error is not None:
                raise self.error
        self.records[name] = msgspec.json.encode(value)


class World:
    def __init__(self, disk: Disk) -> None:
        self.disk, self.ref, self.history = disk, Ref("proxy"), Ref("metrics")
        actor = (
            *(lambda: SETTINGS, 1, itertools.count(1), lambda *_: Pool(), lambda: True),
            *(Ref("apps"), Ref("events"), Ref("records"), disk, lambda path: ({}, "")),
            *(disk.save, (self.history,), lambda: 1000.0),
        )
        child = Child(self.ref, ProxyActor, *actor)
        self.root = Root(Child(supervisor_ref("root"), Supervisor, [child], Strategy.ONE_FOR_ONE, Intensity(10, 60.0)))
        assert self.root.wait_started(5)

    def report(self, requests: int, line: str = "a") -> None:
        totals = ServiceTotals(app="shop", process="web", requests={"GET 200": requests})
        self.ref.tell(EdgeReport(epoch=1, master_pid=1, line=line, services={"shop": totals}))

    def told(self) -> int:
        return self.ref.ask(GetEdgeTotals()).services["shop"].requests["GET 200"]


@pytest.fixture
def disk():
    return Disk()


@pytest.fixture
def start(disk):
    made: list[World] = []

    def begin() -> World:
        made.append(World(disk))
        return made[-1]

    yield begin
    disk.may_save.set()
    for world in made:
        assert world.root.stop(5)


def test_what_is_told_is_saved_first_and_goes_on_with_the_next_daemon(start, disk):
    world = start()
    assert world.ref.ask(GetEdgeTotals()) is None
    world.report(10)
    assert world.told() == 10
    world.report(12)
    disk.may_save.clear()
    waiting = gevent.spawn(world.told)
    gevent.sleep(0.02)
    assert not waiting.ready(), "it is not on disk yet"
    assert world.ref.ask(GetEdge()).services["shop"].requests == {"GET 200": 12}
    disk.may_save.set()
    assert waiting.get(timeout=5) == 12
    # daemon and edge are killed
    after = start()
    after.report(1, line="b")
    assert after.told() == 13
    assert after.ref.ask(GetEdge()).services["shop"].requests == {"GET 200": 1}


def test_who_asks_while_something_is_saved_gets_what_the_next_one_saves(start, disk):
    world = start()
    world.report(1)
    disk.may_save.clear()
    first = gevent.spawn(world.told)
    gevent.sleep(0.01)
    world.report(5)
    others = [gevent.spawn(world.told) for _ in range(3)]
    gevent.sleep(0.01)
    disk.may_save.set()
    assert first.get(timeout=5) == 1
    assert [other.get(timeout=5) for other in others] == [5, 5, 5]
    assert disk.saves == 2


def test_what_did_not_change_is_not_saved_again(start, disk):
    world = start()
    world.report(1)
    assert [world.told() for _ in range(5)] == [1] * 5
    assert disk.saves == 1


def test_a_disk_that_takes_nothing_hides_no_figures(start, disk):
    world = start()
    disk.error = StateError("full")
    world.report(3)
    assert world.told() == 3
    assert world.ref.restarts == 0


def test_figures_go_to_the_history_once_for_each_report(start, disk, until, monkeypatch):
    monkeypatch.setattr("ndactors.actors.proxy.until_sampling", lambda now: 0.005)
    world = start()
    world.report(3)
    until(lambda: len(world.history.mailbox.items) == 1)
    handled = world.ref.handled
    until(lambda: world.ref.handled > handled + 5)
    assert len(world.history.mailbox.items) == 1
    told = world.history.mailbox.items[0]
    assert (told.source, told.at, told.from_zero) == ("edge", 1000.0, True)
    assert {s.value for s in told.samples if s.name == "nextdeploy_requests_total"} == {3.0}
    world.report(4)
    until(lambda: len(world.history.mailbox.items) == 2)
    assert TOTALS in disk.records
