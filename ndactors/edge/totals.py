"""Adding up what several workers counted."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from ..messages.edge import EdgeReport, Histogram, ServiceTotals, WorkerReport, WorkerState


class Sum:
    """Counters of any number of workers, the dead and those of an older master included."""

    def __init__(self) -> None:
        self.services: dict[str, ServiceTotals] = {}
        self.errors: dict[str, int] = {}
        self.workers: list[WorkerState] = []
        self.faults = 0
        self.last_fault = ""
        self.restarts = 0
        self.dropped = 0
        self.notes: set[str] = set()

    def add_worker(self, report: WorkerReport, *, gauges: bool = True) -> None:
        """``gauges`` False leaves out what only the living have: requests in flight and held, and themselves."""
        self.services = added(self.services, report.services, gauges=gauges)
        self.errors = _counts(self.errors, report.errors)
        self.faults += report.faults
        self.last_fault = report.last_fault or self.last_fault
        self.dropped += report.dropped
        if gauges:
            self.workers.append(report.state)
            self.notes |= set(report.notes)

    def add_edge(self, report: EdgeReport, *, gauges: bool = True) -> None:
        """Of another master's workers."""
        self.services = added(self.services, report.services, gauges=gauges)
        self.errors = _counts(self.errors, report.errors)
        self.faults += report.faults
        self.last_fault = report.last_fault or self.last_fault
        self.restarts += report.restarts
        self.dropped += report.dropped
        if gauges:
            self.workers += report.workers

    def add(self, other: Sum) -> None:
        """Those of the dead."""
        self.services = added(self.services, other.services, gauges=False)
        self.errors = _counts(self.errors, other.errors)
        self.faults += other.faults
        self.last_fault = other.last_fault or self.last_fault
        self.restarts += other.restarts
        self.dropped += other.dropped


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
        requests=_counts(a.requests, b.requests),
        durations={
            kind: _histogram(a.durations.get(kind), b.durations.get(kind)) for kind in {*a.durations, *b.durations}
        },
        bytes_in=a.bytes_in + b.bytes_in,
        bytes_out=a.bytes_out + b.bytes_out,
        retries=_counts(a.retries, b.retries),
        rate_limited=a.rate_limited + b.rate_limited,
        throttled=a.throttled + b.throttled,
        suspected=a.suspected + b.suspected,
        in_flight=_counts(a.in_flight, b.in_flight),
        held=a.held + b.held,
        tunnels=_counts(a.tunnels, b.tunnels),
    )


def _counts(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in {*a, *b}}


def _histogram(a: Histogram | None, b: Histogram | None) -> Histogram:
    if a is None or b is None:
        found = a or b
        assert found is not None
        return found
    return Histogram(counts=tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)), total=a.total + b.total)
