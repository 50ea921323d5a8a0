"""RecordActor: what comes is stored once and in order, and the edge hears of it; sums wait for what is on its way."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from ndactors.actors.record import RecordActor
from ndactors.errors import StateError
from ndactors.messages.containers import RecordsArrived
from ndactors.messages.edge import RecordsStored, RequestRecords
from ndactors.messages.records import GetTraffic, Traffic, TrafficSummary
from ndactors.runtime.ref import Ref
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child


class Store:
    def __init__(self) -> None:
        self.stored: list[tuple[str, int]] = []
        self.failing = False
        self.unreadable = False
        self.may_write = Event()
        self.may_write.set()

    def append(self, batches) -> None:
        self.may_write.wait()
        if self.failing:
            raise StateError("the disk is full")
        self.stored += [(b.worker, b.sequence) for b in batches]

    def page(self, query):
        return query

    def traffic(self, query):
        if self.unreadable:
            raise StateError("the disk is broken")
        return TrafficSummary(all=Traffic(requests=len(self.stored)))


@pytest.fixture
def records(monkeypatch):
    monkeypatch.setattr("ndactors.actors.record.RETRY_SECONDS", 0.02)
    monkeypatch.setattr("ndactors.actors.record.PATIENCE_SECONDS", 0.2)
    ref, store, told = Ref("records"), Store(), []
    root = Root(Child(ref, RecordActor, store))

    def send(worker: str, sequence: int, previous: int = 0, newest: int = 0) -> None:
        message = RequestRecords(worker=worker, sequence=sequence, previous=previous, newest=newest, count=1, batch=b"")
        ref.tell(RecordsArrived(message, told.append))
        gevent.sleep(0.005)

    send.ref = ref
    yield send, store, told
    store.may_write.set()
    root.stop(5)


def test_batches_are_stored_and_told(records):
    send, store, told = records
    send("a", 1)
    send("b", 7)
    send("a", 2, 1)
    assert store.stored == [("a", 1), ("b", 7), ("a", 2)]
    assert told[-1] == RecordsStored(worker="a", sequence=2)


def test_one_that_comes_again_is_stored_once_and_told_again(records):
    send, store, told = records
    send("a", 1)
    told.clear()
    send("a", 1)
    assert store.stored == [("a", 1)]
    assert told == [RecordsStored(worker="a", sequence=1)]


def test_one_behind_a_gap_waits_until_the_gap_is_filled(records):
    send, store, told = records
    send("a", 1)
    send("a", 3, 2)
    assert store.stored == [("a", 1)]
    send("a", 2, 1)
    send("a", 3, 2)
    assert store.stored == [("a", 1), ("a", 2), ("a", 3)]
    # what the edge itself gave up leaves no gap: there is nothing before it any more
    send("a", 9, 0)
    assert store.stored[-1] == ("a", 9)


def test_a_store_that_fails_is_tried_again(records):
    send, store, told = records
    store.failing = True
    send("a", 1)
    send("a", 2, 1)
    assert told == []
    store.failing = False
    gevent.sleep(0.1)
    assert store.stored == [("a", 1), ("a", 2)]
    assert told[-1] == RecordsStored(worker="a", sequence=2)


# -- sums ------------------------------------------------------------------------------------------


class Asking:
    def __init__(self, ref: Ref) -> None:
        self._greenlet = gevent.spawn(ref.ask, GetTraffic(app="shop", since=0.0, until=1.0))
        gevent.sleep(0.02)

    @property
    def waits(self) -> bool:
        return not self._greenlet.ready()

    def answer(self) -> tuple[int, bool]:
        summary = self._greenlet.get(timeout=2)
        return summary.all.requests, summary.complete


def test_sums_come_at_once_when_nothing_is_on_its_way(records):
    send, store, told = records
    asking = Asking(send.ref)
    assert not asking.waits
    assert asking.answer() == (0, True)
    send("a", 1, newest=1)
    assert Asking(send.ref).answer() == (1, True)


def test_sums_wait_for_what_is_being_written(records):
    send, store, told = records
    store.may_write.clear()
    send("a", 1)
    send("a", 2, 1)
    asking = Asking(send.ref)
    assert asking.waits
    store.may_write.set()
    assert asking.answer() == (2, True)


def test_sums_wait_for_what_a_worker_has_not_sent_yet(records):
    send, store, told = records
    send("a", 1, newest=3)
    send("b", 1)
    first = Asking(send.ref)
    send("a", 2, 1, newest=4)
    assert first.waits
    send("a", 3, 2, newest=4)
    assert first.answer() == (4, True), "what came after the question is not waited for"
    second = Asking(send.ref)
    assert second.waits
    send("a", 4, 3, newest=4)
    assert second.answer() == (5, True)
    # word of more without any of it
    send("a", 0, newest=5)
    third = Asking(send.ref)
    assert third.waits
    send("a", 5, 4, newest=5)
    assert third.answer() == (6, True)


def test_what_a_dead_worker_took_along_is_waited_for_once(records):
    send, store, told = records
    send("dead", 1, newest=2)
    send("b", 1)
    first = Asking(send.ref)
    assert first.waits
    assert first.answer() == (2, False)
    assert Asking(send.ref).answer() == (2, True)


def test_a_store_that_cannot_write_makes_sums_incomplete(records):
    send, store, told = records
    store.failing = True
    send("a", 1)
    assert Asking(send.ref).answer() == (0, False)
    assert Asking(send.ref).answer() == (0, False), "as long as it cannot"
    store.failing = False
    gevent.sleep(0.1)
    assert Asking(send.ref).answer() == (1, True)


def test_a_store_that_cannot_read_is_an_answer(records):
    send, store, told = records
    store.unreadable = True
    with pytest.raises(StateError):
        send.ref.ask(GetTraffic(app="shop", since=0.0, until=1.0))
    store.unreadable = False
    assert Asking(send.ref).answer() == (0, True), "it lives on"
