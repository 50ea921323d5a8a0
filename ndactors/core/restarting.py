"""What happens after a container ended by itself: restart when, or give up why. Pure; times are monotonic seconds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .model import Restart

STABLE_SECONDS = 60.0
"""A container that ran this long starts its backoff anew."""


@dataclass(frozen=True)
class RestartIn:
    seconds: float


@dataclass(frozen=True)
class GiveUp:
    """It stays as it is, visibly. ``failed`` tells a fault from an end that was allowed."""

    reason: str
    failed: bool


class RestartHistory:
    """The restarts of one replica, whatever their reason."""

    def __init__(self, policy: Restart) -> None:
        self._policy = policy
        self._times: deque[float] = deque()
        self._in_a_row = 0

    def after_end(self, ended: str, exit_code: int | None, ran_for: float, now: float) -> RestartIn | GiveUp:
        """``ended`` says how in words, ``ran_for`` is how long it ran before."""
        policy = self._policy
        if policy.policy == "no":
            return GiveUp(f"{ended}; restart: no", failed=exit_code != 0)
        if policy.policy == "on-failure" and exit_code == 0:
            return GiveUp(f"{ended}; restart: on-failure", failed=False)
        times = self._times
        times.append(now)
        while times[0] <= now - policy.within:
            times.popleft()
        if len(times) > policy.max_restarts:
            words = f"{ended}; {policy.max_restarts} restarts in {policy.within:g} s did not help"
            return GiveUp(words, failed=True)
        if ran_for >= STABLE_SECONDS:
            self._in_a_row = 0
        self._in_a_row += 1
        return RestartIn(min(policy.backoff_max, policy.backoff * 2.0 ** min(self._in_a_row - 1, 60)))


def ending(exit_code: int | None, *, oom: bool) -> str:
    """How a process ended, in words."""
    if oom:
        return f"exited {exit_code} (out of memory)" if exit_code is not None else "out of memory"
    if exit_code is None:
        return "ended (exit code unknown)"
    if exit_code > 128:
        return f"exited {exit_code} ({SIGNALS.get(exit_code - 128, f'signal {exit_code - 128}')})"
    if exit_code in _HINTS:
        return f"exited {exit_code} ({_HINTS[exit_code]})"
    return f"exited {exit_code}"


_HINTS = {126: "command cannot be executed", 127: "command not found"}
SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    11: "SIGSEGV",
    13: "SIGPIPE",
    15: "SIGTERM",
}
"""signal(7), the x86 and ARM numbers."""
