"""What containers use, from one reading to the next."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


def cpu_percent(before: tuple[float, float] | None, seconds: float, at: float) -> float | None:
    """Of one core. ``before`` and ``at`` are monotonic, with the CPU seconds at that moment. None at the first reading,
    and after the counter began anew."""
    if before is None or at - before[1] <= 0 or seconds < before[0]:
        return None
    return round((seconds - before[0]) / (at - before[1]) * 100, 2)


class Engine(Struct, frozen=True, kw_only=True):
    """The Engine's own figures of a container; None: it does not tell."""

    cpu_seconds: float | None = None
    memory: int | None = None
    memory_limit: int | None = None
    pids: int | None = None
    network: tuple[int, int] | None = None


def of_engine(facts: Any, host_memory: int) -> Engine:
    """``GET /containers/{id}/stats``. What is missing or no number gives None; nothing raises."""
    total = _number(facts, "cpu_stats", "cpu_usage", "total_usage")
    used = _number(facts, "memory_stats", "usage")
    stats = _part(facts, "memory_stats", "stats")
    idle = _number(stats, "total_inactive_file")
    idle = _number(stats, "inactive_file") if idle is None else idle
    limit = _number(facts, "memory_stats", "limit")
    networks = _part(facts, "networks")
    both = None
    if isinstance(networks, dict):
        rows = [(_number(row, "rx_bytes"), _number(row, "tx_bytes")) for row in networks.values()]
        both = sum(row[0] or 0 for row in rows), sum(row[1] or 0 for row in rows)
    return Engine(
        # an Engine has zero for what does not run
        cpu_seconds=total / 1e9 if total else None,
        memory=None if used is None else max(0, used - (idle or 0)),
        memory_limit=None if not limit or (host_memory and limit >= host_memory) else limit,
        pids=_number(facts, "pids_stats", "current"),
        network=both,
    )


def _part(facts: Any, *path: str) -> Any:
    for name in path:
        facts = facts.get(name) if isinstance(facts, dict) else None
    return facts


def _number(facts: Any, *path: str) -> int | None:
    found = _part(facts, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None
