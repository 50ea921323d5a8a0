"""Jobs: containers that run once, to an end."""

from __future__ import annotations

from typing import Any, Literal

from ..core.model import App, Process
from .base import Message, Value


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
    """Stop it, whether it runs or waits. It is answered with ``JobEnded`` all the same."""

    key: str


class JobOutput(Message, frozen=True, kw_only=True):
    """What it printed, both streams, as it comes. After a restart of the daemon it begins anew, and says so."""

    key: str
    text: str


class JobEnded(Message, frozen=True, kw_only=True):
    """``exit_code`` None: it cannot be known, or it never ran; ``reason`` says so in words, and is empty if all went
    well. A job that was stopped, or took too long, never has 0. ``tail``: its last lines."""

    key: str
    exit_code: int | None
    reason: str
    seconds: float
    tail: tuple[str, ...] = ()


class JobSettings(Message, frozen=True, kw_only=True):
    """Which version is current: its schedules count. None, or one that is stopped: scheduled runs end, and no new ones
    begin."""

    app: App | None
    revision: int


class JobView(Value, frozen=True, kw_only=True):
    """A scheduled process. Times are Unix seconds; ``skipped`` counts runs that were due while the one before went on."""

    app: str
    process: str
    schedule: str
    timezone: str
    running: bool = False
    next: float | None = None
    last_start: float | None = None
    last_end: float | None = None
    last_exit: int | None = None
    last_seconds: float | None = None
    last_success: float | None = None
    skipped: int = 0


class JobsChanged(Message, frozen=True, kw_only=True):
    """From a JobsActor to the AppsActor. ``idle``: the engine was listed, and no job of the app is left there."""

    app: str
    engine: str
    jobs: tuple[JobView, ...]
    idle: bool


class GetJobs(Message, frozen=True, kw_only=True):
    """Answers ``tuple[JobView, …]``."""
