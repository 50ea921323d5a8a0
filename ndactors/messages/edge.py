"""What the daemon and the edge tell one another. The edge lives longer than the daemon, so these names are a protocol:
fields may be added with a default; nothing is renamed. ``PROTOCOL`` counts incompatible changes."""

from __future__ import annotations

from msgspec import field

from ..core.model import Capture, EdgeLimits, Rate
from .base import Message, Value

PROTOCOL = 2


class Hello(Message, frozen=True, kw_only=True):
    """First frame in both directions. ``epoch`` grows with every daemon start on a state folder; the edge
    refuses (``Refused``) a daemon whose epoch is older than the newest that it has seen."""

    protocol: int
    epoch: int
    version: str
    pid: int
    role: str
    listen: str = ""
    """From the edge: the address it was told to listen on, as written."""
    workers: int = 0
    """From the edge: how many it keeps running."""


class Refused(Message, frozen=True, kw_only=True):
    reason: str


class Backend(Value, frozen=True, kw_only=True):
    """One container that may get requests of a service. ``role``: empty for a usual one, ``canary`` gets the service's
    ``canary_percent``, ``aside`` only what belongs to its ``revision`` by the service's cookie."""

    id: str
    address: str
    port: int
    revision: int = 0
    role: str = ""


class Service(Value, frozen=True, kw_only=True):
    """Everything the edge must know about one app's web process.

    With no backends, requests wait up to ``hold_seconds`` for one (0: 503 at once); at most ``hold_limit`` wait.
    """

    app: str
    process: str = "web"
    backends: tuple[Backend, ...] = ()
    connect_timeout: float = 2.0
    response_timeout: float = 60.0
    hold_seconds: float = 0.0
    hold_limit: int = 1000
    sticky: bool = False
    """A cookie keeps each client on its container."""
    skew: bool = False
    """A cookie keeps pages with the revision that they are of; new pages come from the newest."""
    canary_percent: float = 0.0
    probe_method: str = "HEAD"
    probe_path: str = "/"
    probe_host: str = ""
    """What a container is asked that seems to hang: the health check's request, if it is one by HTTP."""
    per_ip: Rate | None = None
    per_app: Rate | None = None
    burst: int = 100
    maintenance: bool = False
    redirects: dict[str, str] = field(default_factory=dict)
    response_headers: dict[str, str] = field(default_factory=dict)
    basic_auth: dict[str, str] = field(default_factory=dict)
    """User names with argon2 hashes."""
    allow: tuple[str, ...] = ()
    """CIDRs; empty: everybody."""
    error_pages: dict[str, str] = field(default_factory=dict)
    """HTML by status (``"503"``) or ``"default"``; ``{status}``, ``{reason}``, ``{detail}`` and ``{id}`` are filled in."""


class Route(Value, frozen=True, kw_only=True):
    """``host`` is exact, ``*.example.com`` (one or more labels below), or ``*``; ``path`` a prefix on segment
    borders. The most specific host wins, then the longest path. ``service`` is a key of ``services``."""

    host: str
    path: str = "/"
    strip_path: bool = False
    service: str


class RoutingSnapshot(Message, frozen=True, kw_only=True):
    """The whole truth of the edge, swapped in by one assignment. ``version`` grows within an epoch."""

    epoch: int
    version: int
    routes: tuple[Route, ...] = ()
    services: dict[str, Service] = field(default_factory=dict)
    trusted_proxies: tuple[str, ...] = ()
    limits: EdgeLimits = EdgeLimits()
    capture: Capture = Capture()
    drain_seconds: float = 30.0
    geoip: str = ""
    """Path of an .mmdb; empty: no countries."""


class Stop(Message, frozen=True, kw_only=True):
    """Stop gracefully: accept no more, finish what is in flight within ``deadline_seconds``, exit. With ``handover`` a
    successor accepts: kept connections get their next answer with ``Connection: close`` instead of an end at once."""

    deadline_seconds: float = 10.0
    handover: bool = False


class Upgrade(Message, frozen=True, kw_only=True):
    """Start a successor from ``program`` (empty: what runs now), hand it the sockets, drain. ``listen`` and ``workers``
    may change on the way; None leaves them."""

    program: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    listen: str | None = None
    workers: int | None = None


