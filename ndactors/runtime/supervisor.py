"""Actors whose messages are exits: they start children in order, restart them by rule, and stop them in reverse."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit
from msgspec import Struct

from ..errors import NextDeployError, NotFound
from .actor import Actor, Life
from .mailbox import Overflow
from .ref import Ref
from .restarts import Backoff, Intensity, Restart, RestartWindow, Strategy
from .timers import Timer
from .tree import ActorNode, GetTree, RestartActor

log = logging.getLogger("ndactors.supervisor")

STOP_SECONDS = 5.0
GROUP_STOP_SECONDS = 60.0
"""A supervisor stops its children one after the other, each within its own time."""
START_SECONDS = 30.0
UNBOUNDED = 1 << 62
DEFAULT_INTENSITY = Intensity()


class Child:
    """How to start one actor: ``Child(ref, Factory, *args, restart=…)``. The tree is a list of these."""

    __slots__ = ("args", "backoff", "factory", "ref", "restart", "stop_within")

    def __init__(
        self,
        ref: Ref,
        factory: type[Actor],
        *args: Any,
        restart: Restart = Restart.PERMANENT,
        stop_within: float | None = None,
        backoff: Callable[[], Backoff] = Backoff,
    ) -> None:
        self.ref = ref
        self.factory = factory
        self.args = args
        self.restart = restart
        self.stop_within = stop_within or (GROUP_STOP_SECONDS if issubclass(factory, Supervisor) else STOP_SECONDS)
        self.backoff = backoff


class StartChild(Struct, frozen=True, kw_only=True):
    """Add a child at the end and start it. A child with the same ref is replaced, its predecessor stopped first."""

    child: Child


class StopChild(Struct, frozen=True, kw_only=True):
    """Stop the child behind ``ref`` in good order and forget it. None there: nothing happens."""

    ref: Ref


class ChildEnded(Struct, frozen=True, kw_only=True):
    life: Life


class RestartDue(Struct, frozen=True, kw_only=True):
    slots: tuple[Slot, ...]


class ActorRestarted(Struct, frozen=True, kw_only=True):
    """For restart hooks: ``name`` ended because of ``error`` (None: an orderly end) and starts again in ``delay`` s;
    ``gave_up`` says that its supervisor does not restart it but fails itself."""

    name: str
    error: str | None
    delay: float
    gave_up: bool = False


RestartHook = Callable[[ActorRestarted], None]


class Slot:
    """One child's place: how to start it, its current life, and its history of failures."""

    __slots__ = ("backoff", "child", "life", "pending")

    def __init__(self, child: Child) -> None:
        self.child = child
        self.backoff = child.backoff()
        self.life: Life | None = None
        self.pending: Timer | None = None


class RestartIntensityExceeded(NextDeployError):
    """Too many restarts within the window: this supervisor fails and its own supervisor decides."""


def supervisor_ref(name: str) -> Ref:
    """A ref for a supervisor: its mailbox carries exits, so it never drops."""
    return Ref(name, capacity=UNBOUNDED, overflow=Overflow.REJECT)


