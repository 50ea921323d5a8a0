"""What people are told of alerts, as values. ``messages.alerts`` hands them on."""

from __future__ import annotations

from typing import Literal

from .alerts import AlertView
from .model import Value


class Notification(Value, frozen=True, kw_only=True):
    """One message for people. ``alerts`` belong together and are told at once; ``state`` is what became of them."""

    id: str
    at: float
    state: Literal["firing", "resolved", "test"]
    title: str
    alerts: tuple[AlertView, ...] = ()
    more: int = 0
    """So many alerts besides, which are not listed."""
    unlisted: tuple[str, ...] = ()
    """Their ids, as far as they are known."""
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
