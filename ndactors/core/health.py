"""What a row of probe results means: healthy, unhealthy (eject it), or unhealthy for so long that it must restart."""

from __future__ import annotations

import math
from typing import Literal
from weakref import WeakKeyDictionary

from .model import Healthcheck

Health = Literal["unknown", "healthy", "unhealthy"]

TOGETHER = 16
"""So many containers are asked at the same moment: in between an idle machine sleeps."""


def next_check(now: float, interval: float, which: int, containers: int) -> float:
    """When container number ``which`` of so many is asked again, if each is every ``interval`` seconds: at its own moment of
    every interval, which it shares with few. From a quarter of an interval to one and a quarter away: an answer that takes
    its time delays no check, as long as it leaves that quarter."""
    moments = math.ceil(containers / TOGETHER) or 1
    own = which % moments * interval / moments
    return own + math.ceil((now + interval / 4 - own) / interval) * interval


class Checked:
    """All whose health is checked, numbered so that their moments are evenly used. Who is gone is forgotten."""

    def __init__(self) -> None:
        self._numbers: WeakKeyDictionary[object, int] = WeakKeyDictionary()
        self._next = 0

    def number(self, member: object) -> int:
        """Its own, from its first check on."""
        number = self._numbers.get(member)
        if number is None:
            number = self._numbers[member] = self._next
            self._next += 1
        return number

    def __len__(self) -> int:
        return len(self._numbers)


class HealthTracker:
    """Judges one container from its start on. Times are monotonic seconds given by the caller."""

    def __init__(self, check: Healthcheck, started: float) -> None:
        self._check = check
        self._started = started
        self._failures = 0
        self._unhealthy_since: float | None = None
        self.health: Health = "unknown"
        self.reason = ""

    def passed(self, now: float) -> bool:
        """One good answer is enough. True if this changed the verdict."""
        changed = self.health != "healthy"
        self.health, self.reason = "healthy", ""
        self._failures = 0
        self._unhealthy_since = None
        return changed

    def failed(self, reason: str, now: float) -> bool:
        """True if this changed the verdict. Until the first good answer, failures within ``start_period`` do not
        count: the app is still starting."""
        self.reason = reason
        if self.health == "unknown" and now - self._started < self._check.start_period:
            return False
        self._failures += 1
        if self._failures < self._check.retries or self.health == "unhealthy":
            return False
        self.health = "unhealthy"
        self._unhealthy_since = now
        return True

    def must_restart(self, now: float) -> bool:
        """True once it has been unhealthy for ``restart_after`` seconds without a break."""
        return self._unhealthy_since is not None and now - self._unhealthy_since >= self._check.restart_after
