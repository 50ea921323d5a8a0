"""RecordActor: request records from the edge into the store, and word back to the edge that they are safe. It may forget
what waits: the edge keeps everything until it hears that it is stored."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..errors import StateError
from ..messages.containers import RecordsArrived
from ..messages.edge import RecordsStored, RequestRecords
from ..messages.records import GetRequests
from ..ports import RecordStore
from ..runtime.actor import Actor
from ..runtime.timers import Task

log = logging.getLogger("ndactors.record")

RETRY_SECONDS = 5.0
MOST_WORKERS = 256


class Written:
    def __init__(self, batches: list[RequestRecords], error: BaseException | None) -> None:
        self.batches = batches
        self.error = error


class WriteAgain:
    def __init__(self, batches: list[RequestRecords]) -> None:
        self.batches = batches


class RecordActor(Actor):
    def __init__(self, store: RecordStore) -> None:
        self._store = store
        self._stored: Callable[[RecordsStored], None] = lambda _: None
        self._known: dict[str, int] = {}
        """The newest sequence of each worker that is stored or waits here."""
        self._waiting: list[RequestRecords] = []
        self._writing: Task | None = None

    def receive(self, message: object) -> object:
        match message:
            case RecordsArrived(records=records, stored=stored):
                self._take(records, stored)
            case Written(batches=batches, error=error):
                self._written(batches, error)
            case WriteAgain(batches=batches):
                self._write(batches)
            case GetRequests():
                return self._store.page(message)
            case _:
                return super().receive(message)
        return None

    def _take(self, message: RequestRecords, stored: Callable[[RecordsStored], None]) -> None:
        self._stored = stored
        known = self._known.get(message.worker, 0)
        if message.sequence <= known:
            if self._writing is None and not self._waiting:
                stored(RecordsStored(worker=message.worker, sequence=known))
            return
        if message.previous > known:
            return  # one before it is missing; both come again
        self._known[message.worker] = message.sequence
        if len(self._known) > MOST_WORKERS:
            del self._known[next(iter(self._known))]
        self._waiting.append(message)
        self._write_soon()

    def _write_soon(self) -> None:
        if self._writing is None and self._waiting:
            batches, self._waiting = self._waiting, []
            self._write(batches)

    def _write(self, batches: list[RequestRecords]) -> None:
        self._writing = self.run(lambda: self._store.append(batches), lambda _, error: Written(batches, error))

    def _written(self, batches: list[RequestRecords], error: BaseException | None) -> None:
        if error is not None:
            if not isinstance(error, StateError):
                raise error
            log.error("request records cannot be stored: %s", error)
            self.after(RETRY_SECONDS, WriteAgain(batches))
            return
        self._writing = None
        for worker, sequence in {batch.worker: batch.sequence for batch in batches}.items():
            self._stored(RecordsStored(worker=worker, sequence=sequence))
        self._write_soon()
