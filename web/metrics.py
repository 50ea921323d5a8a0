"""``/metrics`` for Prometheus. Every family is always there with its help and type; samples come as their features do."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Response, request
from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_options_header

from ndactors.core.alert_watch import KINDS
from ndactors.core.levels import LEVELS
from ndactors.core.sampling import Figure, container_figures, host_figures
from ndactors.errors import NextDeployError
from ndactors.messages.alerts import AlertView, GetAlerts
from ndactors.messages.edge import LATENCY_BUCKETS, EdgeReport, Histogram
from ndactors.messages.jobs import GetJobs, JobView
from ndactors.messages.logs import GetLogReport, LogsReport
from ndactors.messages.operations import DEPLOY_BUCKETS, DeployTotals, GetDeploys
from ndactors.messages.queries import (
    RESTART_REASONS,
    ActorNode,
    AppView,
    DaemonView,
    GetApps,
    GetDaemon,
    GetEdgeTotals,
    GetHost,
    GetTree,
    HostView,
)
from ndactors.messages.stats import ContainerUsage, GetPorts, GetUsage, PortView

from .auth import Guard

if TYPE_CHECKING:
    from . import Refs

CACHE_SECONDS = 1.0
PLAIN = "text/plain; version=0.0.4"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"

# name, kind, help, labels
FAMILIES: list[tuple[str, str, str, list[str]]] = [
    ("nextdeploy_requests", "c", "Requests answered.", ["app", "process", "method", "code"]),
    (
        "nextdeploy_request_duration_seconds",
        "h",
        "Time from a request's first byte to its answer's last, by status class.",
        ["app", "process", "code"],
    ),
    ("nextdeploy_request_bytes", "c", "Bytes received with requests.", ["app", "process"]),
    ("nextdeploy_response_bytes", "c", "Bytes sent with answers.", ["app", "process"]),
    ("nextdeploy_requests_in_flight", "g", "Requests with a container now.", ["app"]),
    ("nextdeploy_requests_held", "g", "Requests that wait for a container now.", ["app"]),
    ("nextdeploy_edge_retries", "c", "Requests sent to another container.", ["app", "reason"]),
    ("nextdeploy_rate_limited", "c", "Requests refused by a rate limit.", ["app"]),
    ("nextdeploy_edge_connections", "g", "Client connections open now.", ["worker"]),
    ("nextdeploy_containers", "g", "Containers by state.", ["app", "process", "state"]),
    ("nextdeploy_container_up", "g", "1 while a container is healthy.", ["app", "process", "container"]),
    (
        "nextdeploy_container_restarts",
        "c",
        "Restarts of containers, those that are gone included.",
        ["app", "process", "reason"],
    ),
    ("nextdeploy_container_uptime_seconds", "g", "Time since a container's start.", ["app", "process", "container"]),
    ("nextdeploy_container_cpu_seconds", "c", "CPU time used.", ["app", "process", "container"]),
    ("nextdeploy_container_memory_bytes", "g", "Working set.", ["app", "process", "container"]),
    ("nextdeploy_container_network_receive_bytes", "c", "Bytes received.", ["app", "process", "container"]),
    ("nextdeploy_container_network_transmit_bytes", "c", "Bytes sent.", ["app", "process", "container"]),
    ("nextdeploy_container_disk_bytes", "g", "Writable layer and volumes.", ["app", "process", "container"]),
    ("nextdeploy_host_cpu_percent", "g", "CPU of the host in use.", []),
    ("nextdeploy_host_memory_used_bytes", "g", "Memory of the host in use.", []),
    ("nextdeploy_host_memory_total_bytes", "g", "Memory of the host.", []),
    ("nextdeploy_host_disk_used_bytes", "g", "Disk in use.", ["mount"]),
    ("nextdeploy_host_disk_total_bytes", "g", "Disk there is.", ["mount"]),
    ("nextdeploy_host_network_receive_bytes", "c", "Bytes received by the host.", []),
    ("nextdeploy_host_network_transmit_bytes", "c", "Bytes sent by the host.", []),
    ("nextdeploy_host_open_ports", "g", "Listening ports.", []),
    ("nextdeploy_host_zombie_processes", "g", "Zombie processes.", []),
    ("nextdeploy_log_lines", "c", "Log lines stored.", ["app", "process", "level"]),
    ("nextdeploy_log_dropped", "c", "Log lines dropped.", ["app"]),
    ("nextdeploy_requests_dropped", "c", "Request records dropped.", []),
    ("nextdeploy_deploys", "c", "Deploys.", ["app", "result"]),
    ("nextdeploy_deploy_duration_seconds", "h", "Time a deploy took.", ["app"]),
    ("nextdeploy_app_info", "g", "1 for the revision that is wanted.", ["app", "revision"]),
    ("nextdeploy_failovers", "c", "Switches to a mirror.", ["app"]),
    ("nextdeploy_sync_lag_seconds", "g", "How far a mirror is behind.", ["app"]),
    ("nextdeploy_alerts_firing", "g", "Alerts that fire.", ["kind"]),
    ("nextdeploy_replicas_desired", "g", "Replicas wanted.", ["app", "process"]),
    ("nextdeploy_certificate_expiry_timestamp_seconds", "g", "When a certificate ends.", ["domain"]),
    ("nextdeploy_backup_last_success_timestamp_seconds", "g", "When a backup last succeeded.", ["app"]),
    ("nextdeploy_job_last_success_timestamp_seconds", "g", "When a job last succeeded.", ["app", "process"]),
    ("nextdeploy_actor_restarts", "c", "Restarts of an actor.", ["actor"]),
    ("nextdeploy_actor_mailbox_depth", "g", "Messages that wait for an actor.", ["actor"]),
    (
        "nextdeploy_actor_dropped",
        "g",
        "Messages that an actor's mailbox had no room for, since the daemon began.",
        ["actor"],
    ),
    (
        "nextdeploy_actor_busy_seconds",
        "g",
        "Time that an actor took for its messages, since the daemon began.",
        ["actor"],
    ),
    ("nextdeploy_actor_silent_seconds", "g", "How long an actor did nothing though messages wait for it.", ["actor"]),
    ("nextdeploy_hub_lag_seconds", "h", "How late the daemon's event loop was.", []),
    ("nextdeploy_build_info", "g", "1, labelled with the version.", ["version"]),
    ("nextdeploy_container_memory_limit_bytes", "g", "Memory it may use.", ["app", "process", "container"]),
    ("nextdeploy_container_oom_kills", "c", "Processes killed for memory.", ["app", "process", "container"]),
    ("nextdeploy_container_pids", "g", "Processes and threads in it.", ["app", "process", "container"]),
    ("nextdeploy_host_swap_used_bytes", "g", "Swap in use.", []),
    ("nextdeploy_host_swap_total_bytes", "g", "Swap there is.", []),
    ("nextdeploy_host_load1", "g", "Load of the last minute.", []),
    (
        "nextdeploy_host_pressure_percent",
        "g",
        "Share of the last 10 s in which some process waited for the resource (PSI).",
        ["resource"],
    ),
    ("nextdeploy_host_inodes_used", "g", "Inodes in use.", ["mount"]),
    ("nextdeploy_host_inodes", "g", "Inodes there are.", ["mount"]),
]
_KINDS: dict[str, Any] = {"c": CounterMetricFamily, "g": GaugeMetricFamily, "h": HistogramMetricFamily}


def blueprint(refs: Refs, guard: Guard, *, open_to_all: bool) -> Blueprint:
    pages = Blueprint("metrics", __name__)
    collector, process = Collector(refs), ProcessCollector(namespace="", registry=None)
    cached: dict[str, tuple[float, bytes]] = {}

    @pages.get("/metrics")
    def metrics() -> Response:
        if not open_to_all:
            guard.require("viewer")
        wanted = format_for(request.accept_mimetypes)
        encode, kind = choose_encoder(wanted)
        made, content = cached.get(wanted, (float("-inf"), b""))
        if time.monotonic() - made > CACHE_SECONDS:
            answers = collector.ask()
            # the text of a hundred apps takes longer than the event loop may stand still
            content = _off_loop(lambda: encode(Answered(answers, process)))
            cached[wanted] = (time.monotonic(), content)
        return Response(content, content_type=kind)

    return pages


def format_for(accepted: MIMEAccept) -> str:
    """One of the two that are made, whatever a client writes: the first that it takes, and plain text for who takes
    neither. Of a client's words nothing gets into it."""
    for words, quality in accepted:
        kind, more = parse_options_header(words)
        if quality > 0 and kind.lower() == "application/openmetrics-text" and _major(more.get("version", "1")) == "1":
            return OPEN_METRICS
        if quality > 0 and kind.lower() == "text/plain":
            break
    return PLAIN


