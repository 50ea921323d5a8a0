"""What the C library does with memory that is free."""

from __future__ import annotations

import contextlib
import ctypes

GIVE_BACK_SECONDS = 60.0
"""So often it is given back: after a burst a process is as small as before it."""
FIRST_SECONDS = 15.0
"""What starting took is over by then."""
_ARENA_MAX = -8


def one_arena() -> None:
    """mallopt(3), M_ARENA_MAX: threads of a pool wait for files most of the time, and each would keep memory of its own."""
    with contextlib.suppress(OSError, AttributeError):  # a C library that has no such thing
        ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """malloc_trim(3): free pages between others go back to the kernel."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
