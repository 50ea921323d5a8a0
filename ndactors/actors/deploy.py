"""DeployActor: what one app should run, and how it gets there. One change at a time goes through its phases: prepare
(image), release (jobs that come before), switch (the AppActor's work), canary, count (what visitors noticed)."""

from __future__ import annotations

import time
from dataclasses import dataclass

from msgspec.structs import replace

from ..core.confining import image_words, more_of_the_machine
from ..core.masking import differences
from ..core.merging import merged, rolled_back
from ..core.model import App
from ..errors import EngineUnreachable, Invalid, NextDeployError
from ..messages.containers import (
    AccountFor,
    ApplyApp,
    CancelChange,
    CarryOut,
    HighestSeen,
    RemoveEverything,
    RetryApp,
    RevisionFailing,
    RevisionHolding,
    RevisionProgress,
    RevisionRefused,
    RevisionServes,
    RevisionSettled,
    RunRevision,
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
    shown,
)
from ..messages.jobs import JobEnded, JobOutput, JobSettings, RunJob
from ..messages.operations import (
    AskAgain,
    Change,
    DeployApp,
    GetRevisions,
    Operation,
    OperationOpened,
    Origin,
    PartEnded,
    RollbackApp,
    RunCommand,
    Step,
)
from .deploy_end import CountDue, Counted, Ending, Pruned
from .deploy_switch import LookDue, Looked, Switching
from .deploy_work import Diagnosed, Prepared, prepare
from .deploying import now_of, release_key

ENGINE_RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class PrepareAgain:
    operation: str


