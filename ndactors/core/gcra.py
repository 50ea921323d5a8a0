"""The generic cell rate algorithm (ITU-T I.371; Brandur Leach's description of it for requests): one number, the
theoretical arrival time, is all that a limit remembers."""

from __future__ import annotations

from typing import NamedTuple

THROTTLE_SECONDS = 1.0
"""A request is rather delayed by up to so long than refused."""


class Limit(NamedTuple):
    """One cell in every ``interval`` seconds, ``burst`` seconds ahead of time at most."""

    interval: float
    burst: float

    @classmethod
    def of(cls, count: int, seconds: float, burst: int) -> Limit:
        """``count`` in every ``seconds``, and ``burst`` at once (at least one)."""
        interval = seconds / count
        return cls(interval, interval * max(0, burst - 1))


def decide(arrival: float, now: float, limit: Limit) -> tuple[float, float]:
    """The new theoretical arrival time, and how long the request must wait: 0 for not at all, negative for how long
    until it may come again (it is refused, and the time stays as it was)."""
    if arrival < now:
        arrival = now
    wait = arrival - limit.burst - now
    if wait <= 0.0:
        return arrival + limit.interval, 0.0
    if wait <= THROTTLE_SECONDS:
        return arrival + limit.interval, wait
    return arrival, -wait
