"""Whether a canary may go on: its requests against those of the old version, with a test that small samples cannot fool.

Both questions (too many errors? too slow?) are asked as one: of ``n`` requests ``k`` were bad, while at most a share
``p`` may be. How likely is it to see ``k`` or more by chance alone, if it were exactly ``p`` (binomial distribution)? Less
than ``DOUBT``: it is not chance, the canary is rolled back. Slow is measured by the old version's own 95th percentile:
at most 5 % of the canary's requests may take longer than ``max_p95_ratio`` times that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .model import Canary

DOUBT = 0.001
"""The chance of rolling a good version back at one look. It is looked at once a second."""
ENOUGH = 50
"""With fewer requests than this nothing can be said, and a step holds for longer."""
PATIENCE = 4.0
"""So many times ``hold`` a step waits for ``ENOUGH`` requests; then it goes on: an app without visitors can deploy."""
LEAST_MILLISECONDS = 5.0
"""Differences below that are noise, whatever their ratio."""


@dataclass(frozen=True)
class Sample:
    """``over`` counts requests slower than ``slow_above``."""

    requests: int
    failed: int
    p95_ms: float | None = None
    over: int = 0


@dataclass(frozen=True)
class Verdict:
    """``reason`` says in words what decided, with its figures."""

    what: Literal["promote", "roll back", "wait"]
    reason: str


def slow_above(settings: Canary, old: Sample) -> float | None:
    """Milliseconds above which a request of the canary counts as slow; None if the old version tells nothing."""
    if old.p95_ms is None or old.requests < ENOUGH:
        return None
    return max(old.p95_ms * settings.max_p95_ratio, old.p95_ms + LEAST_MILLISECONDS)


def judge(settings: Canary, old: Sample, new: Sample, held: float) -> Verdict:
    """``held``: seconds since the step began. ``new.over`` counts by ``slow_above(settings, old)``."""
    allowed = max(settings.max_error_rate / 100, old.failed / old.requests if old.requests >= ENOUGH else 0.0)
    if new.failed and chance(new.requests, new.failed, allowed) < DOUBT:
        rate = 100 * new.failed / new.requests
        return Verdict(
            "roll back",
            f"{new.failed} of {new.requests} requests failed ({rate:.1f} %; at most {100 * allowed:.1f} % may)",
        )
    limit = slow_above(settings, old)
    if limit is not None and new.over and chance(new.requests, new.over, 0.05) < DOUBT:
        return Verdict(
            "roll back",
            f"{new.over} of {new.requests} requests took longer than {limit:.0f} ms, "
            f"{settings.max_p95_ratio:g} times the old version's p95 of {old.p95_ms:.0f} ms",
        )
    if held < settings.hold:
        return Verdict("wait", f"{held:.0f} of {settings.hold:g} s")
    if new.requests < ENOUGH and held < settings.hold * PATIENCE:
        return Verdict("wait", f"{new.requests} requests so far; {ENOUGH} are needed to tell")
    few = "" if new.requests >= ENOUGH else ", too few to tell"
    return Verdict("promote", f"{new.failed} of {new.requests} requests failed{few}")


def chance(n: int, k: int, p: float) -> float:
    """P(X ≥ k) for X binomial(n, p)."""
    if k <= 0:
        return 1.0
    if k > n or p <= 0.0:
        return 0.0
    if p >= 1.0:
        return 1.0
    log_p, log_q = math.log(p), math.log1p(-p)

    def term(i: int) -> float:
        ways = math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1)
        return math.exp(ways + i * log_p + (n - i) * log_q)

    if k <= n * p:
        return max(0.0, 1.0 - sum(term(i) for i in range(k)))
    total = 0.0
    for i in range(k, n + 1):
        more = term(i)
        total += more
        if more < total * 1e-12:  # beyond the mean the terms only fall
            break
    return min(1.0, total)


def replicas_for(share: float, replicas: int) -> int:
    """How many of a canary's containers carry ``share`` percent of the requests."""
    return max(1, min(replicas, math.ceil(replicas * share / 100)))
