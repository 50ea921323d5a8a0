"""What an outlet does about a failure: say it in plain words, wait, and try again. Words never have a URL, a header or a key
in them."""

from __future__ import annotations

import random
import ssl
import time

from ..runtime.restarts import Backoff

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
SLOW_SECONDS = 60.0
"""Between two tries where only somebody's change of something can help."""
LONGEST_ASKED = 300.0
"""So long we wait at most because we are asked to."""


class Failed(Exception):
    """An outlet does not work now. ``slow``: not before somebody changes something; ``after``: seconds that we are asked
    to wait."""

    def __init__(self, words: str, *, slow: bool = False, after: float = 0.0) -> None:
        super().__init__(words)
        self.slow = slow
        self.after = after


class Stopped(Exception):
    """We are to end."""


class Pauses:
    """How long to wait after each failure: longer and longer, and never all outlets of all hosts at the same moment."""

    def __init__(self) -> None:
        self.again()

    def again(self) -> None:
        """It works: the next failure is a first one."""
        self._backoff = Backoff(first=FIRST_SECONDS, longest=LONGEST_SECONDS, reset_after=float("inf"))

    def after(self, failure: Failed) -> float:
        if failure.slow:
            return SLOW_SECONDS * random.uniform(0.8, 1.2)
        asked = min(failure.after, LONGEST_ASKED)
        return max(asked, self._backoff.next(time.monotonic()) * random.uniform(0.5, 1.0))


def words_of(error: BaseException, default: str) -> str:
    """What happened, by the system's own error: the libraries' messages have the whole URL in them."""
    seen: BaseException | None = error
    for _ in range(10):
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not good: {seen.verify_message}"
        if isinstance(seen, ssl.SSLError):
            return f"TLS failed: {(seen.reason or 'no reason given').lower().replace('_', ' ')}"
        if isinstance(seen, TimeoutError):
            return "it does not answer in time"
        if isinstance(seen, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)):
            return "it closed the connection"
        if isinstance(seen, OSError) and seen.strerror and type(seen).__module__ in ("builtins", "socket"):
            return f"it cannot be reached: {seen.strerror}"
        if seen is None:
            break
        inner = [part for part in (getattr(seen, "reason", None), *seen.args) if isinstance(part, BaseException)]
        seen = inner[0] if inner else seen.__cause__ or seen.__context__
    return default