def _major(version: str) -> str:
    return version.strip().partition(".")[0]


Answers = list[tuple[Callable[[dict[str, Any], Any], None], Any]]
"""What actors answered, each with what makes samples of it."""


class Collector:
    """Asks the actors at each scrape; who does not answer leaves its families without samples."""

    def __init__(self, refs: Refs) -> None:
        self._refs = refs

    def ask(self) -> Answers:
        answers: Answers = []
        for ref, query, fill in (
            (self._refs.edge, GetEdgeTotals(), _edge),
            (self._refs.apps, GetApps(), _apps),
            (self._refs.host, GetHost(), _host),
            (self._refs.host, GetPorts(), _ports),
            (self._refs.host, GetUsage(), _usage),
            (self._refs.apps, GetJobs(), _jobs),
            (self._refs.operations, GetDeploys(), _deploys),
            (self._refs.root, GetTree(), _actors),
            (self._refs.daemon, GetDaemon(), _daemon),
            (self._refs.logs, GetLogReport(), _logs),
            (self._refs.alerts, GetAlerts(), _alerts),
        ):
            try:
                answer = ref.ask(query)
            except NextDeployError:
                continue  # a scrape with gaps tells more than none
            if answer is not None:
                answers.append((fill, answer))
        return answers


class Answered:
    """A registry of what is known already: it asks nobody, and so may be read in another thread."""

    def __init__(self, answers: Answers, process: ProcessCollector) -> None:
        self._answers = answers
        self._process = process

    def collect(self) -> Iterator[Any]:
        families = {name: _KINDS[kind](name, words, labels=labels) for name, kind, words, labels in FAMILIES}
        for fill, answer in self._answers:
            fill(families, answer)
        yield from families.values()
        yield from self._process.collect()


