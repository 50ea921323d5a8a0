"""What a process of ours writes into its own log file, its standard error: bounded, whatever goes wrong how often."""

from __future__ import annotations

import contextlib
import datetime
import os
import stat
import sys
import time
from collections.abc import Callable

SAME_SECONDS = 60.0
"""Words that were written are only counted for so long."""
MOST_KNOWN = 200
MAX_BYTES = 8 * 1024 * 1024
"""A file that has grown so long begins anew."""


def exception_text() -> str:
    """The exception that is being handled, with its traceback. What makes it is imported with the first: it takes 0.7 MB."""
    try:
        from traceback import format_exc
    except (ImportError, OSError):  # no descriptor is left, say
        return repr(sys.exception())
    return format_exc()


class Notes:
    """``notes(words)`` writes a line with the time and ``who``. Errors of the disk are let go: there is nowhere to tell."""

    def __init__(self, who: str, clock: Callable[[], float] = time.monotonic, file: int = 2) -> None:
        self._who = who
        self._clock = clock
        self._file = file
        self._known: dict[str, tuple[float, int]] = {}
        """When these words were written, and how often they were not since."""

    def __call__(self, words: str) -> None:
        now = self._clock()
        written, more = self._known.get(words, (now - SAME_SECONDS, 0))
        if now - written < SAME_SECONDS:
            self._known[words] = written, more + 1
            return
        self._known.pop(words, None)
        self._known[words] = now, 0
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]
        time_text = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        again = f" ({more} more times in the last {now - written:.0f} s)" if more else ""
        with contextlib.suppress(OSError):
            self._write(f"{time_text} {self._who} {words}{again}\n".encode("utf-8", "backslashreplace"))

    def _write(self, line: bytes) -> None:
        status = os.fstat(self._file)
        if stat.S_ISREG(status.st_mode) and status.st_size > MAX_BYTES:
            os.ftruncate(self._file, 0)
        os.write(self._file, line)