class Supervisor(Actor):
    """``hook`` is called with every ``ActorRestarted`` of this supervisor and, where they have none of their own,
    of the supervisors below it."""

    def __init__(
        self,
        children: list[Child] | tuple[Child, ...] = (),
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity = DEFAULT_INTENSITY,
        hook: RestartHook | None = None,
    ) -> None:
        self._slots = [Slot(child) for child in children]
        self._strategy = strategy
        self._window = RestartWindow(intensity)
        parent = self._life.supervisor
        self.hook: RestartHook | None = hook or (parent.hook if parent is not None else None)
        self._ending = False
        self.ref.subtree = lambda: tuple(slot.child.ref.node() for slot in self._slots)

    def on_start(self) -> None:
        for slot in list(self._slots):
            self._start(slot)

    def receive(self, message: Any) -> Any:
        match message:
            case ChildEnded(life=life):
                self._child_ended(life)
            case RestartDue(slots=slots):
                self._restart(slots)
            case StartChild(child=child):
                self._start_child(child)
            case StopChild(ref=ref):
                self._stop_child(ref)
            case GetTree():
                return self.ref.node()
            case RestartActor(name=name):
                return self._restart_named(name)
            case _:
                return super().receive(message)
        return None

    def on_stop(self) -> None:
        self._ending = True
        self._stop_slots(self._slots)
        for slot in self._slots:
            slot.child.ref.close("was stopped")

    def on_crash(self, error: BaseException) -> None:
        self._ending = True
        # nobody may be left behind without a supervisor; after a kill there is no time to be polite
        if isinstance(error, GreenletExit):
            for slot in reversed(self._slots):
                if slot.life is not None:
                    slot.life.kill()
        else:
            self._stop_slots(self._slots)
        for slot in self._slots:
            slot.child.ref.clear("was stopped with its supervisor")

    # -- exits -------------------------------------------------------------------------------------

    def child_ended(self, life: Life) -> None:
        """Called by a life as its last act, from its own greenlet."""
        if not self._ending:
            self.ref.mailbox.put_first(ChildEnded(life=life))

    def _child_ended(self, life: Life) -> None:
        slot = next((slot for slot in self._slots if slot.life is life), None)
        if slot is None:
            return  # a life that we stopped or replaced ourselves
        slot.life = None
        child = slot.child
        if not child.restart.wanted(crashed=life.error is not None):
            self._slots.remove(slot)
            child.ref.close("has ended")
            return
        now = time.monotonic()
        error = None if life.error is None else f"{type(life.error).__name__}: {life.error}"
        if not self._window.allows(now):
            self._report(ActorRestarted(name=child.ref.name, error=error, delay=0.0, gave_up=True))
            raise RestartIntensityExceeded(f"{child.ref.name} ended too often; the last time: {error or 'orderly'}")
        delay = slot.backoff.next(now)
        self._report(ActorRestarted(name=child.ref.name, error=error, delay=delay))
        index = self._slots.index(slot)
        affected = [self._slots[i] for i in self._strategy.affected(index, len(self._slots))]
        self._stop_slots(affected)
        for each in affected:
            if each.pending is not None:
                each.pending.cancel()  # an earlier failure among them: all start together, in order
            each.child.ref.state = "waiting"
            if self._strategy is not Strategy.ONE_FOR_ONE:
                each.child.ref.clear("was restarted with its siblings")
        pending = self.after(delay, RestartDue(slots=tuple(affected)))
        for each in affected:
            each.pending = pending

    def _restart(self, slots: tuple[Slot, ...]) -> None:
        for slot in slots:
            slot.pending = None
            if slot in self._slots and slot.life is None:
                slot.child.ref.restarts += 1
                self._start(slot)

    def _report(self, event: ActorRestarted) -> None:
        log.warning(
            "%s: %s ended (%s); %s",
            self.ref.name,
            event.name,
            event.error or "orderly",
            "giving up" if event.gave_up else f"restart in {event.delay:g} s",
        )
        if self.hook is not None:
            self.hook(event)

    # -- starting and stopping ---------------------------------------------------------------------

    def _start(self, slot: Slot) -> None:
        child = slot.child
        slot.life = Life(child.ref, child.factory, child.args, self)
        if not slot.life.wait_started(START_SECONDS):
            log.error("%s is still starting after %g s; going on without waiting", child.ref.name, START_SECONDS)

    def _stop_slots(self, slots: list[Slot]) -> None:
        for slot in reversed(slots):
            life, slot.life = slot.life, None
            if life is None:
                continue
            life.request_stop()
            if not life.wait_ended(slot.child.stop_within):
                log.error("%s did not stop within %g s and is killed", slot.child.ref.name, slot.child.stop_within)
                life.kill()
                life.wait_ended(1.0)

    def _start_child(self, child: Child) -> None:
        self._stop_child(child.ref)
        slot = Slot(child)
        self._slots.append(slot)
        self._start(slot)

    def _stop_child(self, ref: Ref) -> None:
        slot = next((slot for slot in self._slots if slot.child.ref is ref), None)
        if slot is not None:
            self._stop_slots([slot])
            self._slots.remove(slot)
            ref.close("was stopped")

    def _restart_named(self, name: str) -> None:
        for slot in self._slots:
            if slot.child.ref.name == name:
                self._stop_slots([slot])
                slot.child.ref.restarts += 1
                self._start(slot)
                return
        for slot in self._slots:
            if slot.life is not None and isinstance(slot.life.actor, Supervisor) and _find(slot.child.ref.node(), name):
                slot.child.ref.tell(RestartActor(name=name))
                return
        raise NotFound(f"there is no actor called {name}")


def _find(node: ActorNode, name: str) -> bool:
    return any(child.name == name or _find(child, name) for child in node.children)
