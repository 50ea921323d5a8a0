"""What actors need from outside, by need, not by technology. Each port has its adapters in ``adapters/``.

Every method may block its caller (a greenlet) and raises only errors of ``ndactors.errors``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from .core.containers import ContainerSpec, ContainerStatus, EngineEvent, EngineInfo, ExecResult
from .core.model import Healthcheck
from .messages.edge import RequestRecords
from .messages.queries import Event, EventPage, GetEvents
from .messages.records import GetRequests, RequestPage

T = TypeVar("T")


class ContainerEngine(Protocol):
    """Runs containers. It never restarts one by itself, and touches nothing without its daemon's label.

    Every call may raise ``EngineUnreachable``; after that nothing is known until ``containers`` answers again. A method
    that takes a container's id raises ``ContainerNotFound`` for one that does not exist *or is not ours*.
    """

    name: str

    def info(self) -> EngineInfo: ...

    def containers(self) -> list[ContainerStatus]:
        """Every container with this daemon's label, in any state."""
        ...

    def inspect(self, container: str) -> ContainerStatus: ...

    def create(self, spec: ContainerSpec) -> ContainerStatus:
        """Create, do not start; networks and named volumes it needs are made. ``ImageNotFound`` if there is none.

        A name already taken by one of ours is a ``Conflict``; one taken by a stranger's container is
        avoided by a suffix. Whatever fails leaves nothing behind.
        """
        ...

    def start(self, container: str) -> ContainerStatus:
        """Start it, or start it again after it exited. Already running: no change."""
        ...

    def stop(self, container: str, *, signal: str, grace: float) -> None:
        """Send ``signal``, wait up to ``grace`` seconds, then kill, also when paused. Not running: no change."""
        ...

    def kill(self, container: str, signal: str = "SIGKILL") -> None: ...

    def remove(self, container: str) -> None:
        """Remove it, killing it first if it runs. Already gone: no change. Named volumes stay."""
        ...

    def execute(self, container: str, argv: tuple[str, ...], timeout: float) -> ExecResult:
        """Run ``argv`` inside it; past ``timeout`` it is killed and the exit code is 124."""
        ...

    def output(self, container: str, lines: int) -> list[str]:
        """Its last lines of output, both streams, oldest first, without line ends."""
        ...

    def events(self, since: float | None) -> Iterator[EngineEvent]:
        """Changes of our containers from ``since`` on, as they happen, for ever.

        Raises ``EngineUnreachable`` when the engine goes away; it never just ends. An event may come twice.
        """
        ...

    def close(self) -> None: ...


class StateStore(Protocol):
    """Small named records that survive everything. ``name`` is a relative path such as ``apps/shop``."""

    def load(self, name: str, kind: type[T]) -> T | None:
        """The last one saved; if that is damaged the last good one before it. None if there never was one."""
        ...

    def save(self, name: str, value: object) -> None:
        """Durable when it returns."""
        ...

    def delete(self, name: str) -> None: ...

    def names(self, folder: str) -> list[str]: ...


class EventStore(Protocol):
    """Events, newest first, numbered."""

    def append(self, events: Sequence[Event]) -> None:
        """Durable when it returns; ids are given here."""
        ...

    def page(self, query: GetEvents) -> EventPage: ...

    def close(self) -> None: ...


class RecordStore(Protocol):
    """Request records, newest first."""

    def append(self, batches: Sequence[RequestRecords]) -> None:
        """Durable when it returns. A batch whose worker and sequence are known is not stored twice."""
        ...

    def page(self, query: GetRequests) -> RequestPage: ...

    def close(self) -> None: ...


class Prober(Protocol):
    """Asks a container whether it is well. Returns None if so, else why not, in words; never raises."""

    def http(self, target: tuple[str, int], check: Healthcheck, host: str) -> str | None: ...

    def tcp(self, target: tuple[str, int], check: Healthcheck) -> str | None: ...


class Lag(Protocol):
    """How late our own event loop is."""

    def total(self) -> float:
        """Seconds of lateness added up since the start: two readings tell how much fell between them."""
        ...
