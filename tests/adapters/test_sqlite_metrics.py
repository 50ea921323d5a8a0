"""The history of metrics: what was told is found again, whatever clock, disk and daemon did meanwhile."""

from __future__ import annotations

import sqlite3
import time
import zlib
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ndactors.adapters import metric_blocks, metric_reading
from ndactors.adapters.metric_settling import expire, used_bytes
from ndactors.adapters.sqlite_metrics import SqliteMetrics
from ndactors.core.rollups import DAY, HOUR, TIERS, known_seconds
from ndactors.errors import Invalid, NotFound, StateError
from ndactors.messages.edge import LATENCY_BUCKETS
from ndactors.messages.metrics import GetMetricNames, GetMetrics, MetricHistory, Sample, Sampled

BASE = 1_800_000_000 // (15 * DAY) * 15 * DAY
"""Everything begins here."""
NONE = (0,) * len(LATENCY_BUCKETS)


@pytest.fixture
def make(tmp_path):
    made: list[SqliteMetrics] = []

    def start(**more) -> SqliteMetrics:
        made.append(SqliteMetrics(tmp_path / "metrics.db", lambda *_: None, lambda call: call(), **more))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def store(make):
    return make()


def counter(value: float, **labels: str) -> Sample:
    return Sample(name="c_total", kind="counter", labels=labels, value=value)


def gauge(value: float, **labels: str) -> Sample:
    return Sample(name="g", kind="gauge", labels=labels, value=value)


def latency(*buckets: int, total: float = 0.0) -> Sample:
    """Observations in the first buckets."""
    return Sample(name="h", kind="histogram", value=total, counts=(*buckets, *NONE[len(buckets) - 1 :]))


def told(at: float, *samples: Sample, source: str = "edge", **more) -> Sampled:
    return Sampled(source=source, at=BASE + at, samples=samples, **more)


def ask(store: SqliteMetrics, name: str = "c_total", since=0.0, until=HOUR, step=10.0, **more) -> MetricHistory:
    return store.query(GetMetrics(name=name, since=BASE + since, until=BASE + until, step=step, **more))


def points(found: MetricHistory, place: int = 0) -> list[tuple[float, float]]:
    return [(at - BASE, value) for at, value in found.series[place].points] if found.series else []


def increases(found: MetricHistory, last: float | None = None) -> float:
    """``last``: the slot that was written last; its step is by the seconds that are over."""
    newest = BASE + (last if last is not None else 1e9) + 10
    rows = [point for row in found.series for point in row.points]
    return sum(value * known_seconds(int(at), int(found.step), newest) for at, value in rows)


# -- what was told is found ------------------------------------------------------------------------


def test_counters_are_increases_by_the_second(store):
    for at, total in ((0, 100), (10, 130), (20, 130), (30, 5)):
        store.append([told(at, counter(total, app="shop"))])
    found = ask(store)
    assert (found.kind, found.step) == ("counter", 10.0)
    assert found.series[0].labels == {"app": "shop"}
    assert points(found) == [(10, 3.0), (20, 0.0), (30, 0.5)]


def test_gauges_are_means_with_their_highest(store):
    store.append([told(1, gauge(2.0)), told(4, gauge(10.0)), told(12, gauge(1.0))])
    found = ask(store, "g")
    assert points(found) == [(0, 6.0), (10, 1.0)]
    assert found.series[0].highest == (10.0, 1.0)


def test_histograms_have_quantiles(store):
    store.append([told(0, latency(0, 0, 0))])
    store.append([told(10, latency(0, 100, 0, total=0.2))])
    store.append([told(20, latency(0, 100, 0, total=0.2))])
    found = ask(store, "h")
    assert points(found) == [(10, 10.0), (20, 0.0)]
    low, high = LATENCY_BUCKETS[0], LATENCY_BUCKETS[1]
    assert found.series[0].quantiles[0] == pytest.approx(
        (low + (high - low) * 0.5, low + (high - low) * 0.95, low + (high - low) * 0.99)
    )
    assert found.series[0].quantiles[1] == (None, None, None)


