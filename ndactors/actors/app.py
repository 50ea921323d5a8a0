"""AppActor: one app's containers. It compares the revision that should run with what does, lets ContainerActors carry out
the difference, and tells the edge which containers may get traffic. What should run, its DeployActor says."""

from __future__ import annotations

import time
from dataclasses import dataclass

from msgspec.structs import replace

from ..core.canary import replicas_for
from ..core.containers import ContainerStatus
from ..core.reconciling import Create, Replica, Target, plan
from ..core.revisions import AppRecord, back, observed, proven, removed, taken
from ..core.specs import (
    seat_of,
)
from ..messages.containers import (
    AbandonRevision,
    AppChanged,
    AppGone,
    BackendDrained,
    ContainerChanged,
    ContainerObserved,
    ContainerRemoved,
    ContainersListed,
    EngineFound,
    EngineLost,
    HighestSeen,
    RemoveEverything,
    RestartContainer,
    RestartWanted,
    RetryApp,
    RetryContainer,
    RevisionFailing,
    RevisionHolding,
    RevisionProgress,
    RevisionRefused,
    RevisionServes,
    RevisionSettled,
    RunRevision,
    ShowDeploy,
    TellService,
    UnwatchApp,
    UpdateContainer,
    WatchApp,
)
from ..messages.queries import ContainerView
from ..messages.views import Shown, app_view
from ..runtime.supervisor import StopChild
from .app_slots import AppSlots, AsideOver, Slot

TICK_SECONDS = 0.5
GATE_RESTARTS = 3
"""A new version that had to be restarted this often while the old one serves will not become well."""
STEADY_SECONDS = 2.0
"""A new container without a health check counts as up once it has run for so long."""
DIAGNOSIS_SECONDS = 15.0
"""How long a version that failed waits for somebody to look why."""


class Tick: ...


@dataclass(frozen=True)
class NobodyLooked:
    revision: int


