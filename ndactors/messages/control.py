"""What a process of ours asks the daemon over the control socket: any query, by the name of who should answer."""

from __future__ import annotations

from msgspec import Raw

from ..core.model import User
from ..runtime.tree import GetTree, RestartActor
from .base import Message, Value
from .queries import (
    REPLIES,
    GetApps,
    GetDaemon,
    GetEdge,
    GetEngine,
    GetEvents,
    GetHost,
    GetReadiness,
    SetMaintenance,
)
from .records import GetRequests, RequestPage


class WebSettings(Value, frozen=True, kw_only=True):
    """What the web needs to know who may do what. ``key`` signs sessions and tokens."""

    users: tuple[User, ...]
    key: bytes
    metrics_open: bool
    project: str
    environment: str


class GetWebSettings(Message, frozen=True, kw_only=True):
    """Answers ``WebSettings``. Hashes and key travel over the control socket only, which its mode protects."""


Askable = (
    GetTree
    | RestartActor
    | GetApps
    | GetDaemon
    | GetEdge
    | GetEngine
    | GetEvents
    | GetHost
    | GetReadiness
    | GetRequests
    | GetWebSettings
    | SetMaintenance
)
"""All that may be asked from outside the daemon."""

ANSWERS = {**REPLIES, GetRequests: RequestPage, GetWebSettings: WebSettings, RestartActor: None, SetMaintenance: None}


class Ask(Message, frozen=True, kw_only=True):
    id: int
    to: str
    message: Askable


class Answer(Message, frozen=True, kw_only=True):
    """``body`` is the answer as MessagePack."""

    id: int
    body: Raw


class AskFailed(Message, frozen=True, kw_only=True):
    """``error`` is the name of one of the classes of ``ndactors.errors``."""

    id: int
    error: str
    detail: str
