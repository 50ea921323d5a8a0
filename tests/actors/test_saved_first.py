"""Counters that are on disk before anybody is told."""

from __future__ import annotations

import pytest

from ndactors.actors.saved_first import SavedFirst
from ndactors.errors import StateError
from ndactors.runtime.ref import Later, Request


class Ground:
    """``pending``: saves that are under way, each ended by ``end``."""

    def __init__(self) -> None:
        self.now, self.pending, self.written, self.heard = 0, [], [], []
        self.counters = SavedFirst(
            lambda call, then: self.pending.append((call, then)),
            self.written.append,
            lambda: (self.now, f"total {self.now}"),
            self.heard.append,
        )

    def end(self, error: BaseException | None = None) -> None:
        call, then = self.pending.pop(0)
        if error is None:
            call()
        self.counters.done(then(None, error))


@pytest.fixture
def ground():
    return Ground()


def asked(ground) -> Request:
    later = ground.counters.ask()
    assert isinstance(later, Later)
    request = Request("figures")
    later.bind(request)
    return request


def test_what_is_told_is_saved_before(ground):
    ground.now = 7
    ground.counters.tell()
    assert (ground.heard, ground.written) == ([], [])
    ground.now = 8
    ground.end()
    assert (ground.heard, ground.written) == (["total 7"], [7])


def test_what_is_saved_already_is_told_at_once(ground):
    ground.counters.tell()
    ground.end()
    ground.counters.tell()
    assert (ground.heard, ground.pending) == (["total 0", "total 0"], [])


def test_what_is_to_be_told_while_a_save_is_under_way_is_told_after_the_next(ground):
    ground.counters.tell()
    ground.now = 1
    ground.counters.tell()
    ground.counters.tell()
    ground.end()
    assert ground.heard == ["total 0"]
    ground.end()
    assert ground.heard == ["total 0", "total 1"]
    assert ground.pending == []


def test_a_disk_that_takes_nothing_keeps_nobody_from_the_figures(ground):
    ground.now = 3
    request = asked(ground)
    ground.counters.tell()
    ground.end(StateError("full"))
    ground.end(StateError("full"))
    assert request.wait(0.1, "x") == "total 3"
    assert ground.heard == ["total 3"]


def test_those_who_gave_up_do_not_pile_up_while_a_save_hangs(ground):
    for n in range(1000):
        ground.now = n
        asked(ground).fail(TimeoutError())
    assert len(ground.counters._asked) <= 1
    last = asked(ground)
    ground.end()
    ground.end()
    assert last.wait(0.1, "x") == "total 999"


def test_any_other_error_is_the_actors(ground):
    ground.now = 1
    ground.counters.ask()
    with pytest.raises(ZeroDivisionError):
        ground.end(ZeroDivisionError())
