"""RecordActor: what comes is stored once and in order, and the edge hears of it."""

from __future__ import annotations

import gevent
import pytest

from ndactors.actors.record import RecordActor
from ndactors.errors import StateError
from ndactors.messages.containers import RecordsArrived
from ndactors.messages.edge import RecordsStored, RequestRecords
from ndactors.runtime.ref import Ref
from ndactors.runtime.root import Root
from ndactors.runtime.supervisor import Child


class Store:
    def __init__(self) -> None:
        self.stored: list[tuple[str, int]] = []
        self.failing = False

    def append(self, batches) -> None:
        if self.failing:
            raise StateError("the disk is full")
        self.stored += [(b.worker, b.sequence) for b in batches]

    def page(self, query):
        return query


@pytest.fixture
def records(monkeypatch):
    monkeypatch.setattr("ndactors.actors.record.RETRY_SECONDS", 0.02)
    ref, store, told = Ref("records"), Store(), []
    root = Root(Child(ref, RecordActor, store))

    def send(worker: str, sequence: int, previous: int = 0) -> None:
        message = RequestRecords(worker=worker, sequence=sequence, previous=previous, count=1, batch=b"")
        ref.tell(RecordsArrived(message, told.append))
        gevent.sleep(0.005)

    yield send, store, told
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
