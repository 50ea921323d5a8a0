"""ProxyActor: what the edge should do. It turns services and routes into one snapshot at a time and hands it over;
requests themselves never pass through here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from ..core.exposing import HOLD_SECONDS
from ..core.model import App, Settings
from ..core.rollups import until_sampling
from ..errors import NotFound
from ..messages.containers import ApplySettings, BackendDrained, DrainBackend, RecordEvent, RecordsArrived, TellService
from ..messages.edge import EdgeReport, Route, RoutingSnapshot, Service
from ..messages.metrics import Sampled
from ..messages.queries import GetEdge, GetEdgeTotals, SetMaintenance
from ..messages.totals import EdgeTotals, all_told, carried
from ..ports import StateStore
from ..runtime.actor import Actor
from ..runtime.ref import Ref
from ..runtime.timers import Timer
from .samples import edge_samples
from .saved_first import Saved, SavedFirst

STOP_SECONDS = 10.0
"""How long requests in flight may take at the end."""
GATHER_SECONDS = 0.005
"""Changes that come together go out as one snapshot."""


class EdgePool(Protocol):
    """The edge's processes: found or started, told and heard."""

    def start(self) -> None: ...

    def publish(self, snapshot: RoutingSnapshot) -> None: ...

    def change(self, http: str, workers: int | None) -> None:
        """Another address or number of workers is wanted."""
        ...

    def close(self) -> None:
        """Leave it running."""
        ...

    def stop(self, deadline: float) -> None:
        """End it in good order."""
        ...


NewPool = Callable[
    [Settings, Callable[[EdgeReport], None], Callable[[RecordsArrived], None], Callable[[str], None]], EdgePool
]


@dataclass
class Draining:
    backend: str
    key: str
    reply_to: Ref
    version: int
    timer: Timer
    websockets: int


@dataclass(frozen=True)
class DrainOver:
    key: str
    reply_to: Ref
    websockets: int


@dataclass(frozen=True)
class EdgeNews:
    words: str


class Publish: ...


class PatienceOver: ...


class SampleNow: ...


class Maintenance(msgspec.Struct, frozen=True, kw_only=True):
    apps: list[str]


class Services(msgspec.Struct, frozen=True, kw_only=True):
    services: dict[str, Service]


SERVICES = "edge/services"
TOTALS = "edge/totals"
MAINTENANCE = "edge/maintenance"
PATIENCE_SECONDS = 3.0
"""How long after a start the first snapshot waits for apps that have not told yet."""


