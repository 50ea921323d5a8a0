"""The history of metrics in one SQLite file. Points are only ever added: a slot that gets more later has two rows, and who
reads adds them up. ``metric_settling`` keeps it small, ``metric_reading`` answers questions."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..core.rollups import (
    DAY,
    LATEST,
    SLOT_SECONDS,
    TIERS,
    Key,
    Point,
    is_sound,
    key_of,
    merged,
    point_of,
    slot,
    totals_of,
)
from ..messages.metrics import GetMetricNames, GetMetrics, MetricHistory, MetricName, Sample, Sampled
from ..ports import MetricsAdded
from . import metric_reading
from .metric_blocks import pack_row
from .metric_settling import CHUNK, SCHEMA, SEEN_SECONDS, chunk_of, expire, roll_up, row_of, turn
from .sqlite_file import SqliteFile

BUDGET_BYTES = 256 * 1024 * 1024
MAX_SERIES = 20_000
MAX_LABEL_BYTES = 2048
GONE_SECONDS = DAY
"""A series that had no sample for so long makes room for a new one, if there are too many."""
ROOM = 500
"""So many of them at once."""
CACHE_KIB = 512
"""Of SQLite, for writing: what is written is not read again before long."""
FORGET_WRITES = 360
"""A series without a sample for so many writes (an hour of them) is not kept in memory."""


@dataclass
class Known:
    """A series in memory. ``totals``: of its last sample; None for a gauge. ``turn``: the write that had it last."""

    id: int
    totals: Point | None = None
    turn: int = 0


@dataclass
class Memory:
    """What is known of the file whose ``birth`` it is."""

    birth: int
    count: int
    known: dict[Key, Known] = field(default_factory=dict)
    sources: set[str] = field(default_factory=set)
    turn: int = 0
    block: int | None = None
    """Of the finest tier, the last one that was looked after."""


@dataclass
class Changes:
    """What one write adds to ``Memory``, once it is committed."""

    totals: dict[Key, Point] = field(default_factory=dict)
    added: dict[Key, Known] = field(default_factory=dict)
    new: set[Key] = field(default_factory=set)
    """Of those added, the ones that the file never had."""
    seen: set[Key] = field(default_factory=set)
    points: dict[tuple[int, int], dict[int, tuple[str, Sequence[float]]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """By slot and chunk."""
    refused: set[Key] = field(default_factory=set)
    full: bool = False


class SqliteMetrics:
    """``ndactors.ports.MetricStore``. ``apply`` runs a call off the event loop. One write at a time."""

    def __init__(
        self,
        path: Path,
        report: Callable[[str, str], None],
        apply: Callable[[Callable[[], Any]], Any],
        *,
        budget: int = BUDGET_BYTES,
        max_series: int = MAX_SERIES,
    ) -> None:
        self._file = SqliteFile(path, SCHEMA, report, apply, durable=False)
        self._budget = budget
        self._max_series = max_series
        self._memory: Memory | None = None
        self._written: tuple[Sampled, ...] = ()
        """The batches of the last write, to be known again."""

    def append(self, batches: Sequence[Sampled]) -> MetricsAdded:
        return self._file.call(lambda database: self._append(database, batches))

    def query(self, query: GetMetrics) -> MetricHistory:
        return metric_reading.told(self._file.read(lambda database: metric_reading.history(database, query)))

    def names(self, query: GetMetricNames) -> tuple[MetricName, ...]:
        return self._file.read(lambda database: metric_reading.names(database, query))

    def close(self) -> None:
        self._file.close()

    # -- writing -----------------------------------------------------------------------------------

    def _append(self, database: sqlite3.Connection, batches: Sequence[Sampled]) -> MetricsAdded:
        written = {id(batch) for batch in self._written}
        batches = [batch for batch in batches if id(batch) not in written]
        memory = self._remember(database)
        changes, last = Changes(), None
        with database:
            for batch in batches:
                if not 0 <= batch.at < LATEST:
                    continue
                last = slot(batch.at, SLOT_SECONDS)
                # with too many series, one that is new here may have been refused before
                from_zero = batch.from_zero and batch.source in memory.sources and memory.count < self._max_series
                for sample in batch.samples:
                    self._take(database, memory, changes, sample, last, from_zero=from_zero)
            for (at, chunk), points in changes.points.items():
                database.execute(
                    "INSERT INTO slots (tier, at, chunk, body) VALUES (?, ?, ?, ?)",
                    (SLOT_SECONDS, at, chunk, pack_row(points)),
                )
            sources = {batch.source for batch in batches} - memory.sources
            database.executemany("INSERT OR IGNORE INTO sources VALUES (?)", [(name,) for name in sources])
            self._save_totals(database, memory, changes)
            block = memory.block
            if last is not None:
                roll_up(database)
                block = last // TIERS[0].block
                if block != memory.block:
                    alive = {known.id for known in (*memory.known.values(), *changes.added.values())}
                    database.executemany(
                        "UPDATE series SET seen = max(seen, ?) WHERE id = ?", [(last, id) for id in sorted(alive)]
                    )
                    turn(database, last)
                    if memory.block is not None:
                        # a clock that jumped ahead is not believed before its second hour
                        expire(database, self._budget, alive, min(last, memory.block * TIERS[0].block))
        self._written = tuple(batches) or self._written
        memory.sources |= sources
        memory.block = block
        self._learn(memory, changes)
        return MetricsAdded(refused=len(changes.refused), most=self._max_series)

    def _take(
        self,
        database: sqlite3.Connection,
        memory: Memory,
        changes: Changes,
        sample: Sample,
        at: int,
        *,
        from_zero: bool,
    ) -> None:
        key = key_of(sample)
        if not is_sound(sample) or key in changes.refused:
            return
        known = memory.known.get(key) or changes.added.get(key) or self._find(database, memory, changes, key, at)
        if known is None:
            changes.refused.add(key)
            return
        changes.seen.add(key)
        before = changes.totals.get(key, known.totals)
        if sample.kind != "gauge":
            changes.totals[key] = totals_of(sample)
        point = point_of(sample, before, from_zero=from_zero and key in changes.new)
        if point is None:
            return
        points = changes.points[at, chunk_of(known.id)]
        there = points.get(known.id)
        points[known.id] = (sample.kind, point if there is None else merged(sample.kind, there[1], point))

    def _find(self, database: sqlite3.Connection, memory: Memory, changes: Changes, key: Key, at: int) -> Known | None:
        """One that memory does not have: it was gone, or it is new. None if there is no room for it."""
        name, kind, pairs = key
        labels = msgspec.json.encode(dict(pairs)).decode()
        row = database.execute(
            "SELECT id FROM series WHERE name = ? AND labels = ? AND kind = ?", (name, labels, kind)
        ).fetchone()
        if row is None:
            if len(labels) + len(name) > MAX_LABEL_BYTES or not self._room(database, memory, changes, at):
                return None
            cursor = database.execute(
                "INSERT INTO series (name, kind, labels, app, seen) VALUES (?, ?, ?, ?, ?)",
                (name, kind, labels, dict(pairs).get("app"), at),
            )
            row = (cursor.lastrowid,)
            changes.new.add(key)
        known = changes.added[key] = Known(row[0])
        return known

    def _room(self, database: sqlite3.Connection, memory: Memory, changes: Changes, at: int) -> bool:
        """Those that are gone make room, the longest gone first; what is alive stays."""
        if changes.full:
            return False
        if memory.count >= self._max_series:
            # it never counts too few, so that the table is counted only near the limit
            (memory.count,) = database.execute("SELECT count(*) FROM series").fetchone()
        if memory.count < self._max_series:
            memory.count += 1
            return True
        alive = {known.id for known in memory.known.values()} | {known.id for known in changes.added.values()}
        gone = database.execute(
            "SELECT id FROM series WHERE seen < ? OR seen > ? ORDER BY seen LIMIT ?",
            (at - GONE_SECONDS, at + SEEN_SECONDS, ROOM + len(alive)),  # or of a clock that was ahead
        ).fetchall()
        free = [row for row in gone if row[0] not in alive][:ROOM]
        database.executemany("DELETE FROM series WHERE id = ?", free)
        changes.full = not free
        return bool(free)

    def _save_totals(self, database: sqlite3.Connection, memory: Memory, changes: Changes) -> None:
        """So that a daemon that begins knows what came while there was none. Of the chunks in which something changed."""
        changed = {
            chunk_of((memory.known.get(key) or changes.added[key]).id)
            for key, totals in changes.totals.items()
            if key in changes.added or memory.known[key].totals != totals
        }
        if not changed:
            return
        rows: dict[int, dict[int, tuple[str, Sequence[float]]]] = {chunk: {} for chunk in changed}
        for key, known in (*memory.known.items(), *changes.added.items()):
            chunk = chunk_of(known.id)
            totals = changes.totals.get(key, known.totals) if chunk in changed else None
            if totals is not None:
                rows[chunk][known.id] = (key[1], totals)
        database.executemany(
            "INSERT OR REPLACE INTO totals VALUES (?, ?)", [(chunk, pack_row(row)) for chunk, row in rows.items()]
        )

    # -- memory ------------------------------------------------------------------------------------

    def _remember(self, database: sqlite3.Connection) -> Memory:
        (birth,) = database.execute("SELECT value FROM meta WHERE key = 'birth'").fetchone()
        if self._memory is not None and self._memory.birth == birth:
            return self._memory
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        (count,) = database.execute("SELECT count(*) FROM series").fetchone()
        memory = Memory(birth, count)
        memory.sources = {name for (name,) in database.execute("SELECT name FROM sources")}
        for chunk, body in database.execute("SELECT chunk, body FROM totals").fetchall():
            last = row_of(body).all()
            for id, name, kind, labels in database.execute(
                "SELECT id, name, kind, labels FROM series WHERE id >= ? AND id < ?",
                (chunk * CHUNK, (chunk + 1) * CHUNK),
            ):
                if id in last:
                    key = name, kind, tuple(sorted(msgspec.json.decode(labels, type=dict[str, str]).items()))
                    memory.known[key] = Known(id, tuple(last[id][1]))
        self._memory = memory
        return memory

    @staticmethod
    def _learn(memory: Memory, changes: Changes) -> None:
        memory.known.update(changes.added)
        memory.turn += 1
        for key in changes.seen:
            memory.known[key].turn = memory.turn
        for key, totals in changes.totals.items():
            memory.known[key].totals = totals
        if memory.turn % (FORGET_WRITES // 6) == 0:
            for key in [key for key, known in memory.known.items() if memory.turn - known.turn > FORGET_WRITES]:
                del memory.known[key]
