"""The edge's pure decisions: limits, retry budgets, suspicion, redirects, what may be remembered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core import suspecting
from ndactors.core.gcra import THROTTLE_SECONDS, Limit, decide
from ndactors.core.redacting import address_key, redact_query, redact_url, shorten_address
from ndactors.core.redirects import compile_redirects, find_redirect
from ndactors.core.retrying import FLOOR, RetryBudget
from ndactors.core.suspecting import ANSWERED, LATE, SILENT, SUSPECT, TRANSITIONS, TRUSTED, excuse, patience


def run(limit: Limit, moments: list[float]) -> list[float]:
    arrival, waits = 0.0, []
    for now in moments:
        arrival, wait = decide(arrival, now, limit)
        waits.append(wait)
    return waits


def test_a_burst_passes_then_some_wait_then_they_are_refused():
    waits = run(Limit.of(10, 1.0, 5), [100.0] * 30)
    assert waits[:5] == [0.0] * 5
    assert [round(wait, 6) for wait in waits[5:15]] == [round(0.1 * n, 6) for n in range(1, 11)]
    assert all(wait < 0 for wait in waits[15:])
    assert -waits[-1] == pytest.approx(1.1)


@given(
    st.integers(1, 1000),
    st.integers(1, 60),
    st.integers(0, 50),
    st.lists(st.floats(0, 0.5, allow_nan=False), min_size=1, max_size=300),
)
def test_no_more_passes_than_the_rate_and_the_burst_allow(count, seconds, burst, gaps):
    limit = Limit.of(count, float(seconds), burst)
    now, arrival, served = 1000.0, 0.0, []
    for gap in gaps:
        now += gap
        arrival, wait = decide(arrival, now, limit)
        if wait >= 0:
            assert wait <= THROTTLE_SECONDS
            served.append(now + wait)
    for first in range(0, len(served), 7):
        for last in range(first, len(served), 11):
            span = served[last] - served[first]
            assert last - first + 1 <= max(1, burst) + span / limit.interval + 1.001


def test_the_budget_bounds_retries_by_requests():
    budget = RetryBudget()
    taken = sum(budget.take() for _ in range(1000))
    assert taken == FLOOR
    budget.refill(1000, 1.0)
    assert 200 <= sum(budget.take() for _ in range(5000)) <= 220
    for _ in range(100):
        budget.refill(0, 1.0)
    assert budget.tokens <= FLOOR * 1.5


def test_patience_is_four_times_the_99th_percentile():
    assert patience(0, ()) == patience(1000, [5.0] * 5) == suspecting.SHORTEST_PATIENCE
    assert patience(1000, [0.5] * 10) == 2.0
    assert patience(3, [1.0]) == 4.0, "few answers: the slowest of them counts"


def test_suspicion_takes_two_silent_probes_and_ends_with_any_answer():
    state = TRUSTED
    for event in (LATE, SILENT, SILENT):
        state = TRANSITIONS[state, event]
    assert state == SUSPECT
    assert TRANSITIONS[state, ANSWERED] == TRUSTED
    assert all(TRANSITIONS[state, ANSWERED] == TRUSTED for state in range(1, 4))
    assert [excuse(0.25, n) for n in (0, 1, 9)] == [0.25, 0.5, suspecting.LONGEST_EXCUSE]


@pytest.mark.parametrize(
    ("host", "path", "query", "to"),
    [
        ("www.shop.test", "/a/b", "q=1", "https://shop.test/a/b?q=1"),
        ("shop.test", "/old", "", "/new"),
        ("shop.test", "/old/x", "", None),
        ("shop.test", "/blog/2024/x", "p=2", "/articles/2024/x?p=2"),
        ("shop.test", "/blog", "", None),
        ("shop.test", "/go", "a=b", "https://elsewhere.test/?x=y"),
        ("shop.test", "/docs/api", "", "https://docs.test/api"),
        ("shop.test", "/docs//evil.test", "", "https://docs.test//evil.test"),
        ("shop.test", "/any//evil.test", "", "/evil.test"),
        ("shop.test", "/same/x", "", None),
    ],
)
def test_redirects(host, path, query, to):
    redirects = compile_redirects(
        {
            "www.shop.test": "https://shop.test",
            "/old": "/new",
            "/blog/*": "/articles/*",
            "/go": "https://elsewhere.test/?x=y",
            "shop.test/docs/*": "https://docs.test/*",
            "/any/*": "/*",
            "/same/*": "/same/*",
        }
    )
    assert find_redirect(redirects, host, path, query) == to


@pytest.mark.parametrize(
    ("source", "to"),
    [
        ("", "/x"),
        ("https://a", "/x"),
        ("/a*b", "/x"),
        ("/a/*/b*", "/x"),
        ("/a", "b"),
        ("/a", "//b"),
        ("/a", "/b c"),
        ("/a", "/b\r\n"),
    ],
)
def test_redirects_that_cannot_be_meant(source, to):
    with pytest.raises(ValueError, match=r"'"):
        compile_redirects({source: to})


NAMES = ("token", "code", "password")


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("a=1&b=2", "a=1&b=2"),
        ("token=abc&a=1", "token=[redacted]&a=1"),
        ("TOKEN=abc", "TOKEN=[redacted]"),
        ("t%6fken=abc", "t%6fken=[redacted]"),
        ("user[password]=x&c=d", "user[password]=[redacted]&c=d"),
        ("tokens=1&decode=2", "tokens=1&decode=2"),
        ("token", "token"),
        ("a=token=x", "a=token=x"),
        ("password=", "password=[redacted]"),
    ],
)
def test_secrets_in_queries_are_replaced(query, kept):
    assert redact_query(query, NAMES) == kept


def test_a_url_keeps_neither_user_nor_fragment():
    assert (
        redact_url("https://me:secret@shop.test/a?code=1&b=2#token=x", NAMES)
        == "https://shop.test/a?code=[redacted]&b=2"
    )


def test_addresses():
    assert shorten_address("203.0.113.77", "truncated") == "203.0.113.0"
    assert shorten_address("2001:db8:1:2:3::4", "truncated") == "2001:db8:1::"
    assert shorten_address("203.0.113.77", "none") == ""
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:1") != address_key("2001:db8:0:1::1")
    assert address_key("203.0.113.77") == "203.0.113.77"
