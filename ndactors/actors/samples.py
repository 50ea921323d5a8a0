"""What reports tell, as samples for the history: names and labels are those of ``/metrics``, less what would be too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ..core.levels import LEVELS
from ..core.samples import Kind, Sample
from ..messages.edge import LATENCY_BUCKETS, EdgeReport, Histogram, ServiceTotals
from ..messages.logs import LogsReport
from ..messages.queries import AppView


def edge_samples(report: EdgeReport) -> tuple[Sample, ...]:
    """Methods are added up; so are the classes of status codes of the durations."""
    samples = [_counter("nextdeploy_requests_dropped_total", report.dropped)]
    for totals in report.services.values():
        samples += _service(totals)
    samples.append(_gauge("nextdeploy_edge_connections", sum(worker.connections for worker in report.workers)))
    return tuple(samples)


def _service(totals: ServiceTotals) -> list[Sample]:
    app, own = {"app": totals.app}, {"app": totals.app, "process": totals.process}
    codes: Counter[str] = Counter()
    for key, count in totals.requests.items():
        codes[key.partition(" ")[2]] += count
    samples = [_counter("nextdeploy_requests_total", count, {**own, "code": code}) for code, count in codes.items()]
    # an edge of another version may have other buckets
    rows = [row for row in totals.durations.values() if len(row.counts) == len(LATENCY_BUCKETS) + 1]
    if rows:
        counts = tuple(sum(column) for column in zip(*(row.counts for row in rows), strict=True))
        both = Histogram(counts=counts, total=sum(row.total for row in rows))
        samples.append(_histogram("nextdeploy_request_duration_seconds", both, own))
    samples += [
        _counter("nextdeploy_request_bytes_total", totals.bytes_in, own),
        _counter("nextdeploy_response_bytes_total", totals.bytes_out, own),
        _counter("nextdeploy_rate_limited_total", totals.rate_limited, app),
        _gauge("nextdeploy_requests_in_flight", sum(totals.in_flight.values()), app),
        _gauge("nextdeploy_requests_held", totals.held, app),
    ]
    return samples


def log_samples(report: LogsReport) -> tuple[Sample, ...]:
    samples = []
    for row in report.counts:
        for level, count in zip(LEVELS, row.levels, strict=True):
            labels = {"app": row.app, "process": row.process, "level": level}
            samples.append(_counter("nextdeploy_log_lines_total", count, labels))
    for app in sorted({row.app for row in report.counts} | set(report.dropped)):
        samples.append(_counter("nextdeploy_log_dropped_total", report.dropped.get(app, 0), {"app": app}))
    return tuple(samples)


def app_samples(views: Iterable[AppView]) -> tuple[Sample, ...]:
    """How many containers are in which state, how many are wanted, and restarts."""
    samples = []
    for view in views:
        states = Counter((container.process, container.state) for container in view.containers)
        for (process, state), count in states.items():
            samples.append(
                _gauge("nextdeploy_containers", count, {"app": view.name, "process": process, "state": state})
            )
        for each in view.processes:
            own = {"app": view.name, "process": each.name}
            samples.append(_gauge("nextdeploy_replicas_desired", each.desired, own))
            for reason, count in each.restarts_by_reason.items():
                samples.append(_counter("nextdeploy_container_restarts_total", count, {**own, "reason": reason}))
    return tuple(samples)


def daemon_samples(lag: Histogram, depths: Mapping[str, int], silent: Mapping[str, float]) -> tuple[Sample, ...]:
    """How late the event loop was, how much waits for each of the actors that every daemon has, and for how many seconds
    any actor has done nothing though something waits for it."""
    silences = [_gauge("nextdeploy_actor_silent_seconds", each, {"actor": name}) for name, each in silent.items()]
    waiting = [_gauge("nextdeploy_actor_mailbox_depth", depth, {"actor": name}) for name, depth in depths.items()]
    return (_histogram("nextdeploy_hub_lag_seconds", lag), *waiting, *silences)


def _counter(name: str, value: float, labels: dict[str, str] | None = None) -> Sample:
    return _sample(name, "counter", value, labels)


def _gauge(name: str, value: float, labels: dict[str, str] | None = None) -> Sample:
    return _sample(name, "gauge", value, labels)


def _histogram(name: str, histogram: Histogram, labels: dict[str, str] | None = None) -> Sample:
    return Sample(name=name, kind="histogram", labels=labels or {}, value=histogram.total, counts=histogram.counts)


def _sample(name: str, kind: Kind, value: float, labels: dict[str, str] | None) -> Sample:
    return Sample(name=name, kind=kind, labels=labels or {}, value=float(value))
