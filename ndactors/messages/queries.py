"""What may be asked (``Get…``) and the values that answer. They are also the API's JSON."""

from __future__ import annotations

from typing import Any

from msgspec import field

from ..runtime.tree import ActorNode as ActorNode
from ..runtime.tree import GetTree as GetTree
from .base import Message, Value
from .edge import EdgeReport, Histogram
from .stats import ContainerUsage, GetPorts, GetUsage, PortView, ZombieView

# -- apps and containers ---------------------------------------------------------------------------


RESTART_REASONS = ("exit", "oom", "unhealthy", "start_failed")


class ContainerView(Value, frozen=True, kw_only=True):
    """``state``: pending starting running unhealthy restarting stopping stopped failed. ``uptime`` is in seconds,
    ``restarts`` by reason (``exit``, ``oom``, ``unhealthy``, ``start_failed``); the counts are durable."""

    id: str
    name: str
    app: str
    process: str
    role: str = "primary"
    replica: int = 1
    revision: int = 1
    state: str = "pending"
    health: str = "unknown"
    """unknown, healthy, unhealthy"""
    reason: str = ""
    """Why it is in this state, in words: ``exited 137 (out of memory)``."""
    routed: bool = False
    address: str | None = None
    port: int | None = None
    pid: int | None = None
    restarts: dict[str, int] = field(default_factory=dict)
    exit_code: int | None = None
    started_at: float | None = None
    uptime: float = 0.0
    cpu: float | None = None
    memory: int | None = None
    net: dict[str, int] | None = None
    log_path: str | None = None


class ProcessView(Value, frozen=True, kw_only=True):
    name: str
    desired: int
    running: int
    routed: int
    restarts: int = 0
    restarts_by_reason: dict[str, int] = field(default_factory=dict)
    """Durable, and never falling: containers that are gone count on."""


class AppView(Value, frozen=True, kw_only=True):
    """``state``: starting healthy degraded failed stopped. ``replicas`` counts the web process."""

    name: str
    project: str
    state: str
    reason: str = ""
    revision: int = 1
    image: str | None = None
    image_id: str | None = None
    operation: str | None = None
    """What changes it at the moment."""
    canary_percent: float | None = None
    domains: tuple[str, ...] = ()
    path: str = "/"
    routes: tuple[str, ...] = ()
    processes: tuple[ProcessView, ...] = ()
    containers: tuple[ContainerView, ...] = ()
    failover: str | None = None
    sync_lag_seconds: float | None = None


class GetApps(Message, frozen=True, kw_only=True):
    """Answers ``tuple[AppView, …]``, by name."""


class Readiness(Value, frozen=True, kw_only=True):
    ready: bool
    waiting: tuple[str, ...] = ()
    """One line for each reason why not."""


class GetReadiness(Message, frozen=True, kw_only=True):
    """Answers ``Readiness``: every app has all its replicas routed, or has visibly failed."""


# -- events ----------------------------------------------------------------------------------------


class Event(Value, frozen=True, kw_only=True):
    """Contract of an event record; ``ts`` is RFC 3339 in UTC. ``id`` grows."""

    id: int = 0
    ts: str
    kind: str
    app: str | None = None
    process: str | None = None
    container: str | None = None
    reason: str = ""
    detail: dict[str, object] = field(default_factory=dict)


class GetEvents(Message, frozen=True, kw_only=True):
    """Newest first. ``before`` is the cursor of the page before; answers ``EventPage``."""

    app: str | None = None
    kind: str | None = None
    since: str | None = None
    before: int | None = None
    limit: int = 100


class EventPage(Value, frozen=True, kw_only=True):
    items: tuple[Event, ...] = ()
    next: int | None = None


# -- the daemon ------------------------------------------------------------------------------------


class HostView(Value, frozen=True, kw_only=True):
    cpu_percent: float
    load: tuple[float, float, float]
    memory_used: int
    memory_total: int
    swap_used: int
    swap_total: int
    disks: dict[str, tuple[int, int]] = field(default_factory=dict)
    """mount → (used bytes, total bytes)"""
    network_receive: int = 0
    network_transmit: int = 0
    inodes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """mount → (used, total); a file system that has no fixed number of them is not here"""
    pressure: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    """cpu, memory, io → percent of the last 10 s in which some waited for it, and in which all did (None: not told).
    Empty where the kernel does not tell."""
    boot_time: float | None = None
    uptime: float | None = None
    cpus: int = 0
    processes: int = 0
    zombies: tuple[ZombieView, ...] = ()
    """Some of them, by parent."""
    zombie_count: int = 0


class GetHost(Message, frozen=True, kw_only=True):
    """Answers ``HostView``."""


class EngineView(Value, frozen=True, kw_only=True):
    name: str
    version: str = ""
    reachable: bool = False
    since: float | None = None
    error: str = ""


class GetEngine(Message, frozen=True, kw_only=True):
    """Answers ``EngineView``."""


class DaemonView(Value, frozen=True, kw_only=True):
    """The daemon itself. ``hub_lag`` is how late its event loop was: the longest turn of each
    tenth of a second in which it had any."""

    version: str
    environment: str
    project: str
    daemon_id: str
    epoch: int
    pid: int
    started_at: float
    config_path: str
    state_dir: str
    hub_lag: Histogram | None = None
    silent: dict[str, float] = field(default_factory=dict)
    """Actors that messages wait for, and for how many seconds they had done nothing, at the last look."""


class GetDaemon(Message, frozen=True, kw_only=True):
    """Answers ``DaemonView``."""


class SetMaintenance(Message, frozen=True, kw_only=True):
    """Requests of ``app`` are answered with 503 at the edge, or no longer. Durable. Answers None."""

    app: str
    on: bool


class GetEdge(Message, frozen=True, kw_only=True):
    """Answers the last ``EdgeReport``, or None while no edge ever answered."""


class GetEdgeTotals(Message, frozen=True, kw_only=True):
    """Answers an ``EdgeReport`` with counters over all edges that ever were, or None while none answered. What it tells is
    saved, so that these never fall, whoever is killed."""


REPLIES: dict[type, Any] = {
    GetTree: ActorNode,
    GetApps: tuple[AppView, ...],
    GetReadiness: Readiness,
    GetEvents: EventPage,
    GetHost: HostView,
    GetEngine: EngineView,
    GetDaemon: DaemonView,
    GetEdge: EdgeReport | None,
    GetEdgeTotals: EdgeReport | None,
    GetPorts: tuple[PortView, ...],
    GetUsage: tuple[ContainerUsage, ...],
}
"""What each query answers: how a client of the link decodes the reply."""
