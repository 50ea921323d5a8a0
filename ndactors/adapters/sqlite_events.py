"""Events in SQLite (WAL, one writer). A damaged database is set aside and a new one begun; the daemon never waits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..messages.queries import Event, EventPage, GetEvents
from .sqlite_file import SqliteFile

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
        self._file = SqliteFile(path, _SCHEMA, report, apply, durable=True)
        self._appended = 0

    def append(self, events: Sequence[Event]) -> None:
        rows = [
            (e.ts, e.kind, e.app, e.process, e.container, e.reason, msgspec.json.encode(e.detail).decode())
            for e in events
        ]

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.executemany(_INSERT, rows)
                self._appended += len(rows)
                if self._appended >= PRUNE_EVERY:
                    self._appended = 0
                    database.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (KEEP_EVENTS,))

        self._file.call(write)

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

        rows = self._file.call(lambda database: database.execute(sql, (*values, limit + 1)).fetchall())
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
        self._file.close()
