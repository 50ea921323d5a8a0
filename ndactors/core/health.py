"""What a row of probe results means: healthy, unhealthy (eject it), or unhealthy for so long that it must restart."""

from __future__ import annotations

from typing import Literal

from .model import Healthcheck

Health = Literal["unknown", "healthy", "unhealthy"]


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
