"""What the machine and the containers use: figures of one moment, and who is asked for them."""

from __future__ import annotations

from typing import Literal

from .base import Message, Value


class ContainerUsage(Value, frozen=True, kw_only=True):
    """What one container uses. Counters begin with the container and only grow while it lives. None: it cannot be told
    here. ``source``: read from the kernel's cgroup files, asked of the engine, or summed over a group of processes."""

    container: str
    """Its id."""
    name: str
    app: str
    process: str
    source: Literal["cgroup", "engine", "process"]
    at: float
    """When it was read, in Unix seconds."""
    cpu_seconds: float | None = None
    cpu_percent: float | None = None
    """Of one core, since the reading before; None at the first."""
    memory: int | None = None
    """Working set, in bytes: what the kernel cannot take back by dropping the page cache."""
    memory_limit: int | None = None
    oom_kills: int | None = None
    pids: int | None = None
    network_receive: int | None = None
    network_transmit: int | None = None
    disk: int | None = None
    """Bytes of its writable layer and its own volumes; read less often than the rest."""


class GetUsage(Message, frozen=True, kw_only=True):
    """Answers ``tuple[ContainerUsage, …]``, the last reading of every container that runs."""


class PortView(Value, frozen=True, kw_only=True):
    """A socket that listens. ``reachable``: from other machines, by its address. ``reason``: which part of the configuration
    wants it; empty: nothing explains it. ``process`` and ``pid`` None: we may not see whose it is."""

    protocol: Literal["tcp", "udp"]
    address: str
    port: int
    reachable: bool
    pid: int | None = None
    process: str | None = None
    container: str | None = None
    """The name of the container whose process it is, on the host's network."""
    reason: str = ""


class GetPorts(Message, frozen=True, kw_only=True):
    """Answers ``tuple[PortView, …]``: everything that listens on this host, what others cannot reach included."""


class ZombieView(Value, frozen=True, kw_only=True):
    """A process that ended and that its parent does not reap."""

    pid: int
    name: str
    parent: int
    parent_name: str