def _off_loop(call: Callable[[], bytes]) -> bytes:
    """In gevent's thread pool."""
    from gevent.hub import get_hub

    return get_hub().threadpool.apply(call)  # type: ignore[no-any-return]


def _edge(families: dict[str, Any], report: EdgeReport) -> None:
    for worker in report.workers:
        families["nextdeploy_edge_connections"].add_metric([str(worker.index)], worker.connections)
    families["nextdeploy_requests_dropped"].add_metric([], report.dropped)
    for totals in report.services.values():
        own = [totals.app, totals.process]
        for key, count in totals.requests.items():
            method, _, code = key.partition(" ")
            families["nextdeploy_requests"].add_metric([*own, method, code], count)
        for kind, histogram in totals.durations.items():
            _observe(families["nextdeploy_request_duration_seconds"], [*own, kind], histogram, LATENCY_BUCKETS)
        families["nextdeploy_request_bytes"].add_metric(own, totals.bytes_in)
        families["nextdeploy_response_bytes"].add_metric(own, totals.bytes_out)
        families["nextdeploy_requests_in_flight"].add_metric([totals.app], sum(totals.in_flight.values()))
        families["nextdeploy_requests_held"].add_metric([totals.app], totals.held)
        families["nextdeploy_rate_limited"].add_metric([totals.app], totals.rate_limited)
        for reason, count in totals.retries.items():
            families["nextdeploy_edge_retries"].add_metric([totals.app, reason], count)


