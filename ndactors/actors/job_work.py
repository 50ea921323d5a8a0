"""One job as a JobsActor knows it, the slow calls that run beside its mailbox, and what they bring back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..core.containers import ContainerSpec, ContainerStatus
from ..core.jobs import Identity
from ..core.model import App, Process
from ..errors import Conflict, ContainerNotFound, EngineError, EngineUnreachable
from ..ports import ContainerEngine, OutputReader
from ..runtime.ref import Ref
from ..runtime.timers import Task, Timer

TAIL_LINES = 50
TAIL_CHARACTERS = 16_000
LINE_CHARACTERS = 400

Phase = Literal["starting", "running", "over", "removing"]
"""``over``: it has ended, and the rest of its output is read. ``removing``: its end is on record."""


@dataclass
class Job:
    """``order`` is what it is made from; None for one that a daemon before us began and nobody has asked for yet.
    ``stopped`` says why it was told to stop. ``end`` is the end of its output."""

    identity: Identity
    asked: float
    order: tuple[App, Process] | None = None
    reply_to: Ref | None = None
    phase: Phase = "starting"
    status: ContainerStatus | None = None
    stopped: str = ""
    oom: bool = False
    adopted: bool = False
    work: Task | None = None
    timer: Timer | None = None
    reader: OutputReader | None = None
    reading: Task | None = None
    poll: Timer | None = None
    told: int = 0
    end: str = ""

    @property
    def id(self) -> str:
        return self.identity.id

    def tail(self) -> tuple[str, ...]:
        return tuple(line[:LINE_CHARACTERS] for line in self.end.splitlines()[-TAIL_LINES:])

    def cancel_timers(self) -> None:
        for timer in (self.timer, self.poll):
            if timer is not None:
                timer.cancel()
        self.timer = self.poll = None

    def close(self) -> None:
        if self.reader is not None:
            self.reader.close()
            self.reader = None


@dataclass(frozen=True)
class Worked:
    """The end of a start, a stop, or a look: ``status`` None without an ``error``: there is no such container."""

    id: str
    status: ContainerStatus | None
    error: BaseException | None


@dataclass(frozen=True)
class Removed:
    id: str
    error: BaseException | None


@dataclass(frozen=True)
class OutputRead:
    id: str
    text: str
    error: BaseException | None


@dataclass(frozen=True)
class GoOn:
    """It is time to try again, or nobody asked for it in time."""

    id: str


@dataclass(frozen=True)
class TimedOut:
    id: str


@dataclass(frozen=True)
class ReadDue:
    id: str


class LookDue: ...


def launch(engine: ContainerEngine, spec: ContainerSpec) -> ContainerStatus:
    """Create and start it, unless it is there already: then it began in an earlier life, and may have ended."""
    try:
        status = engine.create(spec)
    except Conflict:
        found = next((status for status in engine.containers() if status.name == spec.name), None)
        if found is None:
            raise
        status = found
    if status.state != "created":
        return status
    try:
        return engine.start(status.id)
    except EngineUnreachable:
        raise
    except EngineError:
        engine.remove(status.id)
        raise


def halt(engine: ContainerEngine, container: str, process: Process) -> ContainerStatus | None:
    try:
        engine.stop(container, signal=process.stop_signal, grace=process.stop_grace)
        return engine.inspect(container)
    except ContainerNotFound:
        return None


def look_at(engine: ContainerEngine, container: str) -> ContainerStatus | None:
    try:
        return engine.inspect(container)
    except ContainerNotFound:
        return None


def worked(id: str) -> Callable[[ContainerStatus | None, BaseException | None], Worked]:
    return lambda status, error: Worked(id, status, error)
