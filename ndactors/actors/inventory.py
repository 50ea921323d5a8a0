"""InventoryActor: what one engine has. Its events are hints, its listings the truth; both go to the AppActors.
It notices when the engine goes away and lists everything again when it is back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from ..core import containers as labels
from ..core.containers import ContainerStatus, EngineEvent, EngineInfo
from ..errors import ContainerNotFound, EngineError, EngineUnreachable
from ..messages.containers import (
    ContainerObserved,
    ContainersListed,
    ContainersSeen,
    EngineChanged,
    EngineFound,
    EngineLost,
    OrphansFound,
    RecordEvent,
    Role,
    UnwatchApp,
    WatchApp,
)
from ..messages.queries import EngineView, GetEngine
from ..ports import ContainerEngine
from ..runtime.actor import Actor
from ..runtime.ref import Ref
from ..runtime.restarts import Backoff
from ..runtime.timers import Task, Timer

LIST_SECONDS = 10.0
"""Between two full listings: what an event failed to tell is known after this at the latest."""


@dataclass(frozen=True)
class Listed:
    info: EngineInfo | None
    containers: list[ContainerStatus]
    at: float


@dataclass(frozen=True)
class Failed:
    reason: str


@dataclass(frozen=True)
class Inspected:
    event: EngineEvent
    status: ContainerStatus | None


class ListDue: ...


class InventoryActor(Actor):
    """``apps`` is told of containers whose app nobody watches: they are in no configuration any more; ``listeners`` of
    all."""

    def __init__(self, engine: ContainerEngine, events: Ref, apps: Ref, *listeners: Ref) -> None:
        self._engine = engine
        self._events = events
        self._apps = apps
        self._listeners = listeners
        self._watchers: dict[tuple[str, Role], Ref] = {}
        self._containers: dict[str, ContainerStatus] = {}
        self._info: EngineInfo | None = None
        self._since: float | None = None
        self._last_event = time.time()
        self._error = ""
        self._backoff = Backoff(first=0.2, longest=5.0, reset_after=30.0)
        self._listing: Task | None = None
        self._watching: Task | None = None
        self._timer: Timer | None = None

    def on_start(self) -> None:
        self._list()

    def receive(self, message: object) -> object:
        match message:
            case EngineChanged(event=event):
                self._changed(event)
            case Inspected(event=event, status=status):
                self._inspected(event, status)
            case Listed():
                self._listed(message)
            case Failed(reason=reason):
                self._failed(reason)
            case ListDue():
                self._list()
            case WatchApp(app=app, watcher=watcher, role=role):
                self._watchers[app, role] = watcher
                if self._info is not None:
                    watcher.tell(ContainersListed(containers=self._of(app, role)))
                elif self._error:
                    watcher.tell(EngineLost(reason=self._error))
            case UnwatchApp(app=app, watcher=watcher, role=role):
                if self._watchers.get((app, role)) is watcher:
                    del self._watchers[app, role]
            case GetEngine():
                return EngineView(
                    name=self._engine.name,
                    version=self._info.version if self._info is not None else "",
                    reachable=self._info is not None,
                    since=self._since,
                    error=self._error,
                )
            case _:
                return super().receive(message)
        return None

    # -- listing -----------------------------------------------------------------------------------

    def _list(self) -> None:
        if self._listing is not None:
            return
        engine, known = self._engine, self._info

        def look() -> Listed:
            at = time.time()
            return Listed(known or engine.info(), engine.containers(), at)

        self._listing = self.run(look, _listed_or_failed)

    def _listed(self, message: Listed) -> None:
        self._listing = None
        first = self._info is None
        self._info = message.info
        self._containers = {status.id: status for status in message.containers}
        if first:
            assert message.info is not None
            self._since = message.at
            was_lost, self._error = bool(self._error), ""
            if was_lost:
                found = f"{message.info.name} {message.info.version}"
                self._events.tell(RecordEvent(kind="engine.found", reason=found, detail={"engine": self._engine.name}))
            for watcher in self._watchers.values():
                watcher.tell(EngineFound(info=message.info))
        self._tell_of(tuple(message.containers), complete=True)
        for (app, role), watcher in self._watchers.items():
            watcher.tell(ContainersListed(containers=self._of(app, role)))
        watched = {app for app, _ in self._watchers}
        orphans = {s.labels.get(labels.APP, "") for s in message.containers} - watched - {""}
        if orphans:
            self._apps.tell(OrphansFound(engine=self._engine.name, apps=tuple(sorted(orphans))))
        if self._watching is None:
            self._watch()
        self._list_in(LIST_SECONDS)

    def _tell_of(self, containers: tuple[ContainerStatus, ...], *, complete: bool) -> None:
        seen = ContainersSeen(engine=self._engine.name, containers=containers, complete=complete)
        for listener in self._listeners:
            listener.tell(seen)

    def _list_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.after(seconds, ListDue())

    def _of(self, app: str, role: Role) -> tuple[ContainerStatus, ...]:
        return tuple(
            status
            for status in self._containers.values()
            if status.labels.get(labels.APP) == app and _role(status.labels) == role
        )

    def _failed(self, reason: str) -> None:
        """The engine is gone, whoever noticed first: the listing or the event stream."""
        for task in (self._listing, self._watching):
            if task is not None:
                task.cancel()
        self._listing = self._watching = None
        if not self._error:
            self._events.tell(RecordEvent(kind="engine.lost", reason=reason, detail={"engine": self._engine.name}))
            for watcher in self._watchers.values():
                watcher.tell(EngineLost(reason=reason))
        self._error, self._info, self._since = reason, None, time.time()
        self._list_in(self._backoff.next(time.monotonic()))

    # -- events ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        engine, tell, since = self._engine, self.ref.tell, self._last_event

        def follow() -> None:
            for event in engine.events(since):
                tell(EngineChanged(event=event))

        self._watching = self.run(follow, lambda _, error: Failed(_words(error, "the event stream ended")))

    def _changed(self, event: EngineEvent) -> None:
        self._last_event = max(self._last_event, event.ts)
        engine = self._engine

        def look() -> ContainerStatus | None:
            try:
                return engine.inspect(event.container)
            except ContainerNotFound:
                return None

        def judged(status: ContainerStatus | None, error: BaseException | None) -> Inspected | Failed | ListDue:
            if error is None:
                return Inspected(event, status)
            words = _words(error, "")
            # an engine that answers with an error is there: the next listing tells what it is
            return Failed(words) if isinstance(error, EngineUnreachable) else ListDue()

        self.run(look, judged)

    def _inspected(self, event: EngineEvent, status: ContainerStatus | None) -> None:
        own = event.labels
        if status is not None:
            self._containers[status.id] = status
            own = {**own, **status.labels}
            self._tell_of((status,), complete=False)
        else:
            gone = self._containers.pop(event.container, None)
            own = {**own, **gone.labels} if gone is not None else own
        watcher = self._watchers.get((own.get(labels.APP, ""), _role(own)))
        if watcher is not None:
            watcher.tell(ContainerObserved(container=event.container, status=status, event=event))


def _role(own: Mapping[str, str]) -> Role:
    return "job" if own.get(labels.ROLE) == "job" else "primary"


def _words(error: BaseException | None, otherwise: str) -> str:
    if error is None:
        return otherwise
    if isinstance(error, EngineError):
        return str(error)
    raise error


def _listed_or_failed(listed: Listed | None, error: BaseException | None) -> Listed | Failed:
    return listed if listed is not None else Failed(_words(error, "no listing"))
