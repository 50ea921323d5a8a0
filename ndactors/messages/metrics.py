"""Figures over time: what is measured, and questions about what was."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from .base import Message, Value

Kind = Literal["gauge", "counter", "histogram"]


class Sample(Value, frozen=True, kw_only=True):
    """One figure at one moment, under the name that Prometheus knows it by (``nextdeploy_requests_total``). A counter's
    ``value`` is its total, which begins anew with whoever counts. A histogram has ``counts`` for each bucket, not
    cumulative, the last without a bound (totals, too), and ``value`` is the sum of all that was observed."""

    name: str
    kind: Kind
    labels: dict[str, str] = field(default_factory=dict)
    value: float = 0.0
    counts: tuple[int, ...] = ()


class Sampled(Message, frozen=True, kw_only=True):
    """Everything that ``source`` has to tell at ``at`` (Unix seconds). What it told before and does not tell now is gone."""

    source: str
    at: float
    samples: tuple[Sample, ...]


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
    gauge's largest value in each step. ``quantiles``: a histogram's p50, p95 and p99."""

    labels: dict[str, str]
    points: tuple[tuple[float, float], ...] = ()
    highest: tuple[float, ...] = ()
    quantiles: tuple[tuple[float, float, float], ...] = ()


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
    """Answers ``tuple[MetricName, …]``: everything that there is a history of."""
