"""Questions about stored points. They run off the event loop, in one view of the database, however long they take."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import msgspec

from ..core.rollups import (
    LATEST,
    MAX_READ,
    MAX_STEPS,
    TIERS,
    Point,
    Tier,
    known_seconds,
    merged,
    quantile,
    reading,
    step_of,
    tiers_for,
    value_of,
)
from ..errors import Invalid, NotFound
from ..messages.edge import LATENCY_BUCKETS
from ..messages.metrics import GetMetricNames, GetMetrics, MetricHistory, MetricName, MetricSeries
from .metric_settling import block_of, block_times, chunk_of, oldest_slot, rolled, row_of

MAX_POINTS = 200_000
"""In one answer, over all of its series."""
QUANTILES = (0.5, 0.95, 0.99)
AT_ONCE = 500
"""Series in one statement."""

Sums = dict[int, dict[int, Point]]
"""By series and step."""


def told(answer: MetricHistory | Invalid | NotFound) -> MetricHistory:
    """Errors that are answers travel as values out of gevent's pool, which prints what is raised."""
    if isinstance(answer, Invalid | NotFound):
        raise answer
    return answer


def names(database: sqlite3.Connection, query: GetMetricNames) -> tuple[MetricName, ...]:
    where, values = _of_apps(query.apps)
    rows = database.execute(
        f"SELECT name, kind, count(*) FROM series WHERE {where} GROUP BY name, kind ORDER BY name, max(id)", values
    ).fetchall()
    found = {name: MetricName(name=name, kind=kind, series=count) for name, kind, count in rows}
    return tuple(found.values())


def history(database: sqlite3.Connection, query: GetMetrics) -> MetricHistory | Invalid | NotFound:
    database.execute("BEGIN")
    try:
        return _history(database, query)
    finally:
        database.execute("ROLLBACK")


def _history(database: sqlite3.Connection, query: GetMetrics) -> MetricHistory | Invalid | NotFound:
    if not (0 <= query.since < query.until <= LATEST and 0 < query.step <= LATEST):
        return Invalid("since must be before until, and step more than 0.")
    found = _series(database, query)
    if found is None:
        return NotFound(f"There is no history of {query.name}.")
    kind, series = found
    for place in tiers_for(query.since, query.step, [oldest_slot(database, tier) for tier in TIERS]):
        tier = TIERS[place]
        step = step_of(query.step, tier)
        begin = int(query.since // step) * step
        work = reading(kind, len(series), _stored_seconds(database, tier, begin, query.until), tier)
        if work <= MAX_READ:
            break
    until = -(-query.until // tier.seconds) * tier.seconds  # a point is read as a whole
    steps = -(-(until - begin) // step)
    if work > MAX_READ:
        return Invalid(
            f"To read that much of {len(series)} series takes too long: ask for a shorter time, or fewer series."
        )
    if steps > MAX_STEPS or steps * len(series) > MAX_POINTS:
        return Invalid(
            f"That makes {int(steps)} points of {len(series)} series: ask for a longer step, a shorter time, or fewer series."
        )
    sums: Sums = {id: {} for id in series}
    for id, own, at, point in _points(database, tier, sorted(series), begin, until):
        if own != kind:
            continue
        at = at // step * step
        known = sums[id].get(at)
        sums[id][at] = tuple(point) if known is None else merged(kind, known, point)
    newest = min(_newest(database), until)
    told = [_told(kind, labels, sums[id], step, newest) for id, labels in series.items() if sums[id]]
    return MetricHistory(name=query.name, kind=kind, step=float(step), series=tuple(told))  # type: ignore[arg-type]


def _told(kind: str, labels: dict[str, str], sums: dict[int, Point], step: int, newest: float) -> MetricSeries:
    ordered = sorted(sums.items())
    return MetricSeries(
        labels=labels,
        points=tuple((float(at), value_of(kind, point, known_seconds(at, step, newest))) for at, point in ordered),
        highest=tuple(point[2] for _, point in ordered) if kind == "gauge" else (),
        quantiles=tuple(
            tuple(quantile(share, point[1:], LATENCY_BUCKETS) for share in QUANTILES)  # type: ignore[misc]
            for _, point in ordered
        )
        if kind == "histogram"
        else (),
    )


# -- which series ----------------------------------------------------------------------------------


def _series(database: sqlite3.Connection, query: GetMetrics) -> tuple[str, dict[int, dict[str, str]]] | None:
    """Kind and labels by id; None if nothing has this name, for who asks. A name that changed its kind has the newer."""
    where, values = _of_apps(query.apps)
    rows = database.execute(
        f"SELECT id, kind, labels FROM series WHERE name = ? AND {where} ORDER BY id DESC", (query.name, *values)
    ).fetchall()
    if not rows:
        return None
    kind = rows[0][1]
    series = {id: msgspec.json.decode(labels, type=dict[str, str]) for id, own, labels in rows if own == kind}
    wanted = query.labels.items()
    fitting = [(labels, id) for id, labels in series.items() if wanted <= labels.items()]
    fitting.sort(key=lambda row: sorted(row[0].items()))
    return kind, {id: labels for labels, id in fitting}


def _of_apps(apps: tuple[str, ...] | None) -> tuple[str, tuple[str, ...]]:
    """What belongs to no app is for those without limits."""
    if apps is None:
        return "1", ()
    return f"app IN ({', '.join('?' * len(apps))})", apps


# -- their points ----------------------------------------------------------------------------------


def _points(
    database: sqlite3.Connection, tier: Tier, ids: Sequence[int], since: int, until: float
) -> Iterator[tuple[int, str, int, Sequence[float]]]:
    """Series, kind, slot and point: from blocks, from rows, and from finer rows that are not added up yet."""
    for at in block_times(database, tier):
        if at + tier.block <= since or at >= until:
            continue
        for some in range(0, len(ids), AT_ONCE):
            part = ids[some : some + AT_ONCE]
            for series, body in database.execute(
                f"SELECT series, body FROM blocks WHERE tier = ? AND at = ? AND series IN ({', '.join('?' * len(part))})",
                (tier.seconds, at, *part),
            ):
                kind, points = block_of(body)
                for place, point in points:
                    moment = at + place * tier.seconds
                    if since <= moment < until:
                        yield series, kind, moment, point
    chunks: dict[int, list[int]] = {}
    for series in ids:
        chunks.setdefault(chunk_of(series), []).append(series)
    for finer in TIERS[: TIERS.index(tier) + 1]:
        after = rolled(database, finer) if finer is not tier else 0
        for chunk, part in chunks.items():
            for at, body in database.execute(
                "SELECT at, body FROM slots WHERE tier = ? AND chunk = ? AND at >= ? AND at < ? AND seq > ?",
                (finer.seconds, chunk, since, until, after),
            ):
                row = row_of(body)
                for series in part:
                    found = row.of(series)
                    if found is not None:
                        yield series, found[0], at, found[1]


def _stored_seconds(database: sqlite3.Connection, tier: Tier, since: int, until: float) -> float:
    """Of how many seconds there may be points: those of blocks, and of one more that is in rows."""
    times = [at for at in block_times(database, tier) if at + tier.block > since and at < until]
    return min(until - since, float((len(times) + 1) * tier.block))


def _newest(database: sqlite3.Connection) -> int:
    """The end of the slot that was written last."""
    tier = TIERS[0].seconds
    row = database.execute("SELECT at FROM slots WHERE tier = ? ORDER BY seq DESC LIMIT 1", (tier,)).fetchone()
    return int(row[0]) + tier if row is not None else 0
