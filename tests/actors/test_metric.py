"""What becomes of samples between those who tell them and the store."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from ndactors.actors.metric import MOST_QUESTIONS, MOST_WAITING, MetricActor
from ndactors.core.samples import Sample
from ndactors.errors import AskTimeout, Busy, Invalid, NotFound, StateError
from ndactors.messages.metrics import GetMetricNames, GetMetrics, MetricHistory, MetricName, Sampled
from ndactors.ports import MetricsAdded
from ndactors.runtime.ref import Ref
from ndactors.runtime.restarts import Intensity, Strategy
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child, Supervisor, supervisor_ref

QUERY = GetMetrics(name="g", since=0, until=10, step=10)
HISTORY = MetricHistory(name="g", kind="gauge", step=10.0)


class Store:
    def __init__(self) -> None:
        self.written: list[list[Sampled]] = []
        self.error: BaseException | None = None
        self.added = MetricsAdded()
        self.answer: object = HISTORY
        self.may_answer = Event()
        self.may_answer.set()
        self.may_write = Event()
        self.may_write.set()
        self.tries = self.queries = 0

    def append(self, batches):
        self.tries += 1
        self.may_write.wait()
        if self.error is not None:
            raise self.error
        self.written.append(list(batches))
        return self.added

    def query(self, query):
        self.queries += 1
        self.may_answer.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def names(self, query):
        return (MetricName(name="g", kind="gauge", series=1),)


class World:
    def __init__(self) -> None:
        self.store, self.events, self.ref = Store(), Ref("events"), Ref("metrics")
        self.clock, self.heard = 1000.0, Ref("heard")
        child = Child(
            self.ref, MetricActor, self.store, self.events, lambda: self.clock, lambda: (gauge(0.0),), (self.heard,)
        )
        self.root = Root(Child(supervisor_ref("root"), Supervisor, [child], Strategy.ONE_FOR_ONE, Intensity(10, 60.0)))
        assert self.root.wait_started(5)

    def tell(self, at: float, source: str = "edge") -> None:
        self.ref.tell(Sampled(source=source, at=at, samples=(gauge(at),)))
        self.ref.ask(GetMetricNames())

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events.mailbox.items]

    @property
    def times(self) -> list[list[float]]:
        return [[batch.at for batch in batches] for batches in self.store.written]


def gauge(value: float) -> Sample:
    return Sample(name="g", kind="gauge", value=value)


@pytest.fixture
def world():
    made = World()
    yield made
    made.store.may_write.set()
    made.store.may_answer.set()
    assert made.root.stop(5)


def test_a_slot_is_written_when_it_is_over(world, until):
    world.tell(1000)
    world.tell(1005, "host")
    assert world.store.tries == 0
    world.tell(1012)
    until(lambda: world.times == [[1000, 1005]])
    world.tell(1009, "host")  # late, and of its own time
    world.tell(1020)
    until(lambda: world.times == [[1000, 1005], [1012, 1009]])


def test_the_open_slot_is_written_at_an_orderly_stop():
    world = World()
    world.tell(1000)
    assert world.root.stop(5)
    assert world.times == [[1000]]


def test_a_stop_in_the_middle_of_a_write_loses_nothing():
    world = World()
    world.store.may_write.clear()
    world.tell(1000)
    world.tell(1010)
    gevent.spawn_later(0.05, world.store.may_write.set)
    assert world.root.stop(5)
    assert sorted({at for times in world.times for at in times}) == [1000, 1010]


def test_a_clock_that_goes_back_is_followed(world, until):
    world.tell(100_000)
    world.tell(10_000)
    until(lambda: world.times == [[100_000]])
    world.tell(10_010)
    until(lambda: world.times == [[100_000], [10_000]])


def test_silence_does_not_keep_what_is_there_from_being_written(until, monkeypatch):
    monkeypatch.setattr("ndactors.actors.metric.LATE_SECONDS", 0.02)
    world = World()
    world.tell(1000)
    until(lambda: world.times == [[1000]])
    assert world.root.stop(5)


def test_its_own_figures_come_by_themselves(until, monkeypatch):
    monkeypatch.setattr("ndactors.actors.metric.until_sampling", lambda now: 0.005)
    world = World()
    world.clock = 2000.0
    until(lambda: world.ref.handled > 2)
    world.clock = 2010.0
    until(lambda: world.store.written)
    assert {batch.source for batch in world.store.written[0]} == {"daemon"}
    assert world.heard.mailbox.items[0].source == "daemon"
    assert world.root.stop(5)


def test_a_store_that_fails_is_told_once_and_tried_again_with_all_that_came(world, until):
    world.store.error = StateError("the disk is full")
    for n in range(5):
        world.tell(1000 + 10 * n)
        tries = n
        until(lambda tries=tries: world.store.tries == tries)
    assert world.kinds == ["metrics.store_failed"]
    world.store.error = None
    world.tell(1050)
    until(lambda: world.times == [[1000, 1010, 1020, 1030, 1040]])
    until(lambda: world.kinds == ["metrics.store_failed", "metrics.resumed"])
    assert world.ref.restarts == 0


def test_what_waits_is_bounded_and_the_newest_stays(world, until):
    world.store.error = StateError("no")
    for n in range(2 * MOST_WAITING):
        world.tell(1000 + 10 * n)
        world.tell(1001 + 10 * n, "host")
    until(lambda: world.store.tries > 2)
    world.store.error = None
    world.tell(5000)
    until(lambda: world.times)
    times = world.times[0]
    assert len(times) <= 2 * MOST_WAITING
    assert times[-1] == 1001 + 10 * (2 * MOST_WAITING - 1)


@pytest.mark.parametrize("interval", [0.25, 5, 10])
def test_five_minutes_of_a_disk_that_takes_nothing_are_kept_however_often_is_measured(world, until, interval):
    world.store.error = StateError("no")
    steps = int(400 / interval)
    for n in range(steps):
        world.ref.tell(Sampled(source="host", at=1000 + interval * n, samples=(gauge(n),)))
    until(lambda: world.ref.handled >= steps, 20)
    world.store.error = None
    world.tell(5000)
    until(lambda: world.times)
    slots = {int(at // 10) for at in world.times[0]}
    end = int((1000 + interval * (steps - 1)) // 10)
    assert slots >= set(range(end - 30, end + 1))
    assert len(world.times[0]) <= MOST_WAITING + 1


def test_nothing_is_left_out_of_a_slot_that_is_measured_often(world, until):
    for n in range(40):
        world.ref.tell(Sampled(source="host", at=1000 + 0.25 * n, samples=(gauge(n),)))
    world.tell(1010)
    until(lambda: world.times)
    assert len(world.times[0]) == 40


def test_one_write_at_a_time(world, until):
    world.store.may_write.clear()
    for n in range(5):
        world.tell(1000 + 10 * n)
    assert world.store.tries == 1
    world.store.may_write.set()
    until(lambda: world.times == [[1000]])
    world.tell(1050)
    until(lambda: world.times == [[1000], [1010, 1020, 1030, 1040]])


def test_too_many_series_are_told_once(world, until):
    world.store.added = MetricsAdded(refused=7, most=20_000)
    for n in range(4):
        world.tell(1000 + 10 * n)
        until(lambda n=n: len(world.times) == n)
    until(lambda: world.kinds == ["metrics.too_many"])
    event = world.events.mailbox.items[0]
    assert event.detail == {"refused": 7}
    assert "20,000" in event.reason


def test_questions_are_answered_and_refused(world):
    assert world.ref.ask(QUERY) == HISTORY
    assert world.ref.ask(GetMetricNames()) == (MetricName(name="g", kind="gauge", series=1),)
    for error in (NotFound("no"), Invalid("bad"), StateError("disk")):
        world.store.answer = error
        with pytest.raises(type(error)):
            world.ref.ask(QUERY)
    assert world.ref.restarts == 0


def test_a_question_that_takes_long_holds_up_nobody(world, until):
    world.store.may_answer.clear()
    with pytest.raises(AskTimeout):
        world.ref.ask(QUERY, 0.05)
    world.ref.tell(Sampled(source="edge", at=1000, samples=(gauge(1),)))
    world.ref.tell(Sampled(source="edge", at=1010, samples=(gauge(1),)))
    until(lambda: world.times == [[1000]])


def test_one_question_is_answered_at_a_time_and_few_wait(world, until):
    world.store.may_answer.clear()
    asking = [gevent.spawn(world.ref.ask, QUERY) for _ in range(1 + MOST_QUESTIONS)]
    until(lambda: world.ref.handled >= len(asking))
    with pytest.raises(Busy) as refused:
        world.ref.ask(QUERY)
    assert refused.value.status == 429
    assert world.store.queries == 1
    world.store.may_answer.set()
    assert [each.get(timeout=5) for each in asking] == [HISTORY] * len(asking)
    assert world.ref.ask(QUERY) == HISTORY


def test_questions_whose_askers_gave_up_make_room_and_are_never_asked(world, until):
    world.store.may_answer.clear()
    first = gevent.spawn(world.ref.ask, QUERY)
    until(lambda: world.store.queries == 1)
    for asking in [gevent.spawn(world.ref.ask, QUERY, 0.05) for _ in range(MOST_QUESTIONS)]:
        with pytest.raises(AskTimeout):
            asking.get(timeout=5)
    last = gevent.spawn(world.ref.ask, QUERY)
    handled = world.ref.handled
    until(lambda: world.ref.handled > handled)
    world.store.may_answer.set()
    assert (first.get(timeout=5), last.get(timeout=5)) == (HISTORY, HISTORY)
    assert world.store.queries == 2
