"""A canary is rolled back for what is no chance, promoted for what is well, and waits for what cannot be told yet."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.canary import ENOUGH, Sample, chance, judge, replicas_for, slow_above
from ndactors.core.model import Canary

SETTINGS = Canary(hold=30.0, max_error_rate=1.0, max_p95_ratio=1.5)
OLD = Sample(requests=5000, failed=5, p95_ms=20.0)


@pytest.mark.parametrize(
    ("new", "held", "what"),
    [
        (Sample(requests=0, failed=0), 5, "wait"),
        (Sample(requests=10, failed=1), 5, "wait"),  # one of ten says nothing
        (Sample(requests=100, failed=1), 31, "promote"),
        (Sample(requests=100, failed=10), 3, "roll back"),
        (Sample(requests=300, failed=15), 10, "roll back"),  # 5 % of 10 requests a second, within ten seconds
        (Sample(requests=5, failed=5), 1, "roll back"),  # all of five are no chance
        (Sample(requests=2, failed=2), 1, "roll back"),
        (Sample(requests=1, failed=1), 1, "wait"),
        (Sample(requests=300, failed=0, p95_ms=60, over=60), 10, "roll back"),
        (Sample(requests=300, failed=0, p95_ms=29, over=14), 31, "promote"),
        (Sample(requests=10, failed=0), 31, "wait"),
        (Sample(requests=10, failed=0), 121, "promote"),  # nobody comes: it must not hang for ever
    ],
)
def test_verdicts(new, held, what):
    verdict = judge(SETTINGS, OLD, new, held)
    assert verdict.what == what, verdict
    assert verdict.reason


def test_a_version_is_not_blamed_for_what_the_old_one_does_too():
    sick = Sample(requests=2000, failed=200, p95_ms=20.0)
    assert judge(SETTINGS, sick, Sample(requests=300, failed=30), 31).what == "promote"
    assert judge(SETTINGS, sick, Sample(requests=300, failed=120), 31).what == "roll back"


def test_slow_is_measured_by_the_old_version_when_it_tells_enough():
    assert slow_above(SETTINGS, Sample(requests=ENOUGH - 1, failed=0, p95_ms=10.0)) is None
    assert slow_above(SETTINGS, Sample(requests=ENOUGH, failed=0, p95_ms=100.0)) == 150.0
    assert slow_above(SETTINGS, Sample(requests=ENOUGH, failed=0, p95_ms=0.4)) == 5.4, "noise is no reason"


@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.001, 0.999))
def test_the_chance_is_the_binomial_tail(n, k, p):
    exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)) if k else 1.0
    assert chance(n, k, p) == pytest.approx(exact, rel=1e-6, abs=1e-9)


def test_a_good_version_is_hardly_ever_rolled_back():
    """At its very limit (1 % of the requests fail) and looked at thirty times, as it is in thirty seconds."""
    rng = random.Random(7)
    back = 0
    for _ in range(300):
        requests = failed = 0
        for second in range(30):
            requests += 10
            failed += sum(rng.random() < 0.01 for _ in range(10))
            if judge(SETTINGS, OLD, Sample(requests=requests, failed=failed), second).what == "roll back":
                back += 1
                break
    assert back <= 300 * 0.02


@pytest.mark.parametrize(("share", "replicas", "want"), [(5, 1, 1), (5, 10, 1), (25, 10, 3), (100, 4, 4), (50, 3, 2)])
def test_as_many_containers_as_the_share_needs(share, replicas, want):
    assert replicas_for(share, replicas) == want
