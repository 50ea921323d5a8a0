"""Operations and revisions in SQLite (WAL, every commit synced): what was asked, what came of it, what ran."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ..messages.operations import GetOperations, GetRevisions, Operation, OperationPage, Revision, RevisionPage
from .sqlite_file import SqliteFile

KEEP_OPERATIONS = 10_000
KEEP_REVISIONS = 1_000
"""Of each app."""
PRUNE_EVERY = 500

_SCHEMA = """
CREATE TABLE IF NOT EXISTS operations (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, apps TEXT NOT NULL,
  record BLOB NOT NULL, log TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS operations_state ON operations (state);
CREATE TABLE IF NOT EXISTS revisions (
  app TEXT NOT NULL, number INTEGER NOT NULL, record BLOB NOT NULL, PRIMARY KEY (app, number)) WITHOUT ROWID;
"""


class SqliteLedger:
    """``ndactors.ports.Ledger``. ``apply`` runs a call off the event loop."""

    def __init__(
        self, path: Path, report: Callable[[str, str], None], apply: Callable[[Callable[[], Any]], Any]
    ) -> None:
        self._file = SqliteFile(path, _SCHEMA, report, apply, durable=True)
        self._encode = msgspec.msgpack.Encoder().encode
        self._operation = msgspec.msgpack.Decoder(Operation).decode
        self._revision = msgspec.msgpack.Decoder(Revision).decode
        self._written = 0

    # -- operations --------------------------------------------------------------------------------

    def save_operation(self, operation: Operation) -> None:
        row = (
            operation.id,
            operation.state,
            f"/{'/'.join(operation.apps)}/",
            self._encode(msgspec.structs.replace(operation, log="")),
            operation.log,
        )

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.execute(
                    "INSERT INTO operations (id, state, apps, record, log) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO"
                    " UPDATE SET state = excluded.state, apps = excluded.apps, record = excluded.record, log = excluded.log",
                    row,
                )
                self._prune(database)

        self._file.call(write)

    def _prune(self, database: sqlite3.Connection) -> None:
        self._written += 1
        if self._written % PRUNE_EVERY:
            return
        database.execute(
            "DELETE FROM operations WHERE state <> 'running' AND seq <= (SELECT max(seq) FROM operations) - ?",
            (KEEP_OPERATIONS,),
        )

    def operation(self, id: str) -> Operation | None:
        sql = "SELECT record, log FROM operations WHERE id = ?"
        row = self._file.call(lambda database: database.execute(sql, (id,)).fetchone())
        return msgspec.structs.replace(self._operation(row[0]), log=row[1]) if row is not None else None

    def operations(self, query: GetOperations) -> OperationPage:
        conditions, values = ["1"], []
        for condition, value in (
            ("state = ?", query.state),
            ("instr(apps, ?)", f"/{query.app}/" if query.app is not None else None),
            ("seq < ?", query.before),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        limit = max(1, min(query.limit, 10_000))
        sql = f"SELECT seq, record FROM operations WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?"
        rows = self._file.call(lambda database: database.execute(sql, (*values, limit + 1)).fetchall())
        items = tuple(self._operation(record) for _, record in rows[:limit])
        return OperationPage(items=items, next=rows[limit - 1][0] if len(rows) > limit else None)

    # -- revisions ---------------------------------------------------------------------------------

    def save_revision(self, revision: Revision) -> None:
        row = (revision.app, revision.number, self._encode(revision))

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.execute("INSERT OR REPLACE INTO revisions VALUES (?, ?, ?)", row)
                database.execute(
                    "DELETE FROM revisions WHERE app = ? AND number <= ?",
                    (revision.app, revision.number - KEEP_REVISIONS),
                )

        self._file.call(write)

    def revision(self, app: str, number: int) -> Revision | None:
        sql = "SELECT record FROM revisions WHERE app = ? AND number = ?"
        row = self._file.call(lambda database: database.execute(sql, (app, number)).fetchone())
        return self._revision(row[0]) if row is not None else None

    def revisions(self, query: GetRevisions) -> RevisionPage:
        limit = max(1, min(query.limit, 10_000))
        before = query.before if query.before is not None else 1 << 62
        sql = "SELECT number, record FROM revisions WHERE app = ? AND number < ? ORDER BY number DESC LIMIT ?"
        rows = self._file.call(lambda database: database.execute(sql, (query.app, before, limit + 1)).fetchall())
        items = tuple(self._revision(record) for _, record in rows[:limit])
        return RevisionPage(items=items, next=rows[limit - 1][0] if len(rows) > limit else None)

    def close(self) -> None:
        self._file.close()
