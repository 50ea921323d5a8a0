"""Small files of the kernel, each with one open, as few reads as can be, and one close. Nothing stays open."""

from __future__ import annotations

import os

MAX_BYTES = 1024 * 1024


def read_value(path: str) -> bytes | None:
    """A file that the kernel makes as one piece (those of control groups, ``/proc/PID/stat``). None if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_rows(path: str, most: int = MAX_BYTES) -> bytes | None:
    """A file of many rows (``/proc/net/…``), at most about ``most`` bytes of it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        data = b""
        # a row that does not fit into the kernel's page waits for the next read, so only an empty one is the end
        while len(data) < most and (piece := os.read(descriptor, 65536)):
            data += piece
        return data
    except OSError:
        return None
    finally:
        os.close(descriptor)
