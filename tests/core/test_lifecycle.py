from __future__ import annotations

import pytest

from ndactors.core.lifecycle import TRANSITIONS, Impossible, State, Step, advance, diagram


def test_a_whole_life():
    state = State.PENDING
    for step in (Step.STARTED, Step.HEALTHY, Step.UNHEALTHY, Step.HEALTHY, Step.ENDED, Step.STARTED, Step.STOP):
        state = advance(state, step)
    assert advance(state, Step.REMOVED) is State.GONE


def test_every_state_can_be_stopped_and_reached():
    for state in State:
        if state not in (State.STOPPING, State.GONE):
            assert advance(state, Step.STOP) is State.STOPPING
    reached, grown = {State.PENDING}, True
    while grown:
        more = {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached
        reached |= more
        grown = bool(more)
    assert reached == set(State)


def test_what_the_table_does_not_know_is_a_bug():
    with pytest.raises(Impossible, match="a container that is gone cannot be started"):
        advance(State.GONE, Step.STARTED)


def test_the_diagram_names_every_transition():
    assert len([line for line in diagram().splitlines() if " --> " in line]) == len(TRANSITIONS) + 2
