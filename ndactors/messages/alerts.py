"""What is wrong, who is told of it, and who has seen it."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from .base import Message, Value

AlertState = Literal["firing", "acknowledged", "resolved"]


class AlertView(Value, frozen=True, kw_only=True):
    """One thing that is or was wrong. Times are Unix seconds. ``kind`` is one of ``monitoring.alert.notify_on``; ``rule``
    names what noticed it; ``subject`` is what it is about, so that the same trouble of two disks is two alerts."""

    id: str
    kind: str
    rule: str
    severity: Literal["warning", "critical"] = "warning"
    app: str | None = None
    process: str | None = None
    container: str | None = None
    subject: dict[str, str] = field(default_factory=dict)
    state: AlertState = "firing"
    since: float = 0.0
    """When it began, before it was certain."""
    fired_at: float = 0.0
    acknowledged_at: float | None = None
    acknowledged_by: str = ""
    resolved_at: float | None = None
    count: int = 1
    """How often it happened, for what happens rather than lasts."""
    value: float | None = None
    threshold: float | None = None
    unit: str = ""
    summary: str = ""
    """What and where, with the figure, in one sentence."""
    advice: str = ""
    """What to do about it."""
    silenced: bool = False
    """A silence holds its messages back."""


class GetAlerts(Message, frozen=True, kw_only=True):
    """Answers ``tuple[AlertView, …]``: what fires first, then the newest of what is over."""

    state: AlertState | None = None
    app: str | None = None
    apps: tuple[str, ...] | None = None


class AcknowledgeAlert(Message, frozen=True, kw_only=True):
    """Somebody looks after it: no more messages until it is over. Answers ``AlertView``; ``NotFound``; ``Conflict`` if it
    is over."""

    id: str
    by: str
    apps: tuple[str, ...] | None = None


class Silence(Value, frozen=True, kw_only=True):
    """Nobody is told of alerts that it fits, from ``begins`` to ``ends`` (Unix seconds). ``kind`` and ``app`` None: any."""

    id: str
    begins: float
    ends: float
    kind: str | None = None
    app: str | None = None
    reason: str = ""
    by: str = ""


class AddSilence(Message, frozen=True, kw_only=True):
    """Answers ``Silence``. ``Invalid`` for one that is over already or too long."""

    seconds: float
    kind: str | None = None
    app: str | None = None
    reason: str = ""
    by: str = ""
    begins: float | None = None
    """None: now."""


class EndSilence(Message, frozen=True, kw_only=True):
    """Answers ``Silence``; ``NotFound``."""

    id: str


class GetSilences(Message, frozen=True, kw_only=True):
    """Answers ``tuple[Silence, …]``: those that are not over."""


# -- telling people --------------------------------------------------------------------------------


class Notification(Value, frozen=True, kw_only=True):
    """One message for people. ``alerts`` belong together and are told at once; ``state`` is what became of them."""

    id: str
    at: float
    state: Literal["firing", "resolved", "test"]
    title: str
    alerts: tuple[AlertView, ...] = ()
    server: str = ""
    """The host's name, as people know it."""
    project: str = ""
    environment: str = ""


class Notify(Message, frozen=True, kw_only=True):
    """To the NotifyActor: tell it on every channel."""

    notification: Notification


class TestChannels(Message, frozen=True, kw_only=True):
    """Send a test message on every channel, now and once. Answers ``tuple[ChannelResult, …]``."""

    __test__ = False
    by: str = ""


class ChannelResult(Value, frozen=True, kw_only=True):
    """``channel``: what it is and where it leads, without secrets."""

    channel: str
    good: bool
    words: str


class ChannelView(Value, frozen=True, kw_only=True):
    channel: str
    waiting: int = 0
    delivered: int = 0
    failed: int = 0
    """Given up; in the list of dead letters."""
    last_words: str = ""


class DeadLetter(Value, frozen=True, kw_only=True):
    """A message that could not be delivered."""

    id: str
    channel: str
    at: float
    tries: int
    words: str
    title: str


class GetChannels(Message, frozen=True, kw_only=True):
    """Answers ``ChannelsView``."""


class ChannelsView(Value, frozen=True, kw_only=True):
    channels: tuple[ChannelView, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()
