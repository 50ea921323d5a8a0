"""HookActor: tells others of deploys. Every delivery is on record before it is tried, so none is lost with the daemon; one
receiver that hangs holds up no other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from ..core.model import Webhook
from ..core.webhooks import (
    LONGEST_WAIT,
    MAX_BODY,
    MAX_WAITING,
    Delivery,
    HookAnswer,
    Waiting,
    after,
    body_of,
    next_of,
    shown,
    targets,
    variables_of,
)
from ..errors import StateError
from ..messages.containers import RecordEvent
from ..messages.hooks import SendHooks
from ..ports import HookSender, StateStore
from ..runtime.actor import Actor
from ..runtime.ref import Ref
from ..runtime.timers import Task, Timer

RECORD = "webhooks"


class DeliveryDue: ...


@dataclass(frozen=True)
class Tried:
    delivery: Delivery
    answer: HookAnswer


class HookActor(Actor):
    """``webhook``: whom to tell, as the configuration says now. ``new_id`` makes ids that are never used twice; ``now`` is
    Unix seconds."""

    def __init__(
        self,
        webhook: Callable[[], Webhook],
        sender: HookSender,
        state: StateStore,
        events: Ref,
        new_id: Callable[[], str],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._webhook = webhook
        self._sender = sender
        self._state = state
        self._events = events
        self._new_id = new_id
        self._now = now
        self._waiting: tuple[Delivery, ...] = ()
        self._busy: dict[str, Task] = {}
        self._timer: Timer | None = None

    def on_start(self) -> None:
        loaded = self._state.load(RECORD, Waiting) or Waiting()
        self._waiting = loaded.deliveries
        for delivery in loaded.deliveries:
            if delivery.running:
                self._over(delivery, HookAnswer(good=False, words="the daemon ended while it ran"))
        self._deliver()

    def receive(self, message: object) -> None:
        match message:
            case SendHooks():
                self._send(message)
            case Tried(delivery=delivery, answer=answer):
                self._tried(delivery, answer)
            case DeliveryDue():
                self._deliver()
            case _:
                super().receive(message)

    def _send(self, message: SendHooks) -> None:
        body = json.dumps(body_of(message.event, message.app, message.payload), ensure_ascii=False, default=str)
        if len(body.encode()) > MAX_BODY:
            body = json.dumps({"event": message.event, "app": message.app, "reason": "too long to be sent"})
        variables = variables_of(message.event, message.app, message.payload)
        made = tuple(
            Delivery(
                id=self._new_id(),
                event=message.event,
                app=message.app,
                target=target,
                body=body,
                variables=variables,
                due=self._now(),
            )
            for target in targets(self._webhook(), message.event)
        )
        if not made:
            return
        everything = (*self._waiting, *made)
        idle = [delivery for delivery in everything if delivery.id not in self._busy]
        for dropped in idle[: max(0, len(everything) - MAX_WAITING)]:
            everything = tuple(delivery for delivery in everything if delivery.id != dropped.id)
            self._report(dropped, HookAnswer(good=False, words=f"more than {MAX_WAITING} wait"))
        self._save(everything)
        self._deliver()

    def _deliver(self) -> None:
        """Begin whatever is due, and wake up for what will be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now, later = self._now(), []
        for delivery in next_of(self._waiting, frozenset(self._busy)):
            # one that waits longer than any wait is from a clock that was wrong
            if delivery.due <= now or delivery.due > now + LONGEST_WAIT:
                self._try(delivery)
            else:
                later.append(delivery.due)
        if later:
            self._timer = self.after(max(0.01, min(later) - now), DeliveryDue())

    def _try(self, delivery: Delivery) -> None:
        sender, body = self._sender, delivery.body.encode()
        target = delivery.target
        if isinstance(target, str):
            headers = {"X-NextDeploy-Event": delivery.event, "X-NextDeploy-Delivery": delivery.id}

            def call() -> HookAnswer:
                return sender.post(target, body, headers)

        else:
            # it may do anything, so it is on record as begun: a daemon that dies now must not let it run again
            delivery = replace(delivery, running=True)
            self._save(tuple(delivery if each.id == delivery.id else each for each in self._waiting))
            variables = {**delivery.variables, "NEXTDEPLOY_DELIVERY": delivery.id}

            def call() -> HookAnswer:
                return sender.run(target, body, variables)

        def then(answer: HookAnswer | None, error: BaseException | None) -> Tried:
            if answer is None:
                raise error or AssertionError("no answer")
            return Tried(delivery, answer)

        self._busy[delivery.id] = self.run(call, then)

    def _tried(self, delivery: Delivery, answer: HookAnswer) -> None:
        self._busy.pop(delivery.id, None)
        again = after(delivery, answer, self._now())
        if again is None:
            self._over(delivery, answer)
        else:
            self._save(tuple(again if each.id == delivery.id else each for each in self._waiting))
        self._deliver()

    def _over(self, delivery: Delivery, answer: HookAnswer) -> None:
        self._report(delivery, answer)
        self._save(tuple(each for each in self._waiting if each.id != delivery.id))

    def _report(self, delivery: Delivery, answer: HookAnswer) -> None:
        tries = delivery.tries + 1
        detail: dict[str, object] = {"event": delivery.event, "delivery": delivery.id, "tries": tries}
        if answer.output:
            detail["output"] = list(answer.output)
        times = f" ({tries} tries)" if tries > 1 else ""
        self._events.tell(
            RecordEvent(
                kind="webhook.delivered" if answer.good else "webhook.failed",
                app=delivery.app,
                reason=f"{shown(delivery.target)}: {answer.words}{times}",
                detail=detail,
            )
        )

    def _save(self, deliveries: tuple[Delivery, ...]) -> None:
        self._waiting = deliveries
        try:
            self._state.save(RECORD, Waiting(deliveries=deliveries))
        except StateError as error:
            # they go on, from memory; only a restart would lose them
            self._events.tell(RecordEvent(kind="webhook.record_failed", reason=str(error)))
