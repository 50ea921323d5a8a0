import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.alert_watch import AnomalyWatch
from ndactors.core.anomalies import ENOUGH, KEPT, Seasons, judge, most_seasons
from ndactors.core.model import Anomaly, Monitoring
from ndactors.core.signals import Signal

DAY, HOUR = 86_400.0, 3600.0
UP = {"floor": 0.1, "up": True, "down": False}
BOTH = {"floor": 0.1, "up": True, "down": True}


def test_too_little_history_says_nothing():
    assert judge(1000.0, [10.0] * (ENOUGH - 1), [1.0] * (ENOUGH - 1), 4.0, **BOTH) is None
    assert judge(1000.0, [10.0] * ENOUGH, [1.0] * ENOUGH, 4.0, **BOTH).score > 1


def test_what_is_as_usual_is_none():
    verdict = judge(10.5, [10.0, 11.0, 9.0, 10.0], [1.0] * 4, 4.0, **BOTH)
    assert verdict.score < 1 and verdict.usual == 10.0


def test_both_ways_or_one():
    means, spreads = [10.0] * 7, [0.5] * 7
    assert judge(30.0, means, spreads, 4.0, **UP).score > 1
    assert judge(0.0, means, spreads, 4.0, **UP).score == 0
    assert judge(0.0, means, spreads, 4.0, **BOTH).score > 1


def test_a_day_with_an_incident_does_not_hide_the_next():
    means = [10.0, 10.5, 9.5, 200.0, 10.0, 10.2, 9.8, 10.1]
    assert judge(60.0, means, [0.5] * 8, 4.0, **BOTH).score > 1
    assert judge(10.0, means, [0.5] * 8, 4.0, **BOTH).score < 1


