"""How late our own event loop is: whatever waits on time must know when it was we who were slow."""

from __future__ import annotations

import time
from collections.abc import Callable

from gevent.hub import get_hub

TICK_SECONDS = 0.1
NOTICEABLE_SECONDS = 0.02


class LagMeter:
    """A timer that should fire every ``TICK_SECONDS``; what it is late by is added up. ``observe`` gets each lateness
    in seconds."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._total = 0.0
        self._due = time.monotonic() + TICK_SECONDS
        self._timer = get_hub().loop.timer(TICK_SECONDS, TICK_SECONDS)

    def start(self) -> None:
        self._due = time.monotonic() + TICK_SECONDS
        self._timer.start(self._tick)

    def stop(self) -> None:
        self._timer.stop()
        self._timer.close()

    def total(self) -> float:
        """Seconds of noticeable lateness since the start, one that is going on included."""
        late = time.monotonic() - self._due
        return self._total + (late if late > NOTICEABLE_SECONDS else 0.0)

    def _tick(self) -> None:
        now = time.monotonic()
        late = max(0.0, now - self._due)
        if late > NOTICEABLE_SECONDS:
            self._total += late
        self._due = now + TICK_SECONDS
        self._observe(late)
