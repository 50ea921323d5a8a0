"""A bounded queue with one reader, an actor's greenlet. It outlives the reader: messages wait while it restarts."""

from __future__ import annotations

import time
from collections import deque
from enum import Enum
from typing import Any

from gevent.event import Event
from gevent.hub import get_hub
from greenlet import getcurrent, greenlet

from ..errors import MailboxFull
from .timers import Due


class Overflow(Enum):
    """What a full mailbox does: forget its oldest message and count it; refuse the new one; or let the caller wait.

    ``BLOCK`` is for callers outside the tree only (web, CLI): among actors it could close a cycle of waits.
    """

    DROP_OLDEST = "drop_oldest"
    REJECT = "reject"
    BLOCK = "block"


BLOCK_SECONDS = 5.0


class Mailbox:
    """``put`` from anywhere in the hub's thread; ``wait`` by the one reader."""

    __slots__ = ("_not_full", "_reader", "_waking", "capacity", "closed", "dropped", "items", "overflow")

    def __init__(self, capacity: int, overflow: Overflow) -> None:
        self.items: deque[Any] = deque()
        self.capacity = capacity
        self.overflow = overflow
        self.dropped = 0
        self.closed = False
        """True once nobody will ever read it again."""
        self._reader: greenlet | None = None
        self._waking = False
        self._not_full: Event | None = None

    def put(self, item: Any) -> Any:
        """Append; returns the item that had to go instead (``item`` itself if the mailbox is closed), else None.

        ``MailboxFull`` when it refuses, and when it blocked for ``BLOCK_SECONDS`` in vain.
        """
        items = self.items
        lost = None
        if self.closed or len(items) >= self.capacity:
            lost = self._make_room(item)
            if lost is item:
                return item
        items.append(item)
        if self._reader is not None:
            self.wake()
        return lost

    def put_first(self, item: Any) -> None:
        """For the runtime's own notices: never dropped, never refused."""
        self.items.append(item)
        self.wake()

    def _make_room(self, item: Any) -> Any:
        if self.closed:
            self.dropped += 1
            return item
        if self.overflow is Overflow.DROP_OLDEST:
            self.dropped += 1
            return self._pop_oldest()
        if self.overflow is Overflow.BLOCK:
            deadline = time.monotonic() + BLOCK_SECONDS
            while len(self.items) >= self.capacity and not self.closed and time.monotonic() < deadline:
                self._not_full = self._not_full or Event()
                self._not_full.wait(deadline - time.monotonic())
            if self.closed:
                self.dropped += 1
                return item
            if len(self.items) < self.capacity:
                return None
        self.dropped += 1
        raise MailboxFull(f"{len(self.items)} messages wait already")

    def _pop_oldest(self) -> Any:
        items = self.items
        for index, oldest in enumerate(items):
            if type(oldest) is not Due:  # what a timer or task brings is waited for: it never goes first
                del items[index]
                return oldest
        return items.popleft()

    def wake(self) -> None:
        """Let the reader run, if it sleeps."""
        if self._reader is not None and not self._waking:
            self._waking = True
            get_hub().loop.run_callback(self._resume)

    def _resume(self) -> None:
        # the reader may have been killed, and even replaced, since this was scheduled
        if self._reader is not None:
            self._reader.switch()

    def wait(self) -> None:
        """Sleep until something arrives or ``wake`` is called. Only the reader calls it, and only when empty."""
        if self._not_full is not None:
            self._not_full.set()
            self._not_full = None
        self._reader = getcurrent()
        try:
            get_hub().switch()
        finally:
            self._reader = None
            self._waking = False

    def clear(self) -> list[Any]:
        """Forget everything; returns it, so that asks among it can be failed."""
        lost = list(self.items)
        self.items.clear()
        if self._not_full is not None:
            self._not_full.set()
            self._not_full = None
        return lost