@pytest.mark.parametrize("weekend", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("free", [(5, 6), (6,)])
@pytest.mark.parametrize("first", [0, 3, 6])
def test_a_weekend_is_no_anomaly_when_there_were_some(weekend, free, first):
    source = random.Random(1)

    def level(t):
        by_day = rhythm(t) * (weekend if (int(t // DAY) + first) % 7 in free else 1.0)
        return max(0.0, by_day * source.gauss(1.0, 0.05))

    walk = Walk(level, step=300.0).go(35 * DAY)
    assert [at for at in walk.found if at > 21 * DAY] == []


def test_a_small_change_of_something_steady_is_none():
    assert judge(11.0, [10.0] * 14, [0.0] * 14, 4.0, floor=0.0, up=True, down=True).score == 0


def test_a_larger_sigma_lets_more_pass():
    means, spreads = [10.0] * 14, [1.0] * 14
    assert judge(16.0, means, spreads, 4.0, **BOTH).score > 1 > judge(16.0, means, spreads, 8.0, **BOTH).score


class Walk:
    """Values over days, one each ten seconds or minutes; what was said about them."""

    def __init__(self, value, *, start=0.0, step=60.0, window=DAY, sigma=4.0, **ways):
        self.seasons = Seasons(window)
        self.value, self.at, self.step, self.sigma = value, start, step, sigma
        self.ways = ways or BOTH
        self.found = []

    def go(self, seconds):
        end = self.at + seconds
        while self.at < end:
            verdict = self.seasons.look(self.value(self.at), self.at, self.sigma, **self.ways)
            if verdict is not None and verdict.score >= 1:
                self.found.append(self.at)
            self.at += self.step
        return self


def rhythm(t, night=2.0, day=50.0):
    return night + (day - night) * (0.5 - 0.5 * math.cos(2 * math.pi * t / DAY))


@pytest.mark.parametrize("spread", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_a_month_of_noise_over_a_daily_rhythm_says_nothing_three_times_in_a_row(seed, spread):
    source = random.Random(seed)
    days = [source.gauss(1.0, spread / 2) for _ in range(32)]
    walk = Walk(lambda t: max(0.0, rhythm(t) * days[int(t // DAY)] * source.gauss(1.0, spread))).go(30 * DAY)
    assert not [at for at in walk.found if {at + 300.0, at + 600.0} <= set(walk.found)]


def test_more_by_day_than_by_night_is_usual_and_the_day_s_load_at_night_is_not():
    walk = Walk(lambda t: rhythm(t)).go(8 * DAY)
    assert walk.found == []
    walk.value = lambda t: 50.0
    walk.go(2 * HOUR)
    assert len(walk.found) > 15


def test_traffic_that_vanishes():
    walk = Walk(lambda t: rhythm(t)).go(8 * DAY + 12 * HOUR)
    walk.value = lambda t: 0.0
    walk.go(HOUR)
    assert len(walk.found) >= 10


def test_the_window_may_be_a_week():
    def busy_on_sundays(t):
        return 100.0 if int(t // DAY) % 7 == 6 else 10.0

    weekly = Walk(busy_on_sundays, window=7 * DAY, step=300.0).go(8 * 7 * DAY)
    assert weekly.found == []
    weekly.value = lambda t: 100.0
    weekly.go(DAY)
    assert weekly.found


def test_a_gap_makes_nothing_of_nothing():
    walk = Walk(lambda t: 10.0).go(5 * DAY)
    walk.at += 3 * DAY
    walk.go(DAY)
    assert walk.found == []


@pytest.mark.parametrize("jump", [365 * DAY, 10 * 365 * DAY, -365 * DAY, -HOUR])
def test_a_clock_that_jumps_and_comes_back_loses_no_history(jump):
    walk = Walk(lambda t: rhythm(t), start=1000 * DAY).go(8 * DAY)
    walk.at += jump
    walk.go(2 * HOUR)
    walk.at -= jump
    walk.go(DAY)
    assert walk.found == []
    walk.value = lambda t: 500.0
    walk.go(HOUR)
    assert walk.found


def test_old_windows_give_way_to_new_ones():
    walk = Walk(lambda t: 10.0, step=300.0).go((KEPT + 2) * DAY)
    walk.value = lambda t: 100.0
    walk.go((KEPT + 2) * DAY)
    before = len(walk.found)
    walk.go(2 * DAY)
    assert len(walk.found) == before


def test_what_is_kept_is_what_is_restored():
    walk = Walk(lambda t: rhythm(t)).go(8 * DAY)
    again = Walk(lambda t: 500.0, start=walk.at)
    again.seasons.restore(walk.seasons.state())
    assert again.go(HOUR).found


@pytest.mark.parametrize(
    "state", [(24, b"", b"", b""), (7, b"x" * 112, b"", b""), (168, *Seasons(7 * DAY).state()[1:])]
)
def test_what_does_not_fit_is_left_out(state):
    walk = Walk(lambda t: 10.0)
    walk.seasons.restore(state)
    assert walk.go(5 * DAY).found == []


@given(
    st.lists(st.floats(-1e9, 1e9), max_size=20),
    st.floats(-1e9, 1e9),
    st.floats(0.1, 10),
    st.booleans(),
    st.booleans(),
)
def test_any_history_has_a_finite_score(means, value, sigma, up, down):
    verdict = judge(value, means, [abs(mean) for mean in means], sigma, floor=0.1, up=up, down=down)
    assert verdict is None or (math.isfinite(verdict.score) and verdict.score >= 0)


# -- all of them together --------------------------------------------------------------------------


def learnt(watch, *names, days=1, begin=0.0, window=DAY):
    monitoring = Monitoring(anomaly=Anomaly(window=window))
    for hour in range(int(days * 24) + 1):
        for name in names:
            signal = Signal(name="app.requests", subject=(("app", name),), value=10.0)
            list(watch.look(signal, {"app": name}, monitoring, begin + hour * HOUR))
    return begin + days * DAY


def test_what_nobody_told_of_for_as_many_windows_as_count_is_forgotten():
    watch = AnomalyWatch()
    now = learnt(watch, "old", "new")
    assert len(watch.state(now)) == 2
    later = now + (KEPT + 2) * DAY
    learnt(watch, "new", begin=later - DAY)
    assert list(watch.state(later)) == ["anomaly.app.requests app=new"]
    again = AnomalyWatch()
    again.restore(watch.state(later), DAY)
    assert again.state(later + (KEPT + 2) * DAY) == {}


def test_what_nobody_looks_at_gives_way_first_and_then_what_knows_least(monkeypatch):
    monkeypatch.setattr("ndactors.core.anomalies.MOST_KEPT_BYTES", 3 * 4300)
    assert most_seasons(DAY) == 3
    watch = AnomalyWatch()
    learnt(watch, "gone", days=3)
    watch.state(3 * DAY)
    learnt(watch, "long", begin=DAY, days=2)
    learnt(watch, "longer", begin=0.5 * DAY, days=2.5)
    learnt(watch, "short", begin=2.5 * DAY, days=0.5)
    kept = {key.partition("=")[2] for key in watch.state(3 * DAY)}
    assert kept == {"long", "longer", "short"}
    learnt(watch, "long", "longer", "short", "new", begin=3 * DAY, days=0.1)
    learnt(watch, *(f"x{number}" for number in range(50)), begin=3.1 * DAY, days=0)
    assert {key.partition("=")[2] for key in watch.state(3.2 * DAY)} == {"long", "longer", "short"}
    assert len(watch._seasons) <= 6


@pytest.mark.parametrize("window", [HOUR, DAY, 7 * DAY, 28 * DAY])
def test_all_that_is_kept_fits_into_a_record(window):
    from msgspec import json

    name = "anomaly.process.cpu app=" + "a" * 40 + " process=" + "p" * 40
    one = len(json.encode({name: Seasons(window).state()}))
    assert one * most_seasons(window) <= 14 * 1024 * 1024


@pytest.mark.parametrize("state", [(24, b"x", b"", b""), (24, b"", b"", b"")])
def test_what_cannot_be_read_is_not_kept(state):
    watch = AnomalyWatch()
    watch.restore({"anomaly.app.requests app=shop": state}, DAY)
    assert watch.state(0.0) == {}
