"""JobsActor: the containers of one app that run once, to an end: before a deploy, on a schedule, or because somebody asks.
A job outlives the daemon: whoever comes next finds it by its labels, and reads from the engine how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from ..core.containers import ContainerSpec, ContainerStatus
from ..core.jobs import (
    CATCH_UP_SECONDS,
    Ending,
    Identity,
    JobRecord,
    container_name,
    due_of,
    ended,
    identity_of,
    labels_of,
    look,
    schedule_key,
    scheduled,
    too_long,
    with_ended,
    with_schedule,
)
from ..core.model import App, Process
from ..errors import ContainerNotFound, EngineUnreachable, NextDeployError
from ..messages.containers import (
    ContainerObserved,
    ContainersListed,
    EngineFound,
    EngineLost,
    RecordEvent,
    UnwatchApp,
    WatchApp,
)
from ..messages.jobs import (
    CancelJob,
    GetJobs,
    JobEnded,
    JobOutput,
    JobsChanged,
    JobSettings,
    JobView,
    RunJob,
)
from ..ports import ContainerEngine, JobOutputs, StateStore
from ..runtime.actor import Actor
from ..runtime.ref import Ref
from ..runtime.timers import Timer
from .job_work import (
    TAIL_CHARACTERS,
    GoOn,
    Job,
    LookDue,
    OutputRead,
    ReadDue,
    Removed,
    TimedOut,
    Worked,
    halt,
    launch,
    look_at,
    worked,
)

LOOK_SECONDS = 30.0
"""Schedules are looked at this often at least, so that a clock that is set does no harm."""
ENGINE_RETRY_SECONDS = 2.0
POLL_SECONDS = 0.25
CLAIM_SECONDS = 60.0
"""How long the end of a job that another daemon began waits for somebody to ask for it."""
MAX_OUTPUT = 1_000_000
"""Characters of one job's output that are told."""
MAX_JOBS = 50
CANCELLED = "cancelled"


@dataclass(frozen=True, kw_only=True)
class JobsSurroundings:
    """What a JobsActor works with. ``make_spec(app, process, name, labels)`` may fail with a ``NextDeployError``; it runs
    beside the mailbox. ``mask`` takes secrets out of output. ``now`` is Unix seconds."""

    engine: ContainerEngine
    inventory: Ref
    apps: Ref
    events: Ref
    state: StateStore
    outputs: JobOutputs
    make_spec: Callable[[App, Process, str, Mapping[str, str]], ContainerSpec]
    mask: Callable[[str], str] = str
    now: Callable[[], float] = time.time