def test_steps_add_up_slots_and_begin_at_multiples(store):
    for n in range(13):
        store.append([told(n * 10, counter(n * 6.0), gauge(float(n)))])
    assert points(ask(store, step=60.0, since=7)) == [(0, 0.5), (60, 0.6), (120, 0.6)]  # the last: 10 s of it are over
    assert points(ask(store, "g", step=60.0)) == [(0, 2.5), (60, 8.5), (120, 12.0)]
    assert ask(store, "g", step=60.0).series[0].highest == (5.0, 11.0, 12.0)
    assert ask(store, step=1.0).step == 10.0
    assert ask(store, step=25.0).step == 30.0


def test_only_series_with_these_labels_and_of_these_apps(store):
    rows = [counter(1, app="shop", code="200"), counter(1, app="shop", code="500"), counter(1, app="blog", code="200")]
    host = Sample(name="c_total", kind="counter", value=1.0)
    for at in (0, 10):
        store.append([told(at, *rows, host)])
    assert len(ask(store).series) == 4
    assert [row.labels for row in ask(store, labels={"app": "shop", "code": "500"}).series] == [
        {"app": "shop", "code": "500"}
    ]
    assert {row.labels["app"] for row in ask(store, apps=("shop",)).series} == {"shop"}
    assert ask(store, labels={"app": "no"}).series == ()
    with pytest.raises(NotFound):
        ask(store, apps=("other",))
    with pytest.raises(NotFound):
        ask(store, "nothing")
    assert [(row.name, row.kind, row.series) for row in store.names(GetMetricNames())] == [("c_total", "counter", 4)]
    assert store.names(GetMetricNames(apps=("blog",)))[0].series == 1
    assert store.names(GetMetricNames(apps=())) == ()


def test_too_many_points_are_refused(store, monkeypatch):
    store.append([told(0, *[gauge(1.0, n=str(n)) for n in range(30)])])
    with pytest.raises(Invalid):
        ask(store, "g", until=200 * DAY)
    monkeypatch.setattr(metric_reading, "MAX_POINTS", 29)
    with pytest.raises(Invalid, match="30 series"):
        ask(store, "g", until=10.0)
    with pytest.raises(Invalid):
        ask(store, "g", until=-10.0)


def test_a_series_that_appears_later_began_at_0_if_its_source_says_so(store):
    store.append([told(0, counter(7, code="200"), from_zero=True)])
    store.append([told(10, counter(8, code="200"), counter(3, code="500"), from_zero=True)])
    store.append([told(10, counter(9, code="x"), source="host")])
    store.append([told(20, counter(9, code="y"), source="host")])
    assert {row.labels["code"]: row.points[0][1] * 10 for row in ask(store).series} == {"200": 1.0, "500": 3.0}


def test_what_came_in_a_gap_arrives_with_the_sample_that_ends_it(store):
    store.append([told(0, counter(10))])
    store.append([told(300, counter(70))])
    assert points(ask(store)) == [(300, 6.0)]


def test_what_is_no_number_is_left_out(store):
    store.append(
        [told(0, gauge(float("nan")), gauge(1.0, ok="1")), told(float("nan"), gauge(5.0)), told(-BASE - 1, gauge(5.0))]
    )
    assert [row.labels for row in ask(store, "g").series] == [{"ok": "1"}]


# -- tiers -----------------------------------------------------------------------------------------


def fill(store: SqliteMetrics, seconds: int, every: int = 10, begin: int = 0) -> None:
    for at in range(begin, begin + seconds, every):
        store.append([told(at, counter(float(at)), gauge(float(at % 100)))])


def test_coarser_points_are_the_same_sums(store, tmp_path):
    fill(store, 8 * HOUR)
    fine = ask(store, until=8 * HOUR, step=20.0)
    assert increases(fine) == 8 * HOUR - 10
    for step in (60.0, 3600.0, 7200.0):
        found = ask(store, until=8 * HOUR, step=step)
        assert found.step == step
        assert increases(found) == pytest.approx(8 * HOUR - 10)
    mean = ask(store, "g", until=HOUR, step=3600.0)
    assert points(mean) == [(0, 45.0)]
    assert mean.series[0].highest == (90.0,)
    database = sqlite3.connect(tmp_path / "metrics.db")
    rows = dict(database.execute("SELECT tier, count(*) FROM blocks GROUP BY tier").fetchall())
    assert rows[10] == 7 * 2 and rows[60] == 1 * 2
    assert database.execute("SELECT count(*) FROM slots").fetchone()[0] < 3 * HOUR / 10
    database.close()