def _apps(families: dict[str, Any], apps: tuple[AppView, ...]) -> None:
    now = time.time()
    for app in apps:
        families["nextdeploy_app_info"].add_metric([app.name, str(app.revision)], 1)
        for process in app.processes:
            own = [app.name, process.name]
            families["nextdeploy_replicas_desired"].add_metric(own, process.desired)
            for reason, count in {**dict.fromkeys(RESTART_REASONS, 0), **process.restarts_by_reason}.items():
                families["nextdeploy_container_restarts"].add_metric([*own, reason], count)
        states: dict[tuple[str, str], int] = {}
        for c in app.containers:
            own = [app.name, c.process, c.name]
            states[c.process, c.state] = states.get((c.process, c.state), 0) + 1
            families["nextdeploy_container_up"].add_metric(own, int(c.state == "running"))
            families["nextdeploy_container_uptime_seconds"].add_metric(
                own, max(0.0, now - c.started_at) if c.started_at else 0
            )
        for (process_name, state), count in states.items():
            families["nextdeploy_containers"].add_metric([app.name, process_name, state], count)


def _jobs(families: dict[str, Any], jobs: tuple[JobView, ...]) -> None:
    for job in jobs:
        if job.last_success is not None:
            families["nextdeploy_job_last_success_timestamp_seconds"].add_metric(
                [job.app, job.process], job.last_success
            )


def _deploys(families: dict[str, Any], deploys: tuple[DeployTotals, ...]) -> None:
    for row in deploys:
        for result, count in row.results.items():
            families["nextdeploy_deploys"].add_metric([row.app, result], count)
        _observe(families["nextdeploy_deploy_duration_seconds"], [row.app], row.durations, DEPLOY_BUCKETS)


def _alerts(families: dict[str, Any], alerts: tuple[AlertView, ...]) -> None:
    """Every kind is there, with 0 while nothing of it fires; what somebody acknowledged fires on."""
    firing = Counter(alert.kind for alert in alerts if alert.state != "resolved")
    for kind in sorted(KINDS | firing.keys()):
        families["nextdeploy_alerts_firing"].add_metric([kind], firing[kind])


def _logs(families: dict[str, Any], report: LogsReport) -> None:
    for row in report.counts:
        for level, count in zip(LEVELS, row.levels, strict=True):
            families["nextdeploy_log_lines"].add_metric([row.app, row.process, level], count)
    for app in sorted({row.app for row in report.counts} | set(report.dropped)):
        families["nextdeploy_log_dropped"].add_metric([app], report.dropped.get(app, 0))


def _host(families: dict[str, Any], host: HostView) -> None:
    _fill(families, host_figures(host, None))


def _ports(families: dict[str, Any], ports: tuple[PortView, ...]) -> None:
    families["nextdeploy_host_open_ports"].add_metric([], len(ports))


def _usage(families: dict[str, Any], usages: tuple[ContainerUsage, ...]) -> None:
    _fill(families, container_figures(usages))


def _fill(families: dict[str, Any], figures: list[Figure]) -> None:
    for figure in figures:
        # the families' names have no ``_total``: it is written for every counter
        name = figure.name.removesuffix("_total") if figure.kind == "counter" else figure.name
        families[name].add_metric(list(figure.labels.values()), figure.value)


def _actors(families: dict[str, Any], node: ActorNode) -> None:
    families["nextdeploy_actor_restarts"].add_metric([node.name], node.restarts)
    families["nextdeploy_actor_mailbox_depth"].add_metric([node.name], node.mailbox)
    families["nextdeploy_actor_dropped"].add_metric([node.name], node.dropped)
    families["nextdeploy_actor_busy_seconds"].add_metric([node.name], node.busy_seconds)
    for child in node.children:
        _actors(families, child)


def _observe(family: Any, labels: list[str], histogram: Histogram, bounds: tuple[float, ...]) -> None:
    """As Prometheus wants buckets: cumulative, the last without a bound. An edge of another version may have others, whose
    bounds are not known here."""
    if len(histogram.counts) != len(bounds) + 1:
        return
    names = [*(str(bound) for bound in bounds), "+Inf"]
    family.add_metric(labels, list(zip(names, accumulate(histogram.counts), strict=True)), histogram.total)


def _daemon(families: dict[str, Any], daemon: DaemonView) -> None:
    if daemon.hub_lag is not None:
        _observe(families["nextdeploy_hub_lag_seconds"], [], daemon.hub_lag, LATENCY_BUCKETS)
    for name, seconds in daemon.silent.items():
        families["nextdeploy_actor_silent_seconds"].add_metric([name], seconds)
    families["nextdeploy_build_info"].add_metric([daemon.version], 1)
