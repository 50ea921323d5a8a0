"""What becomes of rows of points in the database: finer ones are added up to coarser ones, whole blocks of time are turned
from rows of many series into blocks of one, and the oldest go. Each step is part of the transaction of the write that made
it due, so that a crash at any moment leaves all of it or nothing."""

from __future__ import annotations

import logging
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import pairwise

from ..core.rollups import TIERS, Tier, merged
from .metric_blocks import Row, pack_block, pack_row, unpack_block, unpack_row

log = logging.getLogger("ndactors.metrics")

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS series (
  id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, kind TEXT NOT NULL, labels TEXT NOT NULL, app TEXT,
  seen INTEGER NOT NULL, UNIQUE (name, labels, kind));
CREATE TABLE IF NOT EXISTS slots (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, tier INTEGER NOT NULL, at INTEGER NOT NULL, chunk INTEGER NOT NULL,
  body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS slots_at ON slots (tier, chunk, at);
CREATE TABLE IF NOT EXISTS blocks (
  tier INTEGER NOT NULL, at INTEGER NOT NULL, series INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (tier, at, series)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spans (
  tier INTEGER NOT NULL, at INTEGER NOT NULL, first INTEGER NOT NULL, PRIMARY KEY (tier, at)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (chunk INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sources (name TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('birth', abs(random()));
"""
CHUNK = 128
"""So many series (by id) share a row: a question unpacks no more than it needs, and turning a block stays small."""
SHRINK_ROUNDS = 200
SEEN_SECONDS = 2 * TIERS[0].block
"""A series has no points that are later than so long after ``seen``, which is brought up to date with every block."""


def chunk_of(series: int) -> int:
    return series // CHUNK


def row_of(body: bytes) -> Row:
    """One that cannot be read is as good as none; the rest of the history goes on."""
    try:
        return unpack_row(body)
    except ValueError as error:
        log.error("some points cannot be read: %s", error)
        return unpack_row(_NOTHING)


_NOTHING = pack_row({})


def rolled(database: sqlite3.Connection, tier: Tier) -> int:
    """The number of the last row of the tier that is part of the next tier's already."""
    row = database.execute("SELECT value FROM meta WHERE key = ?", (f"rolled:{tier.seconds}",)).fetchone()
    return int(row[0]) if row is not None else 0


def roll_up(database: sqlite3.Connection) -> None:
    """Slots of the coarser tiers that are over, going by the row that was written last, become rows. What comes later for
    such a slot makes another row of it: whoever reads adds them up."""
    for tier, coarser in pairwise(TIERS):
        rows = database.execute(
            "SELECT seq, at / ? * ?, chunk FROM slots WHERE seq > ? AND tier = ? ORDER BY seq",
            (coarser.seconds, coarser.seconds, rolled(database, tier), tier.seconds),
        ).fetchall()
        if not rows or rows[0][1] == rows[-1][1]:
            continue
        over: dict[tuple[int, int], list[int]] = defaultdict(list)
        last = 0
        for seq, at, chunk in rows:
            if at == rows[-1][1]:
                break
            over[at, chunk].append(seq)
            last = seq
        for (at, chunk), parts in over.items():
            database.execute(
                "INSERT INTO slots (tier, at, chunk, body) VALUES (?, ?, ?, ?)",
                (coarser.seconds, at, chunk, _added(database, parts)),
            )
        database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"rolled:{tier.seconds}", last))


def _added(database: sqlite3.Connection, parts: Sequence[int]) -> bytes:
    total: dict[int, tuple[str, Sequence[float]]] = {}
    for seq in parts:
        (body,) = database.execute("SELECT body FROM slots WHERE seq = ?", (seq,)).fetchone()
        for series, (kind, point) in row_of(body).all().items():
            known = total.get(series)
            total[series] = (kind, merged(kind, known[1], point)) if known is not None else (kind, point)
    return pack_row(total)


# -- blocks ----------------------------------------------------------------------------------------


def turn(database: sqlite3.Connection, now: int) -> bool:
    """Rows of blocks of time that are over, going by ``now`` (the slot written last), become blocks. True if there were."""
    turned = False
    for tier in TIERS:
        last = rolled(database, tier) if tier is not TIERS[-1] else 1 << 62
        due = database.execute(
            "SELECT DISTINCT at / ? * ?, chunk FROM slots WHERE tier = ? AND seq <= ? AND at / ? <> ?",
            (tier.block, tier.block, tier.seconds, last, tier.block, now // tier.block),
        ).fetchall()
        for at, chunk in due:
            _turn(database, tier, at, chunk, last)
        turned = turned or bool(due)
    return turned


def _turn(database: sqlite3.Connection, tier: Tier, at: int, chunk: int, last: int) -> None:
    where = (tier.seconds, chunk, at, at + tier.block, last)
    rows = [
        ((slot - at) // tier.seconds, row_of(body))
        for slot, body in database.execute(
            "SELECT at, body FROM slots WHERE tier = ? AND chunk = ? AND at >= ? AND at < ? AND seq <= ? ORDER BY at, seq",
            where,
        )
    ]
    for series in sorted({series for _, row in rows for series in row.layout.places}):
        kind = ""
        points: dict[int, Sequence[float]] = {}
        body = database.execute(
            "SELECT body FROM blocks WHERE tier = ? AND at = ? AND series = ?", (tier.seconds, at, series)
        ).fetchone()
        if body is not None:
            kind, known = block_of(body[0])
            points.update(known)
        for place, row in rows:
            found = row.of(series)
            if found is None:
                continue
            kind, point = found
            points[place] = merged(kind, points[place], point) if place in points else point
        width = len(points[max(points)])
        ordered = [(place, points[place]) for place in sorted(points) if len(points[place]) == width]
        database.execute(
            "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?)", (tier.seconds, at, series, pack_block(kind, ordered))
        )
    database.execute(
        "INSERT INTO spans VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET first = min(first, excluded.first)",
        (tier.seconds, at, at + min(place for place, _ in rows) * tier.seconds),
    )
    database.execute("DELETE FROM slots WHERE tier = ? AND chunk = ? AND at >= ? AND at < ? AND seq <= ?", where)


def block_of(body: bytes) -> tuple[str, list[tuple[int, tuple[float, ...]]]]:
    try:
        return unpack_block(body)
    except ValueError as error:
        log.error("some points cannot be read: %s", error)
        return "", []


def block_times(database: sqlite3.Connection, tier: Tier) -> list[int]:
    """When the blocks that there are begin, oldest first."""
    rows = database.execute("SELECT at FROM spans WHERE tier = ? ORDER BY at", (tier.seconds,))
    return [at for (at,) in rows]


def oldest_slot(database: sqlite3.Connection, tier: Tier) -> int | None:
    """The oldest of which anything is there, in rows or blocks."""
    found = database.execute(
        "SELECT min(first) FROM spans WHERE tier = ? UNION ALL SELECT min(at) FROM slots WHERE tier = ?",
        (tier.seconds, tier.seconds),
    )
    return min((at for (at,) in found if at is not None), default=None)


# -- the end ---------------------------------------------------------------------------------------


def expire(database: sqlite3.Connection, budget: int, alive: Collection[int], now: int) -> None:
    """Of each tier the newest blocks stay, as many as ``Tier.blocks`` says; then the oldest of the finest tier go until
    everything fits into ``budget`` bytes. Series without points go with their last, but those ``alive`` (ids). ``now`` (Unix
    seconds): it is no earlier than that."""
    for tier in TIERS:
        if _expire_tier(database, tier, now) and tier is TIERS[0]:
            database.execute("UPDATE series SET seen = ? WHERE seen > ?", (now, now + SEEN_SECONDS))
    for _ in range(SHRINK_ROUNDS):
        if used_bytes(database) <= budget or not _drop_oldest(database):
            break
    there = [first for tier in TIERS if (first := oldest_slot(database, tier)) is not None]
    oldest = min(there, default=None)
    if oldest is not None:
        gone = database.execute("SELECT id FROM series WHERE seen + ? < ?", (SEEN_SECONDS, oldest)).fetchall()
        database.executemany("DELETE FROM series WHERE id = ?", [row for row in gone if row[0] not in alive])


def _expire_tier(database: sqlite3.Connection, tier: Tier, now: int) -> bool:
    """Blocks of the future are of a clock that was wrong, or it is wrong now: they push nothing out, and go when there is as
    much without them as is kept. True if there is."""
    times = block_times(database, tier)
    ahead = [at for at in times if at > now + tier.block]
    real = times[: len(times) - len(ahead)]
    enough = len(real) >= tier.blocks
    for at in [*real[: -tier.blocks], *(ahead if enough else ahead[: -tier.blocks])]:
        _drop(database, tier, at)
    return enough


def _drop_oldest(database: sqlite3.Connection) -> bool:
    for tier in TIERS:
        times = block_times(database, tier)
        if times:
            _drop(database, tier, times[0])
            return True
    return False


def _drop(database: sqlite3.Connection, tier: Tier, at: int) -> None:
    for table in ("blocks", "spans"):
        database.execute(f"DELETE FROM {table} WHERE tier = ? AND at = ?", (tier.seconds, at))


def used_bytes(database: sqlite3.Connection) -> int:
    """What is in use of the file; what was freed is used again."""
    pages, free, page = (
        database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * page)
