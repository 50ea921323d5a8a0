"""What is wrong, who is told of it, and who has seen it."""

from __future__ import annotations

from ..core.alerts import AlertState as AlertState
from ..core.alerts import AlertView as AlertView
from ..core.alerts import Silence as Silence
from ..core.notifications import DeadLetter as DeadLetter
from ..core.notifications import Notification as Notification
from .base import Message, Value


class GetAlerts(Message, frozen=True, kw_only=True):
    """Answers ``tuple[AlertView, …]``: what fires first, then the newest of what is over."""

    state: AlertState | None = None
    app: str | None = None
    apps: tuple[str, ...] | None = None


class AcknowledgeAlert(Message, frozen=True, kw_only=True):
    """Somebody looks after it: no more messages until it is over. Answers ``AlertView``; ``NotFound``; ``Conflict`` if it
    is over. ``id`` may be a part (``core.alerts.one_of``)."""

    id: str
    by: str
    apps: tuple[str, ...] | None = None


class ResolveAlert(Message, frozen=True, kw_only=True):
    """Somebody says that it is over. Answers ``AlertView``; ``NotFound``; ``Conflict`` if it is over already, or if its
    figures tell whether it is."""

    id: str
    by: str
    apps: tuple[str, ...] | None = None


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
    """Given up; the last of them are in the list of dead letters."""
    held: int = 0
    """Alerts that wait for the hour to allow another message: they go as one."""
    last_words: str = ""


class GetChannels(Message, frozen=True, kw_only=True):
    """Answers ``ChannelsView``."""


class ChannelsView(Value, frozen=True, kw_only=True):
    channels: tuple[ChannelView, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()


class GetSigningKey(Message, frozen=True, kw_only=True):
    """Answers the key that webhooks are signed with, as ``whsec_…``; ``Conflict`` where the configuration has it."""
