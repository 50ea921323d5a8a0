"""Durations, sizes and rates as people write them. Each function raises ``ValueError`` with a sentence for the user."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_RATE = re.compile(r"(\d+)/(s|sec|second|m|min|minute|h|hour)")
_LONGEST = 10 * 365 * 86_400.0


def duration(value: object) -> float:
    """Seconds of ``500ms 2s 10m 1h 7d`` (also joined: ``1h30m``), or of a plain number of seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        text = str(value).strip()
        parts = _DURATION.findall(text)
        if not isinstance(value, str) or not parts or "".join(n + u for n, u in parts) != text:
            raise ValueError("Not a valid duration; write it like 500ms, 2s, 10m, 1h or 7d.")
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not 0 <= seconds <= _LONGEST:
        raise ValueError("Not a valid duration; it must be between 0 and ten years.")
    return seconds


def size(value: object) -> int:
    """Bytes of ``256MiB 1GiB 512M 10k`` (M means MiB), or of a plain number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("Not a valid size; it must not be negative.")
        return int(value)
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("Not a valid size; write it like 256MiB, 1GiB or 512M.")
    return int(float(match[1]) * _BYTES[match[2].lower()])


def rate(value: object) -> tuple[int, float]:
    """Count and seconds of ``50/s`` or ``600/min``."""
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or not int(match[1]):
        raise ValueError("Not a valid rate; write it like 50/s or 600/min.")
    return int(match[1]), {"s": 1.0, "m": 60.0, "h": 3600.0}[match[2][0]]
