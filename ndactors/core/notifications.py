"""What people are told of alerts, as values. ``messages.alerts`` hands them on."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from .model import Value

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


class Notification(Value, frozen=True, kw_only=True):
    """One message for people. ``alerts`` belong together and are told at once; ``state`` is what became of them."""

    id: str
    at: float
    state: Literal["firing", "resolved", "test"]
    title: str
    alerts: tuple[AlertView, ...] = ()
    more: int = 0
    """So many alerts besides, which are not listed."""
    server: str = ""
    """The host's name, as people know it."""
    project: str = ""
    environment: str = ""


class DeadLetter(Value, frozen=True, kw_only=True):
    """A message that could not be delivered. ``channel``: what it is and where it leads, without secrets."""

    id: str
    channel: str
    at: float
    tries: int
    words: str
    title: str
