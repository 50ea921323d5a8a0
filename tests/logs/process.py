"""A log process under test, and its link: what the daemon does, by hand."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ndactors.core.logquery import LogFilter
from ndactors.core.logrecords import LogRecord, LogSource
from ndactors.logs.query import Store, page
from ndactors.messages.edge import Hello, Refused, Stop
from ndactors.messages.logs import (
    PROTOCOL,
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
    WantLines,
)
from ndactors.runtime.link import FrameReader, connect_unix, encode

ROOT = Path(__file__).parents[2]
FromLogs = Hello | Refused | LogsReport | LogsFound | LogsFlushed | WantLines | LogChunk | SubscriptionRefused


def until(condition: Callable[[], Any], seconds: float = 20.0, what: str = "the condition") -> Any:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if value := condition():
                return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} never came true")
        time.sleep(0.02)


def source(path: Path | str = "", container: str = "c" * 64, **more: Any) -> LogSource:
    return LogSource(**{"container": container, "app": "shop", "process": "web", "path": str(path), **more})


class LogProcess:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.process: subprocess.Popen[bytes] | None = None
        self.sock: socket.socket | None = None
        self.epoch = 1
        self.reports: list[LogsReport] = []
        self.chunks: list[LogChunk] = []
        self.wanted: list[WantLines] = []
        self._ids = iter(range(1, 1_000_000))

    # -- its life ----------------------------------------------------------------------------------

    def start(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "ndactors", "--role=logs", f"--state-dir={self.state}"]
        with (self.state / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )
        self.connect()

    def connect(self) -> None:
        def connected() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, (self.state / "log").read_text()
            self.sock = connect_unix(self.state / "logs" / "logs.sock")
            return True

        until(connected, what="the log process's socket")
        self.reader: FrameReader[Any] = FrameReader(FromLogs)
        self.send(Hello(protocol=PROTOCOL, epoch=self.epoch, version="test", pid=os.getpid(), role="daemon"))
        self.receive(Hello)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def stop(self) -> int:
        assert self.process is not None
        self.send(Stop())
        return self.process.wait(20)

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
        if self.process is not None and self.process.poll() is None:
            self.thaw()
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            self.process.kill()
            self.process.wait()
        for entry in Path("/proc").iterdir():  # its readers
            with contextlib.suppress(OSError, ValueError):
                if f"--state-dir={self.state}".encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)

    # -- talking -----------------------------------------------------------------------------------

    def send(self, message: Any) -> None:
        assert self.sock is not None
        self.sock.sendall(encode(message))

    def receive(self, kind: type, seconds: float = 20.0) -> Any:
        """The next message of this kind; others are kept or left out."""
        assert self.sock is not None
        deadline = time.monotonic() + seconds
        while True:
            self.sock.settimeout(max(0.01, deadline - time.monotonic()))
            data = self.sock.recv(1 << 18)
            assert data, f"the log process ended: {(self.state / 'log').read_text()[-2000:]}"
            found = None
            for message in self.reader.feed(data):
                if isinstance(message, LogsReport):
                    self.reports.append(message)
                elif isinstance(message, LogChunk):
                    self.chunks.append(message)
                elif isinstance(message, WantLines):
                    self.wanted.append(message)
                if isinstance(message, kind) and found is None:
                    found = message
            if found is not None:
                return found

    def follow(self, *sources: LogSource, complete: bool = False) -> None:
        self.send(FollowLogs(sources=sources, complete=complete))

    def keep(self, **what: Any) -> None:
        self.send(KeepLogs(**{"days": 7, "bytes": 1 << 30, **what}))

    def flush(self, *containers: str) -> None:
        self.send(FlushLogs(id=next(self._ids), containers=containers or ("c" * 64,)))
        self.receive(LogsFlushed)

    def query(self, limit: int = 100, cursor: str | None = None, oldest_first: bool = False, **wanted: Any) -> LogPage:
        query = GetLogs(filter=LogFilter(**wanted), limit=limit, cursor=cursor, oldest_first=oldest_first)
        self.send(QueryLogs(id=next(self._ids), query=query))
        found = self.receive(LogsFound, 40.0)
        assert not found.refused and not found.failed, found
        return found.page  # type: ignore[no-any-return]

    def subscribe(self, *, batch: bool = False, tail: int = 0, window: int = 16, **wanted: Any) -> int:
        id = next(self._ids)
        self.send(SubscribeLogs(id=id, filter=LogFilter(**wanted), batch=batch, tail=tail, window=window))
        return id

    def took(self, id: int) -> None:
        self.send(ChunkTaken(id=id))

    def report(self) -> LogsReport:
        """The next one."""
        return self.receive(LogsReport)  # type: ignore[no-any-return]


def stored(state: Path, **wanted: Any) -> list[LogRecord]:
    """Everything in the store, the oldest first, read from its files."""
    store, found, cursor = Store(state / "logs" / "store"), [], None
    while True:
        query = GetLogs(filter=LogFilter(**wanted), limit=10_000, cursor=cursor, oldest_first=True)
        got = page(store, query, None, time.monotonic)
        assert not got.damaged
        found += got.items
        cursor = got.next
        if cursor is None:
            return found


def lines(state: Path, container: str) -> list[str]:
    """What one container wrote, in the order in which it is stored; of gaps their words."""
    store, found = Store(state / "logs" / "store"), []
    for number in store.numbers():
        for place in store.places(number, None):
            if place.header.source is not None and place.header.source.container == container:
                columns = store.columns(number, place)
                assert columns is not None
                found += columns.messages()
    assert not store.damaged
    return found
