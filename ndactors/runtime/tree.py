"""The supervision tree as records, and what may be asked of it. Pure, so that web and link can share it."""

from __future__ import annotations

from msgspec import Struct


class LastError(Struct, frozen=True, kw_only=True):
    """``during`` is what it was handling: a message's name, ``__init__``, ``on_start`` or ``on_stop``."""

    ts: float
    type: str
    message: str
    traceback: str
    during: str


class ActorNode(Struct, frozen=True, kw_only=True):
    """One actor. ``state``: starting, running, waiting (to be restarted), stopping, stopped, failed."""

    name: str
    cls: str
    state: str
    mailbox: int
    handled: int
    dropped: int
    restarts: int
    started_at: float | None = None
    last_error: LastError | None = None
    busy_seconds: float = 0.0
    """In its messages, since the daemon began; what it waits for within one counts."""
    children: tuple[ActorNode, ...] = ()


class GetTree(Struct, frozen=True, kw_only=True, tag=True):
    """To any supervisor: answers its ``ActorNode`` with everything below it."""


class RestartActor(Struct, frozen=True, kw_only=True, tag=True):
    """To any supervisor: stop and start again the one called ``name`` below it; ``NotFound`` if there is none."""

    name: str
