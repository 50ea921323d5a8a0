"""What is unusual for this time of the day: the mean of some minutes beside the means of the same hour of earlier days (or
weeks: of whatever the window is). Quiet until there are enough of those."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

from msgspec import Struct

MEAN_SECONDS = 300.0
"""So much goes into one mean."""
BIN_SECONDS = 3600.0
KEPT = 14
"""Earlier windows that count."""
ROWS = KEPT + 1
"""The window that goes on has a row of its own."""
ENOUGH = 4
"""With fewer of them nothing is said."""
LEAST_CHANGE = 0.2
"""Of the usual value: a smaller change is none that anybody wants to hear of."""
LEAST_SPREAD = 0.05
"""Of the usual value: nothing is steadier than that."""
OUTLIER = 6.0
RARE = 7
"""Fewer than one in so many are incidents: what comes once a week is none."""
NORMAL = 1.4826
"""A median of absolute deviations times this is the standard deviation, if they are normal."""
MOST_BINS = 24 * 28
_NONE = float("nan")
MOST_KEPT_BYTES = 12 * 1024 * 1024
"""Of all that is usual, as it is written down."""

SeasonState = tuple[int, bytes, bytes, bytes]
"""Bins of a window; the numbers of the windows, means, spreads."""


class Verdict(Struct, frozen=True, kw_only=True):
    """``score``: how far away it is, as a share of what would be an anomaly: 1 and more is one. ``usual``: what it mostly is
    at this time."""

    score: float
    value: float
    usual: float


def judge(
    value: float, means: Sequence[float], spreads: Sequence[float], sigma: float, *, floor: float, up: bool, down: bool
) -> Verdict | None:
    """``means`` and ``spreads`` are of the same hour of earlier windows; ``floor``: the least spread, in the value's unit.
    None: too few. Where a few of them are far from all others (a day with an incident), the median is asked instead of the
    mean, and the spread of the others: the mean and σ would take that day for usual. What is more frequent than that (days
    at the weekend) is usual, however far it is."""
    count = len(means)
    if count < ENOUGH:
        return None
    from statistics import fmean, median, pstdev  # once there is a history

    middle = median(means)
    robust = NORMAL * median([abs(mean - middle) for mean in means])
    within = median(spreads)
    least = max(floor, LEAST_SPREAD * abs(middle))
    near = [mean for mean in means if abs(mean - middle) <= OUTLIER * max(robust, within, least)]
    if RARE * (count - len(near)) >= count:
        near = list(means)
    usual = fmean(means) if len(near) == count else middle
    between = max(robust, pstdev(near))
    spread = max(math.hypot(within, between), least)
    change = value - usual
    if (change > 0 and not up) or (change < 0 and not down) or abs(change) < LEAST_CHANGE * abs(usual):
        return Verdict(score=0.0, value=value, usual=usual)
    # the fewer windows, the less is known of how far they spread
    allowed = sigma * (1 + 2 / count) * spread
    return Verdict(score=abs(change) / allowed, value=value, usual=usual)


class Seasons:
    """What one signal was like, in bins of an hour of each window (``window`` seconds)."""

    def __init__(self, window: float) -> None:
        self._bins = bins_of(window)
        self._window = self._bins * BIN_SECONDS
        self._numbers = array("q", [-1] * ROWS)
        """Which window each row is of."""
        self._means = array("f", [_NONE] * (ROWS * self._bins))
        self._spreads = array("f", [_NONE] * (ROWS * self._bins))
        self._bin = -1
        """The bin that is open, counted from 1970."""
        self._own: list[float] = []
        """Means in it."""
        self._mean_at = -1
        self._sum, self._count = 0.0, 0

    def look(self, value: float, at: float, sigma: float, *, floor: float, up: bool, down: bool) -> Verdict | None:
        """One more value. A verdict when some minutes are over, else None; also None while too little is known."""
        verdict = None
        slot = int(at // MEAN_SECONDS)
        if slot != self._mean_at:
            if self._count:
                mean, self._sum, self._count = self._sum / self._count, 0.0, 0
                verdict = self._over(mean, self._mean_at * MEAN_SECONDS, sigma, floor=floor, up=up, down=down)
            self._mean_at = slot
        self._sum, self._count = self._sum + value, self._count + 1
        return verdict

    def _over(self, mean: float, at: float, sigma: float, *, floor: float, up: bool, down: bool) -> Verdict | None:
        number = int(at // BIN_SECONDS)
        if number != self._bin:
            self._close()
            self._bin = number
        self._own.append(mean)
        window, place = divmod(number, self._bins)
        rows = [row for row in range(ROWS) if 0 < window - self._numbers[row] <= KEPT and self._numbers[row] >= 0]
        cells = [row * self._bins + place for row in rows]
        cells = [cell for cell in cells if not math.isnan(self._means[cell])]
        means, spreads = [self._means[cell] for cell in cells], [self._spreads[cell] for cell in cells]
        return judge(mean, means, spreads, sigma, floor=floor, up=up, down=down)

    def _close(self) -> None:
        """The open bin is over: it becomes one of the earlier ones."""
        if self._bin < 0 or not self._own:
            return
        from statistics import fmean, pstdev

        window, place = divmod(self._bin, self._bins)
        row = window % ROWS
        if self._numbers[row] != window:
            self._numbers[row] = window
            for cell in range(row * self._bins, (row + 1) * self._bins):
                self._means[cell] = self._spreads[cell] = _NONE
        self._means[row * self._bins + place] = fmean(self._own)
        self._spreads[row * self._bins + place] = pstdev(self._own)
        self._own = []

    # -- to keep -----------------------------------------------------------------------------------

    def state(self) -> SeasonState:
        """All but the open bin."""
        return self._bins, self._numbers.tobytes(), self._means.tobytes(), self._spreads.tobytes()

    def restore(self, state: SeasonState) -> None:
        """What ``state`` told. What does not fit, as the window is another one, is left out."""
        bins, numbers, means, spreads = state
        size = ROWS * self._bins * self._means.itemsize
        if bins != self._bins or len(numbers) != ROWS * 8 or len(means) != size or len(spreads) != size:
            return
        self._numbers, self._means, self._spreads = array("q", numbers), array("f", means), array("f", spreads)


def bins_of(window: float) -> int:
    return max(1, min(MOST_BINS, round(window / BIN_SECONDS)))


def most_seasons(window: float) -> int:
    """So many signals' are kept."""
    cells = ROWS * bins_of(window)
    return MOST_KEPT_BYTES // (2 * 4 * cells * 4 // 3 + 400)  # two floats in base64, numbers and a name


