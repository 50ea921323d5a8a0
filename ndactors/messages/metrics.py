"""Figures over time: what is measured, and questions about what was."""

from __future__ import annotations

from msgspec import field

from ..core.samples import Kind as Kind
from ..core.samples import Sample as Sample
from .base import Message, Value


class Sampled(Message, frozen=True, kw_only=True):
    """Everything that ``source`` has to tell at ``at`` (Unix seconds). What it told before and does not tell now is gone.
    ``from_zero``: a counter that it never told before has begun since at 0, so that all of it is increase."""

    source: str
    at: float
    samples: tuple[Sample, ...]
    from_zero: bool = False


class GetMetrics(Message, frozen=True, kw_only=True):
    """The history of one name, from ``since`` to ``until`` (Unix seconds), a point each ``step`` seconds, at multiples of
    it. ``labels``: only series that have these; ``apps``: only of these apps (None: no limit). Answers ``MetricHistory``;
    ``Invalid`` for a step that makes too many points."""

    name: str
    since: float
    until: float
    step: float
    labels: dict[str, str] = field(default_factory=dict)
    apps: tuple[str, ...] | None = None


class MetricSeries(Value, frozen=True, kw_only=True):
    """``points``: (Unix seconds at which the step begins, value); a step of which nothing is known has no point. A gauge's
    value is its mean; a counter's the increase per second; a histogram's the observations per second. ``highest``: a
    gauge's largest value in each step. ``quantiles``: a histogram's p50, p95 and p99; None where nothing was observed."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...] = ()
    highest: tuple[float, ...] = ()
    quantiles: tuple[tuple[float | None, float | None, float | None], ...] = ()


class MetricHistory(Value, frozen=True, kw_only=True):
    """``step``: as it is, which may be coarser than what was asked for where only that is kept."""

    name: str
    kind: Kind
    step: float
    series: tuple[MetricSeries, ...] = ()


class MetricName(Value, frozen=True, kw_only=True):
    name: str
    kind: Kind
    series: int


class GetMetricNames(Message, frozen=True, kw_only=True):
    """Answers ``tuple[MetricName, …]``: everything that there is a history of. ``apps``: only of these apps."""

    apps: tuple[str, ...] | None = None
