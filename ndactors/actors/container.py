"""ContainerActor: one container, from its creation to its removal. It starts, probes, restarts and stops it, and tells
its AppActor after every change. Slow calls run beside the mailbox; what they bring comes back as a message."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..core.containers import ContainerStatus
from ..core.health import Checked, HealthTracker, next_check
from ..core.lifecycle import State, Step, advance
from ..core.model import App
from ..core.restarting import GiveUp, RestartHistory, ending
from ..core.specs import Placement
from ..errors import ContainerNotFound, EngineError, EngineUnreachable, ImageNotFound
from ..messages.containers import (
    ContainerChanged,
    ContainerObserved,
    ContainerRemoved,
    EngineFound,
    EngineLost,
    RecordEvent,
    RestartContainer,
    RestartWanted,
    RetryContainer,
    StopContainer,
    UpdateContainer,
)
from ..messages.queries import ContainerView
from ..ports import ContainerEngine, Lag, Prober
from ..runtime.actor import Actor
from ..runtime.ref import Ref
from ..runtime.timers import Task, Timer
from .engine_work import Probed, Removed, Started, launch, probe, remove

STARTING_PROBE_SECONDS = 0.2
"""How often a container that has not answered yet is asked: a deploy should not wait for a long interval."""
ENGINE_RETRY_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Who and what a ContainerActor talks to. ``lag`` says by how many seconds our own loop was late lately."""

    owner: Ref
    events: Ref
    engine: ContainerEngine
    prober: Prober
    lag: Lag
    checked: Checked = field(default_factory=Checked)
    """All whose health is checked, of every app."""
    rested: frozenset[str] = frozenset()
    """Ids of containers that the last daemon stopped when it ended: they start without counting as restarts."""


class ProbeDue: ...


class BackoffOver: ...


class RemoveAgain: ...


