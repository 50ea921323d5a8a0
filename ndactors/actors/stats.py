"""StatsActor: what the host and the containers use, what listens, and who is not reaped. Everything is read beside the
mailbox on a timer, so that asking costs nothing; a reading that hangs holds up neither the others nor who asks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..core import listening, sampling
from ..core.containers import ContainerStatus
from ..core.listening import BoundSocket, Running, SeenSockets, Told, Wanted
from ..core.model import Settings
from ..core.processes import ZombieNews
from ..errors import NextDeployError, StateError
from ..messages.containers import ApplySettings, ContainersSeen, RecordEvent
from ..messages.metrics import Sample, Sampled
from ..messages.queries import GetHost, HostView
from ..messages.stats import ContainerUsage, GetPorts, GetUsage, PortView
from ..ports import HostReader, SocketOwners, StateStore, UsageReader
from ..runtime.actor import Actor
from ..runtime.ref import Later, Ref
from ..runtime.timers import Task, Timer

log = logging.getLogger("ndactors.stats")

RECORD = "ports"
DISK_SECONDS = 300.0
FIRST_DISK_SECONDS = 15.0
CONFIRM_SECONDS = 0.5
"""A port that nothing explains is looked at again after so long, before anybody is told: what is ours may listen a moment
before we hear of it."""
LISTING_SECONDS = 30.0
"""So long the engines have to tell what they have, before ports that nothing explains are told of anyway."""
LATE_SECONDS = 60.0
SHORTEST_SECONDS = 0.25
"""Whatever the configuration says: what is looked at more often than that does nothing else."""

What = Literal["host", "containers", "ports", "disk"]


class LookDue: ...


class DiskDue: ...


class ConfirmDue: ...


@dataclass(frozen=True)
class Looked:
    what: What
    result: Any
    error: BaseException | None


class StatsActor(Actor):
    """``engines``: the names of those that will tell what they have. ``listeners`` are told every reading. ``now`` is Unix
    seconds, ``monotonic`` a clock for spans."""

    def __init__(
        self,
        current: Callable[[], Settings],
        host: HostReader,
        usage: UsageReader,
        sockets: SocketOwners,
        state: StateStore,
        events: Ref,
        listeners: tuple[Ref, ...] = (),
        engines: frozenset[str] = frozenset(),
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = current()
        self._host = host
        self._usage = usage
        self._sockets = sockets
        self._state = state
        self._events = events
        self._listeners = listeners
        self._engines = engines
        self._now = now
        self._monotonic = monotonic
        self._began = monotonic()
        self._timer: Timer | None = None
        self._busy: dict[What, tuple[Task, float]] = {}
        self._late: set[What] = set()
        self._left: list[Callable[[], bool]] = []
        """What is still to be begun of this look."""
        self._containers: dict[str, dict[str, ContainerStatus]] = {}
        self._listed: set[str] = set()
        self._view: HostView | None = None
        self._waiting: list[Later] = []
        self._usages: tuple[ContainerUsage, ...] = ()
        self._ports: tuple[PortView, ...] | None = None
        self._told = Told()
        self._suspects: frozenset[listening.Key] = frozenset()

    def on_start(self) -> None:
        self._told = self._state.load(RECORD, Told) or Told()
        self._timer = self._every(self._settings)
        self.after(FIRST_DISK_SECONDS, DiskDue())
        self._look()

    def receive(self, message: object) -> object:
        match message:
            case LookDue():
                self._look()
            case Looked():
                self._looked(message)
            case ConfirmDue():
                self._begin("ports", self._sockets.look)
            case DiskDue():
                self._measure()
            case ContainersSeen():
                self._saw(message)
            case ApplySettings(settings=settings):
                self._apply(settings)
            case GetHost():
                return self._answer_host()
            case GetUsage():
                return self._usages
            case GetPorts():
                return self._ports or ()
            case _:
                return super().receive(message)
        return None

    # -- reading -----------------------------------------------------------------------------------

    def _look(self) -> None:
        """One after the other: threads that compute at the same time only take the interpreter from each other."""
        self._left = [lambda: self._begin("host", self._host.read), self._look_at_containers]
        if self._engines <= self._listed or self._monotonic() - self._began > LISTING_SECONDS:
            self._left.append(lambda: self._begin("ports", self._sockets.look))
        self._go_on()

    def _go_on(self) -> None:
        """With what is left of a look, past what still has not come back from the last one."""
        while self._left and not self._left.pop(0)():
            pass

    def _look_at_containers(self) -> bool:
        rows = self._rows()
        return self._begin("containers", lambda: self._usage.read(rows))

    def _measure(self) -> None:
        rows, settings = self._rows(), self._settings
        self._begin("disk", lambda: self._usage.measure(rows, settings))
        self.after(DISK_SECONDS, DiskDue())

    def _rows(self) -> dict[str, tuple[ContainerStatus, ...]]:
        return {engine: tuple(known.values()) for engine, known in self._containers.items()}

    def _begin(self, what: What, call: Callable[[], Any]) -> bool:
        """Never two of one kind at once: False if there is one."""
        now = self._monotonic()
        if what in self._busy:
            since = self._busy[what][1]
            if now - since > LATE_SECONDS and what not in self._late and what != "disk":
                self._late.add(what)
                log.warning("the figures of %s have been awaited for %d s; the last ones stand", what, now - since)
            return False
        self._busy[what] = (self.run(call, lambda result, error: Looked(what, result, error)), now)
        return True

    def _looked(self, message: Looked) -> None:
        self._busy.pop(message.what, None)
        self._late.discard(message.what)
        if message.what != "disk":
            self._go_on()
        if message.error is not None:
            if not isinstance(message.error, NextDeployError):
                raise message.error
            log.warning("the figures of %s cannot be read: %s", message.what, message.error)
            return
        match message.what:
            case "host":
                self._host_read(*message.result)
            case "containers":
                self._usages = message.result
                self._tell("containers", sampling.container_figures(self._usages))
            case "ports":
                self._ports_seen(message.result)

    def _host_read(self, view: HostView, zombies: tuple[ZombieNews, ...]) -> None:
        self._view = view
        for later in self._waiting:
            later.answer(view)
        self._waiting = []
        self._tell("host", sampling.host_figures(view, None if self._ports is None else len(self._ports)))
        for each in zombies:
            rows = [
                {"pid": zombie.pid, "name": zombie.name, "parent": zombie.parent, "parent_name": zombie.parent_name}
                for zombie in each.zombies
            ]
            detail: dict[str, object] = {"count": each.together, "zombies": rows}
            self._events.tell(RecordEvent(kind="host.zombies", reason=each.reason, detail=detail))

    def _tell(self, source: str, figures: list[sampling.Figure]) -> None:
        if not self._listeners:
            return
        samples = tuple(Sample(name=f.name, kind=f.kind, labels=f.labels, value=f.value) for f in figures)
        message = Sampled(source=source, at=self._now(), samples=samples)
        for listener in self._listeners:
            listener.tell(message)

    def _answer_host(self) -> HostView | Later:
        if self._view is not None:
            return self._view
        later = Later()
        self._waiting = [*(each for each in self._waiting if not each.done), later]
        return later

    # -- ports -------------------------------------------------------------------------------------

    def _ports_seen(self, seen: SeenSockets | None) -> None:
        if seen is None:
            return  # they cannot be seen here
        wanted = Wanted(
            addresses=listening.addresses_of(self._settings),
            containers=self._running(),
            ssh_ports=seen.ssh_ports,
            swarm=self._settings.engine == "swarm",
        )
        reasons = {socket: listening.reason_for(socket, wanted) for socket in seen.sockets}
        # several sockets of one process may share a port
        self._ports = tuple(dict.fromkeys(_view(socket, reasons[socket], wanted) for socket in seen.sockets))
        found, told, suspects = listening.news(seen.sockets, reasons, self._told, self._suspects)
        if suspects - self._suspects:
            self.after(CONFIRM_SECONDS, ConfirmDue())
        self._suspects = suspects
        if told != self._told:
            self._told = told
            try:
                self._state.save(RECORD, told)
            except StateError as error:
                # told once more after a restart, that is all
                log.error("%s", error)
        for each in found:
            self._events.tell(_event(each, wanted))

    def _running(self) -> tuple[Running, ...]:
        return tuple(
            row
            for engine, known in self._containers.items()
            for row in listening.running(known.values(), self._settings, on_host=engine == "process")
        )

    # -- what there is -----------------------------------------------------------------------------

    def _saw(self, message: ContainersSeen) -> None:
        own = {status.id: status for status in message.containers}
        if message.complete:
            first = message.engine not in self._listed
            self._listed.add(message.engine)
            self._containers[message.engine] = own
            if first and self._engines <= self._listed:
                self._look()
        elif not message.announced:
            self._containers.setdefault(message.engine, {}).update(own)

    def _apply(self, settings: Settings) -> None:
        before, self._settings = self._settings.monitoring.interval, settings
        if settings.monitoring.interval != before:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._every(settings)

    def _every(self, settings: Settings) -> Timer:
        return self.every(max(SHORTEST_SECONDS, settings.monitoring.interval), LookDue())


def _view(socket: BoundSocket, reason: str, wanted: Wanted) -> PortView:
    owner = socket.owner
    mine = listening.container_of(owner, wanted.containers) if owner is not None else None
    inside = owner.container[:12] if owner is not None and owner.container is not None else None
    return PortView(
        protocol=socket.protocol,
        address=socket.address,
        port=socket.port,
        reachable=listening.is_reachable(socket.address),
        pid=owner.pid if owner is not None else None,
        process=owner.name if owner is not None else None,
        container=mine.name if mine is not None else inside,
        reason=reason,
    )


def _event(news: listening.PortNews, wanted: Wanted) -> RecordEvent:
    protocol, address, port, process = news.key
    owner = news.socket.owner if news.socket is not None else None
    mine = listening.container_of(owner, wanted.containers) if owner is not None else None
    detail: dict[str, object] = {
        "protocol": protocol,
        "address": address,
        "port": port,
        "process": process or None,
        "pid": owner.pid if owner is not None else None,
    }
    return RecordEvent(
        kind="port.opened" if news.opened else "port.closed",
        app=mine.app if mine is not None else None,
        process=mine.process if mine is not None else None,
        container=mine.name if mine is not None else None,
        reason=listening.words(news),
        detail=detail,
    )
