"""DeployActor: what one app should run, and how it gets there. One change at a time goes through its phases: prepare
(image), release (jobs that come before), switch (the AppActor's work), canary, count (what visitors noticed)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from ..core.canary import Sample, judge, slow_above
from ..core.masking import differences
from ..core.merging import merged, rolled_back
from ..core.model import App, Rotate
from ..core.specs import Secrets, fingerprint
from ..errors import EngineError, EngineUnreachable, Invalid, NextDeployError, StateError
from ..messages.containers import (
    AbandonRevision,
    AccountFor,
    ApplyApp,
    CancelChange,
    CarryOut,
    HighestSeen,
    RecordEvent,
    RemoveEverything,
    RetryApp,
    RevisionFailing,
    RevisionHolding,
    RevisionProgress,
    RevisionRefused,
    RevisionServes,
    RevisionSettled,
    RunRevision,
    ShowDeploy,
    TellService,
)
from ..messages.deployments import (
    KINDS,
    DeployRecord,
    Outcome,
    Pending,
    accepted,
    begun,
    changed,
    receipt_of,
    refused,
)
from ..messages.hooks import SendHooks
from ..messages.jobs import CancelJob, JobEnded, JobOutput, JobSettings, RunJob
from ..messages.operations import (
    Change,
    Difference,
    GetRevisions,
    Operation,
    OperationLogged,
    OperationOpened,
    OperationState,
    Origin,
    PartEnded,
    Receipt,
    Revision,
    RollbackApp,
    RunCommand,
    Step,
    StepChanged,
    StepState,
)
from ..messages.queries import ContainerView
from ..messages.records import SETTLE_SECONDS, GetTraffic, Traffic, TrafficSummary
from ..ports import ContainerEngine, Ledger, Listeners, StateStore
from ..runtime.actor import Actor
from ..runtime.ref import Ref
from ..runtime.timers import Task, Timer
from .deploy_work import Diagnosed, Prepared, Workshop, diagnose, prepare

ENGINE_RETRY_SECONDS = 2.0
BEFORE_SECONDS = 10.0
AFTER_SECONDS = 3.0
"""How long before and after a switch requests count for its receipt."""
LOOK_SECONDS = 1.0
"""How often a canary is judged."""


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


@dataclass(frozen=True)
class PrepareAgain:
    operation: str


class CountDue: ...


@dataclass(frozen=True)
class Counted:
    receipt: Receipt | None


class LookDue: ...


@dataclass(frozen=True)
class Looked:
    old: Sample
    new: Sample


@dataclass(frozen=True)
class Pruned:
    names: list[str]


class DeployActor(Actor):
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
        self._next: tuple[App, Origin] | None = None
        """What the files say since a change of somebody else's began."""

    def on_start(self) -> None:
        around = self._around
        self._record = around.state.load(self._record_name, DeployRecord) or DeployRecord()
        record = self._record
        if record.live is not None:
            self._seen = record.highest
            # the AppActor knows it already, unless its own record was lost
            if record.pending is None or record.pending.phase in ("prepare", "release"):
                around.app.tell(RunRevision(app=record.live, revision=record.number))
            around.jobs.tell(JobSettings(app=record.live, revision=record.number))
        if record.pending is not None:
            self._seen = record.highest
            self._resume(record.pending)
        wanted = around.wanted()
        self.receive(ApplyApp(app=None) if wanted is None else ApplyApp(app=wanted[0], origin=wanted[1]))

    def receive(self, message: object) -> None:
        match message:
            case HighestSeen(revision=revision):
                self._highest_seen(revision)
            case ApplyApp() | CarryOut() | AccountFor() if self._seen is None:
                self._waiting.append(message)
                if isinstance(message, ApplyApp) and message.app is not None:
                    self._show(message.app, "waiting for the engine")
                if isinstance(message, ApplyApp) and message.app is None:
                    self._around.app.tell(RemoveEverything())
            case ApplyApp(app=app, origin=origin):
                self._apply(app, origin)
            case CarryOut(operation=operation, change=change, origin=origin):
                self._carry_out(change, replace(origin, operation=operation))
            case AccountFor(operation=operation):
                self._account_for(operation)
            case CancelChange(operation=operation, by=by):
                self._cancel(operation, by)
            case Prepared():
                self._prepared(message)
            case PrepareAgain(operation=operation):
                if self._is_on(operation, "prepare"):
                    self._prepare()
            case JobOutput(key=key, text=text):
                self._log(self._operation_of(key), text)
            case JobEnded():
                self._job_ended(message)
            case RevisionProgress(revision=revision, up=up, wanted=wanted):
                if self._on_revision(revision):
                    self._step("start", "running", f"{up} of {wanted} are up")
            case RevisionHolding(revision=revision, canaries=canaries):
                self._holding(revision, canaries)
            case LookDue():
                self._look()
            case Looked(old=old, new=new):
                self._judge(old, new)
            case RevisionServes(revision=revision):
                self._serves(revision)
            case RevisionSettled():
                self._settled(message)
            case RevisionFailing():
                self._failing(message)
            case Diagnosed():
                self._diagnosed(message)
            case RevisionRefused():
                self._refused(message)
            case CountDue():
                self._count()
            case Counted(receipt=receipt):
                self._finish(receipt)
            case Pruned(names=names):
                if names:
                    self._event("images.removed", f"{len(names)} old images", {"images": names})
            case RetryApp() | TellService():
                self._around.app.tell(message)
            case _:
                super().receive(message)

    # -- what is wanted ----------------------------------------------------------------------------

    def _highest_seen(self, revision: int) -> None:
        if self._seen is None:
            self._seen = revision
            self._record = replace(self._record, highest=max(self._record.highest, revision))
            waiting, self._waiting = self._waiting, []
            for message in waiting:
                self.receive(message)

    def _apply(self, app: App | None, origin: Origin) -> None:
        """What the files say."""
        record, around = self._record, self._around
        pending = record.pending
        if app is None:
            self._end_pending("cancelled", "the app was removed")
            around.jobs.tell(JobSettings(app=None, revision=0))
            around.app.tell(RemoveEverything())
            around.state.delete(self._record_name)
            self._record = DeployRecord(highest=self._record.highest)
            return
        if pending is not None and pending.base == app and origin.operation in ("", pending.operation):
            return  # it is on its way
        if pending is not None and pending.base is None and pending.outcome is None:
            if app != record.base or origin.operation:
                self._next = (app, origin)  # somebody's own change is let finish first
            return
        if pending is not None:
            self._end_pending("cancelled", f"superseded by a newer change ({origin.by})")
            record = self._record
        if record.live is None or record.base is None:
            self._begin(Pending(kind="deploy", origin=origin, target=app, base=app))
            return
        from_file = not origin.operation
        if from_file and app == record.base:
            around.app.tell(RetryApp())
            return
        if from_file and app == record.attempted:
            self._event("deploy.refused", "this version did not come up before; change it to have it tried again")
            return
        target = merged(record.base, record.live, app)
        if origin.operation:
            target = replace(target, stopped=False)
        if target.build is not None:
            target = replace(target, image_id=None)  # whether its files are still the same, the image cache knows
        self._begin(Pending(kind="deploy", origin=origin, target=target, base=app))

    def _carry_out(self, change: Change, origin: Origin) -> None:
        record = self._record
        if self._known(origin.operation):
            return
        if record.live is None:
            if isinstance(change, RunCommand) or record.pending is not None:
                self._part(origin.operation, "failed", f"{self._name} has no version that runs yet")
                return
            wanted = self._around.wanted()
            if wanted is None:
                self._part(origin.operation, "failed", f"there is no app called {self._name}")
                return
            live, base = wanted[0], wanted[0]
        else:
            live, base = record.live, None
        if isinstance(change, RunCommand):
            self._run(change, origin, live)
            return
        try:
            if isinstance(change, RollbackApp):
                target, source = self._rollback_target(live, change)
                self._begin(Pending(kind="rollback", origin=origin, target=target, rolled_back_from=source))
                return
            self._begin(Pending(kind=KINDS[type(change)], origin=origin, target=changed(live, change), base=base))
        except NextDeployError as error:
            self._part(origin.operation, "failed", str(error))

    def _rollback_target(self, live: App, change: RollbackApp) -> tuple[App, int]:
        """The revision wanted: the one named, or so many versions back; a version that never served does not count."""
        number = self._record.number
        page = self._around.ledger.revisions(GetRevisions(app=self._name, limit=1000))
        former = [row for row in page.items if row.number < number and row.state == "former"]
        if change.to is not None:
            chosen = next((row for row in page.items if row.number == change.to), None)
            if chosen is None:
                raise Invalid(f"{self._name} has no revision {change.to}")
        elif not 1 <= change.steps <= len(former):
            raise Invalid(f"{self._name} has {len(former)} older revisions to go back to")
        else:
            chosen = former[change.steps - 1]
        full = self._around.ledger.revision(self._name, chosen.number)
        if full is None or full.spec is None:
            raise Invalid(f"what revision {chosen.number} ran is not on record any more")
        return rolled_back(live, full.spec), chosen.number

    # -- a change begins ---------------------------------------------------------------------------

    def _begin(self, pending: Pending) -> None:
        around = self._around
        self._end_pending("cancelled", f"superseded by a newer change ({pending.origin.by})")
        self._next = None
        if not pending.origin.operation:
            pending = replace(pending, origin=replace(pending.origin, operation=around.new_operation()))
            self._open(pending)
        self._record = begun(self._record, pending)
        self._save()
        self._steps = {}
        self._prepare()

    def _open(self, pending: Pending) -> None:
        self._around.operations.tell(
            OperationOpened(
                operation=Operation(
                    id=pending.operation,
                    kind=pending.kind,
                    apps=(self._name,),
                    project=pending.target.project,
                    by=pending.origin.by,
                    message=pending.origin.message,
                    git=pending.origin.git,
                    started=around_now(self._around),
                )
            )
        )

    def _resume(self, pending: Pending) -> None:
        """A daemon, or a life of this actor, ended in the middle: that phase begins again."""
        self._open(pending)  # if it is on record already, nothing happens
        self._log(pending.operation, f"going on with {pending.phase} after a restart\n")
        self._canaries = ()
        if pending.outcome is not None:
            self._count_soon()
        elif pending.phase == "prepare":
            self._prepare()
        elif pending.phase == "release":
            self._release()
        else:
            self._switch()

    def _prepare(self) -> None:
        pending, around = self._pending(), self._around
        self._step("prepare", "running")
        self._show(pending.target, "preparing its image")
        operation, app = pending.operation, pending.target
        secrets, origin = around.secrets(), pending.origin

        def work() -> Prepared:
            return prepare(
                around.workshop,
                app,
                secrets,
                rebuild=origin.rebuild,
                pull=origin.pull,
                say=lambda text: self._log(operation, text if text.endswith("\n") else text + "\n"),
            )

        self._busy(work, lambda done, error: done if error is None else Prepared(None, error=error))

    def _prepared(self, done: Prepared) -> None:
        self._work = None
        pending = self._pending()
        if done.error is not None:
            self._not_prepared(pending, done.error)
            return
        assert done.app is not None
        self._step("prepare", "succeeded", done.words)
        origin = pending.origin
        if done.sha is not None:
            git = origin.git
            origin = replace(origin, git=replace(git, sha=done.sha) if git is not None else None)
        pending = replace(pending, target=done.app, origin=origin)
        record = self._record
        mark = self._fingerprint(done.app)
        if record.live is not None and mark == record.fingerprint and _same(record.live, done.app):
            self._nothing_changed(pending)
            return
        before = record.live
        rows = differences(_shown(before) if before is not None else {}, _shown(done.app))
        number = self._next_number()
        pending = replace(pending, number=number, phase="release", diff=tuple(rows))
        self._record = begun(replace(record, highest=number), pending)
        self._save()
        self._release()

    def _next_number(self) -> int:
        """No number is used twice. What an engine has, while nothing is on record, is taken for the first."""
        record, seen = self._record, self._seen or 0
        newest = self._around.ledger.revisions(GetRevisions(app=self._name, limit=1)).items
        known = max((row.number for row in newest), default=0)
        if record.live is None and not known:
            return max(1, seen)
        return max(record.highest, record.number, seen, known) + 1

    def _not_prepared(self, pending: Pending, error: BaseException) -> None:
        if isinstance(error, EngineUnreachable):
            self._step("prepare", "running", str(error))
            self._show(pending.target, str(error))
            self.after(ENGINE_RETRY_SECONDS, PrepareAgain(pending.operation))
            return
        if not isinstance(error, NextDeployError):
            raise error
        self._step("prepare", "failed", str(error).splitlines()[0][:500])
        self._log(pending.operation, f"{error}\n")
        self._outcome("failed", str(error))
        self._finish(None)

    def _nothing_changed(self, pending: Pending) -> None:
        """The very same runs already; only what the file says is newer."""
        record = self._record
        outcome = Outcome(
            operation=pending.operation,
            state="succeeded",
            reason=f"nothing changed: revision {record.number} runs this already",
            revision=record.number,
        )
        self._record = accepted(begun(record, replace(pending, number=0)), record.fingerprint, outcome)
        self._save()
        self._show(pending.target)
        self._around.app.tell(RetryApp())
        self._tell_part(outcome)
        self._apply_next()

    # -- before the switch -------------------------------------------------------------------------

    def _release(self) -> None:
        pending = self._pending()
        self._releases = [
            process.name
            for process in pending.target.processes.values()
            if process.schedule == "@deploy" and pending.kind == "deploy"
        ]
        self._next_release()

    def _next_release(self) -> None:
        pending = self._pending()
        if not self._releases:
            pending = replace(pending, phase="switch", switch_began=time.time())
            self._record = begun(self._record, pending)
            self._save()
            self._switch()
            return
        name = self._releases[0]
        process = pending.target.processes[name]
        self._step(f"release {name}", "running")
        self._show(pending.target, f"running {name}")
        self._around.jobs.tell(
            RunJob(
                key=_release_key(name, pending.number),
                process=process,
                app=pending.target,
                revision=pending.number,
                kind="release",
                operation=pending.operation,
                timeout=process.timeout,
                reply_to=self.ref,
            )
        )

    def _job_ended(self, message: JobEnded) -> None:
        pending = self._record.pending
        if message.key.startswith("run-"):
            self._run_ended(message)
            return
        if pending is None or pending.phase != "release" or not self._releases:
            return
        name = self._releases[0]
        if message.key != _release_key(name, pending.number):
            return
        if message.exit_code == 0:
            self._step(f"release {name}", "succeeded", f"took {message.seconds:.1f} s")
            self._releases.pop(0)
            self._next_release()
            return
        self._step(f"release {name}", "failed", message.reason)
        self._outcome("failed", f"`{name}`, which runs before the switch, failed: {message.reason}")
        self._finish(None)

    # -- the switch --------------------------------------------------------------------------------

    def _switch(self) -> None:
        """Let the AppActor run it. On record first, so that whoever comes after knows what was tried."""
        pending = self._pending()
        self._around.ledger.save_revision(self._revision(pending, "pending"))
        if pending.kind in ("deploy", "rollback"):
            self._event("deploy.started", f"revision {pending.number}", {"revision": pending.number})
        self._step("start", "running")
        self._show(pending.target, f"starting revision {pending.number}")
        self._around.app.tell(
            RunRevision(app=pending.target, revision=pending.number, canary=self._canary_share(pending))
        )

    def _canary_share(self, pending: Pending) -> float | None:
        """None once it gets everything, or if it is no canary."""
        deploy = pending.target.deploy
        steps = [step for step in deploy.canary.steps if step < 100]
        is_canary = deploy.strategy == "canary" and pending.kind in ("deploy", "rollback", "env", "secrets")
        if not is_canary or self._record.live is None or pending.stage >= len(steps):
            return None
        return float(steps[pending.stage])

    def _serves(self, revision: int) -> None:
        if self._on_revision(revision):
            self._step("start", "succeeded", "all are up and get requests")
            self._step("drain", "running")

    def _settled(self, message: RevisionSettled) -> None:
        if not self._on_revision(message.revision):
            self._late_success(message.revision)
            return
        self._end_look()
        self._step("start", "succeeded", "all are up and get requests")
        drained = f"{message.websockets} WebSockets drained" if message.websockets else ""
        self._step("drain", "succeeded", drained)
        self._outcome("succeeded", "", websockets=message.websockets)
        self._count_soon()

    def _late_success(self, revision: int) -> None:
        """A first version that did not come up in time came up after all."""
        known = self._around.ledger.revision(self._name, revision)
        if known is not None and revision == self._record.number and known.state == "refused":
            self._around.ledger.save_revision(replace(known, state="current", reason=""))

    def _failing(self, message: RevisionFailing) -> None:
        if not self._on_revision(message.revision):
            self._around.app.tell(AbandonRevision(revision=message.revision, reason="nobody waits for it any more"))
            return
        around, view = self._around, message.container
        self._end_look()
        self._busy(
            lambda: diagnose(around.container_engine, around.listeners, view),
            lambda done, error: done if error is None else Diagnosed(_words(error, view)),
        )

    def _diagnosed(self, done: Diagnosed) -> None:
        self._work = None
        pending = self._pending()
        if done.tail:
            self._log(pending.operation, "its last lines:\n" + "".join(f"    {line}\n" for line in done.tail))
        self._around.app.tell(AbandonRevision(revision=pending.number, reason=done.reason))

    def _refused(self, message: RevisionRefused) -> None:
        if not self._on_revision(message.revision):
            return
        self._end_look()
        pending = self._pending()
        cancelled = message.reason.startswith(CANCELLED)
        self._step("start", "failed", message.reason)
        self._outcome("cancelled" if cancelled else "failed", message.reason, websockets=message.websockets)
        self._log(pending.operation, f"revision {message.revision}: {message.reason}\n")
        self._count_soon()

    # -- a canary ----------------------------------------------------------------------------------

    def _holding(self, revision: int, canaries: tuple[str, ...]) -> None:
        if not self._on_revision(revision):
            return
        pending = self._pending()
        self._canaries = canaries
        if pending.phase != "canary" or self._timer is None:
            self._record = begun(self._record, replace(pending, phase="canary"))
            self._save()
            self._stage_began = time.time()
            self._step("start", "succeeded", f"{len(canaries)} up beside the old version")
            self._step(self._stage_name(), "running")
            self._timer = self.after(LOOK_SECONDS, LookDue())

    def _stage_name(self) -> str:
        share = self._canary_share(self._pending())
        return f"canary {share:g} %"

    def _look(self) -> None:
        pending, around, name = self._pending(), self._around, self._name
        since, until = self._stage_began, time.time() - SETTLE_SECONDS
        canaries, settings = self._canaries, pending.target.deploy.canary

        def work() -> Looked:
            query = GetTraffic(app=name, since=since, until=max(since, until))
            found = around.traffic(query)
            old = _sample([row for id, row in found.containers.items() if id and id not in canaries])
            limit = slow_above(settings, old)
            if limit is not None:
                found = around.traffic(replace(query, over_ms=limit))
            return Looked(old, _sample([row for id, row in found.containers.items() if id in canaries]))

        self._busy(work, lambda done, error: done if error is None else _state_error(error, Looked(NONE, NONE)))

    def _judge(self, old: Sample, new: Sample) -> None:
        self._work = None
        pending = self._record.pending
        if pending is None or pending.phase != "canary" or pending.outcome is not None or self._timer is None:
            return
        settings = pending.target.deploy.canary
        held = time.time() - self._stage_began
        verdict = judge(settings, old, new, held)
        name = self._stage_name()
        if verdict.what == "wait":
            self._step(name, "running", f"{new.requests} requests, {new.failed} failed; {verdict.reason}")
            self._timer = self.after(LOOK_SECONDS, LookDue())
            return
        evidence = {
            "stage": name,
            "verdict": verdict.what,
            "reason": verdict.reason,
            "seconds": round(held, 1),
            "old": {"requests": old.requests, "failed": old.failed, "p95_ms": old.p95_ms},
            "new": {"requests": new.requests, "failed": new.failed, "p95_ms": new.p95_ms, "over": new.over},
        }
        self._log(pending.operation, f"{name}: {verdict.what}: {verdict.reason}\n")
        self._end_look()
        pending = replace(pending, evidence=evidence)
        self._record = begun(self._record, pending)
        self._save()
        if verdict.what == "roll back":
            self._step(name, "failed", verdict.reason)
            self._event("canary.rolled_back", verdict.reason, evidence)
            self._around.app.tell(AbandonRevision(revision=pending.number, reason=f"canary: {verdict.reason}"))
            return
        self._step(name, "succeeded", verdict.reason)
        self._event("canary.promoted", verdict.reason, evidence)
        self._record = begun(self._record, replace(pending, phase="switch", stage=pending.stage + 1))
        self._save()
        self._switch()

    def _end_look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- the end -----------------------------------------------------------------------------------

    def _outcome(self, state: OperationState, reason: str, websockets: int = 0) -> None:
        """How it ends is known, and on record before anything is told."""
        pending = self._pending()
        outcome = Outcome(
            operation=pending.operation,
            state=state,
            reason=reason,
            revision=pending.number or None,
            evidence=pending.evidence,
        )
        pending = replace(pending, outcome=outcome, switch_ended=time.time(), websockets=websockets)
        self._record = begun(self._record, pending)
        self._save()

    def _count_soon(self) -> None:
        pending = self._pending()
        self._show(pending.target)
        self._step("receipt", "running")
        wait = pending.switch_ended + AFTER_SECONDS + SETTLE_SECONDS - time.time()
        self.after(max(0.0, wait), CountDue())

    def _count(self) -> None:
        pending, around, name = self._record.pending, self._around, self._name
        if pending is None or pending.outcome is None:
            return
        began, ended = pending.switch_began, pending.switch_ended
        edges = (began - BEFORE_SECONDS, began, ended, ended + AFTER_SECONDS)
        windows = {
            word: (around.stamp(edges[i]), around.stamp(edges[i + 1]))
            for i, word in enumerate(("before", "during", "after"))
        }

        def work() -> Counted:
            rows = [around.traffic(GetTraffic(app=name, since=edges[i], until=edges[i + 1])).all for i in range(3)]
            return Counted(receipt_of(*rows, windows, pending.websockets, ended - began))

        self._busy(work, lambda done, error: done if error is None else _state_error(error, Counted(None)))

    def _finish(self, receipt: Receipt | None) -> None:
        """Tell everybody, remember, and clean up after it."""
        self._work = None
        record, pending, around = self._record, self._pending(), self._around
        outcome = pending.outcome
        assert outcome is not None
        outcome = replace(outcome, receipt=receipt)
        good = outcome.state == "succeeded"
        if pending.switch_began:
            self._step("receipt", "succeeded" if receipt is not None else "failed")
        if good:
            self._record = accepted(record, self._fingerprint(pending.target), outcome)
        else:
            self._record = refused(record, outcome, stays=record.live is None)
        if pending.number:
            self._ledger_result(pending, outcome)
        self._save()
        live = self._record.live
        if live is not None:
            around.jobs.tell(JobSettings(app=live, revision=self._record.number))
            self._show(live)
        else:
            self._show(pending.target, outcome.reason, failed=True)
        self._announce(pending, outcome)
        self._tell_part(outcome)
        if good and pending.kind == "deploy":
            self._prune(pending.target)
        self._apply_next()

    def _apply_next(self) -> None:
        waiting, self._next = self._next, None
        if waiting is not None:
            self._apply(*waiting)

    def _ledger_result(self, pending: Pending, outcome: Outcome) -> None:
        ledger, good = self._around.ledger, outcome.state == "succeeded"
        if good:
            for row in ledger.revisions(GetRevisions(app=self._name, limit=20)).items:
                if row.state == "current":
                    full = ledger.revision(self._name, row.number)
                    if full is not None and full.number != pending.number:
                        ledger.save_revision(replace(full, state="former"))
        state = "current" if good else "refused"
        ledger.save_revision(replace(self._revision(pending, state), reason=outcome.reason))

    def _announce(self, pending: Pending, outcome: Outcome) -> None:
        if pending.kind not in ("deploy", "rollback"):
            words = f"{pending.kind}: {outcome.reason or f'revision {pending.number}'}"
            self._event("app.changed" if outcome.state == "succeeded" else "app.change_failed", words)
            return
        kind = "deploy.succeeded" if outcome.state == "succeeded" else "deploy.failed"
        detail: dict[str, Any] = {
            "revision": pending.number or None,
            "operation": pending.operation,
            "by": pending.origin.by,
            "receipt": _plain(outcome.receipt) if outcome.receipt is not None else None,
        }
        words = f"revision {pending.number}" if pending.number else pending.kind
        self._event(kind, words + (f": {outcome.reason}" if outcome.reason else ""), detail)
        payload = {**detail, "app": self._name, "project": pending.target.project, "reason": outcome.reason}
        payload |= {"git": _plain(pending.origin.git), "message": pending.origin.message, "kind": pending.kind}
        self._around.hooks.tell(SendHooks(event=kind, app=self._name, payload=payload))

    def _prune(self, app: App) -> None:
        images, name, ledger = self._around.workshop.images, self._name, self._around.ledger
        if images is None:
            return
        kept = {app.image_id} if app.image_id else set()
        for row in ledger.revisions(GetRevisions(app=name, limit=1000)).items:
            if row.state in ("current", "former") and row.image_id:
                if len(kept) >= app.deploy.keep:
                    break
                kept.add(row.image_id)
        ids = [id for id in kept if id]
        self._busy(
            lambda: Pruned(images.prune(app.project, name, ids)),
            lambda done, error: done if error is None else _engine_error(error, Pruned([])),
        )

    # -- stopping it -------------------------------------------------------------------------------

    def _cancel(self, operation: str, by: str) -> None:
        pending = self._record.pending
        if operation.startswith("run") or pending is None or pending.operation != operation:
            self._around.jobs.tell(CancelJob(key=f"run-{operation}"))
            return
        reason = f"{CANCELLED} by {by}"
        if pending.outcome is not None:
            return  # it is over; only its receipt is missing
        if pending.phase in ("switch", "canary"):
            self._around.app.tell(AbandonRevision(revision=pending.number, reason=reason))
            return
        self._end_pending("cancelled", reason)

    def _end_pending(self, state: OperationState, reason: str) -> None:
        """Whatever is under way is over. In the switch the AppActor is told by what comes next."""
        pending = self._record.pending
        if pending is None:
            return
        if self._work is not None:
            self._work.cancel()
            self._work = None
        self._end_look()
        if pending.phase == "release" and self._releases:
            self._around.jobs.tell(CancelJob(key=_release_key(self._releases[0], pending.number)))
        if pending.outcome is None:
            outcome = Outcome(operation=pending.operation, state=state, reason=reason, revision=pending.number or None)
            self._record = refused(self._record, outcome, stays=False)
            self._record = replace(self._record, attempted=None)
            if pending.switch_began:
                self._ledger_result(pending, outcome)
        else:
            outcome = pending.outcome
            if outcome.state == "succeeded":
                self._record = accepted(self._record, self._fingerprint(pending.target), outcome)
            else:
                self._record = refused(self._record, outcome, stays=self._record.live is None)
            self._ledger_result(pending, outcome)
        self._save()
        self._tell_part(outcome)

    # -- one-offs ----------------------------------------------------------------------------------

    def _run(self, change: RunCommand, origin: Origin, live: App) -> None:
        process = live.processes.get(change.process)
        if process is None:
            self._part(origin.operation, "failed", f"{self._name} has no process `{change.process}`")
            return
        self._step_of(origin.operation, Step(name="run", state="running", started=around_now(self._around)))
        self._around.jobs.tell(
            RunJob(
                key=f"run-{origin.operation}",
                process=replace(process, command=change.command, schedule=None),
                app=live,
                revision=self._record.number,
                kind="run",
                operation=origin.operation,
                timeout=change.timeout,
                reply_to=self.ref,
            )
        )

    def _run_ended(self, message: JobEnded) -> None:
        operation = message.key.removeprefix("run-")
        good = message.exit_code == 0
        step = Step(
            name="run",
            state="succeeded" if good else "failed",
            seconds=round(message.seconds, 3),
            detail=message.reason,
        )
        self._step_of(operation, step)
        self._around.operations.tell(
            PartEnded(
                operation=operation,
                app=self._name,
                state="succeeded" if good else "failed",
                reason="" if good else message.reason,
                exit_code=message.exit_code,
                revision=self._record.number,
            )
        )

    def _operation_of(self, key: str) -> str:
        pending = self._record.pending
        return key.removeprefix("run-") if key.startswith("run-") or pending is None else pending.operation

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

    def _fingerprint(self, app: App) -> str:
        return fingerprint(app, self._around.engine, self._around.rotate, self._around.secrets())

    def _busy(self, work: Callable[[], object], then: Callable[[Any, BaseException | None], object]) -> None:
        self._work = self.run(work, then)

    def _save(self) -> None:
        self._around.state.save(self._record_name, self._record)


