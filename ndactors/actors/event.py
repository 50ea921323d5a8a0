"""EventActor: everything worth telling. It stamps, logs and stores events, and answers queries about them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..errors import StateError
from ..messages.containers import RecordEvent
from ..messages.queries import Event, GetEvents
from ..ports import EventStore
from ..runtime.actor import Actor
from ..runtime.ref import Ref
from ..runtime.timers import Task

log = logging.getLogger("ndactors.event")

KEEP_UNSTORED = 10_000
RETRY_SECONDS = 5.0

SERIOUS = (
    ".died",
    ".oom",
    ".lost",
    ".failed",
    ".gave_up",
    ".unhealthy",
    ".refused",
    ".fault",
    ".corrupt",
    "_failed",
    ".opened",
    ".zombies",
)
"""Endings of event kinds that are logged as warnings."""
TAKEN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
"""Names that a log record has for itself: a detail of that name gets another one in the log."""


class Stored: ...


class StoreAgain: ...


class NotStored:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class EventActor(Actor):
    """``stamp`` gives the time as RFC 3339. A store that fails loses nothing until ``KEEP_UNSTORED`` events wait.
    ``listeners`` hear of each event as it comes."""

    def __init__(self, store: EventStore, stamp: Callable[[], str], listeners: tuple[Ref, ...] = ()) -> None:
        self._listeners = listeners
        self._store = store
        self._stamp = stamp
        self._waiting: list[Event] = []
        self._storing: Task | None = None
        self._lost = 0

    def receive(self, message: object) -> object:
        match message:
            case RecordEvent():
                self._record(message)
            case Stored():
                self._storing = None
                self._store_soon()
            case NotStored(error=error):
                self._not_stored(error)
            case StoreAgain():
                self._storing = None
                self._store_soon()
            case GetEvents():
                return self._store.page(message)
            case _:
                return super().receive(message)
        return None

    def on_stop(self) -> None:
        if self._waiting and self._storing is None:
            self._store.append(self._waiting)

    def _record(self, message: RecordEvent) -> None:
        who = "/".join(part for part in (message.app, message.process) if part)
        level = logging.WARNING if message.kind.endswith(SERIOUS) else logging.INFO
        log.log(
            level,
            "%s%s%s%s",
            message.kind,
            f" {who}" if who else "",
            f" {message.container}" if message.container else "",
            f": {message.reason}" if message.reason else "",
            extra={
                "event": message.kind,
                "app": message.app,
                "container": message.container,
                **{f"{key}_" if key in TAKEN else key: value for key, value in message.detail.items()},
            },
        )
        self._waiting.append(
            Event(
                ts=self._stamp(),
                kind=message.kind,
                app=message.app,
                process=message.process,
                container=message.container,
                reason=message.reason,
                detail=message.detail,
            )
        )
        if len(self._waiting) > KEEP_UNSTORED:
            del self._waiting[0]
            self._lost += 1
        self._store_soon()
        for listener in self._listeners:
            listener.tell(message)

    def _store_soon(self) -> None:
        if self._storing is None and self._waiting:
            batch, self._waiting = self._waiting, []
            self._storing = self.run(
                lambda: self._append(batch), lambda _, error: Stored() if not error else NotStored(error)
            )

    def _append(self, batch: list[Event]) -> None:
        try:
            self._store.append(batch)
        except StateError:
            self._waiting[:0] = batch
            raise

    def _not_stored(self, error: BaseException) -> None:
        if not isinstance(error, StateError):
            raise error
        log.error("events cannot be stored (%s); %d wait, %d were lost", error, len(self._waiting), self._lost)
        self.after(RETRY_SECONDS, StoreAgain())
