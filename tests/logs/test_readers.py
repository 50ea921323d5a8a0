"""Who has the reader next."""

import time

import pytest

from ndactors.logs import readers
from ndactors.logs.readers import Readers, Turns, Waiting
from ndactors.messages.logs import GetLogs, LogsFound, QueryLogs
from ndactors.runtime.peers import Peers


def asked(id, asker="", patience=15.0):
    return QueryLogs(id=id, query=GetLogs(asker=asker), patience=patience)


def waiting(id, asker="", until=10.0):
    return Waiting(asked(id, asker), lambda found: None, until)


def order(turns):
    return [each.query.id for each in iter(turns.take, None)]


def test_those_who_ask_take_turns():
    turns = Turns()
    for id in range(5):
        assert turns.put(waiting(id, "busy"))
    assert turns.put(waiting(10, "ana")) and turns.put(waiting(11, "ana")) and turns.put(waiting(20, "bob"))
    assert len(turns) == 8
    assert order(turns) == [0, 10, 20, 1, 11, 2, 3, 4]
    assert not turns


def test_who_comes_late_waits_for_one_of_each():
    turns = Turns()
    for id in range(3):
        turns.put(waiting(id, "busy"))
    assert turns.take().query.id == 0
    turns.put(waiting(10, "ana"))
    assert order(turns) == [1, 10, 2]


def test_one_cannot_take_all_the_room(monkeypatch):
    monkeypatch.setattr(readers, "MOST_OF_ONE", 3)
    monkeypatch.setattr(readers, "MOST_WAITING", 4)
    turns = Turns()
    assert [turns.put(waiting(id, "busy")) for id in range(4)] == [True, True, True, False]
    assert turns.put(waiting(10, "ana"))
    assert not turns.put(waiting(20, "bob"))
    assert order(turns) == [0, 10, 1, 2]


def test_nobody_waits_for_ever():
    turns = Turns()
    turns.put(waiting(1, "ana", until=5.0))
    turns.put(waiting(2, "ana", until=20.0))
    turns.put(waiting(3, "bob", until=5.0))
    assert [each.query.id for each in turns.take_late(5.0)] == [1, 3]
    assert turns.take_late(5.0) == []
    assert order(turns) == [2]


class World:
    def __init__(self, folder):
        (folder / "logs" / "store").mkdir(parents=True)
        self.peers = Peers(print)
        self.readers = Readers(folder, self.peers, print)
        self.found: list[LogsFound] = []

    def ask(self, *args, **kwargs):
        self.readers.ask(asked(*args, **kwargs), self.found.append, time.monotonic())

    def until(self, count):
        deadline = time.monotonic() + 20
        while len(self.found) < count:
            assert time.monotonic() < deadline
            self.peers.turn(0.1)

    @property
    def ids(self):
        return [each.id for each in self.found]


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.readers.stop()


def test_every_query_is_answered_once_in_turn(world):
    for id in range(4):
        world.ask(id, "busy")
    world.ask(10, "ana")
    world.until(5)
    assert world.ids == [0, 1, 10, 2, 3] or world.ids == [0, 10, 1, 2, 3]
    assert not any(each.failed or each.refused for each in world.found)


def test_what_waited_too_long_is_told_so_and_not_searched(world):
    world.ask(1, "busy")
    world.ask(2, "busy", patience=0.0)
    world.readers.look(time.monotonic())
    assert world.ids == [2] and world.found[0].failed == "other queries of the logs took too long"
    world.until(2)
    assert world.ids == [2, 1]


def test_a_reader_that_dies_is_replaced(world):
    world.ask(1)
    world.readers._process.kill()
    world.ask(2)
    world.until(2)
    assert world.ids == [1, 2]
    assert "ended" in world.found[0].failed and not world.found[1].failed
