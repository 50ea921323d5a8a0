"""NotifyActor: tells people of alerts, on every channel. Each channel has a queue of its own, on record before anything
is tried: one that hangs holds up no other, and nothing is lost with the daemon."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from msgspec.structs import replace

from ..core.model import Settings
from ..core.notice_queue import (
    FOLDER,
    MAX_DEAD,
    ChannelRecord,
    Queued,
    added,
    answered,
    began,
    buried,
    held,
    next_step,
    record_name,
)
from ..core.notices import fitted
from ..core.notifications import DeadLetter, Notification
from ..core.webhooks import HookAnswer
from ..errors import Conflict, StateError
from ..messages.alerts import (
    ChannelResult,
    ChannelsView,
    ChannelView,
    GetChannels,
    GetSigningKey,
    Notify,
    TestChannels,
)
from ..messages.containers import ApplySettings, RecordEvent
from ..ports import AlertChannel, AlertChannelSource, StateStore
from ..runtime.actor import Actor
from ..runtime.ref import Later, Ref
from ..runtime.timers import Task, Timer

log = logging.getLogger("ndactors.notify")

GONE = "its channel is not configured any more"


@dataclass(frozen=True)
class SendingDue:
    name: str


@dataclass(frozen=True)
class Tried:
    name: str
    message: Queued
    answer: HookAnswer


@dataclass(frozen=True)
class Tested:
    place: int
    result: ChannelResult


@dataclass
class Trial:
    """One that is under way."""

    later: Later
    by: str
    left: int
    results: dict[int, ChannelResult] = field(default_factory=dict)


class NotifyActor(Actor):
    """``new_id`` makes ids that are never used twice; ``now`` is Unix seconds. Records go by ``record_name``."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        source: AlertChannelSource,
        state: StateStore,
        events: Ref,
        new_id: Callable[[], str],
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._source = source
        self._state = state
        self._events = events
        self._new_id = new_id
        self._now = now
        self._channels: dict[str, AlertChannel] = {}
        self._records: dict[str, ChannelRecord] = {}
        self._busy: dict[str, Task] = {}
        self._timers: dict[str, Timer] = {}
        self._test: Trial | None = None

    def on_start(self) -> None:
        for name in self._state.names(FOLDER):
            record = self._state.load(name, ChannelRecord)
            if record is not None:
                self._records[name] = record
        self._refresh()
        for name in self._channels:
            self._send(name)

    def receive(self, message: object) -> object:
        match message:
            case Notify(notification=notification):
                self._notify(notification)
            case Tried(name=name, message=queued, answer=answer):
                self._tried(name, queued, answer)
            case SendingDue(name=name):
                self._timers.pop(name, None)
                self._send(name)
            case ApplySettings():
                self._refresh()
            case TestChannels(by=by):
                return self._begin_test(by)
            case Tested(place=place, result=result):
                self._tested(place, result)
            case GetChannels():
                self._refresh()
                return self._view()
            case GetSigningKey():
                return self._signing_key()
            case _:
                return super().receive(message)
        return None

    # -- channels ----------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """The channels as they are configured now. What waits for one that is gone is a dead letter."""
        self._channels = {record_name(channel.key): channel for channel in self._source.current()}
        for name, channel in self._channels.items():
            record = self._records.get(name) or ChannelRecord(name=channel.name)
            self._records[name] = replace(record, name=channel.name)
        for name in [name for name in self._records if name not in self._channels]:
            self._retire(name)

    def _retire(self, name: str) -> None:
        record = before = self._records[name]
        for message in record.waiting:
            if name in self._busy and message.begun:
                continue  # it is on its way: what becomes of it is told then
            record, letter = buried(record, message, GONE, self._now())
            self._report_failure(letter)
        if name in self._timers:
            self._timers.pop(name).cancel()
        if record is not before:
            self._save(name, record)
        newest = sorted((letter.at for other in self._records.values() for letter in other.dead), reverse=True)
        oldest = newest[:MAX_DEAD][-1] if newest else 0.0
        if name not in self._busy and not any(letter.at >= oldest for letter in record.dead):
            del self._records[name]
            self._forget(name)

    def _forget(self, name: str) -> None:
        try:
            self._state.delete(name)
        except StateError as error:
            self._events.tell(RecordEvent(kind="notify.record_failed", reason=str(error)))

    # -- messages ----------------------------------------------------------------------------------

    def _notify(self, notification: Notification) -> None:
        self._refresh()
        bounded = fitted(notification)
        for name in self._channels:
            record, dropped = added(self._records[name], bounded, self._now())
            self._save(name, record)
            for letter in dropped:
                self._report_failure(letter)
            self._send(name)

    def _send(self, name: str) -> None:
        """Begin what is due, unless something is on its way there already; wake up for what will be."""
        channel = self._channels.get(name)
        if channel is None or name in self._busy:
            return
        if name in self._timers:
            self._timers.pop(name).cancel()
        message, at = next_step(self._records[name], self._now())
        if message is None:
            if at is not None:
                self._timers[name] = self.after(max(0.01, at - self._now()), SendingDue(name))
            return
        fresh = message.digest and not message.begun
        record, message = began(self._records[name], message)
        if fresh:
            self._save(name, record)  # from now on nothing is put into it, whatever happens to us
        else:
            self._records[name] = record
        call = partial(channel.send, message.notification)
        self._busy[name] = self.run(call, lambda answer, error: Tried(name, message, _of(answer, error)))

    def _tried(self, name: str, message: Queued, answer: HookAnswer) -> None:
        self._busy.pop(name, None)
        if name not in self._channels and not answer.good:
            answer = replace(answer, words=f"{answer.words}; {GONE}", again=False)
        record, letter = answered(self._records[name], message, answer, self._now())
        self._save(name, record)
        if letter is not None:
            self._report_failure(letter)
        elif answer.good:
            self._report("notify.delivered", record.name, message, answer.words)
        if name in self._channels:
            self._send(name)
        else:
            self._retire(name)

    # -- trying them -------------------------------------------------------------------------------

    def _begin_test(self, by: str) -> Later | tuple[ChannelResult, ...]:
        if self._test is not None:
            raise Conflict("A test is under way already.")
        self._refresh()
        channels = list(self._channels.values())
        if not channels:
            return ()
        settings = self._settings()
        notification = fitted(
            Notification(
                id=self._new_id(),
                at=self._now(),
                state="test",
                title=f"a test by {by}" if by else "a test",
                server=self._source.server,
                project=settings.project,
                environment=settings.environment,
            )
        )
        self._test = Trial(later=Later(), by=by, left=len(channels))
        for place, channel in enumerate(channels):
            self.run(partial(channel.send, notification), partial(_result, place, channel.name))
        return self._test.later

    def _tested(self, place: int, result: ChannelResult) -> None:
        test = self._test
        if test is None:
            return
        test.results[place] = result
        test.left -= 1
        if test.left:
            return
        self._test = None
        results = tuple(test.results[place] for place in sorted(test.results))
        good = sum(result.good for result in results)
        self._events.tell(
            RecordEvent(
                kind="notify.tested",
                reason=f"{good} of {len(results)} channels work; by {test.by or 'nobody'}",
                detail={"failed": [f"{each.channel}: {each.words}" for each in results if not each.good]},
            )
        )
        test.later.answer(results)

    # -- what is told ------------------------------------------------------------------------------

    def _view(self) -> ChannelsView:
        letters = [letter for record in self._records.values() for letter in record.dead]
        return ChannelsView(
            channels=tuple(
                ChannelView(
                    channel=record.name,
                    waiting=len(record.waiting),
                    delivered=record.delivered,
                    failed=record.failed,
                    held=held(record),
                    last_words=record.last_words,
                )
                for record in (self._records[name] for name in self._channels)
            ),
            dead_letters=tuple(sorted(letters, key=lambda letter: letter.at, reverse=True)[:MAX_DEAD]),
        )

    def _signing_key(self) -> str:
        try:
            key = self._source.own_key()
        except StateError as error:
            raise Conflict(str(error)) from error
        if key is None:
            raise Conflict("The key is the one that the configuration has: monitoring.alert.webhook_secret.")
        return key

    def _report(self, kind: str, channel: str, message: Queued, words: str) -> None:
        tries, notification = message.tries + 1, message.notification
        times = f" ({tries} tries)" if tries > 1 else ""
        detail = {"notification": notification.id, "state": notification.state, "channel": channel, "tries": tries}
        self._events.tell(
            RecordEvent(kind=kind, reason=f"{channel}: {words}{times}: {notification.title}", detail=detail)
        )

    def _report_failure(self, letter: DeadLetter) -> None:
        times = f" ({letter.tries} tries)" if letter.tries > 1 else ""
        detail = {"notification": letter.id, "channel": letter.channel, "tries": letter.tries}
        reason = f"{letter.channel}: {letter.words}{times}: {letter.title}"
        self._events.tell(RecordEvent(kind="notify.failed", reason=reason, detail=detail))

    def _save(self, name: str, record: ChannelRecord) -> None:
        self._records[name] = record
        try:
            self._state.save(name, record)
        except StateError as error:
            # they go on, from memory; only a restart would lose them
            self._events.tell(RecordEvent(kind="notify.record_failed", reason=str(error)))


def _of(answer: HookAnswer | None, error: BaseException | None) -> HookAnswer:
    """A fault of a channel must not hold up what comes after: the message is given up, and the fault is told."""
    if answer is not None:
        return answer
    log.error("a channel failed", exc_info=error)
    return HookAnswer(good=False, words=f"a fault of nextdeploy: {type(error).__name__}")


def _result(place: int, channel: str, answer: HookAnswer | None, error: BaseException | None) -> Tested:
    told = _of(answer, error)
    return Tested(place, ChannelResult(channel=channel, good=told.good, words=told.words))
