"""From samples to points, and which points answer."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.rollups import (
    DAY,
    HOUR,
    TIERS,
    increase,
    is_sound,
    key_of,
    known_seconds,
    merged,
    point_of,
    quantile,
    reading,
    slot,
    step_of,
    tiers_for,
    until_sampling,
    value_of,
)
from ndactors.core.samples import Sample

NOW = 1_800_000_000
BOUNDS = (1.0, 2.0, 4.0)


def counter(value: float) -> Sample:
    return Sample(name="c_total", kind="counter", value=value)


def gauge(value: float) -> Sample:
    return Sample(name="g", kind="gauge", value=value)


def histogram(total: float, *counts: int) -> Sample:
    return Sample(name="h", kind="histogram", value=total, counts=counts)


# -- points ----------------------------------------------------------------------------------------


def test_a_gauge_has_mean_and_highest_of_its_slot():
    point = merged("gauge", point_of(gauge(2.0), None), point_of(gauge(6.0), None))
    assert value_of("gauge", point, 10) == 4.0
    assert point[2] == 6.0


def test_a_negative_gauge_is_its_own_highest():
    assert merged("gauge", point_of(gauge(-3.0), None), point_of(gauge(-5.0), None))[2] == -3.0


def test_a_counter_has_what_came_since_the_sample_before():
    assert point_of(counter(12.0), (5.0,)) == (7.0,)
    assert point_of(counter(5.0), (5.0,)) == (0.0,)


def test_the_first_sample_gives_no_increase_unless_it_began_at_0():
    assert point_of(counter(5.0), None) is None
    assert point_of(histogram(1.0, 1, 0), None) is None
    assert point_of(counter(5.0), None, from_zero=True) == (5.0,)


def test_a_total_that_fell_has_begun_anew():
    assert point_of(counter(3.0), (5.0,)) == (3.0,)


def test_one_bucket_that_fell_is_enough():
    before = point_of(histogram(9.0, 5, 5), None, from_zero=True)
    assert point_of(histogram(2.0, 6, 1), before) == (2.0, 6.0, 1.0)


def test_the_sum_of_a_histogram_is_no_witness():
    """It is added up in floating point by several workers, and may wobble."""
    before = (9.000001, 5.0, 5.0)
    assert point_of(histogram(9.0, 6, 5), before) == (0.0, 1.0, 0.0)


def test_other_buckets_begin_anew():
    assert increase((1.0, 2.0), (1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)
    assert merged("histogram", (1.0, 2.0), (1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(0, 29))
def test_increases_add_up_to_what_was_counted_over_any_number_of_beginnings(steps, restart):
    total, before, found, counted = 0, (0.0,), 0.0, 0
    for place, step in enumerate(steps):
        if place == restart:
            total = 0
        total += step
        # a new beginning that is past the old total before anybody looks cannot be told from going on
        if place == restart and total >= before[0]:
            counted += total - int(before[0])
        else:
            counted += step
        found += point_of(counter(total), before)[0]
        before = (float(total),)
    assert found == counted


@given(st.permutations([(1.0, 1.0, 1.0), (5.0, 1.0, 5.0), (-2.0, 1.0, -2.0), (4.0, 2.0, 3.0)]))
def test_the_order_of_merging_does_not_matter(points):
    total = points[0]
    for point in points[1:]:
        total = merged("gauge", total, point)
    assert total == (8.0, 5.0, 5.0)


@pytest.mark.parametrize(
    "sample",
    [gauge(math.nan), gauge(math.inf), counter(-1.0), counter(math.nan), histogram(1.0, 1, -1), histogram(math.inf, 1)],
)
def test_what_is_no_number_is_no_sample(sample):
    assert not is_sound(sample)
    assert is_sound(gauge(-1.0))


def test_labels_have_no_order():
    one = Sample(name="x", kind="gauge", labels={"a": "1", "b": "2"})
    other = Sample(name="x", kind="gauge", labels={"b": "2", "a": "1"})
    assert key_of(one) == key_of(other) != key_of(Sample(name="x", kind="counter", labels={"a": "1", "b": "2"}))


# -- time ------------------------------------------------------------------------------------------


@given(st.floats(0, 4e9))
def test_a_sample_is_due_in_the_middle_of_the_next_slot(now):
    wait = until_sampling(now)
    assert 5.0 - 1e-5 <= wait <= 15.0 + 1e-5
    assert slot(now + wait, 10) == slot(now, 10) + 10


def test_tiers_are_made_of_one_another():
    for fine, coarse in pairwise(TIERS):
        assert coarse.seconds % fine.seconds == 0
        assert coarse.block % fine.block == 0
    assert [(tier.seconds, tier.keep) for tier in TIERS] == [(10, DAY), (60, 7 * DAY), (HOUR, 365 * DAY)]
    assert all(tier.block % tier.seconds == 0 and tier.blocks * tier.block > tier.keep for tier in TIERS)
    assert all(tier.block // tier.seconds < 65_536 for tier in TIERS)


def test_a_young_history_is_answered_from_its_finest_points():
    young = (NOW - 600, NOW - 600, None)
    assert tiers_for(NOW - 30 * DAY, 10, young)[0] == 0
    assert tiers_for(NOW - 300, 10, (NOW, None, None))[0] == 0
    assert tiers_for(NOW - 300, 10, (None, None, None))[0] == 0


def test_the_finest_tier_that_reaches_back_answers():
    grown = (NOW - DAY, NOW - 7 * DAY, NOW - 300 * DAY)
    assert tiers_for(NOW - HOUR, 10, grown)[0] == 0
    assert tiers_for(NOW - 2 * DAY, 10, grown)[0] == 1
    assert tiers_for(NOW - 30 * DAY, 10, grown)[0] == 2
    assert tiers_for(NOW - 900 * DAY, 10, grown)[0] == 2


def test_a_long_step_is_answered_from_coarser_points():
    grown = (NOW - DAY, NOW - 7 * DAY, NOW - 300 * DAY)
    assert tiers_for(NOW - HOUR, 60, grown)[0] == 1
    assert tiers_for(NOW - HOUR, 90, grown)[0] == 1
    assert tiers_for(NOW - HOUR, 2 * HOUR, grown)[0] == 2
    assert tiers_for(NOW - HOUR, 86_410, grown) == [2]


def test_coarser_points_answer_when_the_finer_are_too_many():
    grown = (NOW - DAY, NOW - 7 * DAY, NOW - 300 * DAY)
    assert tiers_for(NOW - HOUR, 10, grown) == [0, 1, 2]
    assert tiers_for(NOW - 2 * DAY, 10, grown) == [1, 2]
    assert reading("counter", 100, DAY, TIERS[0]) == 864_000
    assert reading("histogram", 100, DAY, TIERS[1]) == 4 * 144_000


@pytest.mark.parametrize(("step", "kept"), [(0.1, 10), (10, 10), (11, 20), (14.4, 20), (60, 60), (90, 90)])
def test_a_step_is_whole_slots(step, kept):
    assert step_of(step, TIERS[0]) == kept


def test_a_step_under_way_is_by_the_seconds_that_are_over():
    assert known_seconds(60, 60, 90) == 30
    assert known_seconds(60, 60, 120) == known_seconds(60, 60, 60) == known_seconds(60, 60, 500) == 60
    assert value_of("counter", (30.0,), known_seconds(60, 60, 90)) == 1.0
    assert value_of("histogram", (5.0, 10.0, 20.0), 10) == 3.0


# -- quantiles -------------------------------------------------------------------------------------


def test_quantiles_are_interpolated_in_their_bucket():
    assert quantile(0.5, (0, 10, 0, 0), BOUNDS) == 1.5
    assert quantile(0.5, (10, 10, 0, 0), BOUNDS) == 1.0
    assert quantile(0.75, (10, 10, 0, 0), BOUNDS) == 1.5
    assert quantile(0.99, (100, 0, 0, 0), BOUNDS) == pytest.approx(0.99)


def test_beyond_the_last_bound_nothing_is_known_but_the_bound():
    assert quantile(0.99, (1, 0, 0, 99), BOUNDS) == 4.0


def test_without_observations_or_bounds_there_is_no_quantile():
    assert quantile(0.5, (0, 0, 0, 0), BOUNDS) is None
    assert quantile(0.5, (), BOUNDS) is None
    assert quantile(0.5, (1, 2), BOUNDS) is None


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4).filter(any))
def test_quantiles_grow_and_stay_within_the_bounds(counts):
    found = [quantile(share, counts, BOUNDS) for share in (0.0, 0.1, 0.5, 0.95, 0.99, 1.0)]
    assert found == sorted(found)
    assert all(0.0 <= value <= 4.0 for value in found)
