"""Forwarding to one receiver: from its own cursor on, in order, every record at least once. The cursor moves when the
receiver has taken a batch, so what may come twice after a failure is the batch that was on its way."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from ..core.logrecords import records
from .failing import Failed, Pauses
from .progress import Progress
from .receivers import Receiver, TooLarge
from .walk import Counts, Cursor, Found, Walk, newest

LOOK_SECONDS = 1.0
LEAST_BYTES = 16 * 1024
"""What comes after a batch that had to be cut begins with at least so much."""


class Forwarder:
    """``run`` is for a thread of its own, and ends when ``stop`` is set."""

    def __init__(
        self,
        name: str,
        store: Path,
        receiver: Receiver,
        progress: Progress,
        counts: Counts,
        stop: threading.Event,
    ) -> None:
        self._name = name
        self._store = store
        self._receiver = receiver
        self._progress = progress
        self._counts = counts
        self._stop = stop
        self._limit = receiver.batch_bytes
        self._waiting: deque[tuple[bytes, Cursor]] = deque()
        """Records and where the cursor is behind each."""
        self._bytes = 0
        self._since = 0.0

    def run(self) -> None:
        cursor = self._progress.cursor(self._name)
        if cursor is None:
            # what was before an outlet is not for it, unless what it had cannot be known any more
            cursor = Cursor() if self._progress.damaged else newest(self._store)
            self._progress.moved(self._name, cursor)
        walk = Walk(self._store, cursor)
        self._waiting.clear()
        self._bytes = 0
        pauses = Pauses()
        try:
            rows = self._rows(walk)
            while not self._stop.is_set():
                try:
                    more = self._fill(rows, walk)
                    left = self._due_in()
                    if left <= 0:
                        self._send()
                        pauses.again()
                    elif not more:
                        self._stop.wait(min(LOOK_SECONDS, left))
                except Failed as failure:
                    self._progress.failed(self._name, str(failure))
                    self._stop.wait(pauses.after(failure))
        finally:
            walk.close()
            self._receiver.close()

    def _rows(self, walk: Walk) -> Iterator[tuple[bytes, Cursor] | None]:
        """Without end; None: there is no more for now."""
        while True:
            found = walk.next()
            if found is None:
                yield None
            else:
                yield from self._encoded(found)

    def _encoded(self, found: Found) -> Iterator[tuple[bytes, Cursor]]:
        total, done = len(found.columns), found.at.records
        wanted = range(done, total) if done else None
        for record in records(found.source, found.columns, wanted, found.gap):
            done += 1
            behind = Cursor(found.at.segment, found.at.offset, done) if done < total else found.end
            yield self._receiver.encode(record), behind

    def _fill(self, rows: Iterator[tuple[bytes, Cursor] | None], walk: Walk) -> bool:
        """Take until it is a batch. False: there was no more."""
        while self._bytes < self._limit:
            row = next(rows)
            self._tell_lost(walk)
            if row is None:
                return False
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting.append(row)
            self._bytes += len(row[0])
        return True

    def _tell_lost(self, walk: Walk) -> None:
        lost, walk.damaged = walk.damaged, 0
        if walk.passed:
            lost += self._counts.of(walk.passed)
            walk.passed.clear()
        if lost:
            self._progress.missed(self._name, lost)

    def _due_in(self) -> float:
        """Seconds until what waits is to be sent."""
        if not self._waiting:
            return float("inf")
        if self._bytes >= self._limit:
            return 0.0
        return self._since + self._receiver.batch_seconds - time.monotonic()

    def _send(self) -> None:
        """The next batch. ``Failed``: nothing is known to have come of it, and the next try begins where this one did."""
        count = self._fitting()
        batch = [self._waiting[i][0] for i in range(count)]
        try:
            self._receiver.deliver(batch)
        except TooLarge:
            self._refused(batch)
            return
        self._taken(count)
        self._progress.fine(self._name)

    def _fitting(self) -> int:
        """How many records are at most ``_limit`` bytes, but one at least."""
        size = 0
        for count, (row, _) in enumerate(self._waiting):
            size += len(row)
            if size > self._limit and count:
                return count
        return len(self._waiting)

    def _taken(self, count: int) -> None:
        cursor = None
        for _ in range(count):
            row, cursor = self._waiting.popleft()
            self._bytes -= len(row)
        self._limit = max(self._limit, min(LEAST_BYTES, self._receiver.batch_bytes))
        if cursor is not None:
            self._progress.moved(self._name, cursor)

    def _refused(self, batch: list[bytes]) -> None:
        """Half of it is tried next; a single record that is too large would hold up all others for ever."""
        if len(batch) > 1:
            self._limit = sum(map(len, batch)) // 2
            return
        self._progress.missed(self._name, 1)
        self._taken(1)
