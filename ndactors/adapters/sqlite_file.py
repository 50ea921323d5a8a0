"""One SQLite file (WAL) that is worked with off the event loop. A damaged one is set aside, and a new one begun."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gevent.monkey import get_original

from ..errors import StateError

log = logging.getLogger("ndactors.state")
_Lock = get_original("threading", "Lock")
R = TypeVar("R")


class SqliteFile:
    """``apply`` runs a call off the event loop (gevent's thread pool, or at once). ``durable``: what is committed
    survives a power cut, not only our own end."""

    def __init__(
        self,
        path: Path,
        schema: str,
        report: Callable[[str, str], None],
        apply: Callable[[Callable[[], Any]], Any],
        *,
        durable: bool,
    ) -> None:
        self._path = path
        self._schema = schema
        self._report = report
        self._apply = apply
        self._durable = durable
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # real locks: those who wait are threads of the pool, and closing under one that works is a fault of memory
        self._writing, self._reading = _Lock(), _Lock()
        self._database = self._open()
        self._reader = self._second()

    def call(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """``StateError`` if the database cannot do it now."""

        def guarded() -> R | sqlite3.Error:
            try:
                with self._writing:
                    return work(self._database)
            except sqlite3.Error as error:
                return error

        result: Any = self._apply(guarded)
        if isinstance(result, sqlite3.DatabaseError) and _is_damage(result):
            self.close()
            self._set_aside(result)
            self._database = self._open()
            self._reader = self._second()
            result = self._apply(guarded)
        if isinstance(result, sqlite3.Error):
            raise StateError(f"{self._path}: {result}")
        return result  # type: ignore[no-any-return]

    def read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """``call`` for what only reads, however long it takes: nobody who writes waits for it."""

        def guarded() -> R | sqlite3.Error:
            try:
                with self._reading:
                    return work(self._reader)
            except sqlite3.Error as error:
                return error

        result: Any = self._apply(guarded)
        if isinstance(result, sqlite3.Error):
            return self.call(work)  # whatever is wrong with the file is seen to there
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """Whoever asked may be gone while its work goes on in a thread: that is let end first."""

        def end() -> None:
            with self._reading, self._writing:
                self._reader.close()
                self._database.close()

        self._apply(end)

    def _second(self) -> sqlite3.Connection:
        reader = sqlite3.connect(self._path, check_same_thread=False, timeout=5.0)
        reader.execute("PRAGMA query_only=ON")
        return reader

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise StateError(f"{self._path}: {error}") from error
            self._set_aside(error)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        # sqlite3 would make it world-readable
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        database = sqlite3.connect(self._path, check_same_thread=False, timeout=5.0)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(f"PRAGMA synchronous={'FULL' if self._durable else 'NORMAL'}")
            database.executescript(self._schema)
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                database.execute(f'SELECT * FROM "{table}" ORDER BY 1 DESC LIMIT 10').fetchall()
        except sqlite3.Error:
            database.close()
            raise
        return database

    def _set_aside(self, error: sqlite3.Error) -> None:
        aside = f"{self._path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}"
        words = f"{self._path} is damaged ({error}); kept as {aside}, a new one begins"
        for suffix in ("", "-wal", "-shm"):
            part = self._path.with_name(self._path.name + suffix)
            if part.exists():
                os.rename(part, part.with_name(aside + suffix))
        log.error("%s", words)
        self._report("state.corrupt", words)


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
