import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from ndactors.core.signals import Increases, SignalMaker, quantile

BOUNDS = (0.1, 1.0, 10.0)


class Figure(Struct, frozen=True, kw_only=True):
    name: str
    labels: dict[str, str] = {}
    value: float = 0.0
    counts: tuple[int, ...] = ()


def figure(name, value=0.0, counts=(), **labels):
    return Figure(name=name, labels=labels, value=value, counts=tuple(counts))


def found(signals, name):
    return {tuple(value for _, value in signal.subject): signal.value for signal in signals if signal.name == name}


@pytest.fixture
def maker():
    return SignalMaker(BOUNDS)


def test_totals_grow_and_begin_anew():
    increases = Increases()
    assert [(grown := increases.of(figure("n", value))) and grown[0] for value in (100.0, 130.0, 130.0, 7.0, 9.0)] == [
        None,
        30.0,
        0.0,
        7.0,
        2.0,
    ]


def test_a_histogram_that_began_anew():
    increases = Increases()
    increases.of(figure("h", 5.0, (3, 3)))
    assert increases.of(figure("h", 6.0, (4, 3))) == (1.0, [1, 0])
    assert increases.of(figure("h", 6.5, (1, 9))) == (6.5, (1, 9))
    assert increases.of(figure("h", 9.0, (1, 9, 1))) == (9.0, (1, 9, 1))


def test_what_nobody_tells_of_is_forgotten():
    increases = Increases()
    increases.of(figure("a", 1.0))
    increases.of(figure("b", 1.0))
    increases.prune()
    assert increases.of(figure("a", 2.0)) == (1.0, [])
    increases.prune()
    assert increases.of(figure("b", 5.0)) is None


@pytest.mark.parametrize(
    ("q", "counts", "value"),
    [
        (0.5, (10, 0, 0, 0), 0.05),
        (0.95, (0, 100, 0, 0), 0.955),
        (0.95, (90, 0, 0, 10), 10.0),
        (0.5, (0, 0, 0, 0), None),
    ],
)
def test_quantiles(q, counts, value):
    assert quantile(q, counts, BOUNDS) == (pytest.approx(value) if value is not None else None)


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4), st.floats(0.01, 0.99))
def test_a_quantile_is_within_the_bounds(counts, q):
    value = quantile(q, counts, BOUNDS)
    assert (value is None) == (sum(counts) == 0)
    assert value is None or 0 <= value <= BOUNDS[-1]


def requests(app="shop", good=0, bad=0):
    own = {"app": app, "process": "web", "method": "GET"}
    return [
        figure("nextdeploy_requests_total", good, **own, code="200"),
        figure("nextdeploy_requests_total", bad, **own, code="503"),
    ]


def test_requests_a_second_and_the_share_of_errors(maker):
    assert found(maker.signals("edge", requests(good=1000, bad=7), 100.0), "app.errors") == {("shop",): 0.0}
    signals = maker.signals("edge", requests(good=1180, bad=27), 110.0)
    assert found(signals, "app.requests") == {("shop",): 20.0}
    assert found(signals, "app.errors") == {("shop",): 10.0}


def test_errors_of_a_kind_that_there_was_not_before_count_where_totals_begin_at_zero(maker):
    def codes(**counts):
        return [
            figure("nextdeploy_requests_total", n, app="shop", process="web", code=code[1:])
            for code, n in counts.items()
        ]

    maker.signals("edge", codes(c200=1000, c500=70), 100.0, from_zero=True)
    signals = maker.signals("edge", codes(c200=1080, c500=70, c502=20), 110.0, from_zero=True)
    assert found(signals, "app.errors") == {("shop",): 20.0}
    signals = maker.signals("edge", codes(c200=1160, c500=70, c502=20, c504=1000), 120.0)
    assert found(signals, "app.errors")["shop",] < 20