class ProxyActor(Actor):
    """``versions`` counts snapshots and outlives this actor: within an epoch a version is never used twice. ``save`` is the
    state's, beside the mailbox; ``listeners`` are told figures; ``now`` is Unix seconds."""

    def __init__(
        self,
        current: Callable[[], Settings],
        epoch: int,
        versions: Iterator[int],
        new_pool: NewPool,
        leave_edge: Callable[[], bool],
        apps: Ref,
        events: Ref,
        records: Ref,
        state: StateStore,
        read_pages: Callable[[str], tuple[dict[str, str], str]],
        save: Callable[[str, object], None],
        listeners: tuple[Ref, ...],
        now: Callable[[], float],
    ) -> None:
        self._settings = current()
        self._epoch = epoch
        self._versions = versions
        self._new_pool = new_pool
        self._leave_edge = leave_edge
        self._apps = apps
        self._events = events
        self._records = records
        self._state = state
        self._read_pages = read_pages
        self._listeners = listeners
        self._now = now
        self._totals: EdgeTotals | None = None
        self._untold = False
        """There was a report since the listeners were told."""
        self._counters = SavedFirst(self.run, lambda record: save(TOTALS, record), self._counted, self._tell)
        self._pages: dict[str, dict[str, str]] = {}
        self._maintenance: set[str] = set()
        self._services: dict[str, Service] = {}
        self._known: set[str] = set()
        self._patience_over = False
        self._version = 0
        self._publishing: Timer | None = None
        self._report: EdgeReport | None = None
        self._draining: list[Draining] = []
        self._pool: EdgePool | None = None

    def on_start(self) -> None:
        # what the edge was told last: the truth about an app until its actor tells otherwise
        remembered = self._state.load(SERVICES, Services)
        self._services = dict(remembered.services) if remembered is not None else {}
        maintained = self._state.load(MAINTENANCE, Maintenance)
        self._maintenance = set(maintained.apps) if maintained is not None else set()
        self._totals = self._state.load(TOTALS, EdgeTotals)
        self._load_pages()
        tell = self.ref.tell
        self._pool = self._new_pool(self._settings, tell, self._records.tell, lambda words: tell(EdgeNews(words)))
        self._pool.start()
        self._apps.tell(TellService())
        self.after(PATIENCE_SECONDS, PatienceOver())
        self.after(until_sampling(self._now()), SampleNow())

    def on_stop(self) -> None:
        self._counters.last_words()
        if self._pool is None:
            return
        if self._leave_edge():
            self._pool.close()
        else:
            self._pool.stop(STOP_SECONDS)

    def on_crash(self, error: BaseException) -> None:
        if self._pool is not None:
            self._pool.close()

    def receive(self, message: Any) -> object:
        match message:
            case Service(app=app):
                self._services[app] = message
                self._known.add(app)
                self._publish_soon()
            case PatienceOver():
                self._patience_over = True
                self._publish_soon()
            case Publish():
                self._publish()
            case EdgeReport():
                self._reported(message)
            case DrainBackend():
                self._drain(message)
            case DrainOver(key=key, reply_to=reply_to, websockets=websockets):
                self._draining = [d for d in self._draining if not (d.key == key and d.reply_to is reply_to)]
                reply_to.tell(BackendDrained(key=key, in_time=False, websockets=websockets))
            case ApplySettings(settings=settings):
                self._apply(settings)
            case SetMaintenance(app=app, on=on):
                self._maintain(app, on=on)
            case EdgeNews(words=words):
                self._events.tell(RecordEvent(kind="edge.changed", reason=words))
            case GetEdge():
                return self._report
            case GetEdgeTotals():
                return self._counters.ask()
            case Saved():
                self._counters.done(message)
            case SampleNow():
                self._sample()
            case _:
                return super().receive(message)
        return None

    def _apply(self, settings: Settings) -> None:
        before, self._settings = self._settings.edge, settings
        if (before.http, before.workers) != (settings.edge.http, settings.edge.workers) and self._pool is not None:
            self._pool.change(settings.edge.http, settings.edge.workers)
        self._load_pages()
        self._publish_soon()

    def _maintain(self, app: str, *, on: bool) -> None:
        if app not in self._settings.apps:
            raise NotFound(f"There is no app called {app}.")
        if on != (app in self._maintenance):
            self._maintenance ^= {app}
            self._state.save(MAINTENANCE, Maintenance(apps=sorted(self._maintenance & self._settings.apps.keys())))
            self._events.tell(RecordEvent(kind=f"maintenance.{'on' if on else 'off'}", app=app))
            self._publish_soon()

    def _load_pages(self) -> None:
        self._pages = {}
        for app in self._settings.apps.values():
            if app.http.error_pages:
                self._pages[app.name], problem = self._read_pages(app.http.error_pages)
                if problem:
                    self._events.tell(RecordEvent(kind="config.problem", app=app.name, reason=problem))

    # -- snapshots ---------------------------------------------------------------------------------

    def _publish_soon(self) -> None:
        if self._publishing is None:
            self._publishing = self.after(GATHER_SECONDS, Publish())

    def _publish(self) -> None:
        self._publishing = None
        names = {app.name for app in self._settings.apps.values() if "web" in app.processes}
        if names - self._known and not self._patience_over:
            return  # an edge that we found has a snapshot that works; half of the truth must not replace it
        for name in names - self._services.keys():
            self._services[name] = Service(app=name, hold_seconds=HOLD_SECONDS)
        self._services = {name: service for name, service in self._services.items() if name in names}
        self._state.save(SERVICES, Services(services=self._services))
        self._version = next(self._versions)
        settings = self._settings
        snapshot = RoutingSnapshot(
            epoch=self._epoch,
            version=self._version,
            routes=routes(settings),
            services={
                name: with_rules(
                    service, settings.apps[name], self._pages.get(name, {}), maintenance=name in self._maintenance
                )
                for name, service in self._services.items()
            },
            trusted_proxies=settings.edge.trusted_proxies,
            limits=settings.edge.limits,
            capture=settings.edge.capture,
            drain_seconds=max((app.deploy.drain for app in settings.apps.values()), default=30.0),
            geoip=settings.geoip_database or "",
        )
        assert self._pool is not None
        self._pool.publish(snapshot)

    # -- draining ----------------------------------------------------------------------------------

    def _drain(self, message: DrainBackend) -> None:
        if self._publishing is not None:
            self._publishing.cancel()
            self._publish()
        totals = self._report.services.values() if self._report is not None else ()
        websockets = sum(row.tunnels.get(message.backend, 0) for row in totals)
        over = DrainOver(message.key, message.reply_to, websockets)
        timer = self.after(message.seconds, over)
        self._draining.append(
            Draining(message.backend, message.key, message.reply_to, self._version, timer, websockets)
        )

    def _reported(self, report: EdgeReport) -> None:
        before, self._report = self._report, report
        self._totals = carried(self._totals, report, self._settings.apps.keys())
        self._untold = True
        if before is not None and report.restarts > before.restarts:
            self._events.tell(RecordEvent(kind="edge.worker_restarted", reason=f"{report.restarts} so far"))
        if before is not None and report.faults > before.faults:
            self._events.tell(RecordEvent(kind="edge.fault", reason=report.last_fault))
        for drain in list(self._draining):
            if _drained(report, drain):
                drain.timer.cancel()
                self._draining.remove(drain)
                drain.reply_to.tell(BackendDrained(key=drain.key, in_time=True, websockets=drain.websockets))

    # -- figures -----------------------------------------------------------------------------------

    def _counted(self) -> tuple[EdgeTotals | None, EdgeReport | None]:
        if self._report is None or self._totals is None:
            return None, None
        return self._totals, all_told(self._totals, self._report, self._settings.apps.keys())

    def _sample(self) -> None:
        self.after(until_sampling(self._now()), SampleNow())
        if self._untold:
            self._untold = False
            self._counters.tell()

    def _tell(self, report: EdgeReport) -> None:
        told = Sampled(source="edge", at=self._now(), samples=edge_samples(report), from_zero=True)
        for listener in self._listeners:
            listener.tell(told)


