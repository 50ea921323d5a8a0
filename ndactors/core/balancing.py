"""Which container gets the next request: the one with the fewest in flight, in turn among equals."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Generic, Protocol, TypeVar


class Loaded(Protocol):
    in_flight: int
    avoid_until: float


B = TypeVar("B", bound=Loaded)


def choose(backends: Sequence[B], turn: int, now: float, tried: Collection[B] = ()) -> B | None:
    """``turn`` counts choices. Those that failed a moment ago (``avoid_until``) are taken only if there is no other, of
    them those that hang (for ever) last; those in ``tried`` never. None if nothing is left."""
    count = len(backends)
    best: B | None = None
    fallback: B | None = None
    for offset in range(count):
        backend = backends[(turn + offset) % count]
        if tried and backend in tried:
            continue
        if backend.avoid_until > now:
            if fallback is None or _reluctance(backend) < _reluctance(fallback):
                fallback = backend
        elif best is None or backend.in_flight < best.in_flight:
            best = backend
            if best.in_flight == 0:
                return best
    return best if best is not None else fallback


def _reluctance(backend: Loaded) -> tuple[bool, int]:
    return backend.avoid_until == math.inf, backend.in_flight


class Group(Generic[B]):
    """Containers that are asked in turn, whatever others are asked in between."""

    __slots__ = ("members", "turn")

    def __init__(self, members: Sequence[B]) -> None:
        self.members = members
        self.turn = 0

    def choose(self, now: float, tried: Collection[B]) -> B | None:
        self.turn += 1
        return choose(self.members, self.turn, now, tried)


def choose_in_order(groups: Iterable[Group[B]], now: float, tried: Collection[B]) -> B | None:
    """From the first group that has anybody left: a group whose last one hangs is passed over, unless that goes for all
    of them."""
    spare: B | None = None
    for group in groups:
        found = group.choose(now, tried)
        if found is not None and found.avoid_until != math.inf:
            return found
        spare = spare if spare is not None else found
    return spare


class Share:
    """Exactly so many percent, spread evenly: of any number in a row at most one is too many or too few."""

    __slots__ = ("_due",)

    def __init__(self) -> None:
        self._due = 50.0

    def take(self, percent: float) -> bool:
        """True if the next one belongs to the share."""
        self._due += max(0.0, min(100.0, percent))
        if self._due < 100.0:
            return False
        self._due -= 100.0
        return True