class Handover(Message, frozen=True, kw_only=True):
    """From a master to its successor, which has the listening sockets already: what else it needs to go on."""

    epoch: int
    version: int
    drain_seconds: float
    snapshot: bytes
    """The newest, as it came; empty: none yet."""
    line: str = ""
    """See ``EdgeReport``."""


class Ready(Message, frozen=True, kw_only=True):
    """From a successor: its workers accept."""


class RequestRecords(Message, frozen=True, kw_only=True):
    """Finished requests of one worker. ``batch`` is an encoded ``messages.records.Batch``; who passes it on need not
    know what is in it. ``sequence`` counts from 1 for each ``worker``."""

    worker: str
    sequence: int
    previous: int = 0
    """The batch before this one that is not known to be stored; 0: there is none. Whoever has not seen that one must
    not take this one: it will come again, behind the other."""
    newest: int = 0
    """The newest batch that waits at the worker at this moment; 0 from an edge that does not tell."""
    count: int
    batch: bytes


class RecordsStored(Message, frozen=True, kw_only=True):
    """Everything of ``worker`` up to ``sequence`` is durable and must not be sent again."""

    worker: str
    sequence: int


class SendRecords(Message, frozen=True, kw_only=True):
    """Somebody listens again: send everything that is not known to be stored."""


class Histogram(Value, frozen=True, kw_only=True):
    """``counts[i]`` observations at or below ``LATENCY_BUCKETS[i]`` (not cumulative); the last is the overflow."""

    counts: tuple[int, ...]
    total: float


LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds of every request-duration histogram."""


class ServiceTotals(Value, frozen=True, kw_only=True):
    """Counters of one service, growing only. ``requests`` is keyed ``"METHOD code"`` (``"GET 200"``), ``durations``
    by status class (``"2xx"``), ``retries`` by reason. ``in_flight`` and ``tunnels`` (a part of it: WebSockets and the
    like) are by backend id; with ``held`` they are gauges."""

    app: str
    process: str
    requests: dict[str, int] = field(default_factory=dict)
    durations: dict[str, Histogram] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    retries: dict[str, int] = field(default_factory=dict)
    rate_limited: int = 0
    throttled: int = 0
    """Delayed by a rate limit, then served."""
    suspected: int = 0
    """How often one of its containers was taken for hung."""
    in_flight: dict[str, int] = field(default_factory=dict)
    held: int = 0
    tunnels: dict[str, int] = field(default_factory=dict)


class WorkerState(Value, frozen=True, kw_only=True):
    pid: int
    index: int
    connections: int = 0
    started_at: float = 0.0
    snapshot_version: int = -1
    rss_bytes: int = 0
    draining: bool = False


class EdgeReport(Message, frozen=True, kw_only=True):
    """What the master says about all of its workers, dead ones' counters included: totals since the edge began.

    ``errors`` counts the edge's own answers by their ``X-NextDeploy-Error`` code; ``faults`` counts exceptions that
    the callback guard caught; ``restarts`` counts respawned workers. Sent every second, and at once when a worker
    applied a snapshot, came or went.
    """

    epoch: int
    master_pid: int
    http: tuple[str, ...] = ()
    """Addresses really bound, as ``host:port``."""
    workers: tuple[WorkerState, ...] = ()
    services: dict[str, ServiceTotals] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    faults: int = 0
    last_fault: str = ""
    restarts: int = 0
    dropped: int = 0
    """Request records that were lost because nobody took them in time."""
    version: str = ""
    notes: tuple[str, ...] = ()
    """What is wrong at the moment, in words."""
    line: str = ""
    """Reports of one line count on from one another: a successor is of its predecessor's. Empty: of an earlier version."""


class WorkerReport(Message, frozen=True, kw_only=True):
    """One worker to its master: its own totals since it began."""

    state: WorkerState
    services: dict[str, ServiceTotals] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    faults: int = 0
    last_fault: str = ""
    dropped: int = 0
    notes: tuple[str, ...] = ()
