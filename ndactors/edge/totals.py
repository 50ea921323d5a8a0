"""Adding up what several workers counted."""

from __future__ import annotations

from ..messages.edge import EdgeReport, ServiceTotals, WorkerReport, WorkerState
from ..messages.totals import added, added_counts


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
        self.errors = added_counts(self.errors, report.errors)
        self.faults += report.faults
        self.last_fault = report.last_fault or self.last_fault
        self.dropped += report.dropped
        if gauges:
            self.workers.append(report.state)
            self.notes |= set(report.notes)

    def add_edge(self, report: EdgeReport, *, gauges: bool = True) -> None:
        """Of another master's workers."""
        self.services = added(self.services, report.services, gauges=gauges)
        self.errors = added_counts(self.errors, report.errors)
        self.faults += report.faults
        self.last_fault = report.last_fault or self.last_fault
        self.restarts += report.restarts
        self.dropped += report.dropped
        if gauges:
            self.workers += report.workers

    def add(self, other: Sum) -> None:
        """Those of the dead."""
        self.services = added(self.services, other.services, gauges=False)
        self.errors = added_counts(self.errors, other.errors)
        self.faults += other.faults
        self.last_fault = other.last_fault or self.last_fault
        self.restarts += other.restarts
        self.dropped += other.dropped
