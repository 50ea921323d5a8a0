"""Jobs: containers that run once, to an end."""

from __future__ import annotations

from typing import Any, Literal

from ..core.model import App, Process
from .base import Message


class RunJob(Message, frozen=True, kw_only=True):
    """To an app's JobsActor. The same ``key`` again finds the job that runs, or ran, already. ``timeout`` in seconds.
    Answers to ``reply_to`` (a ref): ``JobOutput``, then ``JobEnded``."""

    key: str
    process: Process
    app: App
    revision: int
    kind: Literal["release", "run", "schedule"]
    operation: str
    timeout: float | None
    reply_to: Any


class CancelJob(Message, frozen=True, kw_only=True):
    key: str


class JobOutput(Message, frozen=True, kw_only=True):
    key: str
    text: str


class JobEnded(Message, frozen=True, kw_only=True):
    """``exit_code`` None: it cannot be known, or it never ran; ``reason`` says so in words."""

    key: str
    exit_code: int | None
    reason: str
    seconds: float
    tail: tuple[str, ...] = ()


class JobSettings(Message, frozen=True, kw_only=True):
    """Which version is current: its schedules count. None: there is none."""

    app: App | None
    revision: int
