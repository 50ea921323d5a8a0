"""The reader process as the log process knows it: started for a query, given up if it takes too long, gone when nobody has
asked for a while."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from ..messages.logs import LogsFound, QueryLogs
from ..runtime.peers import Peer, Peers

QUERY_SECONDS = 30.0
"""A query that takes longer is given up, and the reader with it."""
IDLE_SECONDS = 60.0
MOST_WAITING = 64
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024), "MALLOC_TRIM_THRESHOLD_": str(128 * 1024 * 1024)}
"""mallopt(3): it takes and frees some megabytes for each block. If they went back to the kernel each time, a search would
take more than twice as long."""

Found = Callable[[LogsFound], None]


class Readers:
    """One reader at a time. ``note`` hears of what goes wrong."""

    def __init__(self, state_dir: Path, peers: Peers, note: Callable[[str], None]) -> None:
        self._state_dir = state_dir
        self._peers = peers
        self._note = note
        self._process: subprocess.Popen[bytes] | None = None
        self._peer: Peer | None = None
        self._waiting: deque[tuple[QueryLogs, Found]] = deque()
        self._asked: tuple[QueryLogs, Found] | None = None
        self._since = 0.0

    def ask(self, query: QueryLogs, found: Found, now: float) -> None:
        """``found`` is called once, whatever happens."""
        if len(self._waiting) >= MOST_WAITING:
            found(LogsFound(id=query.id, failed="too many queries of the logs at once"))
            return
        self._waiting.append((query, found))
        self._next(now)

    def _next(self, now: float) -> None:
        if self._asked is not None or not self._waiting:
            return
        if self._peer is None and not self._start():
            waiting, self._waiting = self._waiting, deque()
            for query, found in waiting:
                found(LogsFound(id=query.id, failed="no process to search the logs could be started"))
            return
        assert self._peer is not None
        self._asked = self._waiting.popleft()
        self._since = now
        self._peers.send(self._peer, self._asked[0])

    def _start(self) -> bool:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "ndactors", "--role=log-reader", f"--state-dir={self._state_dir}"]
        try:
            self._process = subprocess.Popen(
                command, stdin=theirs.fileno(), start_new_session=True, env={**os.environ, **ALLOCATOR}
            )
        except OSError as error:
            self._note(f"no reader could be started: {error}")
            ours.close()
            return False
        finally:
            theirs.close()
        self._peer = self._peers.add(Peer(ours, LogsFound, self._heard, self._lost))
        return True

    def _heard(self, peer: Peer, message: object) -> None:
        if isinstance(message, LogsFound) and self._asked is not None and message.id == self._asked[0].id:
            (_, found), self._asked = self._asked, None
            self._since = time.monotonic()
            found(message)
            self._next(self._since)

    def _lost(self, peer: Peer) -> None:
        self._peer = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._asked is not None:
            (query, found), self._asked = self._asked, None
            found(LogsFound(id=query.id, failed="the process that searched the logs ended, or took too long"))
        self._next(time.monotonic())

    def look(self, now: float) -> None:
        """Give up what takes too long; end a reader that nobody needs."""
        if self._peer is None:
            return
        patience = QUERY_SECONDS if self._asked is not None else IDLE_SECONDS
        if now - self._since > patience:
            self._peers.forget(self._peer)

    def stop(self) -> None:
        self._waiting.clear()
        self._peers.forget(self._peer)