def test_few_errors_are_no_share(maker):
    maker.signals("edge", requests(), 100.0)
    assert found(maker.signals("edge", requests(good=1, bad=9), 110.0), "app.errors") == {("shop",): 0.0}


def test_errors_are_forgotten_after_a_minute(maker):
    maker.signals("edge", requests(), 100.0)
    maker.signals("edge", requests(bad=50), 110.0)
    shares = [
        found(maker.signals("edge", requests(good=n, bad=50), 110.0 + n), "app.errors")["shop",] for n in (20, 40, 70)
    ]
    assert shares[0] > 50 and shares[1] > 50 and shares[2] == 0.0


def test_a_clock_that_goes_back_forgets_errors_of_the_future(maker):
    maker.signals("edge", requests(), 10_000.0)
    maker.signals("edge", requests(bad=50), 10_010.0)
    maker.signals("edge", requests(good=10, bad=50), 20.0)
    signals = maker.signals("edge", requests(good=20, bad=50), 30.0)
    assert found(signals, "app.errors") == {("shop",): 0.0}
    assert found(signals, "app.requests") == {("shop",): 1.0}


def test_the_p95_of_what_came_since(maker):
    def durations(*counts):
        return [figure("nextdeploy_request_duration_seconds", 1.0, counts, app="shop", process="web")]

    assert found(maker.signals("edge", durations(1000, 0, 0, 0), 100.0), "app.p95") == {}
    assert found(maker.signals("edge", durations(1000, 100, 0, 0), 110.0), "app.p95") == {
        ("shop",): pytest.approx(0.955)
    }
    # nothing came: the app is there all the same
    assert found(maker.signals("edge", durations(1000, 100, 0, 0), 120.0), "app.p95") == {("shop",): None}


def test_what_a_process_uses_is_the_sum_of_its_containers(maker):
    def uses(*rows):
        return [
            each
            for name, cpu, memory in rows
            for each in (
                figure("nextdeploy_container_cpu_seconds_total", cpu, app="shop", process="web", container=name),
                figure("nextdeploy_container_memory_bytes", memory, app="shop", process="web", container=name),
            )
        ]

    maker.signals("containers", uses(("a", 10.0, 100), ("b", 20.0, 200)), 100.0)
    signals = maker.signals("containers", uses(("a", 15.0, 100), ("b", 22.5, 300), ("new", 50.0, 1)), 110.0)
    assert found(signals, "process.cpu") == {("shop", "web"): 75.0}
    assert found(signals, "process.memory") == {("shop", "web"): 401}


def test_shares_of_what_there_is(maker):
    signals = maker.signals(
        "host",
        [
            figure("nextdeploy_host_disk_used_bytes", 90, mount="/"),
            figure("nextdeploy_host_disk_total_bytes", 100, mount="/"),
            figure("nextdeploy_host_disk_used_bytes", 1, mount="/data"),
            figure("nextdeploy_host_memory_used_bytes", 1),
            figure("nextdeploy_host_memory_total_bytes", 4),
            figure("nextdeploy_host_swap_used_bytes", 0),
            figure("nextdeploy_host_swap_total_bytes", 0),
        ],
        5.0,
    )
    assert found(signals, "disk.used") == {("/",): 90.0}
    assert found(signals, "host.memory") == {(): 25.0}
    assert found(signals, "host.swap") == {}


def test_any_figures_make_finite_signals(maker):
    source = random.Random(3)
    names = ["nextdeploy_requests_total", "nextdeploy_request_duration_seconds", "nextdeploy_hub_lag_seconds", "nextdeploy_log_dropped_total", "x"]  # fmt: skip
    for _ in range(300):
        figures = [
            figure(
                source.choice(names),
                source.choice([0.0, -5.0, 1e18]),
                [source.randrange(9)] * source.randrange(6),
                app="a",
            )
            for _ in range(4)
        ]
        for signal in maker.signals("edge", figures, source.uniform(-1e9, 1e9)):
            assert signal.value is None or abs(signal.value) < float("inf")
