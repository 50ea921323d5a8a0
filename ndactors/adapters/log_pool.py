"""The log process as the daemon knows it: found or started, told which containers there are, asked for records. It outlives
the daemon and needs none to read on."""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from gevent.event import AsyncResult, Event
from gevent.timeout import Timeout

from ..core.logquery import LogFilter
from ..core.logrecords import LogSource
from ..errors import Invalid, LogsAway
from ..messages.edge import Hello, Refused, Stop
from ..messages.logs import (
    PROTOCOL,
    QUIET_REPORT_SECONDS,
    AskedLines,
    ChunkTaken,
    FlushLogs,
    FollowLogs,
    GetLogs,
    KeepLogs,
    LogChunk,
    LogPage,
    LogsFlushed,
    LogsFound,
    LogsReport,
    QueryLogs,
    SubscribeLogs,
    SubscriptionRefused,
    UnsubscribeLogs,
    WantLines,
)
from .outliving import OutlivingProcess

FromLogs = Hello | Refused | LogsReport | LogsFound | LogsFlushed | WantLines | LogChunk | SubscriptionRefused

QUERY_SECONDS = 15.0
FLUSH_SECONDS = 2.5
STOP_SECONDS = 10.0
SILENT_SECONDS = QUIET_REPORT_SECONDS + 2.0
"""One that says nothing for longer stands still."""
OUTLETS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE", "AWS_REGION"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
"""Variables that its outlets may need."""
WINDOW = 32
"""Chunks on their way to one subscriber."""


