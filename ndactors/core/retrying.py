"""The retry budget of one app: retries may add a fifth to its requests, so that they never multiply an outage."""

from __future__ import annotations

SHARE = 0.2
FLOOR = 100.0
FLOOR_PER_SECOND = 10.0
REMEMBERED_SECONDS = 10.0


class RetryBudget:
    """Tokens: every request brings ``SHARE``, every second ``FLOOR_PER_SECOND``, every retry takes one. It holds
    ``FLOOR`` and what the requests of ``REMEMBERED_SECONDS`` brought."""

    __slots__ = ("_limit", "tokens")

    def __init__(self) -> None:
        self.tokens = FLOOR
        self._limit = FLOOR

    def refill(self, requests: int, seconds: float) -> None:
        """``requests`` came within the last ``seconds``."""
        brought = SHARE * requests
        share = min(1.0, seconds / REMEMBERED_SECONDS)
        wanted = FLOOR + (brought / seconds * REMEMBERED_SECONDS if seconds > 0 else 0.0)
        self._limit += (wanted - self._limit) * (1.0 if wanted > self._limit else share)
        self.tokens = min(self._limit, self.tokens + brought + FLOOR_PER_SECOND * seconds)

    def take(self) -> bool:
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
