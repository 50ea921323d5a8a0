"""Why a new version did not come up: one sentence that says what to change, from what can be seen of its container."""

from __future__ import annotations

import re
from dataclasses import dataclass

DOCKERS_OWN = "127.0.0.11"
"""The Engine's name server, which every container on a network of its own has."""
TAIL = 20


@dataclass(frozen=True, kw_only=True)
class Symptoms:
    """``reason`` is the last that its actor said; ``listeners`` are addresses and ports of listening sockets in it,
    None if they cannot be seen. ``tail``: its last lines of output."""

    reason: str
    state: str
    port: int | None
    exit_code: int | None = None
    ran_for: float | None = None
    listeners: tuple[tuple[str, int], ...] | None = None
    tail: tuple[str, ...] = ()


def cause(symptoms: Symptoms) -> str:
    """The most likely cause in words."""
    s = symptoms
    reason = re.sub(r"^health check failed: ", "", s.reason)
    if s.exit_code is not None and (s.state in ("restarting", "failed", "stopped") or "exited" in reason):
        how = re.sub(r"; .*", "", reason) if "exited" in reason else f"exited {s.exit_code}"
        return how + (f" after {s.ran_for:.1f} s" if s.ran_for is not None else "")
    if s.listeners is None or s.port is None:
        return _health(reason)
    own = [(address, port) for address, port in s.listeners if address != DOCKERS_OWN]
    reachable = [port for address, port in own if address not in ("127.0.0.1", "::1")]
    if s.port in reachable:
        return _health(reason)
    if (here := next(((a, p) for a, p in own if p == s.port), None)) is not None:
        return f"listens on {_place(*here)}; bind 0.0.0.0"
    if reachable:
        ports = ", ".join(str(port) for port in sorted(set(reachable)))
        return f"listens on port {ports}, not on {s.port}; set `port: {min(reachable)}` or listen on $PORT"
    if own:
        return f"listens on {_place(*own[0])}; bind 0.0.0.0 and port {s.port} ($PORT)"
    return f"listens on no port; {s.port} ($PORT) was expected" + (f" ({reason})" if reason else "")


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _health(reason: str) -> str:
    answered = re.search(r"answered (\d{3})$", reason)
    return f"health check answered {answered[1]} ({reason})" if answered else reason or "it did not become healthy"
