"""How things are written for people: numbers, times, tables, receipts. No colours, no widths of terminals."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Any

from .failures import printable

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """``34 KiB``, ``1.2 MiB``."""
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.1f} {UNITS[unit]}" if unit and count < 10 else f"{count:.0f} {UNITS[unit]}"


def seconds(value: float | None) -> str:
    """``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 d 4 h``."""
    if value is None:
        return "–"
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    for unit, below, length in (("d", "h", 86400), ("h", "min", 3600), ("min", "s", 60)):
        if whole >= length:
            rest = {"h": 3600, "min": 60, "s": 1}[below]
            more = whole % length // rest
            return f"{whole // length} {unit}" + (f" {more} {below}" if more else "")
    return f"{whole} s"


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")


def age(stamp: str | None, now: datetime.datetime | None = None) -> str:
    """How long ago an RFC 3339 time was."""
    try:
        then = datetime.datetime.fromisoformat(stamp or "")
    except ValueError:
        return "–"
    then = then if then.tzinfo else then.replace(tzinfo=datetime.UTC)
    return seconds(max(0.0, ((now or datetime.datetime.now(datetime.UTC)) - then).total_seconds())) + " ago"


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns under headings; the last one may be as long as it likes."""
    texts = [tuple(headings), *(tuple(_cell(value) for value in row) for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(headings))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in texts
    )


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value) or "–"
    return printable(str(value)).replace("\n", " ").replace("\t", " ")


def value_of(value: Any) -> str:
    """One side of a difference."""
    import json

    return (
        "–" if value is None else value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    )


def differences(rows: Iterable[dict[str, Any]], indent: str = "  ") -> list[str]:
    """``path: before → after``, a line each."""
    return [f"{indent}{row.get('path')}: {value_of(row.get('before'))} → {value_of(row.get('after'))}" for row in rows]


def receipt(row: dict[str, Any]) -> str:
    """What visitors noticed, in a line."""
    counts = row.get("requests") or {}
    parts = [
        "requests " + " · ".join(f"{counts.get(when, 0):,} {when}" for when in ("before", "during", "after")),
        f"{row.get('failed', 0):,} failed",
        f"{row.get('held', 0):,} held"
        + (f" (longest {milliseconds(row.get('held_max_ms'))})" if row.get("held") else ""),
    ]
    before, after = row.get("p95_before_ms"), row.get("p95_after_ms")
    if before is not None or after is not None:
        parts.append(f"p95 {milliseconds(before)} → {milliseconds(after)}")
    if row.get("websockets_drained"):
        parts.append(plural(row["websockets_drained"], "WebSocket") + " drained")
    return ", ".join([*parts, seconds(row.get("seconds"))])
