"""AlertActor: what is wrong. It looks at figures and events as they come, keeps the book of alerts, and has people told of
what changed in it, several changes in one message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from msgspec import Struct, field

from ..core.alert_watch import EventWatch, Happened, LevelWatch, SeasonState
from ..core.alerts import LONGEST_SILENCE, AlertBook, AlertView, Bad, Over, Saved, Silence, key_of, one_of
from ..core.model import Settings
from ..core.one_line import name as short
from ..core.signals import SignalMaker
from ..errors import Conflict, Invalid, NotFound, StateError
from ..messages.alerts import (
    AcknowledgeAlert,
    AddSilence,
    EndSilence,
    GetAlerts,
    GetSilences,
    Notification,
    Notify,
    ResolveAlert,
)
from ..messages.containers import RecordEvent
from ..messages.edge import LATENCY_BUCKETS
from ..messages.metrics import Sampled
from ..ports import StateStore
from ..runtime.actor import Actor
from ..runtime.ref import Ref
from ..runtime.timers import Timer

log = logging.getLogger("ndactors.alert")

RECORD, SEASONS = "alerts", "alert-seasons"
TICK_SECONDS = 5.0
GROUP_SECONDS = 10.0
"""What changes within so long is told in one message."""
SAVE_SECONDS = 1.0
"""Between two times that the book is written down."""
SEASONS_SECONDS = 3600.0
OUTGOING_SECONDS = 30.0
"""By then the NotifyActor has written down what it was told."""
SOURCES = ("host", "containers", "edge", "logs", "daemon", "apps")
"""Of figures: each tells some every few seconds."""
SHOWN = 500
OWN = ("alert.", "notify.")
"""Events that come of alerts: they make none."""


class TickDue: ...


class TellDue: ...


class SaveDue: ...


class SeasonsDue: ...


class SavedSeasons(Struct, frozen=True, kw_only=True):
    """What was usual when, by signal and subject. ``window``: seconds, of the configuration that it was learnt under."""

    window: float
    seasons: dict[str, SeasonState] = field(default_factory=dict)


class Written(Saved, frozen=True, kw_only=True):
    """The record: the book, and what a new life of the actor has to know. ``epoch``: of the daemon that wrote it;
    ``unrenewed``: what it had not found again yet; ``outgoing``: messages that may not have reached the NotifyActor."""

    epoch: int = 0
    unrenewed: tuple[str, ...] = ()
    outgoing: tuple[Notification, ...] = ()


@dataclass(frozen=True, kw_only=True)
class AlertSurroundings:
    """``now`` is Unix seconds; ``new_id`` makes ids that are never used twice; ``server``: the host's name; ``epoch`` is
    another one for each daemon."""

    settings: Callable[[], Settings]
    state: StateStore
    events: Ref
    notify: Ref
    now: Callable[[], float]
    new_id: Callable[[], str]
    server: str
    epoch: int


class AlertActor(Actor):
    def __init__(self, around: AlertSurroundings) -> None:
        self._around = around
        self._book = AlertBook(around.new_id)
        self._maker = SignalMaker(LATENCY_BUCKETS)
        self._levels = LevelWatch()
        self._happened = EventWatch()
        self._telling: Timer | None = None
        self._saving: Timer | None = None
        self._full = False
        self._outgoing: tuple[Notification, ...] = ()

    def on_start(self) -> None:
        around, now = self._around, self._around.now()
        written = around.state.load(RECORD, Written) or Written()
        self._book = book = AlertBook(around.new_id, written)
        levels = []
        for key, id in book.open.items():
            renew = written.epoch != around.epoch or key in written.unrenewed
            if not self._happened.resume(book.alerts[id], now, renew=renew):
                levels.append(book.alerts[id])
        self._levels.resume(levels, now)
        self._levels.expect(SOURCES, now)
        self._outgoing = written.outgoing
        for notification in self._outgoing:
            around.notify.tell(Notify(notification=notification))
        seasons = around.state.load(SEASONS, SavedSeasons)
        if seasons is not None:
            self._levels.restore_seasons(seasons.seasons, seasons.window)
        self.every(TICK_SECONDS, TickDue())
        self.every(SEASONS_SECONDS, SeasonsDue())
        self._tell_soon()

    def on_stop(self) -> None:
        self._save()
        self._save_seasons()

    def receive(self, message: object) -> object:
        match message:
            case Sampled(source=source, at=at, samples=samples):
                signals = self._maker.signals(source, samples, at, from_zero=message.from_zero)
                self._judge(self._levels.look(source, signals, self._around.settings().monitoring, at))
            case RecordEvent():
                self._hear(message)
            case TickDue():
                self._tick()
            case TellDue():
                self._tell()
            case SaveDue():
                self._saving = None
                self._save()
            case SeasonsDue():
                self._save_seasons()
            case GetAlerts():
                return self._found(message)
            case AcknowledgeAlert():
                return self._acknowledge(message)
            case ResolveAlert():
                return self._resolve(message)
            case AddSilence():
                return self._silence(message)
            case EndSilence():
                return self._end_silence(message)
            case GetSilences():
                now = self._around.now()
                return tuple(silence for silence in self._book.silences if silence.ends > now)
            case _:
                return super().receive(message)
        return None

    # -- what rules say ----------------------------------------------------------------------------

    def _hear(self, event: RecordEvent) -> None:
        if event.kind.startswith(OWN):
            return
        happened = Happened(
            kind=event.kind,
            app=event.app,
            process=event.process,
            container=event.container,
            reason=event.reason,
            detail=event.detail,
        )
        self._judge(self._happened.hear(happened, self._around.now()))

    def _tick(self) -> None:
        now, settings = self._around.now(), self._around.settings()
        self._judge(self._levels.tick(settings.monitoring, now))
        self._judge(self._happened.tick(now, {app.name: app.processes.keys() for app in settings.apps.values()}))
        self._book.tick(now)
        if self._book.news(settings.monitoring.alert.notify_on, now):
            self._tell_soon()
        if self._outgoing and not 0 <= now - self._outgoing[-1].at < OUTGOING_SECONDS:
            self._outgoing = ()
            self._save_soon()

    def _judge(self, decisions: Iterable[Bad | Over]) -> None:
        now = self._around.now()
        for decision in decisions:
            if isinstance(decision, Bad):
                self._bad(decision, now)
            elif (alert := self._book.over(decision, now)) is not None:
                self._event("alert.resolved", alert)
                self._changed()

    def _bad(self, bad: Bad, now: float) -> None:
        alert = self._book.bad(bad, now)
        if alert is not None:
            self._event("alert.fired", alert)
            self._changed()
        elif bad.again:
            self._save_soon()

    def _event(self, kind: str, alert: AlertView, **more: object) -> None:
        detail: dict[str, object] = {
            "alert": alert.id,
            "kind": alert.kind,
            "rule": alert.rule,
            "severity": alert.severity,
            **{name: value for name, value in (("value", alert.value), ("threshold", alert.threshold)) if value is not None},
            **more,
        }  # fmt: skip
        self._around.events.tell(
            RecordEvent(
                kind=kind,
                app=alert.app,
                process=alert.process,
                container=alert.container,
                reason=alert.summary,
                detail=detail,
            )
        )

    # -- telling people ----------------------------------------------------------------------------

    def _changed(self) -> None:
        self._save_soon()
        self._tell_soon()

    def _tell_soon(self) -> None:
        if self._telling is None:
            self._telling = self.after(GROUP_SECONDS, TellDue())

    def _tell(self) -> None:
        self._telling = None
        now, settings = self._around.now(), self._around.settings()
        firing, over = self._book.take(settings.monitoring.alert.notify_on, now)
        told = [
            self._notification(state, alerts, now)
            for state, alerts in (("firing", firing), ("resolved", over))
            if alerts
        ]
        if not told:
            return
        # on record before they go: whoever is killed between the two tells them again, by the same id
        self._outgoing = (*(each for each in self._outgoing if 0 <= now - each.at < OUTGOING_SECONDS), *told)
        self._save()
        for notification in told:
            self._around.notify.tell(Notify(notification=notification))

    def _notification(self, state: Any, alerts: list[AlertView], now: float) -> Notification:
        worst = sorted(alerts, key=lambda alert: (alert.severity != "critical", alert.fired_at))
        more = f", and {len(worst) - 1} more" if len(worst) > 1 else ""
        settings = self._around.settings()
        return Notification(
            id=self._around.new_id(),
            at=now,
            state=state,
            title=f"{worst[0].summary}{more}",
            alerts=tuple(worst),
            server=self._around.server,
            project=settings.project,
            environment=settings.environment,
        )

    # -- what people say ---------------------------------------------------------------------------

    def _found(self, query: GetAlerts) -> tuple[AlertView, ...]:
        wanted = [
            alert
            for alert in self._book.alerts.values()
            if (query.state is None or alert.state == query.state)
            and (query.app is None or alert.app == query.app)
            and (query.apps is None or alert.app in query.apps)
        ]
        wanted.sort(key=lambda alert: (alert.state == "resolved", -(alert.resolved_at or alert.fired_at)))
        return tuple(wanted[:SHOWN])

    def _known(self, id: str, apps: tuple[str, ...] | None) -> AlertView:
        visible = {alert.id: alert for alert in self._book.alerts.values() if apps is None or alert.app in apps}
        found = one_of(visible, id)
        if found is None:
            raise NotFound(f"There is no alert {id[:60]}, or more than one.")
        return visible[found]

    def _acknowledge(self, message: AcknowledgeAlert) -> AlertView:
        known = self._known(message.id, message.apps)
        before = known.state
        alert = self._book.acknowledge(known.id, message.by, self._around.now())
        if alert is None:
            raise Conflict("This alert is over.")
        if before == "firing":
            self._event("alert.acknowledged", alert, by=message.by)
            self._changed()
        return alert

    def _resolve(self, message: ResolveAlert) -> AlertView:
        known = self._known(message.id, message.apps)
        key = key_of(known.rule, known.subject)
        if known.state == "resolved":
            raise Conflict("This alert is over.")
        if not self._happened.end(key):
            raise Conflict("This alert is over when its figures are good again. Acknowledge it, or silence its kind.")
        alert = self._book.over(Over(key=key, words=f"ended by {short(message.by)}"), self._around.now())
        assert alert is not None
        self._event("alert.resolved", alert, by=message.by)
        self._changed()
        return alert

    def _silence(self, message: AddSilence) -> Silence:
        now = self._around.now()
        begins = now if message.begins is None else message.begins
        if not 0 < message.seconds <= LONGEST_SILENCE or begins + message.seconds <= now:
            raise Invalid("A silence lasts up to a year, and ends after now.")
        if begins > now + LONGEST_SILENCE:
            raise Invalid("A silence begins within a year.")
        silence = Silence(
            id=self._around.new_id(),
            begins=begins,
            ends=begins + message.seconds,
            kind=message.kind,
            app=message.app,
            reason=message.reason,
            by=message.by,
            begun=begins <= now,
        )
        if not self._book.silence(silence, now):
            raise Conflict("There are too many silences already; end some.")
        self._silences_changed("alert.silenced", silence)
        return silence

    def _end_silence(self, message: EndSilence) -> Silence:
        found = self._book.end_silence(message.id, self._around.now())
        if found is None:
            raise NotFound(f"There is no silence {message.id}.")
        self._silences_changed("alert.unsilenced", found)
        return found

    def _silences_changed(self, kind: str, silence: Silence) -> None:
        self._book.tick(self._around.now())
        what = " of ".join(
            part for part in (f"alerts ({silence.kind})" if silence.kind else "alerts", silence.app) if part
        )
        words = f"{what}, by {silence.by or 'somebody'}{f': {silence.reason}' if silence.reason else ''}"
        self._around.events.tell(RecordEvent(kind=kind, app=silence.app, reason=words, detail={"silence": silence.id}))
        self._changed()

    # -- on disk -----------------------------------------------------------------------------------

    def _save_soon(self) -> None:
        if self._saving is None:
            self._saving = self.after(SAVE_SECONDS, SaveDue())

    def _save(self) -> None:
        book = self._book.saved()
        written = Written(
            alerts=book.alerts,
            heard=book.heard,
            silences=book.silences,
            epoch=self._around.epoch,
            unrenewed=self._happened.unrenewed(),
            outgoing=self._outgoing,
        )
        self._keep(RECORD, written)

    def _save_seasons(self) -> None:
        window = self._around.settings().monitoring.anomaly.window
        self._keep(SEASONS, SavedSeasons(window=window, seasons=self._levels.seasons(self._around.now())))

    def _keep(self, name: str, value: object) -> None:
        try:
            self._around.state.save(name, value)
        except StateError as error:
            # they go on, from memory; it is told once, as it would be told by an event that cannot be stored either
            if not self._full:
                log.error("alerts cannot be written down: %s", error)
            self._full = True
        else:
            self._full = False
