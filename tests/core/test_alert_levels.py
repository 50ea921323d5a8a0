from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.alert_levels import MOST_SECONDS, Limit, Watched, look
from ndactors.core.forecasting import ENOUGH, NEVER, Filling

HIGH = Limit(bad=90, good=85, lasts=120, over=60)
LOW = Limit(bad=4, good=6, lasts=0, over=60)


def walk(limit, *values, step=10.0, start=1000.0, before=None):
    states, watched = [], before or Watched()
    for place, value in enumerate(values):
        watched = look(watched, limit, value, start + place * step)
        states.append(watched.state)
    return states, watched


def test_it_fires_when_it_lasted():
    states, watched = walk(HIGH, 50, *[95] * 13)
    assert states == ["calm", *["rising"] * 12, "firing"]
    assert watched.began == 1010.0


def test_a_short_peak_is_none():
    states, _ = walk(HIGH, *[95] * 12, 89, *[95] * 12)
    assert "firing" not in states


def test_it_is_over_when_it_was_good_for_long_enough():
    states, watched = walk(HIGH, *[95] * 13, *[80] * 7)
    assert states[12:] == ["firing", *["falling"] * 6, "calm"]


def test_between_bad_and_good_it_fires_on():
    states, _ = walk(HIGH, *[95] * 13, *[87] * 50)
    assert states[12:] == ["firing"] * 51


def test_good_for_a_moment_is_not_over():
    states, _ = walk(HIGH, *[95] * 13, *[80] * 5, 88, *[80] * 5)
    assert "calm" not in states[12:]


def test_low_values_may_be_the_bad_ones():
    states, _ = walk(LOW, 10, 5, 4, 5, *[7] * 7)
    assert states == ["calm", "calm", "firing", "firing", *["falling"] * 6, "calm"]


def test_a_gap_makes_nothing_last():
    _, watched = walk(HIGH, 95)
    after = look(watched, HIGH, 95, 1000.0 + 86_400)
    assert (after.state, after.held) == ("rising", MOST_SECONDS)


def test_a_clock_that_goes_back_takes_nothing_away():
    _, watched = walk(HIGH, *[95] * 10)
    after = look(watched, HIGH, 95, 10.0)
    assert (after.state, after.held) == ("rising", 90.0)
    assert look(after, HIGH, 95, 20.0).held == 100.0


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-1e6, 1e6)), max_size=60))
def test_it_never_fires_without_a_bad_value_nor_ends_without_a_good_one(rows):
    watched, at = Watched(), 1e9
    for value, step in rows:
        before, at = watched, at + step
        watched = look(watched, HIGH, value, at)
        if watched.state == "firing" and before.state == "rising":
            assert HIGH.is_bad(value)
        if watched.state == "calm" and before.state == "falling":
            assert HIGH.is_good(value)
        assert watched.held >= 0


# -- disks that fill -------------------------------------------------------------------------------

GB = 1e9


def fill(filling, used, *, minutes, size=100 * GB, start=1000.0, step=60.0):
    return [filling.look(used(minute), size, start + minute * step) for minute in range(minutes)]


def test_a_steady_rate_tells_when_it_is_full():
    hours = fill(Filling(), lambda minute: 50 * GB + minute * 0.1 * GB, minutes=30)
    assert hours[: ENOUGH - 1] == [None] * (ENOUGH - 1)
    assert abs(hours[-1] - (50 - 2.9) / 6.0) < 0.01


def test_what_stands_still_falls_or_goes_up_and_down_is_never_full():
    for used in (
        lambda minute: 50 * GB,
        lambda minute: 50 * GB - minute * GB / 10,
        lambda minute: 50 * GB + (minute % 7) * GB,
    ):
        assert min(fill(Filling(), used, minutes=60)[ENOUGH - 1 :]) > 24


def test_a_step_is_no_rate_for_long():
    filling = Filling()
    hours = fill(filling, lambda minute: 50 * GB + (5 * GB if minute >= 60 else 0), minutes=130)
    assert hours[-1] == NEVER
    assert sum(hour < 4 for hour in hours[ENOUGH - 1 :]) == 0


def test_it_may_be_looked_at_as_often_as_one_likes():
    hours = fill(Filling(), lambda look: 50 * GB + look * 0.01 * GB, minutes=600, step=6.0)
    assert abs(hours[-1] - (50 - 5.99) / 6.0) < 0.05


def test_a_disk_that_was_enlarged_begins_anew():
    filling = Filling()
    fill(filling, lambda minute: 90 * GB + minute * 0.1 * GB, minutes=60)
    assert filling.look(96 * GB, 200 * GB, 60 * 60.0) is None


def test_a_pause_or_a_jump_of_the_clock_makes_no_rate():
    filling = Filling()
    fill(filling, lambda minute: 50 * GB, minutes=60)
    assert filling.look(60 * GB, 100 * GB, 90 * 86_400.0) is None
    hours = fill(filling, lambda minute: 60 * GB, minutes=60, start=1000.0)
    assert set(hours) == {None, NEVER} and hours[-1] == NEVER
