"""From samples to points, from points to coarser ones, and which of them answer a question.

A *point* is what is known of one series in one slot, as numbers that can be added up whatever is missing or comes late:

- gauge: (sum of the samples, how many there were, the largest)
- counter: (increase,)
- histogram: (increase of the sum, increase of each bucket, …)

A *slot* is named by the Unix second at which it begins, a multiple of its tier's seconds. Wall time decides the slot; two
points of one slot are merged, never replaced, so that a clock that was put back costs nothing that was stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from .samples import Sample

HOUR, DAY = 3600, 86_400

Point = tuple[float, ...]
Key = tuple[str, str, tuple[tuple[str, str], ...]]
"""Name, kind and labels."""


class Tier(NamedTuple):
    """Points of ``seconds`` are kept for ``keep`` seconds. ``block``: so many seconds are stored as one."""

    seconds: int
    keep: int
    block: int

    @property
    def blocks(self) -> int:
        """How many of them stay. What is stored is counted, not what the clock says: a clock that is wrong for an hour
        costs the oldest hour, never everything. One more than the time takes: the newest may have just begun."""
        return -(-self.keep // self.block) + 1


TIERS = (Tier(10, DAY, HOUR), Tier(60, 7 * DAY, 6 * HOUR), Tier(HOUR, 365 * DAY, 15 * DAY))
SLOT_SECONDS = TIERS[0].seconds
MAX_STEPS = 11_000
"""In one answer, for each series: as Prometheus has it."""
MAX_READ = 1_000_000
"""Points that are read for one answer. A histogram's count for ``HISTOGRAM_WEIGHT``."""
HISTOGRAM_WEIGHT = 4
LATEST = 1 << 40
"""No time is later, in Unix seconds."""


def slot(at: float, seconds: int) -> int:
    return int(at // seconds) * seconds


def until_sampling(now: float) -> float:
    """Seconds to wait before the next sample is due: the middle of the next slot, so that each slot gets one, however late
    a timer fires."""
    return slot(now, SLOT_SECONDS) + 1.5 * SLOT_SECONDS - now


def key_of(sample: Sample) -> Key:
    return sample.name, sample.kind, tuple(sorted(sample.labels.items()))


def is_sound(sample: Sample) -> bool:
    """A number that is none would spoil every sum that it gets into."""
    return math.isfinite(sample.value) and (
        sample.kind == "gauge" or (sample.value >= 0 and min(sample.counts, default=0) >= 0)
    )


# -- points ----------------------------------------------------------------------------------------


def totals_of(sample: Sample) -> Point:
    """What the next sample is compared with."""
    return (float(sample.value), *map(float, sample.counts))


def increase(before: Point, after: Point) -> Point:
    """What came since. A total that fell has begun anew, and all of it came since. The sum of a histogram is no witness:
    it is added up in floating point."""
    first = 1 if len(after) > 1 else 0
    if len(before) != len(after) or any(b > a for b, a in zip(before[first:], after[first:], strict=True)):
        return after
    return tuple(max(0.0, a - b) for b, a in zip(before, after, strict=True))


def point_of(sample: Sample, before: Point | None, *, from_zero: bool = False) -> Point | None:
    """What ``sample`` adds to its slot. ``before``: the totals of the sample before it, however long ago: what came in a gap
    arrives with the sample that ends it. Without one there is no increase that could be told, unless it began at 0."""
    if sample.kind == "gauge":
        return (sample.value, 1.0, sample.value)
    totals = totals_of(sample)
    if before is not None:
        return increase(before, totals)
    return totals if from_zero else None


def merged(kind: str, a: Sequence[float], b: Sequence[float]) -> Point:
    """Both of one slot, or of two slots of a coarser one. Histograms of different buckets cannot be added: the later stays."""
    if kind == "gauge":
        return (a[0] + b[0], a[1] + b[1], max(a[2], b[2]))
    if len(a) != len(b):
        return tuple(b)
    return tuple(map(float.__add__, a, b))


# -- questions -------------------------------------------------------------------------------------


def tiers_for(since: float, step: float, oldest: Sequence[int | None]) -> list[int]:
    """Which tiers may answer, by their places, best first: of those that reach back to ``since``, or as far as any does, the
    coarsest whose slots are no longer than a step, else the finest; then coarser ones, for when that is too much.
    ``oldest``: of each tier, the oldest slot that is there."""
    first = min((at for at in oldest if at is not None), default=None)
    if first is None:
        return [0]
    needed = max(since, first + TIERS[-1].seconds)  # a coarse slot begins before the fine ones that it was made of
    reaching = [place for place, at in enumerate(oldest) if at is not None and at <= needed]
    fitting = [place for place in reaching if step >= TIERS[place].seconds]
    best = fitting[-1] if fitting else reaching[0]
    return [place for place in reaching if place >= best]


def reading(kind: str, series: int, seconds: float, tier: Tier) -> float:
    """How much it is to read so many seconds of so many series, as ``MAX_READ`` has it."""
    return series * (seconds / tier.seconds) * (HISTOGRAM_WEIGHT if kind == "histogram" else 1)


def step_of(step: float, tier: Tier) -> int:
    """Whole slots of the tier: one that is finer than what is kept, or no multiple of it, becomes coarser."""
    return max(1, math.ceil(step / tier.seconds)) * tier.seconds


def known_seconds(at: int, step: int, newest: float) -> float:
    """How much of the step is known, of one that is under way or cut off: its increase is by the second as well. ``newest``:
    the end of what is stored, or of what was asked for."""
    return newest - at if at < newest < at + step else float(step)


def value_of(kind: str, point: Point, seconds: float) -> float:
    """A gauge's mean; a counter's increase per second; a histogram's observations per second."""
    if kind == "gauge":
        return point[0] / point[1] if point[1] else 0.0
    return (sum(point[1:]) if kind == "histogram" else point[0]) / seconds


def quantile(share: float, counts: Sequence[float], bounds: Sequence[float]) -> float | None:
    """Interpolated in its bucket, as if what is in there were evenly spread; of the last, which has no end, its beginning.
    None without observations."""
    total = sum(counts)
    if total <= 0 or len(counts) != len(bounds) + 1:
        return None
    rank, below, running = share * total, 0.0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count > 0 and running + count >= rank:
            return below + (bound - below) * (rank - running) / count
        running, below = running + count, bound
    return float(bounds[-1])
