"""AppActor: one app. It compares what should run with what does, lets ContainerActors carry out the difference, and
tells the edge which containers may get traffic."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from ..core.containers import ContainerStatus
from ..core.exposing import Candidate, expose
from ..core.model import App, Rotate
from ..core.reconciling import Create, Replica, Target, plan
from ..core.revisions import AppRecord, back, observed, removed, wanted
from ..core.specs import (
    Owner,
    Placement,
    Seat,
    adopted_placement,
    config_hash,
    fingerprint,
    new_placement,
    seat_of,
)
from ..messages.containers import (
    AppChanged,
    AppGone,
    ApplyApp,
    BackendDrained,
    ContainerChanged,
    ContainerObserved,
    ContainerRemoved,
    ContainersListed,
    DrainBackend,
    EngineFound,
    EngineLost,
    RecordEvent,
    RestartContainer,
    RestartWanted,
    RetryContainer,
    StopContainer,
    TellService,
    UnwatchApp,
    UpdateContainer,
    WatchApp,
)
from ..messages.edge import Backend, Service
from ..messages.queries import ContainerView
from ..messages.views import Shown, app_view
from ..ports import StateStore
from ..runtime.actor import Actor
from ..runtime.ref import Ref
from ..runtime.supervisor import Child, StartChild, StopChild
from ..runtime.timers import Timer

TICK_SECONDS = 1.0
GATE_RESTARTS = 3
"""A new version that had to be restarted this often while the old one serves will not become well."""


@dataclass(frozen=True, kw_only=True)
class AppSurroundings:
    """What an AppActor works with. ``new_container`` makes the Child of one ContainerActor."""

    owner: Owner
    engine: str
    rotate: Rotate
    wanted: Callable[[], App | None]
    """What the configuration says now; None: remove it."""
    inventory: Ref
    containers: Ref
    proxy: Ref
    events: Ref
    apps: Ref
    state: StateStore
    new_container: Callable[[Ref, Callable[[], Placement], Ref], Child]


@dataclass
class Slot:
    """One ContainerActor and the last that it told."""

    ref: Ref
    place: Placement
    since: float
    view: ContainerView | None = None
    served: bool = False
    leaving: bool = False
    routed: bool = False
    restarts_before: int = field(default=0)

    @property
    def state(self) -> str:
        return self.view.state if self.view is not None else "pending"


class Tick: ...


class AppActor(Actor):
    def __init__(self, name: str, around: AppSurroundings) -> None:
        self._name = name
        self._around = around
        self._record_name = f"apps/{name}@{around.engine}"
        self._slots: dict[str, Slot] = {}
        self._record: AppRecord | None = None
        self._asked_for = around.wanted()
        self._listed = False
        self._engine_error = ""
        self._turn: str | None = None
        self._turn_began = False
        self._tick: Timer | None = None
        self._deploying: int | None = None
        self._published: Service | None = None

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
            case BackendDrained(key=key, in_time=in_time):
                self._drained(key, in_time)
            case RestartWanted(key=key):
                self._restart_wanted(key)
            case ApplyApp(app=app):
                self._apply(app)
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
            case _:
                super().receive(message)

    # -- what should run ---------------------------------------------------------------------------

    def _apply(self, app: App | None) -> None:
        self._asked_for = app
        if self._listed:
            self._decide()
            for slot in self._slots.values():
                if app is not None:
                    slot.ref.tell(UpdateContainer(app=app))
                if slot.state in ("failed", "stopped"):
                    slot.ref.tell(RetryContainer())  # somebody changed something: it deserves another try
            self._reconcile()

    def _decide(self) -> None:
        app, around = self._asked_for, self._around
        if app is None:
            return
        mark = fingerprint(app, around.engine, around.rotate)
        highest = max((slot.place.seat.revision for slot in self._slots.values()), default=0)
        before = self._record
        self._record = wanted(before, app, mark, highest)
        if before is not None and self._record is before and mark != before.fingerprint:
            self._event("deploy.refused", "this version did not come up before; change it to have it tried again")
        if self._record != before:
            self._save()
        if (before is None and not self._slots) or (before is not None and self._record.revision != before.revision):
            self._deploying = self._record.revision
            self._event("deploy.started", f"revision {self._deploying}", {"revision": self._deploying})

    def _targets(self) -> list[Target]:
        if self._asked_for is None or self._record is None:
            return []
        app, around = self._record.app, self._around
        return [
            Target(
                process=process.name,
                config=config_hash(app, process, around.engine, around.rotate),
                replicas=process.replicas,
                in_place=app.deploy.strategy == "recreate" or (around.engine == "process" and process.port is not None),
            )
            for process in app.processes.values()
            if process.schedule is None
        ]

    def _reconcile(self) -> None:
        if not self._listed or self._unheard():
            return
        decision = plan(self._targets(), [self._replica(key, slot) for key, slot in self._slots.items()])
        if decision.phase == "refused":
            self._refuse()
            return
        if self._deploying is not None and decision.phase == "settled":
            self._deployed(self._deploying)
        for step in decision.steps:
            if isinstance(step, Create):
                self._create(step.process, step.replica)
            else:
                self._retire(step.key)
        self._publish()
        self._tell()
        if decision.phase == "moving" and self._tick is None:
            self._tick = self.after(TICK_SECONDS, Tick())
        if self._asked_for is None and not self._slots:
            self._around.state.delete(self._record_name)
            self._around.apps.tell(AppGone(app=self._name, engine=self._around.engine))

    def _deployed(self, revision: int) -> None:
        """Nothing moves any more: it runs as it should, or some of it will not."""
        self._deploying = None
        failed = next((slot.view for slot in self._slots.values() if slot.view and slot.state == "failed"), None)
        if failed is None:
            self._event("deploy.finished", f"revision {revision}", {"revision": revision})
        else:
            self._event("deploy.failed", f"revision {revision}: {failed.name}: {failed.reason}", {"revision": revision})

    def _unheard(self) -> bool:
        """True while an adopted container's actor has not told how it is: it serves maybe, so nothing is decided."""
        return any(slot.view is None and slot.place.existing is not None for slot in self._slots.values())

    def _replica(self, key: str, slot: Slot) -> Replica:
        view = slot.view
        up = view is not None and view.state == "running"
        late = time.monotonic() - slot.since > self._deploy_timeout()
        restarts = sum(view.restarts.values()) - slot.restarts_before if view is not None else 0
        failed = slot.state in ("failed", "stopped") or (
            not up and not slot.served and (late or restarts >= GATE_RESTARTS)
        )
        return Replica(
            key=key,
            process=slot.place.seat.process,
            config=slot.place.config,
            replica=slot.place.seat.replica,
            up=up,
            leaving=slot.leaving,
            failed=failed,
        )

    def _deploy_timeout(self) -> float:
        return self._record.app.deploy.timeout if self._record is not None else 0.0

    def _refuse(self) -> None:
        """The new version does not come up while the old one serves: go back to the old one, say why."""
        record = self._record
        assert record is not None
        new = [slot.view for slot in self._slots.values() if slot.place.seat.revision == record.revision and slot.view]
        culprit = next((view for view in new if view.reason), None)
        why = culprit.reason if culprit is not None else f"not healthy within {record.app.deploy.timeout:g} s"
        self._event("deploy.failed", f"revision {record.revision}: {why}", {"revision": record.revision})
        self._record = back(record)
        self._save()
        if self._record.fingerprint == record.fingerprint:
            return  # there is nothing to go back to
        self._deploying = None
        self._reconcile()

    # -- steps -------------------------------------------------------------------------------------

    def _create(self, process: str, replica: int) -> None:
        record, around = self._record, self._around
        assert record is not None
        seat = Seat(process=process, revision=record.revision, replica=replica)
        self._start(new_placement(record.app, seat, owner=around.owner, engine=around.engine, rotate=around.rotate))

    def _adopt(self, status: ContainerStatus) -> None:
        """A container of ours without an actor: made before the daemon, or this actor, started anew."""
        record, around = self._record, self._around
        app = self._asked_for or (record.app if record is not None else None)
        place = adopted_placement(app, status, owner=around.owner, engine=around.engine, rotate=around.rotate)
        if record is not None:
            key = place.seat.key
            place = replace(place, restarts=record.restarts.get(key, {}), gave_up=record.gave_up.get(key))
        self._start(place)

    def _start(self, place: Placement) -> None:
        ref = Ref(f"container:{self._name}:{place.seat.key}")
        self._slots[place.seat.key] = Slot(
            ref=ref,
            place=place,
            since=time.monotonic(),
            restarts_before=sum(place.restarts.values()),
        )
        slot = self._slots[place.seat.key]
        self._around.containers.tell(StartChild(child=self._around.new_container(ref, lambda: slot.place, self.ref)))

    def _retire(self, key: str) -> None:
        slot = self._slots[key]
        slot.leaving = True
        was_routed, view = slot.routed, slot.view
        self._publish()
        if was_routed and view is not None:
            seconds = self._record.app.deploy.drain if self._record is not None else 0.0
            self._around.proxy.tell(DrainBackend(backend=view.id, key=key, seconds=seconds, reply_to=self.ref))
        else:
            slot.ref.tell(StopContainer())

    def _drained(self, key: str, in_time: bool) -> None:
        slot = self._slots.get(key)
        if slot is not None and slot.leaving:
            if not in_time:
                self._event("container.drain_timeout", "requests were still in flight", container=slot.view)
            slot.ref.tell(StopContainer())

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
            self._decide()
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

    def _publish(self) -> None:
        record = self._record
        app = record.app if record is not None else self._asked_for
        if app is None:
            return
        exposure = expose(
            Candidate(
                key=key,
                reachable=slot.view is not None and slot.view.address is not None and slot.view.port is not None,
                healthy=slot.state == "running",
                served=slot.served,
                expected=slot.state not in ("failed", "stopped"),
                leaving=slot.leaving,
            )
            for key, slot in self._slots.items()
            if slot.place.seat.process == "web"
        )
        backends = []
        for key, slot in self._slots.items():
            slot.routed = key in exposure.keys
            if slot.routed and slot.view is not None and slot.view.address and slot.view.port:
                backends.append(Backend(id=slot.view.id, address=slot.view.address, port=slot.view.port))
        service = Service(
            app=self._name,
            backends=tuple(backends),
            hold_seconds=exposure.hold_seconds,
        )
        if service != self._published and self._asked_for is not None:
            self._published = service
            self._around.proxy.tell(service)

    def _tell(self) -> None:
        record = self._record
        app = self._asked_for or (record.app if record is not None else None)
        if app is None:
            return
        shown = [
            Shown(key=key, container=slot.view, routed=slot.routed, leaving=slot.leaving)
            for key, slot in sorted(self._slots.items())
            if slot.view is not None
        ]
        view = app_view(
            record.app if record is not None else app,
            project=self._around.owner.project,
            record=record,
            shown=shown,
            stopping=self._asked_for is None,
            engine_error=self._engine_error,
        )
        self._around.apps.tell(AppChanged(view=view, engine=self._around.engine))

    def _save(self) -> None:
        self._around.state.save(self._record_name, self._record)

    def _event(
        self, kind: str, reason: str, detail: dict[str, object] | None = None, container: ContainerView | None = None
    ) -> None:
        self._around.events.tell(
            RecordEvent(
                kind=kind,
                app=self._name,
                reason=reason,
                detail=detail or {},
                container=container.name if container else None,
            )
        )
