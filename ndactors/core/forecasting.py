"""When a disk will be full, if it goes on like this: a straight line through what was used (least squares)."""

from __future__ import annotations

from collections import deque

from .alert_levels import MOST_SECONDS

EVERY_SECONDS = 60.0
WINDOW = 60
"""Points that the line goes through: an hour."""
ENOUGH = 15
"""With fewer nothing is said."""
RECENT = 10
"""So many of the last points must rise like that, too."""
STEADY = 0.6
"""So much of the variance the line must explain (R²): what goes up and down does not fill a disk."""
NEVER = 24.0 * 365
"""Hours that stand for never."""


class Filling:
    """One disk. Time is what was seen of it, so a clock that jumps, or a pause, bends nothing."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._seen = 0.0
        self._at = 0.0
        self._size = 0.0

    def look(self, used: float, size: float, at: float) -> float | None:
        """Bytes in use of so many, at ``at`` (Unix seconds). Hours until it is full, ``NEVER`` if that is far; None: it was
        not seen for long enough."""
        if size != self._size:  # it was enlarged, or is another one
            self._points.clear()
        if self._at and at - self._at > 3 * MOST_SECONDS:
            self._points.clear()  # what happened meanwhile was not seen
        self._seen += min(max(at - self._at, 0.0), MOST_SECONDS) if self._at else 0.0
        self._at, self._size = at, size
        if not self._points or self._seen - self._points[-1][0] >= EVERY_SECONDS * 0.95:
            self._points.append((self._seen, used))
        return self._hours(used)

    def _hours(self, used: float) -> float | None:
        points = self._points
        count = len(points)
        if count < ENOUGH:
            return None
        if used >= self._size:
            return NEVER
        mean_t, mean_u = sum(t for t, _ in points) / count, sum(u for _, u in points) / count
        spread_t = sum((t - mean_t) ** 2 for t, _ in points)
        spread_u = sum((u - mean_u) ** 2 for _, u in points)
        both = sum((t - mean_t) * (u - mean_u) for t, u in points)
        if spread_t <= 0 or spread_u <= 0 or both <= 0 or both * both / (spread_t * spread_u) < STEADY:
            return NEVER
        # what went up at once, some time ago, does not go on
        (begin, before), (end, now) = points[-RECENT], points[-1]
        rate = min(both / spread_t, (now - before) / (end - begin))
        return min(NEVER, (self._size - used) / rate / 3600.0) if rate > 0 else NEVER
