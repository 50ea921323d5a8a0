"""MetricActor: the history of metrics. It gathers what sources tell, and writes when a slot is over; what is measured is of no
interest here. Questions are answered beside the mailbox."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..core.rollups import SLOT_SECONDS, slot, until_sampling
from ..core.samples import Sample
from ..errors import Busy, NextDeployError, StateError
from ..messages.containers import RecordEvent
from ..messages.metrics import GetMetricNames, GetMetrics, Sampled
from ..ports import MetricsAdded, MetricStore
from ..runtime.actor import Actor
from ..runtime.ref import Later, Ref
from ..runtime.timers import Task

log = logging.getLogger("ndactors.metrics")

MOST_SLOTS = 32
"""Of each source, what it told last in so many slots waits while the store cannot write: five minutes. Totals of counters lose
nothing with what was before."""
MOST_WAITING = 2 * MOST_SLOTS
"""So many of each source wait before any is left out: more than anybody tells in one slot."""
CLOCK_SECONDS = 60.0
"""A sample that is older than the open slot by more than this tells that the clock was put back."""
MOST_QUESTIONS = 16
"""So many wait while one is answered: each takes a thread, and those are for everybody."""
LATE_SECONDS = 3.0 * SLOT_SECONDS
"""What waits for so long without news is written, too."""


class SampleNow: ...


class LookForLate: ...


@dataclass
class Written:
    batches: list[Sampled]
    added: MetricsAdded | None
    error: BaseException | None


@dataclass
class Answered:
    later: Later
    value: Any
    error: BaseException | None


class MetricActor(Actor):
    """``now`` is Unix seconds. ``own``: figures about this daemon itself, which ``listeners`` are told, too."""

    def __init__(
        self,
        store: MetricStore,
        events: Ref,
        now: Callable[[], float],
        own: Callable[[], tuple[Sample, ...]],
        listeners: tuple[Ref, ...],
    ) -> None:
        self._store = store
        self._events = events
        self._now = now
        self._own = own
        self._listeners = listeners
        self._open: int | None = None
        """The slot that gathers now."""
        self._waiting: list[Sampled] = []
        self._fresh = False
        """Something came since the last look."""
        self._batches: list[Sampled] = []
        """What is being written."""
        self._writing: Task | None = None
        self._failing = False
        self._full = False
        self._asked: deque[tuple[Later, Callable[[], object]]] = deque()
        self._answering = False

    def on_start(self) -> None:
        self.after(until_sampling(self._now()), SampleNow())
        self.every(LATE_SECONDS, LookForLate())

    def on_stop(self) -> None:
        """What is being written may have got stuck on its way. The store knows the very batches that it has already."""
        left = self._batches + self._waiting
        if left:
            try:
                self._store.append(left)
            except StateError as error:
                log.error("the last figures are not in the history: %s", error)

    def receive(self, message: object) -> object:
        match message:
            case Sampled():
                self._take(message)
            case SampleNow():
                self._sample()
            case LookForLate():
                if not self._fresh:
                    self._write()
                self._fresh = False
            case Written():
                self._written(message)
            case GetMetrics():
                return self._later(lambda: self._store.query(message))
            case GetMetricNames():
                return self._later(lambda: self._store.names(message))
            case Answered():
                self._answer(message)
            case _:
                return super().receive(message)
        return None

    def _sample(self) -> None:
        now = self._now()
        self.after(until_sampling(now), SampleNow())
        told = Sampled(source="daemon", at=now, samples=self._own(), from_zero=True)
        self._take(told)
        for listener in self._listeners:
            listener.tell(told)

    # -- writing -----------------------------------------------------------------------------------

    def _take(self, sampled: Sampled) -> None:
        """Each is stored in the slot of its own time; the open slot only decides when."""
        at = slot(sampled.at, SLOT_SECONDS)
        if self._open is None or at > self._open or at < self._open - CLOCK_SECONDS:
            self._open = at
            self._write()
        self._fresh = True
        self._keep(sampled)

    def _keep(self, sampled: Sampled) -> None:
        self._waiting.append(sampled)
        own = [other for other in self._waiting if other.source == sampled.source]
        if len(own) > MOST_WAITING:
            last = {slot(other.at, SLOT_SECONDS): other for other in own}
            stays = {id(other) for other in list(last.values())[-MOST_SLOTS:]}
            self._waiting = [row for row in self._waiting if row.source != sampled.source or id(row) in stays]

    def _write(self) -> None:
        if self._writing is not None or not self._waiting:
            return
        batches, self._waiting = self._waiting, []
        self._batches = batches
        self._writing = self.run(
            lambda: self._store.append(batches), lambda added, error: Written(batches, added, error)
        )

    def _written(self, message: Written) -> None:
        """What could not be written waits with what comes; it is tried again when the next slot is over."""
        self._writing, self._batches = None, []
        if message.error is not None:
            if not isinstance(message.error, StateError):
                raise message.error
            later, self._waiting = self._waiting, message.batches
            for sampled in later:
                self._keep(sampled)
            if not self._failing:
                self._failing = True
                self._tell("metrics.store_failed", f"{message.error}; it is tried again")
            return
        if self._failing:
            self._failing = False
            self._tell("metrics.resumed", "the history of metrics is written again")
        if message.added is not None and message.added.refused and not self._full:
            self._full = True
            words = f"more than {message.added.most:,} series: {message.added.refused:,} are left out of the history"
            self._tell("metrics.too_many", words, refused=message.added.refused)

    def _tell(self, kind: str, words: str, **detail: object) -> None:
        self._events.tell(RecordEvent(kind=kind, reason=words, detail=detail))

    # -- questions ---------------------------------------------------------------------------------

    def _later(self, call: Callable[[], object]) -> Later:
        """One is answered at a time, in their order; those whose askers gave up are left out."""
        if len(self._asked) >= MOST_QUESTIONS:
            self._asked = deque(row for row in self._asked if not row[0].done)
            if len(self._asked) >= MOST_QUESTIONS:
                raise Busy(f"{MOST_QUESTIONS} questions about the history of metrics wait already; ask again later.")
        later = Later()
        self._asked.append((later, call))
        self._ask_store()
        return later

    def _ask_store(self) -> None:
        while self._asked and not self._answering:
            later, call = self._asked.popleft()
            if not later.done:
                self._answering = True
                self.run(call, lambda value, error, later=later: Answered(later, value, error))  # type: ignore[misc]

    def _answer(self, message: Answered) -> None:
        self._answering = False
        self._ask_store()
        if message.error is None:
            message.later.answer(message.value)
        elif isinstance(message.error, NextDeployError):
            message.later.fail(message.error)
        else:
            raise message.error
