"""Moving bytes between descriptors without ever holding many: nothing is read for which there is no room, and nothing is
written before it can be taken. Descriptors that others share stay as they are; none is made non-blocking."""

from __future__ import annotations

import os
import select
from collections.abc import Mapping

PIECE = 64 * 1024
"""At most so much is read at once."""
ROOM = 256 * 1024
"""While so much waits for one side, nothing is read for it."""
READ, WRITE, BROKEN = select.POLLIN, select.POLLOUT, select.POLLERR


class Sink:
    """What is on its way out through a descriptor. A pipe that is ready takes ``PIPE_BUF`` bytes without waiting; ``piece``
    may be more for a non-blocking socket."""

    def __init__(self, descriptor: int, piece: int = select.PIPE_BUF) -> None:
        self.descriptor = descriptor
        self.waiting = bytearray()
        self._piece = piece

    @property
    def has_room(self) -> bool:
        return len(self.waiting) < ROOM

    def flush(self) -> None:
        """As much as is taken at once; call it when the descriptor is ready. ``OSError`` if nobody reads any more."""
        try:
            done = os.write(self.descriptor, self.waiting[: self._piece])
        except BlockingIOError:
            return
        del self.waiting[:done]


def read(descriptor: int) -> bytes | None:
    """What is there, empty at the end; None: nothing, after all. ``OSError``."""
    try:
        return os.read(descriptor, PIECE)
    except BlockingIOError:
        return None


def wait(wanted: Mapping[int, int]) -> dict[int, int]:
    """Until one of the descriptors is ready for what it is wanted for, or is broken. What is wanted for nothing (0) is
    only watched for that."""
    poll = select.poll()
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    return dict(poll.poll())