def test_old_points_are_there_in_coarser_tiers_only(store):
    fill(store, 3 * DAY, every=300)
    assert ask(store, since=0, until=DAY, step=10.0).step == 60.0
    assert ask(store, since=2.5 * DAY, until=3 * DAY, step=10.0).step == 10.0
    assert increases(ask(store, until=3 * DAY, step=60.0), 3 * DAY - 300) == 3 * DAY - 300
    fill(store, 30 * DAY, every=HOUR, begin=3 * DAY)
    assert ask(store, since=0, until=33 * DAY, step=60.0).step == 3600.0
    assert increases(ask(store, until=33 * DAY, step=3600.0), 33 * DAY - HOUR) == 33 * DAY - HOUR
    assert ask(store, since=27 * DAY, until=33 * DAY, step=60.0).step == 60.0


def test_series_that_are_gone_go_with_their_last_points(make, monkeypatch):
    monkeypatch.setattr("ndactors.adapters.sqlite_metrics.FORGET_WRITES", 6)
    store = make()
    store.append([told(0, gauge(1.0, old="1"))])
    for at in range(0, 450 * DAY, DAY // 2):
        store.append([told(at, gauge(1.0, new="1"))])
    assert [row.series for row in store.names(GetMetricNames())] == [1]
    assert [row.labels for row in ask(store, "g", since=300 * DAY, until=450 * DAY, step=DAY).series] == [{"new": "1"}]


def test_beyond_the_budget_the_oldest_of_the_finest_tier_go(make, tmp_path):
    store = make()
    fill(store, 6 * HOUR)
    database = sqlite3.connect(tmp_path / "metrics.db")
    before = used_bytes(database)
    with database:
        expire(database, before - 4096, (), BASE + 6 * HOUR)
    first = [row[0] - BASE for row in database.execute("SELECT DISTINCT at FROM blocks WHERE tier = 10").fetchall()]
    assert first and min(first) >= HOUR
    assert used_bytes(database) <= before - 4096
    with database:
        expire(database, 1, (), BASE + 6 * HOUR)
    assert database.execute("SELECT count(*) FROM blocks").fetchone()[0] == 0
    database.close()
    assert ask(store, until=6 * HOUR, step=HOUR).series, "what is still in rows stays"


# -- clocks ----------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_adds_to_what_is_there(store):
    fill(store, HOUR + 60)
    before = increases(ask(store, until=2 * HOUR))
    # an hour back: the same slots again
    for n in range(10):
        store.append([told(n * 10, counter(HOUR + 60 + n * 5.0), gauge(500.0))])
    fill_on = [told(2 * HOUR + n * 10, counter(HOUR + 200 + n * 5.0)) for n in range(10)]
    for each in fill_on:
        store.append([each])
    added = fill_on[-1].samples[0].value - (HOUR + 50)
    for step in (10.0, 60.0, 3600.0):
        assert increases(ask(store, until=3 * HOUR, step=step), 2 * HOUR + 90) == pytest.approx(before + added)
    assert ask(store, "g", until=60).series[0].highest[0] == 500.0


def test_a_clock_that_is_wrong_for_an_hour_costs_no_more_than_an_hour(store):
    fill(store, DAY + 2 * HOUR, every=60)
    kept = ask(store, since=0, until=2 * DAY, step=20.0)
    oldest = kept.series[0].points[0][0]
    for jump in (400 * DAY, -BASE + 100):
        for n in range(0, HOUR, 300):
            store.append([told(jump + n, counter(10.0 * n))])
    fill(store, 600, every=60, begin=DAY + 2 * HOUR)
    again = ask(store, since=0, until=2 * DAY, step=20.0)
    assert again.step == 20.0 or again.series
    reach = [
        at
        for row in ask(store, since=oldest - BASE + 3 * HOUR, until=2 * DAY, step=20.0).series
        for at, _ in row.points
    ]
    assert min(reach) <= oldest + 3 * HOUR + 60
    assert len(reach) > 20 * HOUR / 60


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(-2 * HOUR, 3 * HOUR), st.integers(0, 20), st.booleans()), min_size=2, max_size=25)
)
def test_nothing_is_lost_or_counted_twice_whatever_the_clock_does(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("m") / "metrics.db"
    store = SqliteMetrics(path, lambda *_: None, lambda call: call())
    now, total = 10 * HOUR, 0
    store.append([told(now, counter(0))])
    for move, count, restart in steps:
        now = min(23 * HOUR, max(0, now + move))
        total += count
        store.append([told(now, counter(total))])
        if restart:
            store.close()
            store = SqliteMetrics(path, lambda *_: None, lambda call: call())
    for step in (10.0, 60.0, 3600.0):
        found = store.query(GetMetrics(name="c_total", since=BASE, until=BASE + DAY, step=step))
        assert increases(found, now // 10 * 10) == pytest.approx(total)
    store.close()


# -- restarts, damage, limits ----------------------------------------------------------------------


def test_what_came_while_nobody_looked_is_in_the_first_slot_afterwards(make):
    store = make()
    store.append([told(0, counter(10), latency(1), gauge(1.0))])
    store.close()
    store = make()
    store.append([told(600, counter(25), latency(4), gauge(1.0))])
    assert points(ask(store)) == [(600, 1.5)]
    assert points(ask(store, "h")) == [(600, 0.3)]


def test_a_write_that_fails_can_be_tried_again_and_counts_once(make, tmp_path):
    store = make()
    store.append([told(0, counter(10))])
    other = sqlite3.connect(tmp_path / "metrics.db", isolation_level=None)
    store._file._database.execute("PRAGMA busy_timeout=1")
    other.execute("BEGIN IMMEDIATE")
    batches = [told(10, counter(30), counter(4, new="1"))]
    with pytest.raises(StateError):
        store.append(batches)
    other.execute("ROLLBACK")
    other.close()
    store.append(batches)
    store.append([told(20, counter(31), counter(5, new="1"))])
    assert increases(ask(store)) == pytest.approx(22)


def test_a_damaged_file_is_set_aside_and_a_new_one_begun(make, tmp_path):
    store = make()
    fill(store, HOUR)
    store.close()
    path = tmp_path / "metrics.db"
    data = bytearray(path.read_bytes())
    data[100 : len(data) // 2] = b"\xff" * (len(data) // 2 - 100)
    path.write_bytes(data)
    store = make()
    fill(store, 100)
    assert increases(ask(store)) == 90
    assert list(tmp_path.glob("metrics.db.damaged-*"))


def test_points_that_cannot_be_read_cost_only_themselves(make, tmp_path):
    store = make()
    fill(store, 2 * HOUR + 60)
    database = sqlite3.connect(tmp_path / "metrics.db")
    with database:
        database.execute("UPDATE blocks SET body = x'00' WHERE tier = 10 AND at = ?", (BASE,))
        database.execute("UPDATE slots SET body = x'1234' WHERE seq = (SELECT max(seq) FROM slots WHERE tier = 10)")
    database.close()
    found = ask(store, until=3 * HOUR)
    assert points(found)[0][0] == HOUR
    fill(store, 2 * HOUR, begin=2 * HOUR + 60)
    assert increases(ask(store, until=5 * HOUR)) > 2 * HOUR


def test_too_many_series_are_refused_and_counted_but_those_that_are_gone_make_room(make):
    store = make(max_series=10)
    store.append([told(0, *[gauge(1.0, n=str(n)) for n in range(8)])])
    added = store.append([told(10, *[gauge(1.0, n=str(n)) for n in range(20)])])
    assert (added.refused, added.most) == (10, 10)
    assert len(ask(store, "g").series) == 10
    # two days on, the others are gone since long
    for n in range(500):
        store.append([told(20 + n * 10, *[gauge(1.0, n=str(n)) for n in range(4)])])
    store.append([told(2 * DAY, *[gauge(1.0, n=str(n)) for n in range(4)])])
    added = store.append([told(2 * DAY + 5000, *[gauge(1.0, m=str(n)) for n in range(3)])])
    assert added.refused == 0
    assert {"m": "0"} in [row.labels for row in ask(store, "g", since=2 * DAY, until=3 * DAY).series]
    assert {"n": "1"} in [row.labels for row in ask(store, "g", since=2 * DAY, until=3 * DAY).series]


def test_labels_without_end_are_refused(store):
    assert store.append([told(0, gauge(1.0, x="y" * 3000))]).refused == 1


def test_a_name_that_changed_its_kind_has_the_newer(store):
    store.append([told(0, Sample(name="x", kind="counter", value=1.0))])
    store.append([told(10, Sample(name="x", kind="gauge", value=5.0))])
    found = ask(store, "x")
    assert (found.kind, points(found)) == ("gauge", [(10, 5.0)])
    assert [(row.name, row.kind) for row in store.names(GetMetricNames())] == [("x", "gauge")]


def test_series_that_nobody_told_for_long_leave_memory_and_come_back_without_a_leap(store, monkeypatch):
    monkeypatch.setattr("ndactors.adapters.sqlite_metrics.FORGET_WRITES", 6)
    store.append([told(0, counter(1000, app="a"), counter(0, app="b"), from_zero=True)])
    for n in range(1, 20):
        store.append([told(n * 10, counter(n, app="b"), from_zero=True)])
    assert len(store._memory.known) == 1
    store.append([told(200, counter(1005, app="a"), counter(20, app="b"), from_zero=True)])
    store.append([told(210, counter(1006, app="a"), counter(20, app="b"), from_zero=True)])
    assert increases(ask(store, labels={"app": "a"})) == pytest.approx(1)


# -- packing ---------------------------------------------------------------------------------------

ROWS = st.dictionaries(
    st.integers(1, 1 << 31),
    st.one_of(
        st.tuples(st.just("counter"), st.tuples(st.floats(allow_nan=False))),
        st.tuples(st.just("gauge"), st.tuples(*[st.floats(allow_nan=False)] * 3)),
        st.tuples(st.just("histogram"), st.lists(st.floats(0, 1e9), min_size=2, max_size=20).map(tuple)),
    ),
    max_size=20,
)


@given(ROWS)
def test_a_row_is_unpacked_as_it_was_packed(rows):
    found = metric_blocks.unpack_row(metric_blocks.pack_row(rows)).all()
    assert {id: (kind, tuple(point)) for id, (kind, point) in found.items()} == rows


@given(st.lists(st.tuples(st.floats(allow_nan=False), st.floats(0, 9), st.floats(0, 9)), min_size=1, max_size=400))
def test_a_block_is_unpacked_as_it_was_packed(rows):
    ordered = list(enumerate(rows))
    assert metric_blocks.unpack_block(metric_blocks.pack_block("gauge", ordered)) == ("gauge", ordered)


@given(st.binary(max_size=200))
def test_what_was_never_packed_is_refused(data):
    for body in (data, zlib.compress(data)):
        for unpack in (metric_blocks.unpack_row, metric_blocks.unpack_block):
            try:
                unpack(body)
            except ValueError:
                continue


# -- what it costs ---------------------------------------------------------------------------------


def test_a_slot_of_250_series_costs_little(store, tmp_path):
    def batch(n: int) -> Sampled:
        rows = [gauge(1e9 / 3 + i * n, i=str(i)) for i in range(120)]
        rows += [counter(float(i * n), i=str(i)) for i in range(110)]
        rows += [
            Sample(name="h", kind="histogram", labels={"i": str(i)}, value=1.0 * n, counts=(n, *NONE))
            for i in range(20)
        ]
        return told(n * 10, *rows)

    batches = [batch(n) for n in range(60)]
    store.append(batches[:1])
    costs = []
    for each in batches[1:]:
        began = time.thread_time()
        store.append([each])
        costs.append(time.thread_time() - began)
    costs.sort()
    assert costs[len(costs) // 2] < 0.005, "usually a millisecond or two, with room for slow machines"
    rate = (tmp_path / "metrics.db-wal").stat().st_size
    assert rate < 16 * 1024 * 1024


def test_blocks_are_small(store, tmp_path):
    for at in range(0, 2 * HOUR, 10):
        store.append([told(at, *[counter(float(at * n // 7), n=str(n)) for n in range(50)])])
    database = sqlite3.connect(tmp_path / "metrics.db")
    count, size = database.execute("SELECT count(*), sum(length(body)) FROM blocks WHERE tier = 10").fetchone()
    assert count == 50
    assert size / count < 360 * 2, "a point of a quiet counter takes no more than two bytes"
    database.close()


def test_tiers_go_from_fine_to_coarse():
    assert all(fine.seconds < coarse.seconds for fine, coarse in pairwise(TIERS))


def test_what_is_read_for_an_answer_is_bounded(store, monkeypatch):
    for n in range(60):
        store.append([told(10 * n, gauge(1.0, c="a"), gauge(2.0, c="b"))])
    assert ask(store, "g", until=600, step=10.0).step == 10.0
    monkeypatch.setattr(metric_reading, "MAX_READ", 2 * 60 - 1)
    found = ask(store, "g", until=600, step=10.0)
    assert (found.step, len(points(found))) == (60.0, 10), "coarser points are fewer"
    monkeypatch.setattr(metric_reading, "MAX_READ", 1)
    with pytest.raises(Invalid, match="takes too long"):
        ask(store, "g", until=600, step=10.0)


def test_a_step_is_rounded_up_to_what_the_coarsest_points_make_up(store):
    for n in range(60):
        store.append([told(10 * n, gauge(1.0))])
    assert ask(store, "g", until=600, step=70.0).step == 120.0


def test_what_is_told_again_by_who_does_not_know_that_it_was_written_counts_once(store):
    store.append([told(0, counter(5e11))])
    writing = [told(10, counter(5e11 + 1000), gauge(1.0)), told(15, counter(5e11 + 2000))]
    store.append(writing)
    store.append([*writing, told(20, counter(5e11 + 3000))])
    found = ask(store)
    assert points(found) == [(10, 200.0), (20, 100.0)]
    assert ask(store, "g").series[0].points == ((BASE + 10.0, 1.0),)


def test_a_write_that_was_overtaken_by_the_last_words_adds_nothing(store):
    store.append([told(0, counter(5e11))])
    writing = [told(10, counter(5e11 + 1000)), told(15, counter(5e11 + 2000))]
    store.append([*writing, told(20, counter(5e11 + 3000))])
    store.append(writing)
    assert points(ask(store)) == [(10, 200.0), (20, 100.0)]


@pytest.mark.parametrize("until", [310, 301, 305.5, 590, 600])
def test_a_step_that_is_cut_off_is_by_the_seconds_that_are_known(store, until):
    for n in range(90):
        store.append([told(10 * n + 5, counter(100.0 * (n + 1)), from_zero=True)])
    # the very first sample of a source is no increase
    assert [value for _, value in points(ask(store, since=60, until=until, step=60.0))] == [10.0] * -(
        -int(until - 60) // 60
    )
    assert points(ask(store, since=300, until=until, step=300.0)) == [(300, 10.0)]


def test_a_clock_that_is_ahead_again_and_again_pushes_nothing_out(store):
    for hour in range(60):
        for minute in range(60):
            store.append([told(HOUR * hour + 60 * minute + 5, gauge(1.0))])
        if 20 <= hour < 50:
            store.append([told(10 * 365 * DAY + HOUR * hour, gauge(99.0))])
    now = 60 * HOUR
    found = ask(store, "g", since=now - DAY, until=now, step=10.0)
    assert found.step == 10.0
    assert points(found)[0][0] < now - DAY + 60
    assert len(points(found)) == 24 * 60
    times = [at - BASE for (at,) in store._file._database.execute("SELECT at FROM spans WHERE tier = 10")]
    assert max(times) < now, "the future goes when there is enough of the past"


def test_a_clock_that_begins_in_1970_costs_nothing_that_was_there(store):
    for hour in range(30):
        for minute in range(0, 60, 10):
            store.append([told(HOUR * hour + 60 * minute + 5, gauge(1.0))])
    for hour in range(3):
        store.append([told(HOUR * hour - BASE, gauge(1.0))])
    now = 30 * HOUR
    store.append([told(now, gauge(1.0))])
    assert len(points(ask(store, "g", since=now - 20 * HOUR, until=now, step=10.0))) == 20 * 6


def test_series_of_a_clock_that_was_ahead_make_room_in_the_end(make):
    store = make(max_series=50)

    def put(at: float, ids: range) -> int:
        return store.append([told(at, *(gauge(1.0, c=str(n)) for n in ids))]).refused

    put(0, range(50))
    put(10 * 365 * DAY, range(50))
    put(20, range(50))
    for hour in range(1, 24 * 4):
        put(HOUR * hour, range(100, 110))
    for n in range(400):  # so long nothing is kept in memory
        put(4 * DAY + 10 * n, range(100, 110))
    put(5 * DAY, range(100, 110))
    assert put(6 * DAY, range(100, 110)) == 0