class LogPool(OutlivingProcess):
    """One for the daemon's whole life; ``start`` and ``close`` may alternate."""

    def __init__(self, state_dir: Path, *, epoch: int, version: str) -> None:
        hello = Hello(protocol=PROTOCOL, epoch=epoch, version=version, pid=os.getpid(), role="daemon")
        super().__init__(state_dir, "logs", FromLogs, hello)
        self._keep: KeepLogs | None = None
        self._sources: tuple[LogSource, ...] = ()
        self._complete = False
        self._connected = Event()
        self._heard = 0.0
        self._ids = itertools.count(1)
        self._asked: dict[int, AsyncResult] = {}
        self._streams: dict[int, PoolStream] = {}
        self._on_report: Callable[[LogsReport], None] = lambda report: None
        self._on_wanted: Callable[[WantLines], None] = lambda wanted: None
        self._on_change: Callable[[str], None] = lambda words: None

    def listen(
        self,
        on_report: Callable[[LogsReport], None],
        on_wanted: Callable[[WantLines], None],
        on_change: Callable[[str], None],
    ) -> None:
        """Before ``start``. None of them may wait."""
        self._on_report, self._on_wanted, self._on_change = on_report, on_wanted, on_change

    def start(self, *, wait: bool = False) -> None:
        """Nobody waits for it: one that stands still must hold up nothing."""
        super().start(wait=wait)

    # -- telling -----------------------------------------------------------------------------------

    def keep(self, keep: KeepLogs) -> None:
        self._keep = keep
        self._send(keep)

    def follow(self, sources: Sequence[LogSource], *, complete: bool) -> None:
        """All that there are; told again to whichever log process comes next."""
        self._sources, self._complete = tuple(sources), complete
        self._send(FollowLogs(sources=self._sources, complete=complete))

    def lines(self, lines: AskedLines) -> None:
        self._send(lines)

    def flush(self, containers: tuple[str, ...]) -> bool:
        """Wait until all that they wrote is stored. False: that could not be had in time."""
        if self._sock is None:
            self._connected.wait(FLUSH_SECONDS)
        elif time.monotonic() - self._heard > SILENT_SECONDS:
            return False  # it stands still; it has the files open, and so loses nothing
        id = next(self._ids)
        try:
            self._ask(id, FlushLogs(id=id, containers=containers), FLUSH_SECONDS)
        except LogsAway:
            return False
        return True

    def stop(self) -> None:
        """It ends, in good order."""
        self._end(Stop(), STOP_SECONDS)

    # -- asking ------------------------------------------------------------------------------------

    def query(self, query: GetLogs) -> LogPage:
        """``Invalid``, ``LogsAway``. Waits."""
        id = next(self._ids)
        found = self._ask(id, QueryLogs(id=id, query=query, patience=QUERY_SECONDS), QUERY_SECONDS)
        if found.refused:
            raise Invalid(found.refused)
        if found.failed:
            raise LogsAway(found.failed)
        return found.page  # type: ignore[no-any-return]

    def _ask(self, id: int, message: QueryLogs | FlushLogs, seconds: float) -> LogsFound:
        if self._sock is None:
            raise LogsAway("the log process does not answer")
        self._asked[id] = AsyncResult()
        self._send(message)
        try:
            return self._asked[id].get(timeout=seconds)  # type: ignore[no-any-return]
        except Timeout as error:
            raise LogsAway(f"the log process did not answer within {seconds:g} s") from error
        finally:
            del self._asked[id]

    def open(self, wanted: LogFilter, *, batch: bool, tail: int) -> PoolStream:
        if self._sock is None:
            raise LogsAway("the log process does not answer")
        stream = PoolStream(self, next(self._ids))
        self._streams[stream.id] = stream
        self._send(SubscribeLogs(id=stream.id, filter=wanted, batch=batch, tail=tail, window=WINDOW))
        return stream

    def took(self, id: int) -> None:
        self._send(ChunkTaken(id=id))

    def leave(self, id: int) -> None:
        if self._streams.pop(id, None) is not None:
            self._send(UnsubscribeLogs(id=id))

    # -- what it says ------------------------------------------------------------------------------

    def _adopt_or_start(self) -> None:
        hello = self._connect()
        if hello is not None and hello.version != self._hello.version:
            self._log.info("the log process is %s; another one takes over", hello.version)
            self.pid = hello.pid
            self._replace()
            hello = None
        if hello is not None:
            self._on_change(f"adopted the log process that runs (pid {hello.pid})")
        else:
            hello = self._spawn(environment={name: os.environ[name] for name in OUTLETS if name in os.environ})
            self._on_change(f"started a log process (pid {hello.pid})")
        self.pid = hello.pid
        self._heard = time.monotonic()
        self._connected.set()
        if self._keep is not None:
            self._send(self._keep)
        if self._sources or self._complete:
            self._send(FollowLogs(sources=self._sources, complete=self._complete))

    def _replace(self) -> None:
        pid = self.pid
        self._send(Stop())
        self._link_ends(STOP_SECONDS)
        self._disconnect()
        if pid is not None:
            self._wait_until_gone(pid, 2.0)

    def _take(self, message: FromLogs) -> None:
        self._heard = time.monotonic()
        match message:
            case LogsReport():
                self._on_report(message)
            case WantLines():
                self._on_wanted(message)
            case LogsFound() | LogsFlushed():
                if (asked := self._asked.get(message.id)) is not None:
                    asked.set(message)
            case LogChunk():
                if (stream := self._streams.get(message.id)) is not None:
                    stream.arrived(message)
            case SubscriptionRefused():
                if (stream := self._streams.pop(message.id, None)) is not None:
                    stream.ended(message.reason)

    def _changed(self, words: str) -> None:
        self._on_change(words)

    def _disconnect(self) -> None:
        super()._disconnect()
        self._connected.clear()
        for asked in self._asked.values():
            asked.set_exception(LogsAway("the log process ended"))
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.ended("")


class PoolStream:
    """``ndactors.ports.LogStream``."""

    def __init__(self, pool: LogPool, id: int) -> None:
        self.id = id
        self._pool = pool
        self._chunks: deque[LogChunk] = deque()
        self._news = Event()
        self._over = False
        self._reason = ""
        self._owed = False

    def arrived(self, chunk: LogChunk) -> None:
        self._chunks.append(chunk)
        self._news.set()

    def ended(self, reason: str) -> None:
        """``reason``: why it was refused; empty: the log process is away."""
        self._over, self._reason = True, reason
        self._news.set()

    def receive(self) -> LogChunk | None:
        """``Invalid`` if the filter was refused."""
        if self._owed:
            self._owed = False
            self._pool.took(self.id)
        while not self._chunks and not self._over:
            self._news.clear()
            self._news.wait()
        if self._chunks:
            self._owed = True
            return self._chunks.popleft()
        if self._reason:
            raise Invalid(self._reason)
        return None

    def close(self) -> None:
        self._pool.leave(self.id)
        self.ended("")