def is_known(state: SeasonState, window: float, now: float) -> bool:
    """Something in it still counts."""
    numbers = array("q")
    try:
        numbers.frombytes(state[1])
    except ValueError:
        return False
    newest = max(numbers, default=-1)
    return newest >= 0 and newest >= now // (bins_of(window) * BIN_SECONDS) - KEPT


def amount(state: SeasonState) -> int:
    """How many bins are known, about."""
    return len(state[2]) // 4 - state[2].count(array("f", [_NONE]).tobytes())


class Usual(Struct, frozen=True, kw_only=True):
    """A signal that anomalies are looked for in: which way, how small a spread it may have, and what is said."""

    signal: str
    up: bool = True
    down: bool = False
    floor: float
    unit: str
    words: str


USUAL: tuple[Usual, ...] = (
    Usual(signal="app.requests", down=True, floor=0.2, unit="requests/s", words="{app} gets {value}; usual at this time are {usual}"),
    Usual(signal="app.p95", floor=0.02, unit="s", words="{app} takes {value} for one request in twenty; usual at this time are {usual}"),
    Usual(signal="process.cpu", floor=3.0, unit="%", words="{app}/{process} uses {value} of a core; usual at this time are {usual}"),
    Usual(signal="process.memory", floor=16 * 1024 * 1024, unit="MB", words="{app}/{process} has {value} of memory; usual at this time are {usual}"),
    Usual(signal="host.cpu", floor=3.0, unit="%", words="The CPU of this machine is {value} busy; usual at this time are {usual}"),
)  # fmt: skip
