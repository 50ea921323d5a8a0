"""The reader process as the log process knows it: started for a query, given up if it takes too long, gone when nobody has
asked for a while. Those who ask take turns, and nobody waits for longer than an answer is of use."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..messages.logs import LogsFound, QueryLogs
from ..runtime.child import Child
from ..runtime.peers import Peer, Peers

QUERY_SECONDS = 30.0
"""A query that takes longer is given up, and the reader with it."""
IDLE_SECONDS = 60.0
MOST_WAITING = 64
MOST_OF_ONE = 16
"""So many queries of one who asks may wait."""
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024), "MALLOC_TRIM_THRESHOLD_": str(128 * 1024 * 1024)}
"""mallopt(3): it takes and frees some megabytes for each block. If they went back to the kernel each time, a search would
take more than twice as long."""

Found = Callable[[LogsFound], None]


class Waiting(NamedTuple):
    query: QueryLogs
    found: Found
    until: float


class Turns:
    """Queries that wait, by who asks. Each of those has its turn, with its oldest."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Waiting]] = {}
        """Whose turn is next is the first."""

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def put(self, waiting: Waiting) -> bool:
        """False if there are too many."""
        own = self._queues.get(waiting.query.query.asker, ())
        if len(self) >= MOST_WAITING or len(own) >= MOST_OF_ONE:
            return False
        self._queues.setdefault(waiting.query.query.asker, deque()).append(waiting)
        return True

    def take(self) -> Waiting | None:
        for asker, queue in self._queues.items():
            waiting = queue.popleft()
            del self._queues[asker]
            if queue:
                self._queues[asker] = queue
            return waiting
        return None

    def take_late(self, now: float) -> list[Waiting]:
        """Those that nobody waits for any more."""
        late = [waiting for queue in self._queues.values() for waiting in queue if waiting.until <= now]
        kept = {asker: deque(each for each in queue if each.until > now) for asker, queue in self._queues.items()}
        self._queues = {asker: queue for asker, queue in kept.items() if queue}
        return late


class Readers:
    """One reader at a time. ``note`` hears of what goes wrong."""

    def __init__(self, state_dir: Path, peers: Peers, note: Callable[[str], None]) -> None:
        self._state_dir = state_dir
        self._peers = peers
        self._note = note
        self._process: Child | None = None
        self._peer: Peer | None = None
        self._turns = Turns()
        self._asked: Waiting | None = None
        self._since = 0.0

    @property
    def runs(self) -> bool:
        return self._peer is not None

    def ask(self, query: QueryLogs, found: Found, now: float) -> None:
        """``found`` is called once, whatever happens."""
        if not self._turns.put(Waiting(query, found, now + query.patience)):
            found(LogsFound(id=query.id, failed="too many queries of the logs at once"))
            return
        self._next(now)

    def _next(self, now: float) -> None:
        if self._asked is not None:
            return
        self._drop_late(now)
        if not self._turns:
            return
        if self._peer is None and not self._start():
            while (waiting := self._turns.take()) is not None:
                waiting.found(LogsFound(id=waiting.query.id, failed="no process to search the logs could be started"))
            return
        self._asked = self._turns.take()
        assert self._peer is not None and self._asked is not None
        self._since = now
        self._peers.send(self._peer, self._asked.query)

    def _drop_late(self, now: float) -> None:
        for waiting in self._turns.take_late(now):
            words = "other queries of the logs took too long"
            waiting.found(LogsFound(id=waiting.query.id, failed=words))

    def _start(self) -> bool:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "ndactors", "--role=log-reader", f"--state-dir={self._state_dir}"]
        try:
            self._process = Child(command, {**os.environ, **ALLOCATOR}, stdin=theirs.fileno(), session=True)
        except OSError as error:
            self._note(f"no reader could be started: {error}")
            ours.close()
            return False
        finally:
            theirs.close()
        self._peer = self._peers.add(Peer(ours, LogsFound, self._heard, self._lost))
        return True

    def _heard(self, peer: Peer, message: object) -> None:
        if isinstance(message, LogsFound) and self._asked is not None and message.id == self._asked.query.id:
            asked, self._asked = self._asked, None
            self._since = time.monotonic()
            asked.found(message)
            self._next(self._since)

    def _lost(self, peer: Peer) -> None:
        self._peer = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._asked is not None:
            asked, self._asked = self._asked, None
            words = "the process that searched the logs ended, or took too long"
            asked.found(LogsFound(id=asked.query.id, failed=words))
        self._next(time.monotonic())

    def look(self, now: float) -> None:
        """Give up what takes too long; end a reader that nobody needs."""
        self._drop_late(now)
        if self._peer is None:
            return
        patience = QUERY_SECONDS if self._asked is not None else IDLE_SECONDS
        if now - self._since > patience:
            self._peers.forget(self._peer)

    def stop(self) -> None:
        self._turns = Turns()
        self._peers.forget(self._peer)
