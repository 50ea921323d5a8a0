"""How late our own event loop is: whatever waits on time must know when it was we who were slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gevent.hub import get_hub

WINDOW_SECONDS = 0.1
"""Of each window the longest turn is observed."""
LONGEST_SLEEP_SECONDS = 1.0
"""Whoever sleeps longer was stopped, or its machine was."""
NOTICEABLE_SECONDS = 0.02
FIRST, LAST = 2, -2
"""libev's priorities: before and after everything else that a turn of the loop has to do."""


class LagMeter:
    """Measures each turn of the loop, from the moment when the kernel woke it until it waits again: so late is whatever
    became due in between. It wakes nobody itself, but for a loop that has nothing to do for a second. ``observe`` gets the
    longest of each window, in seconds."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._loop = get_hub().loop
        self._total = 0.0
        self._longest = 0.0
        self._began = self._ended = self._observed = time.monotonic()
        self._working = True
        self._first = _with_priority(self._loop.check(), FIRST)
        self._last = _with_priority(self._loop.prepare(), LAST)
        self._alarm: Any = self._loop.timer(LONGEST_SLEEP_SECONDS, LONGEST_SLEEP_SECONDS)

    def start(self) -> None:
        self._first.start(self._awake)
        self._last.start(self._done)

    def stop(self) -> None:
        for watcher in (self._first, self._last, self._alarm):
            watcher.stop()
            watcher.close()

    def total(self) -> float:
        """Seconds of noticeable turns since the start, the one that is going on included."""
        lasts = time.monotonic() - self._began if self._working else 0.0
        return self._total + (lasts if lasts > NOTICEABLE_SECONDS else 0.0)

    def _awake(self) -> None:
        woken = self._loop.now()
        self._loop.update_now()
        # until we were let go on, by a thread that held the interpreter; the wall clock may have been set meanwhile
        now = time.monotonic()
        slept = now - self._ended
        held_up = max(min(self._loop.now() - woken, slept), slept - LONGEST_SLEEP_SECONDS, 0.0)
        self._began, self._working = now - held_up, True

    def _done(self) -> None:
        now = time.monotonic()
        late = now - self._began if self._working else 0.0
        self._ended, self._working = now, False
        if late > NOTICEABLE_SECONDS:
            self._total += late
        self._longest = max(self._longest, late)
        if now - self._observed >= WINDOW_SECONDS:
            self._observe(self._longest)
            self._observed, self._longest = now, 0.0
        self._alarm.again(_nothing)


def _nothing() -> None: ...


def _with_priority(watcher: Any, priority: int) -> Any:
    watcher.priority = priority
    return watcher
