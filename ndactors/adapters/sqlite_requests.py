"""Request records in SQLite (WAL, one writer): every batch in one transaction with its worker's sequence, so that none
is counted twice. A damaged database is set aside and a new one begun.

``arrivals`` says which record came first in each few seconds. A record that began at some time arrived after it, so those
that began since then are found without an index on time, and without looking at what came before."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..core.model import Retain
from ..messages.edge import RequestRecords
from ..messages.records import (
    CUT_OFF,
    DELIBERATE,
    AnswerHead,
    Batch,
    GetRequests,
    GetTraffic,
    RequestHead,
    RequestPage,
    RequestRecord,
    Traffic,
    TrafficSummary,
)
from .sqlite_file import SqliteFile

PRUNE_EVERY = 200
"""Batches between two looks at age and size."""
PRUNE_SHARE = 0.1
"""So much of the oldest goes when there is too much."""
ARRIVAL_SECONDS = 5
CLOCK_SECONDS = 10
"""A clock that was put back by no more than this hides nothing."""
LATE_SECONDS = 60
"""What a file from before ``arrivals`` holds is taken to have come no later than this after its end."""
FIRST_ARRIVALS = 256

_SCHEMA = """
CREATE TABLE IF NOT EXISTS heads (
  id INTEGER PRIMARY KEY, app TEXT NOT NULL, process TEXT NOT NULL, method TEXT NOT NULL, host TEXT NOT NULL,
  path TEXT NOT NULL, head BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS answers (id INTEGER PRIMARY KEY, answer BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS requests (
  seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, duration INTEGER NOT NULL, upstream INTEGER NOT NULL,
  head INTEGER NOT NULL, answer INTEGER, status INTEGER NOT NULL, bytes_in INTEGER NOT NULL,
  bytes_out INTEGER NOT NULL, id TEXT NOT NULL, address TEXT NOT NULL, country TEXT NOT NULL,
  container TEXT NOT NULL, retries INTEGER NOT NULL, error TEXT NOT NULL, body BLOB NOT NULL,
  held INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS arrivals (second INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS writers (
  worker TEXT PRIMARY KEY, sequence INTEGER NOT NULL, seen INTEGER NOT NULL) WITHOUT ROWID;
"""
_INSERT = (
    "INSERT INTO requests (at, duration, upstream, head, answer, status, bytes_in, bytes_out, id, address, country,"
    " container, retries, error, body, held) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
)
_SELECT = (
    "SELECT r.seq, r.at, r.duration, r.upstream, r.status, r.bytes_in, r.bytes_out, r.id, r.address, r.country,"
    " r.container, r.retries, r.error, r.body, r.held, h.head, a.answer FROM requests r JOIN heads h ON h.id = r.head"
    " LEFT JOIN answers a ON a.id = r.answer"
)
_TRAFFIC = f"""
WITH picked AS (
  SELECT r.container AS container, r.held AS held, CASE WHEN r.status <> 101 THEN r.duration END AS took,
    (r.status >= 500 AND r.error <> ?) OR r.error IN ({", ".join("?" * len(CUT_OFF))}) AS failed
  FROM requests r JOIN heads h ON h.id = r.head
  WHERE r.seq >= ? AND r.at + r.duration >= ? AND r.at + r.duration < ? AND h.app = ?),
ranked AS (
  SELECT *, row_number() OVER own AS own_rank, count(took) OVER (PARTITION BY container) AS own_count,
    row_number() OVER everybody AS all_rank, count(took) OVER () AS all_count
  FROM picked
  WINDOW own AS (PARTITION BY container ORDER BY took NULLS LAST), everybody AS (ORDER BY took NULLS LAST))
SELECT container, count(*), sum(failed), sum(held > 0), max(held),
  max(CASE WHEN own_rank = (own_count * 95 + 99) / 100 THEN took END), coalesce(sum(took > ?), 0),
  max(CASE WHEN all_rank = (all_count * 95 + 99) / 100 THEN took END)
FROM ranked GROUP BY container
"""
WRITER_DAYS = 30


class SqliteRequests:
    """``ndactors.ports.RecordStore``. ``apply`` runs a call off the event loop; ``retain`` tells how much may stay."""

    def __init__(
        self,
        path: Path,
        report: Callable[[str, str], None],
        apply: Callable[[Callable[[], Any]], Any],
        retain: Callable[[], Retain],
    ) -> None:
        self._file = SqliteFile(path, _SCHEMA, report, apply, durable=False)
        self._retain = retain
        self._decode = msgspec.msgpack.Decoder(Batch).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._appended = 0
        self._arrival = 0
        self._file.call(_migrate)

    def append(self, batches: Sequence[RequestRecords]) -> None:
        """Durable when it returns. What was there already is not stored twice; a batch that nobody can read is
        passed over."""
        self._file.call(lambda database: self._append(database, batches))

    def _append(self, database: Any, batches: Sequence[RequestRecords]) -> None:
        now = int(time.time())
        with database:
            if now // ARRIVAL_SECONDS != self._arrival:
                self._arrival = now // ARRIVAL_SECONDS
                database.execute(
                    "INSERT OR IGNORE INTO arrivals VALUES (?, ?)",
                    (self._arrival * ARRIVAL_SECONDS, _next(database, "requests", "seq")),
                )
            for records in batches:
                known = database.execute("SELECT sequence FROM writers WHERE worker = ?", (records.worker,)).fetchone()
                if known is not None and records.sequence <= known[0]:
                    continue
                database.execute(
                    "INSERT INTO writers VALUES (?, ?, ?) ON CONFLICT (worker) DO UPDATE SET"
                    " sequence = excluded.sequence, seen = excluded.seen",
                    (records.worker, records.sequence, now),
                )
                try:
                    batch = self._decode(records.batch)
                except (msgspec.DecodeError, msgspec.ValidationError):
                    continue
                self._insert(database, batch)
            self._appended += len(batches)
            if self._appended >= PRUNE_EVERY:
                self._appended = 0
                self._prune(database, now)

    def _insert(self, database: Any, batch: Batch) -> None:
        first = _next(database, "heads")
        database.executemany(
            "INSERT INTO heads VALUES (?,?,?,?,?,?,?)",
            [
                (
                    first + place,
                    head.app,
                    head.process,
                    _text(head.method),
                    _text(head.host),
                    _path(head),
                    self._encode(head),
                )
                for place, head in enumerate(batch.heads)
            ],
        )
        second = _next(database, "answers")
        database.executemany(
            "INSERT INTO answers VALUES (?,?)",
            [(second + place, self._encode(answer)) for place, answer in enumerate(batch.answers)],
        )
        base = batch.base
        database.executemany(
            _INSERT,
            [
                (
                    *(_micro(base + row.at), _micro(row.duration), _micro(row.upstream), first + row.head),
                    *(second + row.answer if row.answer >= 0 else None, row.status, row.bytes_in, row.bytes_out),
                    *(
                        row.id.decode("latin-1"),
                        row.address,
                        row.country,
                        row.container,
                        row.retries,
                        row.error,
                        row.body,
                        _micro(row.held),
                    ),
                )
                for row in batch.rows
            ],
        )

    def _prune(self, database: Any, now: int) -> None:
        retain = self._retain()
        last: int = database.execute(
            "SELECT coalesce(max(seq), 0) FROM requests WHERE at < ?", (int((now - retain.days * 86_400) * 1e6),)
        ).fetchone()[0]
        size, free, page = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in _SIZES)
        if (size - free) * page > retain.bytes:
            low, high = database.execute("SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM requests").fetchone()
            last = max(last, int(low + (high - low) * PRUNE_SHARE))
        if last:
            database.execute("DELETE FROM requests WHERE seq <= ?", (last,))
            for table, column in (("heads", "head"), ("answers", "answer")):
                database.execute(f"DELETE FROM {table} WHERE id < (SELECT coalesce(min({column}), 0) FROM requests)")
            # with nothing left, numbers begin anew
            database.execute("DELETE FROM arrivals WHERE seq <= ? OR NOT EXISTS (SELECT 1 FROM requests)", (last,))
        database.execute("DELETE FROM writers WHERE seen < ?", (now - WRITER_DAYS * 86_400,))

    # -- reading -----------------------------------------------------------------------------------

    def page(self, query: GetRequests) -> RequestPage:
        conditions, values = _conditions(query)
        limit = max(1, min(query.limit, 10_000))
        sql = f"{_SELECT} WHERE {' AND '.join(conditions) or '1'} ORDER BY r.seq DESC LIMIT ?"
        rows = self._file.read(lambda database: database.execute(sql, (*values, limit + 1)).fetchall())
        items = tuple(_record(row) for row in rows[:limit])
        return RequestPage(items=items, next=rows[limit - 1][0] if len(rows) > limit else None)

    def traffic(self, query: GetTraffic) -> TrafficSummary:
        """What is stored by now, added up."""
        rows = self._file.read(lambda database: _traffic(database, query))
        containers = {
            row[0]: Traffic(
                requests=row[1],
                failed=row[2],
                held=row[3],
                held_max_ms=row[4] / 1000,
                p95_ms=_milli(row[5]),
                over=row[6],
            )
            for row in rows
        }
        parts = containers.values()
        return TrafficSummary(
            all=Traffic(
                requests=sum(part.requests for part in parts),
                failed=sum(part.failed for part in parts),
                held=sum(part.held for part in parts),
                held_max_ms=max((part.held_max_ms for part in parts), default=0.0),
                p95_ms=next((_milli(row[7]) for row in rows if row[7] is not None), None),
                over=sum(part.over for part in parts),
            ),
            containers=containers,
        )

    def close(self) -> None:
        self._file.close()


def _migrate(database: Any) -> None:
    """A file of an earlier version gets what it lacks."""
    with database:
        if "held" not in {row[1] for row in database.execute("PRAGMA table_info(requests)")}:
            database.execute("ALTER TABLE requests ADD COLUMN held INTEGER NOT NULL DEFAULT 0")
        first, last = database.execute("SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM requests").fetchone()
        if last and database.execute("SELECT count(*) FROM arrivals").fetchone()[0] == 0:
            second = 0
            for number in range(FIRST_ARRIVALS):
                seq, ended = database.execute(
                    "SELECT seq, at + duration FROM requests WHERE seq >= ? ORDER BY seq LIMIT 1",
                    (first + (last - first) * number // FIRST_ARRIVALS,),
                ).fetchone()
                second = max(second, ended // 1_000_000 + LATE_SECONDS)
                database.execute("INSERT OR IGNORE INTO arrivals VALUES (?, ?)", (second, seq))


def _traffic(database: Any, query: GetTraffic) -> list[Any]:
    """Rows of container, requests, failed, held, longest held, p95, over, p95 of all (in one of them)."""
    arrival = database.execute(
        "SELECT seq FROM arrivals WHERE second <= ? ORDER BY second DESC LIMIT 1",
        (int(query.since) - ARRIVAL_SECONDS - CLOCK_SECONDS,),
    ).fetchone()
    first = arrival[0] if arrival is not None else 0
    over = _micro(query.over_ms / 1000) if query.over_ms is not None else None
    window = (_micro(query.since), _micro(query.until))
    rows: list[Any] = database.execute(_TRAFFIC, (DELIBERATE, *CUT_OFF, first, *window, query.app, over)).fetchall()
    return rows


_SIZES = ("page_count", "freelist_count", "page_size")


def _next(database: Any, table: str, key: str = "id") -> int:
    return int(database.execute(f"SELECT coalesce(max({key}), 0) + 1 FROM {table}").fetchone()[0])


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)


def _milli(micro: int | None) -> float | None:
    return micro / 1000 if micro is not None else None


def _conditions(query: GetRequests) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []

    def add(condition: str, *what: Any) -> None:
        conditions.append(condition)
        values.extend(what)

    for column, value in (("h.app", query.app), ("h.method", query.method), ("r.id", query.id)):
        if value is not None:
            add(f"{column} = ?", value)
    for column, value in (("r.address", query.ip), ("r.country", query.country)):
        if value is not None:
            add(f"{column} = ?", value)
    if query.path is not None and query.path.endswith("*"):
        add("substr(h.path, 1, ?) = ?", len(query.path) - 1, query.path[:-1])
    elif query.path is not None:
        add("h.path = ?", query.path)
    if query.status is not None and query.status.endswith("xx"):
        add("r.status / 100 = ?", int(query.status[:-2]))
    elif query.status is not None:
        add("r.status = ?", int(query.status))
    if query.min_ms is not None:
        add("r.duration >= ?", int(query.min_ms * 1000))
    if query.since is not None:
        add("r.at >= ?", int(query.since * 1e6))
    if query.before is not None:
        add("r.seq < ?", query.before)
    return conditions, values


def _record(row: tuple[Any, ...]) -> RequestRecord:
    _, at, duration, upstream, status, into, out, id, address, country, container, retries, error, body, held = row[:15]
    head = msgspec.msgpack.decode(row[15], type=RequestHead)
    answer = msgspec.msgpack.decode(row[16], type=AnswerHead) if row[16] is not None else AnswerHead(status, b"")
    moment = datetime.datetime.fromtimestamp(at / 1e6, datetime.UTC)
    path, _, search = _text(head.target).partition("?")
    headers = {"host": _text(head.host), **_headers(head.fields)}
    return RequestRecord(
        ts=moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        id=id,
        app=head.app,
        process=head.process,
        container=container,
        ip=address,
        country=country or None,
        method=_text(head.method),
        host=_text(head.host),
        path=path,
        query=search or None,
        status=status,
        duration_ms=duration / 1000,
        upstream_ms=upstream / 1000,
        bytes_in=into,
        bytes_out=out,
        protocol="HTTP/1.1" if head.http11 else "HTTP/1.0",
        user_agent=headers.get("user-agent", ""),
        referer=headers.get("referer"),
        request_headers=headers,
        response_headers=_headers(answer.fields),
        body=body.decode("utf-8", "backslashreplace") if body else None,
        retries=retries,
        error=error or None,
        held_ms=held / 1000 if held else None,
    )


def _path(head: RequestHead) -> str:
    return _text(head.target.partition(b"?")[0])


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _headers(lines: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = _text(line).partition(": ")
        name = name.lower()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
