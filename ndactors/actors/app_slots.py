"""What an AppActor's containers are to it: made, adopted, retired, kept aside for their visitors, and told to the edge. Each
is a slot; what is decided about them is in ``app.py``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec.structs import replace

from ..core import containers as labels
from ..core.containers import ContainerStatus
from ..core.exposing import Candidate, expose
from ..core.model import Rotate
from ..core.revisions import AppRecord
from ..core.specs import (
    Owner,
    Placement,
    Seat,
    Secrets,
    adopted_placement,
    new_placement,
    seat_of,
)
from ..messages.containers import (
    BackendDrained,
    DrainBackend,
    RecordEvent,
    ShowDeploy,
    StopContainer,
)
from ..messages.edge import Backend, Service
from ..messages.queries import ContainerView
from ..ports import StateStore
from ..runtime.actor import Actor
from ..runtime.ref import Ref
from ..runtime.supervisor import Child, StartChild
from ..runtime.timers import Timer

ASIDE_REVISIONS = 3
"""So many old revisions stay for their visitors at most."""


@dataclass(frozen=True, kw_only=True)
class AppSurroundings:
    """What an AppActor works with. ``new_container`` makes the Child of one ContainerActor."""

    owner: Owner
    engine: str
    rotate: Rotate
    secrets: Callable[[], Secrets]
    deploy: Ref
    inventory: Ref
    containers: Ref
    proxy: Ref
    events: Ref
    apps: Ref
    state: StateStore
    new_container: Callable[[Ref, Callable[[], Placement], Ref], Child]


@dataclass
class Slot:
    """One ContainerActor and the last that it told. ``aside``: until when (Unix seconds) it stays for its visitors."""

    ref: Ref
    place: Placement
    since: float
    view: ContainerView | None = None
    served: bool = False
    leaving: bool = False
    routed: bool = False
    aside: float | None = None
    restarts_before: int = field(default=0)

    @property
    def state(self) -> str:
        return self.view.state if self.view is not None else "pending"


@dataclass(frozen=True)
class AsideOver:
    key: str


class AppSlots(Actor):
    def __init__(self, name: str, around: AppSurroundings) -> None:
        self._name = name
        self._around = around
        self._record_name = f"apps/{name}@{around.engine}"
        self._slots: dict[str, Slot] = {}
        self._record: AppRecord | None = None
        self._removing = False
        self._listed = False
        self._engine_error = ""
        self._turn: str | None = None
        self._turn_began = False
        self._tick: Timer | None = None
        self._told: object = None
        """What the DeployActor was told last about the revision."""
        self._websockets = 0
        self._shown: ShowDeploy | None = None
        self._published: Service | None = None

    def _in_place(self, name: str) -> bool:
        """Whether a new container can come only after the old one went."""
        assert self._record is not None
        app = self._record.app
        process = app.processes.get(name)
        fixed = self._around.engine == "process" and process is not None and process.port is not None
        return app.deploy.strategy == "recreate" or fixed

    # -- steps -------------------------------------------------------------------------------------

    def _create(self, process: str, replica: int) -> None:
        record, around = self._record, self._around
        assert record is not None
        seat = Seat(process=process, revision=record.revision, replica=replica)
        there = self._slots.get(seat.key)
        if there is not None:
            # one of that name is still leaving; or it stays for its visitors, and may as well serve all
            if there.aside is not None and there.place.config == record.configs.get(process, ""):
                there.leaving, there.aside = False, None
                self._record = replace(record, aside={k: v for k, v in record.aside.items() if k != seat.key})
                self._save()
                self._publish()
            return
        self._start(
            new_placement(
                record.app,
                seat,
                owner=around.owner,
                engine=around.engine,
                rotate=around.rotate,
                secrets=around.secrets(),
                config=record.configs.get(process, ""),
            )
        )

    def _adopt(self, status: ContainerStatus) -> None:
        """A container of ours without an actor: made before the daemon, or this actor, started anew."""
        record, around = self._record, self._around
        app = record.app if record is not None else None
        if record is not None and record.previous is not None:
            process, config = seat_of(status.labels).process, status.labels.get(labels.CONFIG, "")
            app = app if record.configs.get(process) == config else record.previous.app
        place = adopted_placement(
            app, status, owner=around.owner, engine=around.engine, rotate=around.rotate, secrets=around.secrets()
        )
        key = place.seat.key
        if record is not None:
            place = replace(place, restarts=record.restarts.get(key, {}), gave_up=record.gave_up.get(key))
        self._start(place)
        until = record.aside.get(key) if record is not None else None
        if until is not None:
            self._put_aside(self._slots[key], until)

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
        slot, record = self._slots[key], self._record
        process = slot.place.seat.process
        old = (
            record is not None
            and slot.place.config != record.configs.get(process)
            and slot.place.seat.revision not in record.refused  # a version that did not do has no visitors to keep
            and not self._in_place(process)
        )
        slot.leaving = True
        if old and slot.routed and record is not None and record.app.deploy.skew and not self._removing:
            until = time.time() + record.app.deploy.skew
            self._put_aside(slot, until)
            self._record = replace(record, aside={**record.aside, key: until})
            self._save()
            self._publish()
        else:
            self._drain(slot)

    def _put_aside(self, slot: Slot, until: float) -> None:
        """It gets nothing new but what belongs to its own pages."""
        slot.leaving, slot.aside = True, until
        self.after(max(0.0, until - time.time()), AsideOver(slot.place.seat.key))
        waiting = sorted((s for s in self._slots.values() if s.aside is not None), key=lambda s: s.place.seat.revision)
        revisions = sorted({s.place.seat.revision for s in waiting})
        for other in waiting:
            if other.place.seat.revision in revisions[:-ASIDE_REVISIONS]:
                self._aside_over(other.place.seat.key)

    def _aside_over(self, key: str) -> None:
        slot = self._slots.get(key)
        if slot is not None and slot.aside is not None:
            slot.aside = None
            self._drain(slot)

    def _drain(self, slot: Slot) -> None:
        was_routed, view = slot.routed, slot.view
        self._publish()
        if was_routed and view is not None:
            seconds = self._record.app.deploy.drain if self._record is not None else 0.0
            key = slot.place.seat.key
            self._around.proxy.tell(DrainBackend(backend=view.id, key=key, seconds=seconds, reply_to=self.ref))
        else:
            slot.ref.tell(StopContainer())

    def _drained(self, message: BackendDrained) -> None:
        self._websockets += message.websockets
        slot = self._slots.get(message.key)
        if slot is not None and slot.leaving:
            if not message.in_time:
                self._event("container.drain_timeout", "requests were still in flight", container=slot.view)
            slot.ref.tell(StopContainer())

    def _is_canary(self, slot: Slot) -> bool:
        record = self._record
        return (
            record is not None
            and record.canary is not None
            and slot.place.seat.process == "web"
            and slot.place.seat.revision == record.revision
        )

    def _publish(self) -> None:
        record = self._record
        if record is None:
            return
        exposure = expose(
            Candidate(
                key=key,
                reachable=slot.view is not None and slot.view.address is not None and slot.view.port is not None,
                healthy=slot.state == "running",
                served=slot.served,
                expected=slot.state not in ("failed", "stopped") and not (record.app.stopped or self._removing),
                leaving=slot.leaving and slot.aside is None,
            )
            for key, slot in self._slots.items()
            if slot.place.seat.process == "web"
        )
        backends = []
        for key, slot in self._slots.items():
            slot.routed = key in exposure.keys
            if slot.routed and slot.view is not None and slot.view.address and slot.view.port:
                role = "aside" if slot.aside is not None else "canary" if self._is_canary(slot) else ""
                backends.append(
                    Backend(
                        id=slot.view.id,
                        address=slot.view.address,
                        port=slot.view.port,
                        revision=slot.place.seat.revision,
                        role=role,
                    )
                )
        service = Service(
            app=self._name,
            backends=tuple(backends),
            hold_seconds=exposure.hold_seconds,
            canary_percent=record.canary or 0.0,
        )
        if service != self._published and not self._removing:
            self._published = service
            self._around.proxy.tell(service)

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