def _drained(report: EdgeReport, drain: Draining) -> bool:
    """Every worker has the snapshot without it, and none has a request of it in flight."""
    if any(worker.snapshot_version < drain.version for worker in report.workers):
        return False
    return not any(totals.in_flight.get(drain.backend) for totals in report.services.values())


def with_rules(service: Service, app: App, pages: dict[str, str], *, maintenance: bool) -> Service:
    """What the file says about an app's requests, beside where they may go. It holds at once, whatever is deployed."""
    check, limit = app.processes["web"].healthcheck, app.rate_limit
    return replace(
        service,
        connect_timeout=app.timeouts.connect,
        response_timeout=app.timeouts.response,
        sticky=app.sticky,
        skew=bool(app.deploy.skew),
        probe_method="GET" if check.kind == "http" else "HEAD",
        probe_path=check.path if check.kind == "http" else "/",
        probe_host=check.host or next((d for d in app.domains if "*" not in d), ""),
        per_ip=limit.per_ip if limit is not None else None,
        per_app=limit.per_app if limit is not None else None,
        burst=limit.burst if limit is not None else 0,
        maintenance=maintenance,
        redirects=app.http.redirects,
        response_headers=app.http.headers,
        basic_auth=app.http.basic_auth,
        allow=app.http.allow,
        error_pages=pages,
    )


def routes(settings: Settings) -> tuple[Route, ...]:
    """Every domain of every app that has a web process."""
    return tuple(
        Route(host=domain, path=app.path, strip_path=app.strip_path, service=app.name)
        for app in settings.apps.values()
        if "web" in app.processes
        for domain in app.domains
    )