class DeployActor(Switching, Ending):
    def on_start(self) -> None:
        around = self._around
        self._record = around.state.load(self._record_name, DeployRecord) or DeployRecord()
        record = self._record
        if record.live is not None:
            self._seen = record.highest
            # the AppActor knows it already, unless its own record was lost
            if record.pending is None or record.pending.phase in ("prepare", "release"):
                around.app.tell(RunRevision(app=record.live, revision=record.number, configs=record.configs))
            around.jobs.tell(JobSettings(app=record.live, revision=record.number))
        if record.pending is not None:
            self._seen = record.highest
            self._resume(record.pending)
        wanted = around.wanted()
        self.receive(ApplyApp(app=None) if wanted is None else ApplyApp(app=wanted[0], origin=wanted[1]))
        self._catch_up()
        around.operations.tell(AskAgain(app=self._name))

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
            case CountDue(operation=operation):
                if self._record.pending is not None and self._record.pending.operation == operation:
                    self._count()
            case Counted(receipt=receipt):
                self._finish(receipt)
            case Pruned(names=names):
                self._pruning = False
                if names:
                    self._event("images.removed", f"{len(names)} old images", {"images": names})
                if self._record.pending is not None and self._record.pending.phase == "prepare":
                    self._prepare()
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
        if pending is not None and pending.base == app and origin.operation in ("", pending.operation, record.taken):
            return  # it is on its way
        if pending is not None and pending.base is None and pending.outcome is None:
            if app != record.base or origin.operation:
                self._next = (app, origin)  # somebody's own change is let finish first
            return
        if pending is not None and pending.outcome is not None:
            self._next = (app, origin)  # it is over but for its receipt
            return
        if pending is not None:
            self._end_pending("cancelled", f"superseded by a newer change ({origin.by})")
            record = self._record
        told = bool(origin.operation) and origin.operation == record.taken
        if not told:
            self._record = record = replace(record, taken=origin.operation)
        if record.live is None or record.base is None:
            if told and app == record.attempted:
                self._show(app, record.last.reason if record.last is not None else "", failed=True)
                return
            origin = replace(origin, operation="") if told else origin
            self._begin(Pending(kind="deploy", origin=origin, target=app, base=app))
            return
        from_file = told or not origin.operation
        if from_file and app == record.base:
            around.app.tell(RetryApp())
            return
        if from_file and app == record.attempted:
            self._event("deploy.refused", "this version did not come up before; change it to have it tried again")
            return
        # whoever deploys a file after a rollback wants what it says, not what was gone back to
        live = record.live if from_file else record.before_rollback or record.live
        target = merged(record.base, live, app)
        if from_file:
            origin = replace(origin, operation="")
        else:
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
            self._record = record = replace(record, taken=wanted[1].operation)
        else:
            live, base = record.live, None
        if isinstance(change, RunCommand):
            self._run(change, origin, live)
            return
        try:
            if isinstance(change, DeployApp) and change.image is not None:
                self._refuse_image(change.image, live)
            if isinstance(change, RollbackApp):
                target, source = self._rollback_target(live, change)
                self._begin(Pending(kind="rollback", origin=origin, target=target, rolled_back_from=source))
                return
            self._begin(Pending(kind=KINDS[type(change)], origin=origin, target=changed(live, change), base=base))
        except NextDeployError as error:
            self._part(origin.operation, "failed", str(error))

    def _refuse_image(self, image: str, live: App) -> None:
        if self._around.engine == "process":
            raise Invalid(f"{self._name} runs on the host itself, without images")
        words = image_words(image, live.project) if live.project else None
        if words is not None:
            raise Invalid(words)

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
        target = rolled_back(live, full.spec)
        words = more_of_the_machine(target, live) if live.project else None
        if full.spec.project != live.project:
            words = "it was of another project"
        if words is not None:
            raise Invalid(f"revision {chosen.number} cannot be had as it was: {words}")
        return target, chosen.number

    def _after_end(self, *, good: bool) -> None:
        waiting, self._next = self._next, None
        if waiting is not None:
            self._apply(*waiting)
        elif good:
            self._catch_up()

    def _catch_up(self) -> None:
        """Secrets, or settings of the server that every container has, may have changed while nobody acted on it."""
        record = self._record
        if record.live is not None and record.pending is None and self._configs(record.live) != record.configs:
            origin = Origin(by="server", message="its secrets or the server's settings changed")
            self._begin(Pending(kind="refresh", origin=origin, target=record.live))

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
        self._steps, self._canaries = {}, ()
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
                    started=now_of(self._around),
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
        if self._pruning:
            return
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
        record, app = self._record, done.app
        configs = self._configs(app)
        if record.live is not None and configs == record.configs and _same(record.live, app):
            if not record.unproven:
                self._nothing_changed(replace(pending, target=app, origin=origin))
                return
            # it never came up: the same again is another try, with containers of its own
            app = replace(app, nonce=app.nonce + 1)
            configs = self._configs(app)
        pending = replace(pending, target=app, origin=origin)
        before = record.live
        rows = differences(shown(before) if before is not None else {}, shown(app))
        number = self._next_number()
        pending = replace(pending, number=number, phase="release", configs=configs, diff=tuple(rows))
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
        self._record = accepted(begun(record, replace(pending, number=0)), outcome)
        self._save()
        self._show(pending.target)
        self._around.app.tell(RetryApp())
        self._tell_part(outcome)
        self._after_end(good=True)

    # -- before the switch -------------------------------------------------------------------------

    def _release(self) -> None:
        pending, live = self._pending(), self._record.live
        new = pending.kind == "deploy" or live is None
        if live is not None and pending.kind != "rollback":
            # a secret that a new version waited for brings that version
            new = new or (live.image, live.image_id) != (pending.target.image, pending.target.image_id)
        self._releases = [p.name for p in pending.target.processes.values() if new and p.schedule == "@deploy"]
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
                key=release_key(name, pending.number),
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
        if not self._is_release(message.key):
            if message.key.startswith("run-"):
                self._run_ended(message)
            return
        name = self._releases[0]
        if message.exit_code == 0:
            self._step(f"release {name}", "succeeded", f"took {message.seconds:.1f} s")
            self._releases.pop(0)
            self._next_release()
            return
        self._step(f"release {name}", "failed", message.reason)
        self._outcome("failed", f"`{name}`, which runs before the switch, failed: {message.reason}")
        self._finish(None)

    # -- one-offs ----------------------------------------------------------------------------------

    def _run(self, change: RunCommand, origin: Origin, live: App) -> None:
        process = live.processes.get(change.process)
        if process is None:
            self._part(origin.operation, "failed", f"{self._name} has no process `{change.process}`")
            return
        self._step_of(origin.operation, Step(name="run", state="running", started=now_of(self._around)))
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

    def _is_release(self, key: str) -> bool:
        """Whether it is the job that the change under way waits for."""
        pending = self._record.pending
        waits = pending is not None and pending.phase == "release" and bool(self._releases)
        return waits and key == release_key(self._releases[0], self._pending().number)

    def _operation_of(self, key: str) -> str:
        return self._pending().operation if self._is_release(key) else key.removeprefix("run-")


def _same(live: App, target: App) -> bool:
    """But for where the image was made from."""
    return replace(live, build=None) == replace(target, build=None)
