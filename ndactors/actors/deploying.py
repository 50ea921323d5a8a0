"""What the parts of a DeployActor share: its record, what it works with, and how it tells others how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from ..core.model import App, Rotate
from ..core.specs import Secrets, config_hashes
from ..messages.containers import (
    RecordEvent,
    ShowDeploy,
)
from ..messages.deployments import (
    DeployRecord,
    Outcome,
    Pending,
)
from ..messages.operations import (
    Difference,
    OperationLogged,
    OperationState,
    Origin,
    PartEnded,
    Revision,
    Step,
    StepChanged,
    StepState,
)
from ..messages.records import GetTraffic, TrafficSummary
from ..ports import ContainerEngine, Ledger, Listeners, StateStore
from ..runtime.actor import Actor
from ..runtime.ref import Ref
from ..runtime.timers import Task, Timer
from .deploy_work import Workshop


@dataclass(frozen=True, kw_only=True)
class DeploySurroundings:
    """What a DeployActor works with. ``wanted``: what the files say now, and who wanted it."""

    engine: str
    container_engine: ContainerEngine
    rotate: Rotate
    wanted: Callable[[], tuple[App, Origin] | None]
    secrets: Callable[[], Secrets]
    workshop: Workshop
    listeners: Listeners
    traffic: Callable[[GetTraffic], TrafficSummary]
    ledger: Ledger
    state: StateStore
    app: Ref
    jobs: Ref
    operations: Ref
    events: Ref
    hooks: Ref
    new_operation: Callable[[], str]
    stamp: Callable[[float], str]


class Deploying(Actor):
    def __init__(self, name: str, around: DeploySurroundings) -> None:
        self._name = name
        self._around = around
        self._record_name = f"deploys/{name}@{around.engine}"
        self._record = DeployRecord()
        self._seen: int | None = None
        self._waiting: list[object] = []
        """What came before the engine was listed."""
        self._work: Task | None = None
        self._timer: Timer | None = None
        self._steps: dict[str, tuple[float, float]] = {}
        self._canaries: tuple[str, ...] = ()
        self._stage_began = 0.0
        self._releases: list[str] = []
        self._pruning = False
        """Old images are being removed: what the next change needs is not looked for beside that."""
        self._next: tuple[App, Origin] | None = None
        """What the files say since a change of somebody else's began."""

    def _after_end(self, *, good: bool) -> None:
        """A change is over, one way or the other: what waited for it comes now."""
        raise NotImplementedError

    # -- telling others ----------------------------------------------------------------------------

    def _account_for(self, operation: str) -> None:
        """An operation that was running when the daemon ended."""
        record = self._record
        if record.pending is not None and record.pending.operation == operation:
            return
        if record.last is not None and record.last.operation == operation:
            self._tell_part(record.last)
        else:
            self._part(operation, "failed", "the daemon was restarted before it began")

    def _known(self, operation: str) -> bool:
        record = self._record
        if record.pending is not None and record.pending.operation == operation:
            return True
        if record.last is not None and record.last.operation == operation:
            self._tell_part(record.last)
            return True
        return False

    def _part(self, operation: str, state: OperationState, reason: str) -> None:
        self._tell_part(Outcome(operation=operation, state=state, reason=reason))

    def _tell_part(self, outcome: Outcome) -> None:
        self._around.operations.tell(
            PartEnded(
                operation=outcome.operation,
                app=self._name,
                state=outcome.state,
                reason=outcome.reason,
                revision=outcome.revision,
                receipt=outcome.receipt,
                evidence=outcome.evidence,
            )
        )

    def _step(self, name: str, state: StepState, detail: str = "") -> None:
        pending, now = self._pending(), time.time()
        if state == "running" and name not in self._steps:
            self._steps[name] = (now, 0.0)
        began, ended = self._steps.get(name, (now, 0.0))
        if state != "running":
            if ended:
                return  # it is over already
            self._steps[name] = (began, now)
        step = Step(
            name=name,
            state=state,
            started=self._around.stamp(began),
            seconds=round(now - began, 3),
            detail=detail[:2000],
        )
        self._step_of(pending.operation, step)

    def _step_of(self, operation: str, step: Step) -> None:
        self._around.operations.tell(StepChanged(operation=operation, app=self._name, step=step))

    def _log(self, operation: str, text: str) -> None:
        self._around.operations.tell(OperationLogged(operation=operation, text=text))

    def _show(self, app: App, reason: str = "", *, failed: bool = False) -> None:
        pending = self._record.pending
        operation = pending.operation if pending is not None else None
        self._around.app.tell(ShowDeploy(app=app, operation=operation, reason=reason, failed=failed))

    def _event(self, kind: str, reason: str, detail: dict[str, Any] | None = None) -> None:
        self._around.events.tell(RecordEvent(kind=kind, app=self._name, reason=reason[:2000], detail=detail or {}))

    # -- small things ------------------------------------------------------------------------------

    def _pending(self) -> Pending:
        assert self._record.pending is not None
        return self._record.pending

    def _is_on(self, operation: str, phase: str) -> bool:
        pending = self._record.pending
        return pending is not None and pending.operation == operation and pending.phase == phase

    def _on_revision(self, revision: int) -> bool:
        pending = self._record.pending
        return (
            pending is not None
            and pending.number == revision
            and pending.outcome is None
            and pending.phase in ("switch", "canary")
        )

    def _revision(self, pending: Pending, state: str) -> Revision:
        target = pending.target
        return Revision(
            app=self._name,
            number=pending.number,
            at=self._around.stamp(pending.switch_began or time.time()),
            by=pending.origin.by,
            kind=pending.kind,
            operation=pending.operation,
            message=pending.origin.message
            or (f"back to revision {pending.rolled_back_from}" if pending.rolled_back_from else None),
            git=pending.origin.git,
            image=target.image,
            image_id=target.image_id,
            state=state,
            diff=tuple(Difference(path=path, before=before, after=after) for path, before, after in pending.diff),
            spec=target,
        )

    def _configs(self, app: App) -> dict[str, str]:
        return config_hashes(app, self._around.engine, self._around.rotate, self._around.secrets())

    def _busy(self, work: Callable[[], object], then: Callable[[Any, BaseException | None], object]) -> None:
        self._work = self.run(work, then)

    def _save(self) -> None:
        self._around.state.save(self._record_name, self._record)


def now_of(around: DeploySurroundings) -> str:
    return around.stamp(time.time())


def plain(value: Any) -> Any:
    return msgspec.to_builtins(value)


def release_key(process: str, number: int) -> str:
    """Of the job that runs ``process`` before the switch to revision ``number``: the same for every daemon that tries."""
    return f"{process}-{number}-release"