class JobsActor(Actor):
    def __init__(self, name: str, around: JobsSurroundings) -> None:
        self._name = name
        self._around = around
        self._record_name = f"jobs/{name}@{around.engine.name}"
        self._record = JobRecord()
        self._app: App | None = None
        self._revision = 0
        self._active: bool | None = None
        self._listed = False
        self._jobs: dict[str, Job] = {}
        self._waiting: list[RunJob] = []
        """What was asked for before the engine was listed."""
        self._next: dict[str, float | None] = {}
        self._timer: Timer | None = None

    def on_start(self) -> None:
        self._record = self._around.state.load(self._record_name, JobRecord) or JobRecord()
        self._around.inventory.tell(WatchApp(app=self._name, watcher=self.ref, role="job"))

    def on_stop(self) -> None:
        self._around.inventory.tell(UnwatchApp(app=self._name, watcher=self.ref, role="job"))
        for job in self._jobs.values():
            job.close()

    def on_crash(self, error: BaseException) -> None:
        for job in self._jobs.values():
            job.close()

    def receive(self, message: object) -> object:
        match message:
            case RunJob():
                self._run(message)
            case CancelJob(key=key):
                self._cancel(key)
            case JobSettings(app=app, revision=revision):
                self._settings(app, revision)
            case ContainersListed(containers=containers):
                self._listed_now(containers)
            case ContainerObserved():
                self._observed(message)
            case Worked():
                self._worked(message)
            case OutputRead():
                self._output_read(message)
            case Removed():
                self._removed(message)
            case LookDue():
                self._look()
            case GoOn(id=id) | TimedOut(id=id) | ReadDue(id=id):
                self._due(message, self._jobs.get(id))
            case EngineFound() | EngineLost():
                pass  # what waits for the engine tries again by itself
            case GetJobs():
                return self._rows()
            case _:
                return super().receive(message)
        return None

    # -- what is asked for -------------------------------------------------------------------------

    def _run(self, message: RunJob) -> None:
        identity = Identity(
            key=message.key,
            kind=message.kind,
            process=message.process.name,
            revision=message.revision,
            operation=message.operation,
            timeout=message.timeout,
        )
        known, job = self._record.ended.get(identity.id), self._jobs.get(identity.id)
        if known is not None:
            message.reply_to.tell(_told(identity, known))
        elif not self._listed:
            self._waiting.append(message)  # it may run already
        elif job is not None:
            job.order, job.reply_to = (message.app, message.process), message.reply_to
            if job.adopted:
                job.adopted = False
                message.reply_to.tell(JobOutput(key=message.key, text="[the daemon was restarted; from the start:]\n"))
                self._go_on(job)
        elif len(self._jobs) >= MAX_JOBS:
            reason = f"{MAX_JOBS} jobs of this app run already"
            message.reply_to.tell(_told(identity, Ending(exit_code=None, reason=reason)))
        else:
            self._begin(identity, message.app, message.process, message.reply_to)

    def _begin(self, identity: Identity, app: App, process: Process, reply_to: Ref | None) -> None:
        job = Job(identity, self._around.now(), (app, process), reply_to)
        self._jobs[job.id] = job
        self._start(job)
        self._changed()

    def _cancel(self, key: str) -> None:
        for message in [m for m in self._waiting if m.key == key]:
            self._waiting.remove(message)
            message.reply_to.tell(JobEnded(key=key, exit_code=None, reason=CANCELLED, seconds=0.0))
        for job in [job for job in self._jobs.values() if job.identity.key == key]:
            self._stop(job, CANCELLED)

    def _settings(self, app: App | None, revision: int) -> None:
        """Schedules follow the version that is current."""
        now, active = self._around.now(), app is not None and not app.stopped
        before, self._active = self._active, active
        self._app, self._revision = app, revision
        rows = scheduled(self._record, _schedules(app), now)
        if active and before is False:
            # nothing is made up of the time in which it was stopped on purpose
            rows = replace(rows, schedules={name: replace(row, handled=now) for name, row in rows.schedules.items()})
        self._save(rows)
        if not active:
            for job in list(self._jobs.values()):
                if job.identity.kind == "schedule" or job.adopted:
                    self._stop(job, "the app was stopped" if app is not None else "the app was removed")
        self._look()

    # -- schedules ---------------------------------------------------------------------------------

    def _look(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._next = {}
        now = self._around.now()
        rows = self._record.schedules if self._listed and self._active else {}
        for name, row in rows.items():
            due = look(row, now)
            self._next[name] = due.next
            if due.missed is not None:
                self._event("job.missed", name, f"the run of {_moment(due.missed)} was not made", {"due": due.missed})
            if due.run is not None:
                self._due_now(name, due.run)
            elif due.handled != row.handled:
                self._save(with_schedule(self._record, name, handled=due.handled))
        if self._next:
            soonest = min((due for due in self._next.values() if due is not None), default=now + LOOK_SECONDS)
            self._timer = self.after(min(max(soonest - now, 0.001), LOOK_SECONDS), LookDue())
        self._changed()

    def _due_now(self, name: str, due: float) -> None:
        app = self._app
        assert app is not None
        process = app.processes[name]
        identity = Identity(
            key=schedule_key(name, due),
            kind="schedule",
            process=name,
            revision=self._revision,
            timeout=process.timeout,
        )
        known = self._jobs.get(identity.id)
        before = next((job for job in self._scheduled_jobs(name) if job is not known), None)
        if identity.id in self._record.ended or (known is not None and not known.adopted):
            self._save(with_schedule(self._record, name, handled=due))
        elif before is not None:
            skipped = self._record.schedules[name].skipped + 1
            self._save(with_schedule(self._record, name, handled=due, skipped=skipped))
            began = due_of(before.identity)
            words = (
                f"the run of {_moment(began)} still goes on" if began is not None else "the one before still goes on"
            )
            self._event("job.skipped", name, words, {"due": due})
        else:
            # on record once it has started: until then it is due, also for the next daemon
            self._record = with_schedule(self._record, name, handled=due)
            if known is None:
                self._begin(identity, app, process, None)
            else:
                known.order, known.adopted = (app, process), False
                self._go_on(known)

    def _scheduled_jobs(self, name: str) -> list[Job]:
        return [
            job
            for job in self._jobs.values()
            if job.identity.kind == "schedule" and job.identity.process == name and job.phase != "removing"
        ]

    # -- starting ----------------------------------------------------------------------------------

    def _start(self, job: Job) -> None:
        assert job.order is not None
        engine, make_spec, identity = self._around.engine, self._around.make_spec, job.identity
        app, process = job.order
        name = container_name(self._name, identity)
        job.phase = "starting"
        job.work = self.run(lambda: launch(engine, make_spec(app, process, name, labels_of(identity))), worked(job.id))

    def _worked(self, message: Worked) -> None:
        job = self._jobs.get(message.id)
        if job is None:
            return
        job.work = None
        error, status = message.error, message.status
        if error is not None and not isinstance(error, NextDeployError):
            raise error
        if job.phase == "starting":
            self._started(job, status, error)
        elif job.phase != "running":
            return
        elif error is not None:
            job.timer = self.after(ENGINE_RETRY_SECONDS, GoOn(job.id))
        elif status is None:
            self._vanished(job)
        else:
            self._seen(job, status)
            if job.phase == "running" and job.stopped:
                job.timer = self.after(ENGINE_RETRY_SECONDS, GoOn(job.id))

    def _started(self, job: Job, status: ContainerStatus | None, error: BaseException | None) -> None:
        if isinstance(error, EngineUnreachable) and not job.stopped and not self._too_late(job):
            job.timer = self.after(ENGINE_RETRY_SECONDS, GoOn(job.id))
            return
        if error is not None or status is None:
            reason = job.stopped or f"it could not be started: {error}"
            self._conclude(job, Ending(exit_code=None, reason=reason, at=self._around.now()))
            return
        early = job.status
        job.status = early if early is not None and early.id == status.id and early.state == "exited" else status
        if job.identity.kind == "schedule":
            self._save(with_schedule(self._record, job.identity.process, last_start=status.started_at))
        self._go_on(job)
        self._changed()

    def _too_late(self, job: Job) -> bool:
        due, now = due_of(job.identity), self._around.now()
        if due is not None:
            return now - due > CATCH_UP_SECONDS
        return job.identity.timeout is not None and now - job.asked > job.identity.timeout

    def _go_on(self, job: Job) -> None:
        """Whatever there is to do next, by what its container is like."""
        if job.work is not None:
            return  # judged when its result is known
        job.cancel_timers()
        status = job.status
        if status is None or status.state == "created":
            if job.order is not None and not job.stopped:
                self._start(job)
            elif status is None:
                self._conclude(job, Ending(exit_code=None, reason=job.stopped, at=self._around.now()))
            else:
                self._remove(job)  # nobody wants it, and it never ran
        elif status.state == "exited":
            self._over(job)
        else:
            job.phase = "running"
            if job.stopped:
                self._halt(job)
            elif job.identity.timeout is not None:
                began = status.started_at or job.asked
                left = began + job.identity.timeout - self._around.now()
                job.timer = self.after(max(0.0, left), TimedOut(job.id))
            self._read(job)

    def _due(self, message: object, job: Job | None) -> None:
        if job is None:
            return
        match message:
            case TimedOut():
                self._stop(job, too_long(job.identity.timeout or 0.0))
            case ReadDue():
                self._read(job)
            case GoOn() if job.phase == "removing":
                self._remove(job)
            case GoOn():
                job.adopted = False
                self._go_on(job)

    # -- what the engine says ----------------------------------------------------------------------

    def _listed_now(self, containers: tuple[ContainerStatus, ...]) -> None:
        first, self._listed = not self._listed, True
        there = set()
        for status in containers:
            identity = identity_of(status.labels)
            there.add(identity.id)
            self._see(identity, status)
        for job in list(self._jobs.values()):
            if job.phase == "running" and job.id not in there and job.work is None and job.status is not None:
                # the listing may be older than the job
                engine, container = self._around.engine, job.status.id
                job.work = self.run(lambda e=engine, c=container: look_at(e, c), worked(job.id))
        if first:
            waiting, self._waiting = self._waiting, []
            for message in waiting:
                self._run(message)
            self._look()

    def _observed(self, message: ContainerObserved) -> None:
        status = message.status
        if status is None:
            job = next((j for j in self._jobs.values() if j.status and j.status.id == message.container), None)
            if job is not None and job.phase == "running":
                self._vanished(job)
            return
        identity = identity_of(status.labels)
        if message.event is not None and message.event.kind == "oom" and identity.id in self._jobs:
            self._jobs[identity.id].oom = True
        if self._listed:
            self._see(identity, status)

    def _see(self, identity: Identity, status: ContainerStatus) -> None:
        job = self._jobs.get(identity.id)
        if job is None:
            self._adopt(identity, status)
        else:
            self._seen(job, status)

    def _seen(self, job: Job, status: ContainerStatus) -> None:
        if job.phase in ("over", "removing"):
            return
        if job.phase == "starting" and job.work is None and not job.adopted:
            return  # it waits for the engine, and will find it by its name
        job.status = status
        if job.phase == "running" and status.state == "exited":
            self._over(job)

    def _adopt(self, identity: Identity, status: ContainerStatus) -> None:
        """Another daemon, or another life of this actor, began it."""
        job = Job(identity, self._around.now(), status=status, adopted=True)
        self._jobs[job.id] = job
        if identity.id in self._record.ended:
            self._remove(job)
        elif identity.kind == "schedule" and status.state != "created":
            job.adopted = False
            due = due_of(identity)
            row = self._record.schedules.get(identity.process)
            if row is not None and due is not None and row.handled < due:
                self._save(with_schedule(self._record, identity.process, handled=due, last_start=status.started_at))
            self._go_on(job)
        elif self._active is False:
            self._stop(job, "the app was stopped")
        else:
            job.timer = self.after(CLAIM_SECONDS, GoOn(job.id))
        self._changed()

    def _vanished(self, job: Job) -> None:
        job.status = None
        reason = job.stopped or "its container was removed by somebody else"
        self._conclude(job, Ending(exit_code=None, reason=reason, at=self._around.now()))

    # -- output ------------------------------------------------------------------------------------

    def _read(self, job: Job) -> None:
        status, outputs = job.status, self._around.outputs
        if job.reading is not None or status is None:
            return

        def read() -> str:
            if job.reader is None:
                job.reader = outputs.open(status)
            return job.reader.read()

        job.reading = self.run(read, lambda text, error: OutputRead(job.id, text or "", error))

    def _output_read(self, message: OutputRead) -> None:
        job = self._jobs.get(message.id)
        if job is None or job.phase == "removing":
            return
        job.reading = None
        if message.error is not None and not isinstance(message.error, NextDeployError):
            raise message.error
        if message.text:
            self._tell_output(job, message.text)
        if job.phase == "over" and message.text:
            self._read(job)
        elif job.phase == "over":
            self._end(job)
        else:
            job.poll = self.after(POLL_SECONDS, ReadDue(job.id))

    def _tell_output(self, job: Job, text: str) -> None:
        text = self._around.mask(text)
        job.end = (job.end + text)[-TAIL_CHARACTERS:]
        room = MAX_OUTPUT - job.told
        job.told += len(text)
        if job.reply_to is not None and room > 0:
            if len(text) > room:
                text = f"{text[:room]}\n[more output than can be kept here]\n"
            job.reply_to.tell(JobOutput(key=job.identity.key, text=text))

    # -- the end -----------------------------------------------------------------------------------

    def _stop(self, job: Job, reason: str) -> None:
        if job.stopped or job.phase in ("over", "removing"):
            return
        job.stopped = reason
        job.adopted = False
        self._go_on(job)

    def _halt(self, job: Job) -> None:
        assert job.status is not None
        engine, container = self._around.engine, job.status.id
        name = job.identity.process
        known = job.order[1] if job.order is not None else self._app.processes.get(name) if self._app else None
        process = known or Process(name=name)
        job.work = self.run(lambda: halt(engine, container, process), worked(job.id))

    def _over(self, job: Job) -> None:
        job.phase = "over"
        job.cancel_timers()
        self._read(job)

    def _end(self, job: Job) -> None:
        status = job.status
        assert status is not None
        at = status.finished_at or self._around.now()
        how = ended(
            status.exit_code,
            oom=job.oom or status.oom_killed,
            seconds=at - (status.started_at or at),
            at=at,
            timeout=job.identity.timeout,
            stopped=job.stopped,
        )
        self._conclude(job, how)

    def _conclude(self, job: Job, how: Ending) -> None:
        """Put it on record, then tell, then remove: whoever dies in between does the rest again."""
        identity = job.identity
        how = replace(how, tail=job.tail())
        good = how.exit_code == 0
        if identity.kind == "schedule":
            fields: dict[str, Any] = {"last_end": how.at, "last_exit": how.exit_code, "last_seconds": how.seconds}
            if good:
                fields["last_success"] = how.at
            self._record = with_schedule(self._record, identity.process, **fields)
        self._save(with_ended(self._record, job.id, how))
        detail: dict[str, object] = {
            "exit_code": how.exit_code,
            "seconds": round(how.seconds, 3),
            "kind": identity.kind,
            "revision": identity.revision,
            "operation": identity.operation or None,
            "output": list(how.tail[-20:]),
        }
        words = f"took {how.seconds:.1f} s" if good else how.reason
        name = job.status.name if job.status is not None else container_name(self._name, identity)
        self._event("job.succeeded" if good else "job.failed", identity.process, words, detail, name)
        if job.reply_to is not None:
            job.reply_to.tell(_told(identity, how))
        self._remove(job)
        self._changed()

    def _remove(self, job: Job) -> None:
        job.phase = "removing"
        job.adopted = False
        job.cancel_timers()
        job.close()
        engine, status = self._around.engine, job.status
        if status is None:
            self._forget(job)
        else:
            job.work = self.run(lambda: engine.remove(status.id), lambda _, error: Removed(job.id, error))

    def _removed(self, message: Removed) -> None:
        job = self._jobs.get(message.id)
        if job is None:
            return
        job.work = None
        error = message.error
        if error is None or isinstance(error, ContainerNotFound):
            self._forget(job)
        elif isinstance(error, NextDeployError):
            job.timer = self.after(ENGINE_RETRY_SECONDS, GoOn(job.id))
        else:
            raise error

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        if job.identity.kind == "schedule" and job.id in self._record.ended:
            others = {id: how for id, how in self._record.ended.items() if id != job.id}
            self._save(replace(self._record, ended=others))
        self._changed()

    # -- telling others ----------------------------------------------------------------------------

    def _rows(self) -> tuple[JobView, ...]:
        return tuple(
            JobView(
                app=self._name,
                process=name,
                schedule=row.schedule,
                timezone=row.timezone,
                running=bool(self._scheduled_jobs(name)),
                next=self._next.get(name),
                last_start=row.last_start,
                last_end=row.last_end,
                last_exit=row.last_exit,
                last_seconds=row.last_seconds,
                last_success=row.last_success,
                skipped=row.skipped,
            )
            for name, row in sorted(self._record.schedules.items())
        )

    def _changed(self) -> None:
        idle = self._listed and not self._jobs and not self._waiting
        if idle and self._active is False and self._app is None:
            self._around.state.delete(self._record_name)
        self._around.apps.tell(
            JobsChanged(app=self._name, engine=self._around.engine.name, jobs=self._rows(), idle=idle)
        )

    def _save(self, record: JobRecord) -> None:
        self._record = record
        self._around.state.save(self._record_name, record)

    def _event(
        self,
        kind: str,
        process: str,
        reason: str,
        detail: dict[str, object],
        container: str | None = None,
    ) -> None:
        self._around.events.tell(
            RecordEvent(kind=kind, app=self._name, process=process, reason=reason, detail=detail, container=container)
        )


def _schedules(app: App | None) -> dict[str, Process]:
    if app is None:
        return {}
    return {name: p for name, p in app.processes.items() if p.schedule is not None and p.schedule != "@deploy"}


def _told(identity: Identity, how: Ending) -> JobEnded:
    return JobEnded(key=identity.key, exit_code=how.exit_code, reason=how.reason, seconds=how.seconds, tail=how.tail)


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
