"""RecordActor: request records from the edge into the store, and word back to the edge that they are safe. It may forget
what waits: the edge keeps everything until it hears that it is stored. Who asks for sums gets them when everything that is
known to be on its way has been stored."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from ..errors import NextDeployError, StateError
from ..messages.containers import RecordsArrived
from ..messages.edge import RecordsStored, RequestRecords
from ..messages.records import GetRequests, GetTraffic, TrafficSummary
from ..ports import RecordStore
from ..runtime.actor import Actor
from ..runtime.ref import Later
from ..runtime.timers import Task, Timer

log = logging.getLogger("ndactors.record")

RETRY_SECONDS = 5.0
MOST_WORKERS = 256
PATIENCE_SECONDS = 2.0
"""How long a question waits for records that are known to be on their way; then it is answered without them."""


@dataclass
class Progress:
    """How far one worker's batches are, by sequence: ``known`` are stored or wait here, ``newest`` is there at the worker."""

    known: int = 0
    stored: int = 0
    newest: int = 0


@dataclass(eq=False)
class Question:
    """It is answered when every worker's batches are stored up to ``needs``."""

    query: GetTraffic
    answer: Later
    needs: dict[str, int]
    timer: Timer | None = None


@dataclass
class Overdue:
    question: Question


@dataclass
class Counted:
    question: Question
    complete: bool
    summary: TrafficSummary | None
    error: BaseException | None


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
        self._workers: dict[str, Progress] = {}
        self._questions: list[Question] = []
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
            case GetTraffic():
                return self._asked(message)
            case Overdue(question=question):
                self._overdue(question)
            case Counted():
                self._counted(message)
            case _:
                return super().receive(message)
        return None

    def _take(self, message: RequestRecords, stored: Callable[[RecordsStored], None]) -> None:
        self._stored = stored
        worker = self._workers.get(message.worker)
        if worker is None:
            worker = self._workers[message.worker] = Progress()
            if len(self._workers) > MOST_WORKERS:
                del self._workers[next(iter(self._workers))]
        worker.newest = max(worker.newest, message.newest, message.sequence)
        if message.sequence <= worker.known:
            if self._writing is None and not self._waiting:
                stored(RecordsStored(worker=message.worker, sequence=worker.known))
            return
        if message.previous > worker.known:
            return  # one before it is missing; both come again
        worker.known = message.sequence
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
        for name, sequence in {batch.worker: batch.sequence for batch in batches}.items():
            worker = self._workers.get(name)
            if worker is not None:
                worker.stored = sequence
            self._stored(RecordsStored(worker=name, sequence=sequence))
        self._write_soon()
        for question in list(self._questions):
            if self._may_count(question):
                self._count(question, complete=True)

    # -- sums --------------------------------------------------------------------------------------

    def _asked(self, query: GetTraffic) -> Later:
        needs = {name: worker.newest for name, worker in self._workers.items() if worker.newest > worker.stored}
        question = Question(query, Later(), needs)
        self._questions.append(question)
        if needs:
            question.timer = self.after(PATIENCE_SECONDS, Overdue(question))
        else:
            self._count(question, complete=True)
        return question.answer

    def _may_count(self, question: Question) -> bool:
        workers = self._workers
        return all(name not in workers or workers[name].stored >= needed for name, needed in question.needs.items())

    def _overdue(self, question: Question) -> None:
        """A worker that died took its last batches with it, or the store cannot write."""
        for name in question.needs:
            worker = self._workers.get(name)
            if worker is not None and worker.known < question.needs[name]:
                worker.newest = worker.known  # nobody waits for these again
        self._count(question, complete=False)

    def _count(self, question: Question, *, complete: bool) -> None:
        self._questions.remove(question)
        if question.timer is not None:
            question.timer.cancel()
        self.run(
            lambda: self._store.traffic(question.query),
            lambda summary, error: Counted(question, complete, summary, error),
        )

    @staticmethod
    def _counted(message: Counted) -> None:
        if message.error is not None:
            if not isinstance(message.error, NextDeployError):
                raise message.error
            message.question.answer.fail(message.error)
        elif message.summary is not None:
            message.question.answer.answer(replace(message.summary, complete=message.complete))
