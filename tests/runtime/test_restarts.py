"""The pure part: windows, backoff, words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.runtime.restarts import Backoff, Intensity, Restart, RestartWindow, Strategy


def test_a_window_allows_exactly_max_restarts():
    window = RestartWindow(Intensity(3, 10.0))
    assert [window.allows(t) for t in (0.0, 1.0, 2.0, 3.0)] == [True, True, True, False]


def test_a_restart_is_forgotten_when_the_window_has_passed():
    window = RestartWindow(Intensity(1, 10.0))
    assert window.allows(0.0)
    assert window.allows(10.0)
    assert not window.allows(19.9)


@given(st.lists(st.floats(0, 5), max_size=200), st.integers(0, 10), st.floats(0.1, 10))
def test_a_window_agrees_with_counting(gaps, limit, within):
    window, times, now = RestartWindow(Intensity(limit, within)), [], 0.0
    for gap in gaps:
        now += gap
        times.append(now)
        assert window.allows(now) == (sum(t > now - within for t in times) <= limit)


def test_backoff_doubles_is_capped_and_begins_again():
    backoff = Backoff(first=1.0, longest=5.0, reset_after=60.0)
    assert [backoff.next(t) for t in (0.0, 1.0, 2.0, 3.0, 4.0)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert backoff.next(64.0) == 1.0


def test_backoff_never_overflows():
    backoff = Backoff(first=1.0, longest=30.0)
    assert {backoff.next(float(n)) for n in range(5000)} <= {1.0, 2.0, 4.0, 8.0, 16.0, 30.0}


@pytest.mark.parametrize(
    ("restart", "crashed", "wanted"),
    [
        (Restart.PERMANENT, True, True),
        (Restart.PERMANENT, False, True),
        (Restart.TRANSIENT, True, True),
        (Restart.TRANSIENT, False, False),
        (Restart.TEMPORARY, True, False),
        (Restart.TEMPORARY, False, False),
    ],
)
def test_words_mean_what_they_mean_in_otp(restart, crashed, wanted):
    assert restart.wanted(crashed=crashed) is wanted


@pytest.mark.parametrize(
    ("strategy", "affected"),
    [
        (Strategy.ONE_FOR_ONE, [1]),
        (Strategy.ONE_FOR_ALL, [0, 1, 2]),
        (Strategy.REST_FOR_ONE, [1, 2]),
    ],
)
def test_who_is_affected(strategy, affected):
    assert list(strategy.affected(1, 3)) == affected
