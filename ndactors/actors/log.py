"""LogActor: whose output is kept. It tells the log process which containers there are and how long to keep what they write,
answers for it, and tells when something was lost. Lines themselves never pass through here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from ..core import containers as labels
from ..core.containers import ContainerStatus
from ..core.logrecords import LogSource
from ..core.model import Settings
from ..core.rollups import until_sampling
from ..errors import EngineError, NextDeployError
from ..messages.containers import ApplySettings, ContainersSeen, RecordEvent
from ..messages.log_totals import LogTotals, carried_lines, told_lines
from ..messages.logs import (
    AskedLines,
    GetLogReport,
    GetLogs,
    KeepLogs,
    LogPage,
    LogsReport,
    WantLines,
)
from ..messages.metrics import Sampled
from ..ports import LogService, StateStore
from ..runtime.actor import Actor
from ..runtime.ref import Later, Ref
from .samples import log_samples
from .saved_first import Saved, SavedFirst

log = logging.getLogger("ndactors.logs")

TOTALS = "logs/totals"
ANNOUNCED_SECONDS = 60.0
"""So long a container that was just created counts, though no listing has it yet."""


class OutputRows(Protocol):
    def __call__(self, container: str, since: str) -> tuple[tuple[str, str, str], ...]: ...


class LogNews:
    def __init__(self, words: str) -> None:
        self.words = words


class LogActor(Actor):
    """``rows`` asks an engine, by its name, for output whose files cannot be read. ``now`` is monotonic, ``wall`` Unix
    seconds. ``save`` is the state's, beside the mailbox; ``listeners`` are told figures."""

    def __init__(
        self,
        current: Callable[[], Settings],
        logs: LogService,
        rows: Mapping[str, OutputRows],
        events: Ref,
        leave: Callable[[], bool],
        now: Callable[[], float],
        state: StateStore,
        save: Callable[[str, object], None],
        listeners: tuple[Ref, ...],
        wall: Callable[[], float],
    ) -> None:
        self._settings = current()
        self._logs = logs
        self._rows = rows
        self._events = events
        self._leave = leave
        self._now = now
        self._seen: dict[str, dict[str, LogSource]] = {}
        self._listed: set[str] = set()
        """Engines that have told all that they have."""
        self._announced: dict[str, tuple[float, str, LogSource]] = {}
        self._engine_of: dict[str, str] = {}
        self._asking: set[str] = set()
        self._state = state
        self._listeners = listeners
        self._wall = wall
        self._report: LogsReport | None = None
        self._totals = LogTotals()
        """What all log processes counted."""
        self._untold = False
        """There was a report since the listeners were told."""
        self._counters = SavedFirst(self.run, lambda record: save(TOTALS, record), self._counted, self._tell)
        self._told: tuple[LogSource, ...] = ()
        self._full = False
        self._notes: tuple[str, ...] = ()

    def on_start(self) -> None:
        self._totals = self._state.load(TOTALS, LogTotals) or LogTotals()
        self.after(until_sampling(self._wall()), SampleNow())
        tell = self.ref.tell
        self._logs.listen(tell, tell, lambda words: tell(LogNews(words)))
        self._logs.keep(_keep(self._settings))
        self._logs.start()

    def on_stop(self) -> None:
        self._counters.last_words()
        if self._leave():
            self._logs.close()
        else:
            self._logs.stop()

    def on_crash(self, error: BaseException) -> None:
        self._logs.close()

    def receive(self, message: object) -> object:
        match message:
            case LogsReport():
                self._reported(message)
            case ContainersSeen():
                self._saw(message)
            case WantLines(container=container, since=since):
                self._ask_engine(container, since)
            case AskedLines():
                self._asking.discard(message.container)
                if message.rows:
                    self._logs.lines(message)
            case LogNews(words=words):
                self._events.tell(RecordEvent(kind="logs.process", reason=words))
            case GetLogs():
                return self._find(message)
            case _Answered():
                self._answer(message)
            case GetLogReport():
                return self._counters.ask()
            case Saved():
                self._counters.done(message)
            case SampleNow():
                self._sample()
            case ApplySettings(settings=settings):
                self._settings = settings
                self._logs.keep(_keep(settings))
            case _:
                return super().receive(message)
        return None

    # -- which containers --------------------------------------------------------------------------

    def _saw(self, message: ContainersSeen) -> None:
        own = {status.id: found for status in message.containers if (found := _source(status)) is not None}
        now = self._now()
        if message.complete:
            self._listed.add(message.engine)
            self._seen[message.engine] = own
        elif message.announced:
            for container, found in own.items():
                self._announced[container] = (now, message.engine, found)
        else:
            self._seen.setdefault(message.engine, {}).update(own)
        for container in own:
            self._engine_of[container] = message.engine
        self._announced = {
            container: row
            for container, row in self._announced.items()
            if now - row[0] < ANNOUNCED_SECONDS and container not in self._seen.get(row[1], {})
        }
        every = {container: row[2] for container, row in self._announced.items()}
        for each in self._seen.values():
            every.update(each)
        self._engine_of = {container: engine for container, engine in self._engine_of.items() if container in every}
        sources = tuple(sorted(every.values(), key=lambda found: found.container))
        if sources != self._told or message.complete:
            self._told = sources
            self._logs.follow(sources, complete=set(self._rows) <= self._listed)

    def _ask_engine(self, container: str, since: str) -> None:
        rows = self._rows.get(self._engine_of.get(container, ""))
        if rows is None or container in self._asking:
            return
        self._asking.add(container)

        def answered(found: tuple[tuple[str, str, str], ...] | None, error: BaseException | None) -> AskedLines:
            if error is not None and not isinstance(error, EngineError):
                log.error("the output of %s cannot be asked for: %r", container[:12], error)
            return AskedLines(container=container, rows=found or ())

        self.run(lambda: rows(container, since), answered)

    # -- answers -----------------------------------------------------------------------------------

    def _find(self, query: GetLogs) -> Later:
        later = Later()

        def found(page: LogPage | None, error: BaseException | None) -> _Answered:
            return _Answered(later, page, error)

        self.run(lambda: self._logs.query(query), found)
        return later

    @staticmethod
    def _answer(message: _Answered) -> None:
        if message.page is not None:
            message.later.answer(message.page)
        elif isinstance(message.error, NextDeployError):
            message.later.fail(message.error)
        elif message.error is not None:
            raise message.error

    # -- figures -----------------------------------------------------------------------------------

    def _reported(self, report: LogsReport) -> None:
        self._report = report
        self._totals = carried_lines(self._totals, report, self._settings.apps.keys())
        self._untold = True
        for loss in report.losses:
            words = f"{loss.bytes:,} bytes of output were lost: {loss.reason}"
            detail: dict[str, object] = {"gaps": loss.gaps, "bytes": loss.bytes}
            self._events.tell(RecordEvent(kind="logs.lost", app=loss.app, reason=words, detail=detail))
        if report.full != self._full:
            self._full = report.full
            kind, words = ("logs.store_failed", report.notes[-1]) if report.full else ("logs.resumed", "stored again")
            self._events.tell(RecordEvent(kind=kind, reason=words))
        for words in report.notes:
            if words not in self._notes and not (report.full and words == report.notes[-1]):
                self._events.tell(RecordEvent(kind="logs.trouble", reason=words))
        self._notes = report.notes

    def _counted(self) -> tuple[LogTotals | None, LogsReport | None]:
        if self._report is None:
            return None, None
        return self._totals, told_lines(self._totals, self._report, self._settings.apps.keys())

    def _sample(self) -> None:
        self.after(until_sampling(self._wall()), SampleNow())
        if self._untold:
            self._untold = False
            self._counters.tell()

    def _tell(self, report: LogsReport) -> None:
        told = Sampled(source="logs", at=self._wall(), samples=log_samples(report), from_zero=True)
        for listener in self._listeners:
            listener.tell(told)


class SampleNow: ...


class _Answered:
    def __init__(self, later: Later, page: LogPage | None, error: BaseException | None) -> None:
        self.later = later
        self.page = page
        self.error = error


def _keep(settings: Settings) -> KeepLogs:
    logs = settings.logs
    return KeepLogs(days=logs.retain.days, bytes=logs.retain.bytes, archive=logs.archive, forward=logs.forward)


def _source(status: ContainerStatus) -> LogSource | None:
    own = status.labels
    if not own.get(labels.APP):
        return None
    replica = own.get(labels.REPLICA, "1")
    return LogSource(
        container=status.id,
        app=own[labels.APP],
        process=own.get(labels.PROCESS, "web"),
        replica=int(replica) if replica.isascii() and replica.isdigit() else 1,
        path=status.log_path or "",
    )
