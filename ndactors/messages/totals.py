"""Adding up what several counted: the workers of an edge, and edges that followed one another."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from msgspec import field
from msgspec.structs import replace

from .base import Value
from .edge import EdgeReport, Histogram, ServiceTotals


def added(
    left: Mapping[str, ServiceTotals], right: Mapping[str, ServiceTotals], *, gauges: bool
) -> dict[str, ServiceTotals]:
    """Service by service."""
    total = dict(left)
    for name, more in right.items():
        if not gauges:
            more = replace(more, in_flight={}, held=0, tunnels={})
        known = total.get(name)
        total[name] = more if known is None else _sum(known, more)
    return total


def _sum(a: ServiceTotals, b: ServiceTotals) -> ServiceTotals:
    return ServiceTotals(
        app=b.app,
        process=b.process,
        requests=added_counts(a.requests, b.requests),
        durations={
            kind: _histogram(a.durations.get(kind), b.durations.get(kind)) for kind in {*a.durations, *b.durations}
        },
        bytes_in=a.bytes_in + b.bytes_in,
        bytes_out=a.bytes_out + b.bytes_out,
        retries=added_counts(a.retries, b.retries),
        rate_limited=a.rate_limited + b.rate_limited,
        throttled=a.throttled + b.throttled,
        suspected=a.suspected + b.suspected,
        in_flight=added_counts(a.in_flight, b.in_flight),
        held=a.held + b.held,
        tunnels=added_counts(a.tunnels, b.tunnels),
    )


def added_counts(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in {*a, *b}}


def _histogram(a: Histogram | None, b: Histogram | None) -> Histogram:
    """One of other buckets than the newer begins anew: another version counted it."""
    if a is None or b is None:
        found = a or b
        assert found is not None
        return found
    if len(a.counts) != len(b.counts):
        return b
    return Histogram(counts=tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)), total=a.total + b.total)


# -- over edges ------------------------------------------------------------------------------------


class EdgeTotals(Value, frozen=True, kw_only=True):
    """Counters of all edges that ever were: ``ended`` of those before, ``last`` of the newest as it told last. ``line`` and
    ``master_pid`` tell which one that is."""

    line: str = ""
    master_pid: int = 0
    ended: dict[str, ServiceTotals] = field(default_factory=dict)
    last: dict[str, ServiceTotals] = field(default_factory=dict)
    ended_dropped: int = 0
    last_dropped: int = 0


def carried(known: EdgeTotals | None, report: EdgeReport, apps: Collection[str]) -> EdgeTotals:
    """With the newest report. What edges before counted stays for ``apps``. An app that is gone begins anew, once the edge has
    forgotten it, too: half of a count would look like a counter that began anew at that height."""
    known = known if known is not None else EdgeTotals(line=report.line, master_pid=report.master_pid)
    goes_on = _goes_on(known, report)
    ended = added(known.ended, lost(known.last, report.services) if goes_on else known.last, gauges=False)
    ended_dropped = known.ended_dropped + (
        max(0, known.last_dropped - report.dropped) if goes_on else known.last_dropped
    )
    return EdgeTotals(
        line=report.line,
        master_pid=report.master_pid,
        ended={name: totals for name, totals in ended.items() if totals.app in apps or name in report.services},
        last=report.services,
        ended_dropped=ended_dropped,
        last_dropped=report.dropped,
    )


def lost(before: Mapping[str, ServiceTotals], now: Mapping[str, ServiceTotals]) -> dict[str, ServiceTotals]:
    """By how much counters fell: workers forget a service that is not there for a while."""
    found = {}
    for name, old in before.items():
        new = now.get(name)
        if new is None:
            found[name] = old
        elif new != old:
            fell = _fell(old, new)
            if fell != ServiceTotals(app=old.app, process=old.process):
                found[name] = fell
    return found


def _fell(a: ServiceTotals, b: ServiceTotals) -> ServiceTotals:
    durations = {kind: _histogram_fell(own, b.durations.get(kind)) for kind, own in a.durations.items()}
    return ServiceTotals(
        app=a.app,
        process=a.process,
        requests=_counts_fell(a.requests, b.requests),
        durations={kind: own for kind, own in durations.items() if own is not None},
        bytes_in=max(0, a.bytes_in - b.bytes_in),
        bytes_out=max(0, a.bytes_out - b.bytes_out),
        retries=_counts_fell(a.retries, b.retries),
        rate_limited=max(0, a.rate_limited - b.rate_limited),
        throttled=max(0, a.throttled - b.throttled),
        suspected=max(0, a.suspected - b.suspected),
    )


def _counts_fell(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: count - b.get(name, 0) for name, count in a.items() if count > b.get(name, 0)}


def _histogram_fell(a: Histogram, b: Histogram | None) -> Histogram | None:
    if b is None:
        return a
    if len(a.counts) != len(b.counts) or all(x <= y for x, y in zip(a.counts, b.counts, strict=True)):
        return None
    counts = tuple(max(0, x - y) for x, y in zip(a.counts, b.counts, strict=True))
    return Histogram(counts=counts, total=max(0.0, a.total - b.total))


def all_told(totals: EdgeTotals, report: EdgeReport, apps: Collection[str]) -> EdgeReport:
    """The report with counters over all edges, of the ``apps`` that there are."""
    services = added(totals.ended, totals.last, gauges=True)
    return replace(
        report,
        services={name: each for name, each in services.items() if each.app in apps},
        dropped=totals.ended_dropped + totals.last_dropped,
    )


def _goes_on(known: EdgeTotals, report: EdgeReport) -> bool:
    """Whether its counters began where those of ``known`` did. An edge that tells no line is of an earlier version: then
    another master goes on if it has not less."""
    if report.line or known.line:
        return report.line == known.line
    return report.master_pid == known.master_pid or _requests(report.services) >= _requests(known.last)


def _requests(services: Mapping[str, ServiceTotals]) -> int:
    return sum(sum(totals.requests.values()) for totals in services.values())
