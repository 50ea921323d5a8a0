from __future__ import annotations

import gc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.health import TOGETHER, Checked, HealthTracker, next_check
from ndactors.core.model import Healthcheck

CHECK = Healthcheck(retries=3, restart_after=30.0, start_period=60.0)


def test_one_good_answer_makes_it_healthy():
    tracker = HealthTracker(CHECK, started=0.0)
    assert tracker.health == "unknown"
    assert tracker.passed(1.0)
    assert tracker.health == "healthy"
    assert not tracker.passed(2.0)


def test_it_is_unhealthy_after_as_many_failures_as_retries():
    tracker = HealthTracker(CHECK, started=0.0)
    tracker.passed(0.0)
    assert [tracker.failed("no", float(n)) for n in (1, 2, 3, 4)] == [False, False, True, False]
    assert (tracker.health, tracker.reason) == ("unhealthy", "no")


def test_a_good_answer_between_starts_the_count_anew():
    tracker = HealthTracker(CHECK, started=0.0)
    tracker.passed(0.0)
    tracker.failed("no", 1.0)
    tracker.failed("no", 2.0)
    tracker.passed(3.0)
    assert not tracker.failed("no", 4.0)
    assert tracker.health == "healthy"


def test_failures_do_not_count_while_it_starts():
    tracker = HealthTracker(CHECK, started=0.0)
    assert not any(tracker.failed("no", t) for t in (1.0, 20.0, 59.9))
    assert tracker.health == "unknown"
    assert [tracker.failed("no", t) for t in (60.0, 61.0, 62.0)] == [False, False, True]


def test_it_must_restart_after_being_unhealthy_for_long_enough_without_a_break():
    tracker = HealthTracker(CHECK, started=0.0)
    tracker.passed(0.0)
    for t in (1.0, 2.0, 3.0):
        tracker.failed("no", t)
    assert not tracker.must_restart(32.9)
    assert tracker.must_restart(33.0)
    tracker.passed(34.0)
    assert not tracker.must_restart(100.0)


# -- when ------------------------------------------------------------------------------------------


@given(st.floats(0, 1e7), st.sampled_from([0.2, 1.0, 2.0, 10.0, 60.0]), st.integers(0, 10**6), st.integers(1, 5000))
def test_the_next_check_is_not_far_away_and_then_exactly_an_interval(now, interval, which, containers):
    first = next_check(now, interval, which, containers)
    assert 0.24 * interval <= first - now <= 1.26 * interval
    for answered in (0.01, 0.5, 0.74):
        second = next_check(first + answered * interval, interval, which, containers)
        assert second - first == pytest.approx(interval, abs=1e-6)
    # one that is awaited for a whole interval is followed by a rest of an interval, as before
    assert next_check(first + interval, interval, which, containers) - first == pytest.approx(2 * interval, abs=1e-6)


class Member: ...


@pytest.mark.parametrize(("containers", "moments"), [(1, 1), (10, 1), (16, 1), (17, 2), (500, 32)])
def test_few_are_asked_together_and_many_are_spread(containers, moments):
    checked = Checked()
    members = [Member() for _ in range(containers)]
    numbers = [checked.number(member) for member in members]
    assert numbers == [checked.number(member) for member in members]
    found = Counter(round(next_check(0.1, 2.0, number, len(checked)), 6) for number in numbers)
    assert len(found) == moments
    assert max(found.values()) <= TOGETHER


def test_who_is_gone_is_forgotten():
    checked, member = Checked(), Member()
    checked.number(member)
    checked.number(Member())
    gc.collect()
    assert len(checked) == 1
    assert checked.number(Member()) == 2
