"""Saves that overtake one another."""

from __future__ import annotations

import pytest

from ndactors.adapters.ordered_saves import OrderedSaves
from ndactors.errors import StateError


def test_an_older_save_that_ends_late_replaces_nothing():
    written, waiting = {}, []
    saves = OrderedSaves(written.__setitem__, waiting.append)
    saves("totals", 1)
    saves("totals", 2)
    saves("other", 3)
    for call in reversed(waiting):
        call()
    assert written == {"totals": 2, "other": 3}


def test_in_order_each_is_written():
    written = []
    saves = OrderedSaves(lambda name, value: written.append(value), lambda call: call())
    saves("totals", 1)
    saves("totals", 2)
    assert written == [1, 2]


def test_one_that_fails_leaves_room_for_those_after_it():
    written = []

    def save(name: str, value: object) -> None:
        if value == 2:
            raise StateError("full")
        written.append(value)

    saves = OrderedSaves(save, lambda call: call())
    saves("totals", 1)
    with pytest.raises(StateError):
        saves("totals", 2)
    saves("totals", 3)
    assert written == [1, 3]