class AppActor(AppSlots):
    def on_start(self) -> None:
        self._record = self._around.state.load(self._record_name, AppRecord)
        # nothing is decided before the engine said what is there already
        self._around.inventory.tell(WatchApp(app=self._name, watcher=self.ref))
        self._tell()

    def on_stop(self) -> None:
        self._around.inventory.tell(UnwatchApp(app=self._name, watcher=self.ref))

    def receive(self, message: object) -> None:
        match message:
            case ContainersListed(containers=containers):
                self._listed_now(containers)
            case ContainerObserved():
                self._observed(message)
            case ContainerChanged():
                self._container_changed(message)
            case ContainerRemoved(key=key):
                self._container_removed(key)
            case BackendDrained():
                self._drained(message)
            case RestartWanted(key=key):
                self._restart_wanted(key)
            case RunRevision():
                self._run_revision(message)
            case AbandonRevision(revision=revision, reason=reason):
                self._abandon(revision, reason)
            case RemoveEverything():
                self._removing = True
                self._reconcile()
            case RetryApp():
                self._retry()
            case ShowDeploy():
                self._shown = message
                self._tell()
            case TellService():
                self._published = None
                if self._listed and not self._unheard():
                    self._publish()
            case EngineFound() | EngineLost():
                self._engine_error = message.reason if isinstance(message, EngineLost) else ""
                for slot in self._slots.values():
                    slot.ref.tell(message)
                self._tell()
            case Tick():
                self._tick = None
                self._reconcile()
            case AsideOver(key=key):
                self._aside_over(key)
            case NobodyLooked(revision=revision):
                self._abandon(revision, "it did not come up")
            case _:
                super().receive(message)

    # -- what should run ---------------------------------------------------------------------------

    def _run_revision(self, message: RunRevision) -> None:
        record = self._record
        self._removing = False
        if record is not None and message.revision in record.refused and message.revision != record.revision:
            # it was refused in an earlier life, and the answer was lost
            self._report(RevisionRefused(revision=message.revision, reason=record.refused[message.revision]))
            return
        if record is not None and message.revision in record.refused and record.previous is None:
            self._report(RevisionRefused(revision=message.revision, reason=record.refused[message.revision]))
        changed = taken(record, message.app, message.revision, message.configs, message.canary)
        if changed != record:
            self._record = changed
            self._save()
        if record is None or record.revision != changed.revision:
            self._websockets = 0
        self._told = None
        self._update_containers()
        if changed.proven:
            self._report(RevisionSettled(revision=changed.revision))
        self._reconcile()

    def _update_containers(self) -> None:
        """Those that stay obey the new settings; those that will be replaced keep the ones they were made for."""
        record = self._record
        assert record is not None
        for slot in self._slots.values():
            if not slot.leaving and record.configs.get(slot.place.seat.process) == slot.place.config:
                slot.ref.tell(UpdateContainer(app=record.app))

    def _retry(self) -> None:
        for slot in self._slots.values():
            if slot.state in ("failed", "stopped"):
                slot.ref.tell(RetryContainer())  # somebody asked for it: it deserves another try
        self._reconcile()

    def _abandon(self, revision: int, reason: str) -> None:
        record = self._record
        if record is None or record.revision != revision or (record.proven and record.canary is None):
            return
        self._record = back(record, reason)
        self._save()
        self._update_containers()
        self._report(RevisionRefused(revision=revision, reason=reason, websockets=self._websockets))
        self._reconcile()

    def _targets(self) -> list[Target]:
        if self._removing or self._record is None:
            return []
        record = self._record
        app = record.app
        gate = not record.proven and record.previous is not None
        return [
            Target(
                process=process.name,
                config=record.configs.get(process.name, ""),
                replicas=0 if app.stopped else process.replicas,
                in_place=self._in_place(process.name),
                canary=self._canaries(process.name, process.replicas) if gate else None,
                gate=gate,
            )
            for process in app.processes.values()
            if process.schedule is None
        ]

    def _canaries(self, process: str, replicas: int) -> int | None:
        assert self._record is not None
        share = self._record.canary
        if share is None:
            return None
        return replicas_for(share, replicas) if process == "web" else 0

    def _reconcile(self) -> None:
        if not self._listed or self._unheard() or (self._record is None and not self._removing):
            return
        targets = self._targets()
        replicas = [self._replica(key, slot) for key, slot in self._slots.items()]
        decision = plan(targets, replicas)
        if decision.phase != "refused":
            for step in decision.steps:
                if isinstance(step, Create):
                    self._create(step.process, step.replica)
                else:
                    self._retire(step.key)
        self._publish()
        self._report_on(decision.phase, targets, replicas)
        self._tell()
        if decision.phase == "moving" and self._tick is None:
            self._tick = self.after(TICK_SECONDS, Tick())
        if self._removing and not self._slots:
            self._around.state.delete(self._record_name)
            self._around.apps.tell(AppGone(app=self._name, engine=self._around.engine))

    # -- how the revision does ---------------------------------------------------------------------

    def _report_on(self, phase: str, targets: list[Target], replicas: list[Replica]) -> None:
        record = self._record
        if record is None or record.proven:
            return
        revision = record.revision
        refused = revision in record.refused
        if refused and record.previous is not None:
            return
        configs = {target.process: target for target in targets}
        new = [r for r in replicas if not r.leaving and r.process in configs and r.config == configs[r.process].config]
        up, wanted = sum(r.up for r in new), sum(target.replicas for target in targets)
        if refused and (phase != "settled" or up < wanted):
            return  # it may come up yet, and then that is told
        if phase == "refused" or (phase == "settled" and any(r.failed for r in new)):
            self._report(RevisionFailing(revision=revision, container=self._culprit(new)))
        elif phase == "holding":
            ids = [s.view.id for s in self._slots.values() if s.view is not None and self._is_canary(s)]
            self._report(RevisionHolding(revision=revision, canaries=tuple(sorted(ids))))
        elif up < wanted:
            self._report(RevisionProgress(revision=revision, up=up, wanted=wanted))
        elif phase == "settled" and not any(s.leaving and s.aside is None for s in self._slots.values()):
            self._record = proven(record)
            self._save()
            self._report(RevisionSettled(revision=revision, websockets=self._websockets))
        elif not isinstance(self._told, RevisionServes):
            self._report(RevisionServes(revision=revision))

    def _report(self, news: object) -> None:
        """Each only once in a row."""
        if news != self._told:
            self._told = news
            self._around.deploy.tell(news)
            if isinstance(news, RevisionFailing):
                self.after(DIAGNOSIS_SECONDS, NobodyLooked(news.revision))

    def _culprit(self, new: list[Replica]) -> ContainerView | None:
        """Of the containers that do not come up the one that says most."""
        views = [self._slots[r.key].view for r in new if r.failed] or [self._slots[r.key].view for r in new if not r.up]
        known = [view for view in views if view is not None]
        return next((view for view in known if view.reason), known[0] if known else None)

    def _unheard(self) -> bool:
        """True while an adopted container's actor has not told how it is: it serves maybe, so nothing is decided."""
        return any(slot.view is None and slot.place.existing is not None for slot in self._slots.values())

    def _replica(self, key: str, slot: Slot) -> Replica:
        view, record = slot.view, self._record
        fresh = record is not None and not record.proven and slot.place.seat.revision == record.revision
        age = time.monotonic() - slot.since
        up = view is not None and view.state == "running"
        if fresh and up and view is not None and slot.place.process.healthcheck.kind == "none":
            up = age >= STEADY_SECONDS and time.time() - (view.started_at or 0.0) >= STEADY_SECONDS
        restarts = sum(view.restarts.values()) - slot.restarts_before if view is not None else 0
        late = not slot.served and age > self._deploy_timeout()
        given_up = not up and (late or (restarts >= GATE_RESTARTS and (fresh or not slot.served)))
        return Replica(
            key=key,
            process=slot.place.seat.process,
            config=slot.place.config,
            replica=slot.place.seat.replica,
            up=up,
            leaving=slot.leaving,
            failed=slot.state in ("failed", "stopped") or given_up,
            fresh=fresh,
        )

    def _deploy_timeout(self) -> float:
        return self._record.app.deploy.timeout if self._record is not None else 0.0

    # -- what containers and the engine say --------------------------------------------------------

    def _listed_now(self, containers: tuple[ContainerStatus, ...]) -> None:
        first = not self._listed
        self._listed = True
        known = {slot.view.id: slot for slot in self._slots.values() if slot.view is not None and slot.view.id}
        for status in containers:
            slot = known.pop(status.id, None) or self._slots.get(seat_of(status.labels).key)
            if slot is not None:
                slot.ref.tell(ContainerObserved(container=status.id, status=status))
            else:
                self._adopt(status)
        for container, slot in known.items():
            slot.ref.tell(ContainerObserved(container=container, status=None))
        if first:
            seen = max((slot.place.seat.revision for slot in self._slots.values()), default=0)
            kept = self._record.revision if self._record is not None else 0
            self._around.deploy.tell(HighestSeen(revision=max(seen, kept)))
        self._reconcile()

    def _observed(self, message: ContainerObserved) -> None:
        for slot in self._slots.values():
            if slot.view is not None and slot.view.id == message.container:
                slot.ref.tell(message)
                return
        if message.status is not None and self._listed:
            slot_by_name = self._slots.get(seat_of(message.status.labels).key)
            if slot_by_name is not None:
                slot_by_name.ref.tell(message)

    def _container_changed(self, message: ContainerChanged) -> None:
        slot = self._slots.get(message.key)
        if slot is None:
            return
        slot.view, slot.served = message.view, message.served
        view = message.view
        gave_up = view.reason if view.state in ("failed", "stopped") else None
        slot.place = replace(slot.place, existing=message.status, restarts=view.restarts, gave_up=gave_up)
        if self._record is not None:
            record = observed(self._record, message.key, view.restarts, gave_up)
            if record is not self._record:
                self._record = record
                self._save()
        if message.key == self._turn:
            self._turn_began = self._turn_began or view.state in ("restarting", "starting")
            if self._turn_began and view.state not in ("restarting", "starting"):
                self._turn = None
        self._reconcile()

    def _container_removed(self, key: str) -> None:
        slot = self._slots.pop(key, None)
        if slot is None:
            return
        if self._turn == key:
            self._turn = None
        self._around.containers.tell(StopChild(ref=slot.ref))
        if self._record is not None:
            self._record = removed(self._record, key, slot.place.seat.process)
            self._save()
        self._reconcile()

    def _restart_wanted(self, key: str) -> None:
        """One replica at a time: a fault that makes all unhealthy at once must not stop them all at once."""
        slot = self._slots.get(key)
        if slot is None or slot.leaving or self._turn is not None:
            return
        self._turn, self._turn_began = key, False
        reason = slot.view.reason if slot.view is not None else "unhealthy"
        slot.ref.tell(RestartContainer(reason=reason))

    # -- telling others ----------------------------------------------------------------------------

    def _tell(self) -> None:
        record, shown = self._record, self._shown
        app = record.app if record is not None else shown.app if shown is not None else None
        if app is None:
            return
        rows = [
            Shown(key=key, container=slot.view, routed=slot.routed, leaving=slot.leaving)
            for key, slot in sorted(self._slots.items())
            if slot.view is not None
        ]
        view = app_view(
            app,
            project=app.project or self._around.owner.project,
            record=record,
            shown=rows,
            stopping=self._removing,
            engine_error=self._engine_error,
            deploy=shown,
        )
        self._around.apps.tell(AppChanged(view=view, engine=self._around.engine))
