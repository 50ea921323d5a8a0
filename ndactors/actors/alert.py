"""AlertActor: what is wrong. It looks at figures and events as they come, keeps the book of alerts, and has people told of
what changed in it, several changes in one message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from msgspec import Struct, field

from ..core.alert_watch import EventWatch, Happened, LevelWatch, SeasonState
from ..core.alerts import LONGEST_SILENCE, AlertBook, AlertView, Bad, Over, Saved, Silence
from ..core.model import Settings
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


@dataclass(frozen=True, kw_only=True)
class AlertSurroundings:
    """``now`` is Unix seconds; ``new_id`` makes ids that are never used twice; ``server``: the host's name."""

    settings: Callable[[], Settings]
    state: StateStore
    events: Ref
    notify: Ref
    now: Callable[[], float]
    new_id: Callable[[], str]
    server: str


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

    def on_start(self) -> None:
        around, now = self._around, self._around.now()
        self._book = book = AlertBook(around.new_id, around.state.load(RECORD, Saved))
        levels = []
        for key, id in book.open.items():
            alert = book.alerts[id]
            if not self._happened.resume(alert.rule, alert.subject, min(now, alert.fired_at), now):
                levels.append(key)
        self._levels.resume(levels, now)
        seasons = around.state.load(SEASONS, SavedSeasons)
        if seasons is not None:
            self._levels.restore_seasons(seasons.seasons, seasons.window)
        self.every(TICK_SECONDS, TickDue())
        self.every(SEASONS_SECONDS, SeasonsDue())
        if book.waiting:
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
        now = self._around.now()
        self._judge(self._levels.tick(self._around.settings().monitoring, now))
        self._judge(self._happened.tick(now))
        self._book.mark_silenced(now)
        self._book.remind(now)
        self._changed()

    def _judge(self, decisions: Iterable[Bad | Over]) -> None:
        now = self._around.now()
        for decision in decisions:
            if isinstance(decision, Bad):
                self._bad(decision, now)
            elif (alert := self._book.over(decision, now)) is not None:
                self._event("alert.resolved", alert)
                self._changed(saved=False)

    def _bad(self, bad: Bad, now: float) -> None:
        alert = self._book.bad(bad, now)
        if alert is not None:
            if self._book.is_silenced(alert, now):
                self._book.mark_silenced(now)
            self._event("alert.fired", alert)
            self._changed(saved=False)

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

    def _changed(self, *, saved: bool = True) -> None:
        if not saved:
            self._save_soon()
        if self._book.waiting:
            self._tell_soon()

    def _tell_soon(self) -> None:
        if self._telling is None:
            self._telling = self.after(GROUP_SECONDS, TellDue())

    def _tell(self) -> None:
        self._telling = None
        now, settings = self._around.now(), self._around.settings()
        firing, over = self._book.take(settings.monitoring.alert.notify_on, now)
        for state, alerts in (("firing", firing), ("resolved", over)):
            if alerts:
                self._around.notify.tell(Notify(notification=self._notification(state, alerts, now)))
        self._save_soon()

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

    def _acknowledge(self, message: AcknowledgeAlert) -> AlertView:
        known = self._book.alerts.get(message.id)
        if known is None or (message.apps is not None and known.app not in message.apps):
            raise NotFound(f"There is no alert {message.id}.")
        before = known.state
        alert = self._book.acknowledge(message.id, message.by, self._around.now())
        if alert is None:
            raise Conflict("This alert is over.")
        if before == "firing":
            self._event("alert.acknowledged", alert, by=message.by)
            self._changed(saved=False)
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
        self._book.mark_silenced(self._around.now())
        what = " of ".join(
            part for part in (f"alerts ({silence.kind})" if silence.kind else "alerts", silence.app) if part
        )
        words = f"{what}, by {silence.by or 'somebody'}{f': {silence.reason}' if silence.reason else ''}"
        self._around.events.tell(RecordEvent(kind=kind, app=silence.app, reason=words, detail={"silence": silence.id}))
        self._changed(saved=False)

    # -- on disk -----------------------------------------------------------------------------------

    def _save_soon(self) -> None:
        if self._saving is None:
            self._saving = self.after(SAVE_SECONDS, SaveDue())

    def _save(self) -> None:
        self._keep(RECORD, self._book.saved())

    def _save_seasons(self) -> None:
        window = self._around.settings().monitoring.anomaly.window
        self._keep(SEASONS, SavedSeasons(window=window, seasons=self._levels.seasons()))

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
