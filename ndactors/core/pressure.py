"""Pressure stall information (PSI): how much of the last ten seconds somebody waited for a resource."""

from __future__ import annotations

import re

_ROW = re.compile(rb"^(some|full) avg10=(\d{1,3}(?:\.\d{1,2})?) ", re.MULTILINE)


def pressure(data: bytes | None) -> tuple[float, float | None] | None:
    """``/proc/pressure/…``: percent of the time in which some waited, and in which all did (None where it is not told).
    None if there is no such file, or it is damaged."""
    rows = {match[1]: float(match[2]) for match in _ROW.finditer(data or b"")}
    if b"some" not in rows or any(value > 100 for value in rows.values()):
        return None
    return rows[b"some"], rows.get(b"full")
