"""Which containers of an app's web process get traffic, and whether requests may wait when there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

HOLD_SECONDS = 15.0
"""How long a request waits for a container that is expected: past a restart, short of a client's patience."""


@dataclass(frozen=True)
class Candidate:
    """``served``: it was healthy once since its start. ``expected``: it is up or on its way there."""

    key: str
    reachable: bool
    healthy: bool
    served: bool
    expected: bool
    leaving: bool = False


@dataclass(frozen=True)
class Exposure:
    keys: tuple[str, ...]
    hold_seconds: float


def expose(candidates: Iterable[Candidate]) -> Exposure:
    """The healthy ones; if none is, those that served before (a wrong health check must not take an app down);
    never one that has not answered yet."""
    everyone = sorted(candidates, key=lambda c: c.key)
    staying = [c for c in everyone if c.reachable and not c.leaving]
    chosen = [c for c in staying if c.healthy] or [c for c in staying if c.served]
    if chosen:
        return Exposure(tuple(c.key for c in chosen), HOLD_SECONDS)
    expected = any(c.expected for c in everyone)
    return Exposure((), HOLD_SECONDS if expected else 0.0)
