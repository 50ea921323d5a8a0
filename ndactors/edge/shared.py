"""What the workers share: one memory file with rate limits and connection counts. No locks: a lost update between two
workers lets one request more through, and costs nothing when there is none."""

from __future__ import annotations

import mmap
import os
from hashlib import blake2b

from ..core.gcra import Limit, decide

WORKERS = 256
"""Places for counts; draining workers keep theirs beside their successors."""
SET = 8
APP_SETS = 512
ADDRESS_SETS = 16 * 1024
_HEADER = 8 + 8 * WORKERS
_PLACES = SET * (APP_SETS + ADDRESS_SETS)
SIZE = _HEADER + 16 * _PLACES
"""About 2 MiB, whatever comes."""


def create() -> int:
    """A new memory file's descriptor."""
    descriptor = os.memfd_create("nextdeploy-limits", os.MFD_CLOEXEC)
    os.truncate(descriptor, SIZE)
    os.pwrite(descriptor, os.urandom(8), 0)
    return descriptor


def forget(descriptor: int, index: int) -> None:
    """The worker at this place is gone."""
    os.pwrite(descriptor, bytes(8), 8 + 8 * (index % WORKERS))


class Shared:
    """``index`` is this worker's place among the counts. Times are ``CLOCK_MONOTONIC``, the same for every process of
    one boot."""

    def __init__(self, descriptor: int, index: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)
        whole = memoryview(self._map)
        self._secret = bytes(whole[:8])
        self._counts = whole[8:_HEADER].cast("q")
        self.keys = whole[_HEADER : _HEADER + 8 * _PLACES].cast("Q")
        self._arrivals = whole[_HEADER + 8 * _PLACES :].cast("d")
        self._index = index % WORKERS
        self._counts[self._index] = 0

    # -- connections -------------------------------------------------------------------------------

    def count(self, connections: int) -> int:
        """Say how many this worker has; the others' sum."""
        self._counts[self._index] = connections
        return sum(self._counts) - connections

    # -- limits ------------------------------------------------------------------------------------

    def key(self, *parts: str) -> int:
        """Never 0. The secret keeps strangers from choosing whose place they take."""
        digest = blake2b("\0".join(parts).encode(), digest_size=8, key=self._secret).digest()
        return int.from_bytes(digest, "little") | 1

    def place_of_app(self, key: int) -> int:
        return self._place(key, (key >> 8) % APP_SETS)

    def place_of_address(self, key: int) -> int:
        return self._place(key, APP_SETS + (key >> 8) % ADDRESS_SETS)

    def _place(self, key: int, row: int) -> int:
        """Where ``key`` lives; if it is new it takes the place of the one that rested longest."""
        keys, arrivals = self.keys, self._arrivals
        begin = row * SET
        victim = begin
        for place in range(begin, begin + SET):
            if keys[place] == key:
                return place
            if arrivals[place] < arrivals[victim]:
                victim = place
        keys[victim] = key
        arrivals[victim] = 0.0
        return victim

    def admit(self, place: int, limit: Limit, now: float) -> float:
        """As ``core.gcra.decide``: 0, or how long to wait, or negative how long to stay away."""
        arrivals = self._arrivals
        arrival = arrivals[place]
        if arrival < now:
            arrival = now
        if arrival - limit.burst <= now:
            # most are early enough: what ``decide`` says of them, without asking it
            arrivals[place] = arrival + limit.interval
            return 0.0
        arrivals[place], wait = decide(arrival, now, limit)
        return wait

    def give_back(self, place: int, limit: Limit) -> None:
        """What was admitted was not used."""
        self._arrivals[place] -= limit.interval

    def close(self) -> None:
        for view in (self._counts, self.keys, self._arrivals):
            view.release()