CANCELLED = "cancelled"
NONE = Sample(0, 0)


def around_now(around: DeploySurroundings) -> str:
    return around.stamp(time.time())


def _release_key(process: str, number: int) -> str:
    return f"{process}-{number}-release"


def _same(live: App, target: App) -> bool:
    """But for where the image was made from."""
    return replace(live, build=None) == replace(target, build=None)


def _shown(app: App) -> dict[str, Any]:
    """As a tree for a diff: what nobody changed by hand is left out."""
    tree: dict[str, Any] = _plain(app)
    for key in ("name", "project", "build"):
        tree.pop(key, None)
    return tree


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value)


def _sample(rows: list[Traffic]) -> Sample:
    """Of several containers; their 95th percentile is the worst of those with a fair share of requests."""
    total = sum(row.requests for row in rows)
    times = [row.p95_ms for row in rows if row.p95_ms is not None and row.requests * len(rows) * 2 >= total]
    return Sample(
        requests=total,
        failed=sum(row.failed for row in rows),
        p95_ms=max(times, default=None),
        over=sum(row.over for row in rows),
    )


def _words(error: BaseException, view: ContainerView | None) -> str:
    if not isinstance(error, EngineError):
        raise error
    return view.reason if view is not None and view.reason else str(error)


def _state_error(error: BaseException, otherwise: Any) -> Any:
    """The record store cannot answer now: that is no reason to crash."""
    if not isinstance(error, StateError):
        raise error
    return otherwise


def _engine_error(error: BaseException, otherwise: Any) -> Any:
    if not isinstance(error, EngineError):
        raise error
    return otherwise
