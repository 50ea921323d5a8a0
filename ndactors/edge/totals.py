"""Adding up what several workers counted."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from ..messages.edge import Histogram, ServiceTotals


def added(
    left: Mapping[str, ServiceTotals], right: Mapping[str, ServiceTotals], *, gauges: bool
) -> dict[str, ServiceTotals]:
    """Service by service. ``gauges`` False leaves out what only the living have: requests in flight and held."""
    total = dict(left)
    for name, more in right.items():
        if not gauges:
            more = replace(more, in_flight={}, held=0)
        known = total.get(name)
        total[name] = more if known is None else _sum(known, more)
    return total


def _sum(a: ServiceTotals, b: ServiceTotals) -> ServiceTotals:
    return ServiceTotals(
        app=b.app,
        process=b.process,
        requests=_counts(a.requests, b.requests),
        durations={
            kind: _histogram(a.durations.get(kind), b.durations.get(kind)) for kind in {*a.durations, *b.durations}
        },
        bytes_in=a.bytes_in + b.bytes_in,
        bytes_out=a.bytes_out + b.bytes_out,
        retries=_counts(a.retries, b.retries),
        rate_limited=a.rate_limited + b.rate_limited,
        in_flight=_counts(a.in_flight, b.in_flight),
        held=a.held + b.held,
    )


def _counts(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in {*a, *b}}


def _histogram(a: Histogram | None, b: Histogram | None) -> Histogram:
    if a is None or b is None:
        found = a or b
        assert found is not None
        return found
    return Histogram(counts=tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)), total=a.total + b.total)