class ContainerActor(Actor):
    """``placement`` says at the start of each life what is known by then, so that a life that begins after a crash
    adopts what the one before it left."""

    def __init__(self, placement: Callable[[], Placement], around: Surroundings) -> None:
        place = placement()
        self._key = place.seat.key
        self._app = place.app
        self._process = place.process
        self._spec = place.spec
        self._around = around
        self._existing = place.existing
        self._status = place.existing
        self._restarts = dict(place.restarts)
        self._gave_up = place.gave_up
        self._history = RestartHistory(self._process.restart)
        self._state = State.PENDING
        self._reason = ""
        self._tracker = HealthTracker(self._process.healthcheck, time.monotonic())
        self._served = False
        self._oom = False
        self._early: ContainerObserved | None = None
        self._restart_reason: str | None = None
        self._work: Task | None = None
        self._timer: Timer | None = None

    def on_start(self) -> None:
        status = self._existing
        if status is None:
            self._launch()
        elif status.state in ("running", "paused"):
            # it serves already, maybe for weeks: it stays in the traffic until a probe says otherwise
            self._move(Step.STARTED)
            self._served = True
            self._healthy()
        elif self._gave_up is not None:
            self._move(Step.ENDED)
            self._reason = self._gave_up
            self._move(Step.GAVE_UP)
            self._tell()
        elif status.state == "created" or status.id in self._around.rested:
            self._launch()
        else:
            self._ended("exit")

    def receive(self, message: object) -> None:
        match message:
            case ContainerObserved():
                self._observed(message)
            case Started(status=status, error=error):
                self._started(status, error)
            case ProbeDue():
                self._probe()
            case Probed(failure=failure, void=void):
                self._probed(failure, void)
            case BackoffOver():
                self._launch()
            case RestartContainer(reason=reason):
                self._restart(reason)
            case RetryContainer():
                self._retry()
            case UpdateContainer(app=app):
                self._update(app)
            case StopContainer():
                self._stop()
            case RemoveAgain():
                self._remove()
            case Removed(error=error):
                self._removed(error)
            case EngineFound() | EngineLost():
                self._engine_changed(isinstance(message, EngineFound))
            case _:
                super().receive(message)

    # -- starting ----------------------------------------------------------------------------------

    def _launch(self) -> None:
        """Create it if there is none, and start it."""
        self._cancel_timer()
        engine, spec, status, process = self._around.engine, self._spec, self._status, self._process
        stop_first = self._restart_reason is not None and status is not None
        self._busy(
            lambda: launch(engine, spec, status, process, stop_first=stop_first),
            lambda result, error: result or Started(None, error),
        )
        self._tell()

    def _started(self, status: ContainerStatus | None, error: BaseException | None) -> None:
        self._work = None
        if self._state is State.STOPPING:
            self._status = status or self._status
            self._remove()
            return
        if isinstance(error, ContainerNotFound) and self._status is not None:
            self._vanished()
        elif isinstance(error, EngineUnreachable):
            self._reason = str(error)
            self._timer = self.after(ENGINE_RETRY_SECONDS, BackoffOver())
            self._tell()
        elif error is not None:
            self._start_failed(status, error)
        else:
            assert status is not None
            restarted, self._restart_reason = self._restart_reason, None
            self._status = status
            self._oom = False
            self._reason = ""
            self._served = False
            self._tracker = HealthTracker(self._process.healthcheck, time.monotonic())
            self._move(Step.STARTED)
            self._event("container.restarted" if restarted else "container.started", restarted or "")
            early, self._early = self._early, None
            if status.state == "exited":
                self._ended("exit")
                return
            self._begin_probes()
            if early is not None:
                self._observed(early)

    def _start_failed(self, status: ContainerStatus | None, error: BaseException) -> None:
        if not isinstance(error, EngineError):
            raise error
        self._status = status or self._status
        self._reason = f"start failed: {error}"
        self._restart_reason = None
        self._move(Step.ENDED)
        self._event("container.start_failed", str(error))
        if isinstance(error, ImageNotFound):
            self._give_up(GiveUp(self._reason, failed=True))
        else:
            self._after_end("start_failed", self._reason, exit_code=1, ran_for=0.0)

    def _begin_probes(self) -> None:
        if self._process.healthcheck.kind == "none":
            self._healthy()
        else:
            self._tell()
            self._probe_in(0.0)

    # -- health ------------------------------------------------------------------------------------

    def _probe_in(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = self.after(seconds, ProbeDue())

    def _probe_again(self, now: float) -> None:
        checked = self._around.checked
        which = checked.number(self)
        self._probe_in(next_check(now, self._process.healthcheck.interval, which, len(checked)) - now)

    def _probe(self) -> None:
        status = self._status
        if self._work is not None or status is None:
            return
        around, app, process = self._around, self._app, self._process
        lag = around.lag
        lag_before, began = lag.total(), time.monotonic()

        def judged(failure: str | None, error: BaseException | None) -> Probed:
            if error is not None and not isinstance(error, EngineError):
                raise error
            # a probe delayed by our own loop, or one the engine could not run, says nothing about the container
            check = process.healthcheck
            late = lag.total() - lag_before > check.timeout / 4
            if check.kind != "command":  # what asks by itself ends in time, unless we were stopped
                late = late or time.monotonic() - began > check.timeout * 1.25
            return Probed(failure, void=error is not None or (failure is not None and late))

        self._busy(lambda: probe(around.engine, around.prober, app, process, status), judged)

    def _probed(self, failure: str | None, void: bool) -> None:
        self._work = None
        if self._state is State.STOPPING:
            self._remove()
            return
        if self._state not in (State.STARTING, State.RUNNING, State.UNHEALTHY):
            return
        now = time.monotonic()
        if void:
            pass
        elif failure is None:
            if self._tracker.passed(now) or self._state is not State.RUNNING:
                self._healthy()
                return
        elif self._tracker.failed(failure, now):
            self._reason = f"health check failed: {failure}"
            self._move(Step.UNHEALTHY)
            self._event("container.unhealthy", failure)
            self._tell()
        elif self._state is State.STARTING and self._reason != failure:
            self._reason = failure
            self._tell()
        if self._tracker.must_restart(now) and self._restart_reason is None:
            self._around.owner.tell(RestartWanted(key=self._key))
        if self._state is State.STARTING:
            self._probe_in(min(self._process.healthcheck.interval, STARTING_PROBE_SECONDS))
        else:
            self._probe_again(now)

    def _healthy(self) -> None:
        now = time.monotonic()
        self._tracker.passed(now)
        self._reason = ""
        self._served = True
        if self._state is not State.RUNNING:
            was_ejected = self._state is State.UNHEALTHY
            self._move(Step.HEALTHY)
            if was_ejected:
                self._event("container.healthy", "answers again")
        self._tell()
        if self._process.healthcheck.kind != "none":
            self._probe_again(now)

    # -- ends and restarts -------------------------------------------------------------------------

    def _observed(self, message: ContainerObserved) -> None:
        if self._work is not None and self._state not in (State.STARTING, State.RUNNING, State.UNHEALTHY):
            self._early = message  # our own start or stop is under way: judged when its result is known
            return
        if message.event is not None and message.event.kind == "oom":
            self._oom = True
            self._event("container.oom", "a process in it was killed for memory")
        status = message.status
        if self._state in (State.STOPPING, State.GONE):
            return
        if status is None:
            if self._status is not None:
                self._vanished()
            return
        known = self._status
        if known is not None and (status.started_at or 0.0) < (known.started_at or 0.0):
            return  # looked at before our last start
        moved = known is None or (status.address, status.port) != (known.address, known.port)
        self._status = status
        alive = self._state in (State.STARTING, State.RUNNING, State.UNHEALTHY)
        if status.state == "exited" and alive:
            self._ended("exit")
        elif status.state == "running" and self._state in (State.STOPPED, State.FAILED, State.RESTARTING):
            self._cancel_timer()
            self._gave_up = None
            self._move(Step.STARTED)
            self._event("container.started", "by somebody else")
            self._tracker = HealthTracker(self._process.healthcheck, time.monotonic())
            self._served = False
            self._begin_probes()
        elif moved:
            self._tell()

    def _ended(self, why: str) -> None:
        status = self._status
        assert status is not None
        self._cancel_work()
        self._cancel_timer()
        oom = self._oom or status.oom_killed
        how = ending(status.exit_code, oom=oom)
        began, ended = status.started_at, status.finished_at or time.time()
        ran_for = max(0.0, ended - began) if began else 0.0
        self._served = False
        self._reason = how
        self._move(Step.ENDED)
        detail: dict[str, object] = {"exit_code": status.exit_code, "uptime_seconds": round(ran_for, 3), "oom": oom}
        self._event("container.died", how, detail)
        self._after_end("oom" if oom else why, how, exit_code=status.exit_code, ran_for=ran_for)

    def _after_end(self, why: str, how: str, *, exit_code: int | None, ran_for: float) -> None:
        decision = self._history.after_end(how, exit_code, ran_for, time.monotonic())
        if isinstance(decision, GiveUp):
            self._give_up(decision)
            return
        self._count(why)
        self._restart_reason = how
        self._timer = self.after(decision.seconds, BackoffOver())
        self._tell()

    def _give_up(self, decision: GiveUp) -> None:
        self._reason = self._gave_up = decision.reason
        self._move(Step.GAVE_UP if decision.failed else Step.ACCEPTED)
        self._event("container.gave_up" if decision.failed else "container.stopped", decision.reason)
        self._tell()

    def _restart(self, reason: str) -> None:
        if self._state not in (State.STARTING, State.RUNNING, State.UNHEALTHY):
            return
        self._cancel_work()
        self._count("unhealthy" if self._state is State.UNHEALTHY else "requested")
        self._reason = self._restart_reason = reason
        self._served = False
        self._move(Step.ENDED)
        self._launch()

    def _retry(self) -> None:
        if self._state in (State.STOPPED, State.FAILED):
            self._gave_up = None
            self._history = RestartHistory(self._process.restart)
            self._move(Step.RETRY)
            self._launch()

    def _vanished(self) -> None:
        """Somebody removed it behind our back: another one takes its place."""
        self._cancel_work()
        self._cancel_timer()
        self._event("container.vanished", "it was removed by somebody else")
        self._status, self._served, self._restart_reason = None, False, None
        self._move(Step.VANISHED)
        self._launch()

    def _count(self, why: str) -> None:
        self._restarts[why] = self._restarts.get(why, 0) + 1

    def _update(self, app: App) -> None:
        process = app.processes.get(self._process.name)
        if process is None:
            return
        changed_check = process.healthcheck != self._process.healthcheck
        if process.restart != self._process.restart:
            self._history = RestartHistory(process.restart)
        self._app, self._process = app, process
        if changed_check and self._state in (State.STARTING, State.RUNNING, State.UNHEALTHY):
            self._cancel_work()
            health = self._tracker.health
            self._tracker = HealthTracker(process.healthcheck, time.monotonic())
            if health == "healthy":
                self._tracker.passed(time.monotonic())
            self._begin_probes()

    def _engine_changed(self, reachable: bool) -> None:
        if reachable and self._work is None and self._state in (State.PENDING, State.STOPPING):
            self._cancel_timer()
            if self._state is State.PENDING:
                self._launch()
            else:
                self._remove()

    # -- the end -----------------------------------------------------------------------------------

    def _stop(self) -> None:
        if self._state in (State.STOPPING, State.GONE):
            return
        busy_starting = self._work is not None and self._state in (State.PENDING, State.RESTARTING)
        self._move(Step.STOP)
        self._served = False
        self._cancel_timer()
        self._tell()
        if not busy_starting:
            # a start under way is let finish: only then is it known what there is to remove
            self._cancel_work()
            self._remove()

    def _remove(self) -> None:
        self._cancel_timer()
        if self._work is not None:
            return
        engine, status, name, process = self._around.engine, self._status, self._spec.name, self._process
        self._busy(lambda: remove(engine, name, status, process), lambda _, error: Removed(error))

    def _removed(self, error: BaseException | None) -> None:
        self._work = None
        if error is not None:
            if not isinstance(error, EngineError):
                raise error
            self._reason = f"cannot be removed: {error}"
            self._timer = self.after(ENGINE_RETRY_SECONDS, RemoveAgain())
            self._tell()
            return
        self._move(Step.REMOVED)
        self._event("container.removed")
        self._around.owner.tell(ContainerRemoved(key=self._key))

    # -- small things ------------------------------------------------------------------------------

    def _busy(self, call: Callable[[], object], then: Callable[[Any, BaseException | None], object]) -> None:
        self._work = self.run(call, then)

    def _cancel_work(self) -> None:
        if self._work is not None:
            self._work.cancel()
            self._work = None

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _move(self, step: Step) -> None:
        self._state = advance(self._state, step)

    def _event(self, kind: str, reason: str = "", detail: dict[str, object] | None = None) -> None:
        self._around.events.tell(
            RecordEvent(
                kind=kind,
                app=self._app.name,
                process=self._process.name,
                container=self._status.name if self._status else self._spec.name,
                reason=reason,
                detail={
                    **(detail or {}),
                    "id": self._status.id if self._status else "",
                    "restarts": sum(self._restarts.values()),
                },
            )
        )

    def _tell(self) -> None:
        self._around.owner.tell(
            ContainerChanged(key=self._key, view=self._view(), served=self._served, status=self._status)
        )

    def _view(self) -> ContainerView:
        status, alive = self._status, self._state in (State.STARTING, State.RUNNING, State.UNHEALTHY)
        started = status.started_at if status is not None and alive else None
        labels = self._spec.labels
        return ContainerView(
            id=status.id if status else "",
            name=status.name if status else self._spec.name,
            app=self._app.name,
            process=self._process.name,
            role=labels.get("nextdeploy.role", "primary"),
            replica=int(labels.get("nextdeploy.replica", "1")),
            revision=int(labels.get("nextdeploy.revision", "1")),
            state=self._state.value,
            health=self._tracker.health if alive else "unknown",
            reason=self._reason,
            address=status.address if status and alive else None,
            port=status.port if status else None,
            pid=status.pid if status and alive else None,
            restarts=dict(self._restarts),
            exit_code=status.exit_code if status else None,
            started_at=started,
            uptime=max(0.0, time.time() - started) if started else 0.0,
            log_path=status.log_path if status else None,
        )
