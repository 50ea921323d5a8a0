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
    if a is None or b is None:
        found = a or b
        assert found is not None
        return found
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
    """With the newest report. What edges before counted stays for ``apps``: an app that is gone begins anew."""
    known = known if known is not None else EdgeTotals(line=report.line, master_pid=report.master_pid)
    ended, ended_dropped = known.ended, known.ended_dropped
    if not _goes_on(known, report):
        ended = added(ended, known.last, gauges=False)
        ended_dropped += known.last_dropped
    return EdgeTotals(
        line=report.line,
        master_pid=report.master_pid,
        ended={name: totals for name, totals in ended.items() if name in apps},
        last=report.services,
        ended_dropped=ended_dropped,
        last_dropped=report.dropped,
    )


def all_told(totals: EdgeTotals, report: EdgeReport) -> EdgeReport:
    """The report with counters over all edges."""
    return replace(
        report,
        services=added(totals.ended, totals.last, gauges=True),
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
