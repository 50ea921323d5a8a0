"""One figure at one moment."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

Kind = Literal["gauge", "counter", "histogram"]


class Sample(Struct, frozen=True, kw_only=True):
    """Under the name that Prometheus knows it by (``nextdeploy_requests_total``). A counter's ``value`` is its total, which
    begins anew with whoever counts. A histogram has ``counts`` for each bucket, not cumulative, the last without a bound
    (totals, too), and ``value`` is the sum of all that was observed."""

    name: str
    kind: Kind
    labels: dict[str, str] = field(default_factory=dict)
    value: float = 0.0
    counts: tuple[int, ...] = ()
