"""When to restart and when to give up: pure decisions about times. Words and meaning are Erlang/OTP's, plus backoff."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import NamedTuple


class Restart(Enum):
    """What an actor's end means: PERMANENT restarts always, TRANSIENT after a crash only, TEMPORARY never."""

    PERMANENT = "permanent"
    TRANSIENT = "transient"
    TEMPORARY = "temporary"

    def wanted(self, *, crashed: bool) -> bool:
        return self is Restart.PERMANENT or (self is Restart.TRANSIENT and crashed)


class Strategy(Enum):
    """Who restarts with the one that ended: itself, every sibling, or itself and the siblings started after it."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"

    def affected(self, index: int, count: int) -> range:
        """The positions that stop and start again when the child at ``index`` of ``count`` ends."""
        if self is Strategy.ONE_FOR_ALL:
            return range(count)
        if self is Strategy.REST_FOR_ONE:
            return range(index, count)
        return range(index, index + 1)


class Intensity(NamedTuple):
    """At most ``max_restarts`` within any ``within`` seconds; None: never give up (for the root only)."""

    max_restarts: int | None = 10
    within: float = 60.0


class RestartWindow:
    """Remembers restarts and says when there were too many. Times come from the caller and never go back."""

    def __init__(self, intensity: Intensity) -> None:
        self._intensity = intensity
        self._times: deque[float] = deque()

    def allows(self, now: float) -> bool:
        """Record one restart at ``now``; False when it exceeds the intensity."""
        if self._intensity.max_restarts is None:
            return True
        times = self._times
        times.append(now)
        while times[0] <= now - self._intensity.within:
            times.popleft()
        return len(times) <= self._intensity.max_restarts


class Backoff:
    """Seconds to wait before the next restart: ``first``, doubling up to ``longest``; after ``reset_after`` seconds
    without a failure it begins again."""

    def __init__(self, first: float = 0.05, longest: float = 30.0, reset_after: float = 60.0) -> None:
        self.first = first
        self.longest = longest
        self.reset_after = reset_after
        self._failures = 0
        self._last: float | None = None

    def next(self, now: float) -> float:
        """Record a failure at ``now`` and say how long to wait."""
        if self._last is not None and now - self._last >= self.reset_after:
            self._failures = 0
        self._last = now
        self._failures += 1
        # 2**60 times anything is past every cap; an exponent without a bound would grow for ever
        return min(self.longest, self.first * 2.0 ** min(self._failures - 1, 60))
