"""Events in SQLite (WAL, one writer). A damaged database is set aside and a new one begun; the daemon never waits."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..errors import StateError
from ..messages.queries import Event, EventPage, GetEvents

log = logging.getLogger("ndactors.events")
R = TypeVar("R")

KEEP_EVENTS = 200_000
PRUNE_EVERY = 1_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
  id INTEGER PRIMARY KEY AUTOINCREMENT, ts TEXT NOT NULL, kind TEXT NOT NULL, app TEXT, process TEXT, container TEXT,
  reason TEXT NOT NULL, detail TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS events_app ON events (app, id);
CREATE INDEX IF NOT EXISTS events_kind ON events (kind, id);
"""

_INSERT = "INSERT INTO events (ts, kind, app, process, container, reason, detail) VALUES (?, ?, ?, ?, ?, ?, ?)"


class SqliteEvents:
    """``ndactors.ports.EventStore``. ``apply`` runs a call off the event loop (gevent's thread pool, or at once)."""

    def __init__(
        self, path: Path, report: Callable[[str, str], None], apply: Callable[[Callable[[], Any]], Any]
    ) -> None:
        self._path = path
        self._report = report
        self._apply = apply
        self._appended = 0
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._database = self._open()

    def append(self, events: Sequence[Event]) -> None:
        rows = [
            (e.ts, e.kind, e.app, e.process, e.container, e.reason, msgspec.json.encode(e.detail).decode())
            for e in events
        ]

        def write() -> None:
            with self._database:
                self._database.executemany(
                    "INSERT INTO events (ts, kind, app, process, container, reason, detail) VALUES (?,?,?,?,?,?,?)",
                    rows,
                )
                self._appended += len(rows)
                if self._appended >= PRUNE_EVERY:
                    self._appended = 0
                    self._database.execute(
                        "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (KEEP_EVENTS,)
                    )

        self._safely(write)

    def page(self, query: GetEvents) -> EventPage:
        conditions, values = ["1"], []
        for column, operator, value in (
            ("app", "=", query.app),
            ("kind", "=", query.kind),
            ("ts", ">=", query.since),
            ("id", "<", query.before),
        ):
            if value is not None:
                conditions.append(f"{column} {operator} ?")
                values.append(value)
        limit = max(1, min(query.limit, 10_000))
        sql = f"SELECT * FROM events WHERE {' AND '.join(conditions)} ORDER BY id DESC LIMIT ?"

        def read() -> list[tuple[Any, ...]]:
            return self._database.execute(sql, (*values, limit + 1)).fetchall()

        rows = self._safely(read)
        items = tuple(
            Event(
                id=i,
                ts=ts,
                kind=kind,
                app=app,
                process=process,
                container=container,
                reason=reason,
                detail=msgspec.json.decode(detail),
            )
            for i, ts, kind, app, process, container, reason, detail in rows[:limit]
        )
        return EventPage(items=items, next=items[-1].id if len(rows) > limit else None)

    def close(self) -> None:
        self._apply(self._database.close)

    def _safely(self, call: Callable[[], R]) -> R:
        def guarded() -> R | sqlite3.Error:
            try:
                return call()
            except sqlite3.Error as error:
                return error

        result: Any = self._apply(guarded)
        if isinstance(result, sqlite3.DatabaseError) and _is_damage(result):
            self._database.close()
            self._set_aside(result)
            self._database = self._open()
            result = self._apply(guarded)
        if isinstance(result, sqlite3.Error):
            raise StateError(f"{self._path}: {result}")
        return result  # type: ignore[no-any-return]

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self._path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise StateError(f"{self._path}: {error}") from error
            self._set_aside(error)
            return _connect(self._path)

    def _set_aside(self, error: sqlite3.Error) -> None:
        aside = f"{self._path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
        words = f"{self._path} is damaged ({error}); kept as {aside}, a new one begins"
        for suffix in ("", "-wal", "-shm"):
            part = self._path.with_name(self._path.name + suffix)
            if part.exists():
                os.rename(part, part.with_name(aside + suffix))
        log.error("%s", words)
        self._report("state.corrupt", words)


def _connect(path: Path) -> sqlite3.Connection:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # sqlite3 would make it world-readable
    os.close(descriptor)
    database = sqlite3.connect(path, check_same_thread=False, timeout=5.0)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.executescript(_SCHEMA)
        database.execute("SELECT count(*) FROM (SELECT id FROM events ORDER BY id DESC LIMIT 10)").fetchone()
    except sqlite3.Error:
        database.close()
        raise
    return database


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
