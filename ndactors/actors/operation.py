"""OperationsActor: every change that somebody asked for, from its beginning to its end. It keeps one change at a time for
each app, writes down how far each is, and answers about them."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from ..core.logrecords import parse_ns
from ..core.model import App
from ..errors import Conflict, NotFound
from ..messages.containers import AccountFor, CancelChange, CarryOut, RecordEvent
from ..messages.deployments import KINDS
from ..messages.edge import Histogram
from ..messages.operations import (
    DEPLOY_BUCKETS,
    DEPLOY_RESULTS,
    AskAgain,
    BeginOperation,
    CancelOperation,
    Change,
    DeployTotals,
    GetDeploys,
    GetOperation,
    GetOperations,
    GetRevisions,
    Operation,
    OperationLogged,
    OperationOpened,
    OperationPage,
    OperationRefused,
    OperationReserved,
    OperationState,
    Origin,
    PartEnded,
    Receipt,
    ReserveOperation,
    RevisionPage,
    RollbackApp,
    RunCommand,
    Step,
    StepChanged,
)
from ..ports import Ledger, StateStore
from ..runtime.actor import Actor
from ..runtime.ref import Ref
from ..runtime.timers import Timer

LOG_CHARACTERS = 256 * 1024
FLUSH_SECONDS = 1.0
"""How late a log may be on disk."""
REQUESTS = "operations"
TOTALS = "deploys-total"
COUNTED = ("deploy", "rollback")
RUNS_BESIDE = "run"
"""The kind that may go on while something else changes the app."""


class FlushLogs: ...


class DeploysSaved(Struct, frozen=True, kw_only=True):
    """So that a counter does not fall with the daemon."""

    rows: tuple[DeployTotals, ...]


class OperationsActor(Actor):
    """``apps``: what there is now, by name. ``new_id`` makes ids that grow with time."""

    def __init__(
        self,
        current: Callable[[], Mapping[str, App]],
        ledger: Ledger,
        state: StateStore,
        apps: Ref,
        events: Ref,
        new_id: Callable[[], str],
        stamp: Callable[[float], str],
    ) -> None:
        self._current = current
        self._ledger = ledger
        self._state = state
        self._apps = apps
        self._events = events
        self._new_id = new_id
        self._stamp = stamp
        self._running: dict[str, Operation] = {}
        self._left: dict[str, set[str]] = {}
        """Apps whose part of an operation is not over, by operation."""
        self._worst: dict[str, OperationState] = {}
        """Of the parts that are over, by operation."""
        self._unsaved: set[str] = set()
        self._flush: Timer | None = None
        self._began: dict[str, float] = {}
        """When an operation began, by the monotonic clock."""
        self._totals: dict[str, DeployTotals] = {}

    def on_start(self) -> None:
        saved = self._state.load(TOTALS, DeploysSaved)
        self._totals = {row.app: _in_buckets(row) for row in saved.rows} if saved is not None else {}
        for operation in self._ledger.operations(GetOperations(state="running", limit=10_000)).items:
            full = self._ledger.operation(operation.id) or operation
            self._running[full.id] = full
            self._left[full.id] = set(full.apps) - full.parts.keys()
            if full.parts:
                self._worst[full.id] = max(full.parts.values(), key=lambda state: _SEVERITY[state])
            self._began[full.id] = time.monotonic() - _seconds_since(full.started, time.time())
            asked = self._state.load(f"{REQUESTS}/{full.id}", CarryOut)
            for app in sorted(self._left[full.id]):
                self._apps.tell(asked or AccountFor(operation=full.id, app=app))

    def on_stop(self) -> None:
        self._save_logs()

    def receive(self, message: object) -> object:
        match message:
            case BeginOperation(app=app, change=change, origin=origin):
                return self._begin(app, change, origin)
            case ReserveOperation():
                self._reserve(message)
            case AskAgain(app=app):
                for id, left in self._left.items():
                    asked = self._state.load(f"{REQUESTS}/{id}", CarryOut) if app in left else None
                    if asked is not None:
                        self._apps.tell(asked)
            case OperationOpened(operation=operation):
                if operation.id not in self._running and self._ledger.operation(operation.id) is None:
                    self._open(operation)
            case StepChanged(operation=id, app=app, step=step):
                self._step(id, app, step)
            case OperationLogged(operation=id, text=text):
                self._log(id, text)
            case PartEnded():
                self._part_ended(message)
            case FlushLogs():
                self._flush = None
                self._save_logs()
            case CancelOperation(id=id):
                self._cancel(id)
            case GetOperation(id=id):
                return self._find(id)
            case GetDeploys():
                return tuple(self._totals_of(app) for app in sorted(self._current()))
            case GetOperations():
                return self._page(message)
            case GetRevisions():
                return self._revisions(message)
            case _:
                return super().receive(message)
        return None

    # -- beginning ---------------------------------------------------------------------------------

    def _begin(self, app: str, change: Change, origin: Origin) -> str:
        known = self._current().get(app)
        if known is None:
            raise NotFound(f"There is no app called {app}.")
        kind = _kind(change)
        if kind != RUNS_BESIDE:
            self._refuse_if_busy((app,))
        id = self._new_id()
        ask = CarryOut(operation=id, app=app, change=change, origin=origin)
        self._state.save(f"{REQUESTS}/{id}", ask)
        self._open(
            Operation(
                id=id,
                kind=kind,
                apps=(app,),
                project=known.project,
                by=origin.by,
                message=origin.message,
                git=origin.git,
                started=self._stamp(time.time()),
            )
        )
        self._apps.tell(ask)
        return id

    def _reserve(self, message: ReserveOperation) -> None:
        try:
            self._refuse_if_busy(message.apps)
        except Conflict as error:
            message.reply_to.tell(OperationRefused(request=message.request, reason=str(error)))
            return
        id, origin = self._new_id(), message.origin
        self._open(
            Operation(
                id=id,
                kind="deploy",
                apps=message.apps,
                project=message.project,
                by=origin.by,
                message=origin.message,
                git=origin.git,
                started=self._stamp(time.time()),
            )
        )
        message.reply_to.tell(OperationReserved(request=message.request, operation=id, apps=message.apps))

    def _refuse_if_busy(self, apps: tuple[str, ...]) -> None:
        for operation in self._running.values():
            busy = sorted(self._left[operation.id] & set(apps))
            if busy and operation.kind != RUNS_BESIDE:
                raise Conflict(f"{busy[0]} is being changed already: operation {operation.id} ({operation.kind})")

    def _open(self, operation: Operation) -> None:
        self._running[operation.id] = operation
        self._left[operation.id] = set(operation.apps)
        self._began[operation.id] = time.monotonic()
        self._ledger.save_operation(operation)
        if not operation.apps:
            self._end(operation, "succeeded", "")

    # -- how it goes -------------------------------------------------------------------------------

    def _step(self, id: str, app: str, step: Step) -> None:
        operation = self._running.get(id)
        if operation is None:
            return
        if len(operation.apps) > 1:
            step = replace(step, name=f"{app}: {step.name}")
        others = [known for known in operation.steps if known.name != step.name]
        place = next((i for i, known in enumerate(operation.steps) if known.name == step.name), len(others))
        changed = replace(operation, steps=(*others[:place], step, *others[place:]))
        self._running[id] = changed
        before = next((known for known in operation.steps if known.name == step.name), None)
        if before is None or before.state != step.state:
            self._save(changed)
        else:
            self._save_soon(id)

    def _log(self, id: str, text: str) -> None:
        operation = self._running.get(id)
        if operation is not None:
            whole = operation.log + text
            cut = max(0, len(whole) - LOG_CHARACTERS)
            self._running[id] = replace(operation, log=whole[cut:], log_cut=operation.log_cut + cut)
            self._save_soon(id)

    def _save(self, operation: Operation) -> None:
        self._unsaved.discard(operation.id)
        self._ledger.save_operation(operation)

    def _save_soon(self, id: str) -> None:
        self._unsaved.add(id)
        if self._flush is None:
            self._flush = self.after(FLUSH_SECONDS, FlushLogs())

    def _save_logs(self) -> None:
        for id in list(self._unsaved):
            if id in self._running:
                self._ledger.save_operation(self._running[id])
        self._unsaved.clear()

    def _part_ended(self, message: PartEnded) -> None:
        operation = self._running.get(message.operation)
        if operation is None or message.app not in self._left[operation.id]:
            return
        self._left[operation.id].discard(message.app)
        if operation.kind in COUNTED:
            self._total(message.app, message.state, time.monotonic() - self._began[operation.id])
        app, several = message.app, len(operation.apps) > 1
        if message.revision is not None:
            operation = replace(operation, revisions={**operation.revisions, app: message.revision})
        if message.receipt is not None:
            receipts = {**operation.receipts, app: message.receipt}
            operation = replace(operation, receipts=receipts, receipt=_summed(list(receipts.values())))
        if message.evidence:
            operation = replace(operation, evidence={**operation.evidence, app: message.evidence})
        if message.exit_code is not None:
            operation = replace(operation, exit_code=message.exit_code)
        words = f"{app}: {message.reason}" if several and message.reason else message.reason
        reason = "; ".join(part for part in (operation.reason, words) if part)
        operation = replace(operation, reason=reason, parts={**operation.parts, app: message.state})
        worst = max(self._worst.pop(operation.id, "succeeded"), message.state, key=lambda state: _SEVERITY[state])
        if self._left[operation.id]:
            self._running[operation.id], self._worst[operation.id] = operation, worst
            self._save(operation)
        else:
            self._end(operation, worst, reason)

    def _total(self, app: str, state: str, seconds: float) -> None:
        before, seconds = self._totals_of(app), max(0.0, seconds)
        results = {**before.results, state: before.results.get(state, 0) + 1}
        durations = before.durations
        if state == "succeeded":
            counts = list(durations.counts)
            counts[bisect_left(DEPLOY_BUCKETS, seconds)] += 1
            durations = Histogram(counts=tuple(counts), total=durations.total + seconds)
        self._totals[app] = DeployTotals(app=app, results=results, durations=durations)
        self._totals = {name: row for name, row in self._totals.items() if name == app or name in self._current()}
        self._state.save(TOTALS, DeploysSaved(rows=tuple(self._totals.values())))

    def _totals_of(self, app: str) -> DeployTotals:
        """With 0 for what never happened: a counter that appears with 1 never rose, for who watches it."""
        row = self._totals.get(app) or DeployTotals(app=app, results={}, durations=_NO_DURATIONS)
        return replace(row, results={**dict.fromkeys(DEPLOY_RESULTS, 0), **row.results})

    def _end(self, operation: Operation, state: OperationState, reason: str) -> None:
        ended = replace(operation, state=state, reason=reason, ended=self._stamp(time.time()))
        self._running.pop(operation.id, None)
        self._left.pop(operation.id, None)
        self._began.pop(operation.id, None)
        self._unsaved.discard(operation.id)
        self._ledger.save_operation(ended)
        self._state.delete(f"{REQUESTS}/{operation.id}")
        self._events.tell(
            RecordEvent(
                kind=f"operation.{state}",
                app=operation.apps[0] if len(operation.apps) == 1 else None,
                reason=f"{operation.kind} {operation.id}" + (f": {reason}" if reason else ""),
                detail={"operation": operation.id, "kind": operation.kind, "by": operation.by},
            )
        )

    def _cancel(self, id: str) -> None:
        operation = self._find(id)
        if operation.state != "running":
            raise Conflict(f"The operation has {operation.state} already.")
        for app in sorted(self._left[id]):
            self._apps.tell(CancelChange(operation=id, app=app, by="the user"))

    # -- answering ---------------------------------------------------------------------------------

    def _find(self, id: str) -> Operation:
        operation = self._running.get(id) or self._ledger.operation(id)
        if operation is None:
            raise NotFound(f"There is no operation {id}.")
        return operation

    def _page(self, query: GetOperations) -> OperationPage:
        page = self._ledger.operations(query)
        items = tuple(replace(self._running.get(item.id, item), log="") for item in page.items)
        return replace(page, items=items)

    def _revisions(self, query: GetRevisions) -> RevisionPage:
        page = self._ledger.revisions(query)
        if not page.items and query.before is None and query.app not in self._current():
            raise NotFound(f"There is no app called {query.app}.")
        return replace(page, items=tuple(replace(item, spec=None) for item in page.items))


_NO_DURATIONS = Histogram(counts=(0,) * (len(DEPLOY_BUCKETS) + 1), total=0.0)


def _in_buckets(row: DeployTotals) -> DeployTotals:
    """Durations that another version counted in other buckets begin anew."""
    return row if len(row.durations.counts) == len(_NO_DURATIONS.counts) else replace(row, durations=_NO_DURATIONS)


def _seconds_since(stamp: str, now: float) -> float:
    """``now`` is Unix seconds; never less than 0, whatever the clock was."""
    began = parse_ns(stamp)
    return max(0.0, now - began / 1e9) if began is not None else 0.0


_SEVERITY = {"succeeded": 0, "cancelled": 1, "failed": 2}


def _kind(change: Change) -> str:
    if isinstance(change, RollbackApp):
        return "rollback"
    return RUNS_BESIDE if isinstance(change, RunCommand) else KINDS[type(change)]


def _summed(receipts: list[Receipt]) -> Receipt:
    """Of several apps at once: counts add up, times are the worst."""
    first, *others = receipts
    for other in others:
        first = Receipt(
            requests={name: first.requests[name] + other.requests[name] for name in first.requests},
            failed=first.failed + other.failed,
            held=first.held + other.held,
            held_max_ms=max(first.held_max_ms, other.held_max_ms),
            p95_before_ms=_worse(first.p95_before_ms, other.p95_before_ms),
            p95_after_ms=_worse(first.p95_after_ms, other.p95_after_ms),
            websockets_drained=first.websockets_drained + other.websockets_drained,
            seconds=max(first.seconds, other.seconds),
        )
    return first


def _worse(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else max(a, b)
