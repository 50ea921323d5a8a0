"""Which container gets the next request: the one with the fewest in flight, in turn among equals."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar


class Loaded(Protocol):
    in_flight: int
    avoid_until: float


B = TypeVar("B", bound=Loaded)


def choose(backends: Sequence[B], turn: int, now: float, tried: Collection[B] = ()) -> B | None:
    """``turn`` counts choices. Those that failed a moment ago (``avoid_until``) are taken only if there is no other,
    those in ``tried`` never; None if nothing is left."""
    count = len(backends)
    best: B | None = None
    fallback: B | None = None
    for offset in range(count):
        backend = backends[(turn + offset) % count]
        if tried and backend in tried:
            continue
        if backend.avoid_until > now:
            if fallback is None or backend.in_flight < fallback.in_flight:
                fallback = backend
        elif best is None or backend.in_flight < best.in_flight:
            best = backend
            if best.in_flight == 0:
                return best
    return best if best is not None else fallback
