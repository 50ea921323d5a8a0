"""Alerts: what is wrong, since when, who knows. A book of them; rules write into it (``Bad``, ``Over``), people are told of
what changed in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

AlertState = Literal["firing", "acknowledged", "resolved"]
Severity = Literal["warning", "critical"]

KEPT = 500
"""Alerts that are over."""
KEPT_SECONDS = 30 * 86_400.0
MOST_OPEN = 2000
"""At once; a fault that makes more is told by the first of them."""
REMIND_SECONDS = 86_400.0
"""What nobody has acknowledged is told again."""
MOST_SILENCES = 200
LONGEST_SILENCE = 366 * 86_400.0


class AlertView(Struct, frozen=True, kw_only=True):
    """One thing that is or was wrong. Times are Unix seconds. ``kind`` is one of ``monitoring.alert.notify_on``; ``rule``
    names what noticed it; ``subject`` is what it is about, so that the same trouble of two disks is two alerts."""

    id: str
    kind: str
    rule: str
    severity: Severity = "warning"
    app: str | None = None
    process: str | None = None
    container: str | None = None
    subject: dict[str, str] = field(default_factory=dict)
    state: AlertState = "firing"
    since: float = 0.0
    """When it began, before it was certain."""
    fired_at: float = 0.0
    acknowledged_at: float | None = None
    acknowledged_by: str = ""
    resolved_at: float | None = None
    count: int = 1
    """How often it happened, for what happens rather than lasts."""
    value: float | None = None
    threshold: float | None = None
    unit: str = ""
    summary: str = ""
    """What and where, with the figure, in one sentence."""
    advice: str = ""
    """What to do about it."""
    silenced: bool = False
    """A silence holds its messages back."""


class Silence(Struct, frozen=True, kw_only=True):
    """Nobody is told of alerts that it fits, from ``begins`` to ``ends`` (Unix seconds). ``kind`` and ``app`` None: any."""

    id: str
    begins: float
    ends: float
    kind: str | None = None
    app: str | None = None
    reason: str = ""
    by: str = ""

    def fits(self, alert: AlertView, now: float) -> bool:
        return (
            self.begins <= now < self.ends
            and (self.kind is None or self.kind == alert.kind)
            and (self.app is None or self.app == alert.app)
        )


class Bad(Struct, frozen=True, kw_only=True):
    """A rule says: this is wrong, or still is. ``again``: it happened once more."""

    rule: str
    kind: str
    subject: dict[str, str]
    since: float
    severity: Severity = "warning"
    value: float | None = None
    threshold: float | None = None
    unit: str = ""
    summary: str
    advice: str
    again: bool = False

    @property
    def key(self) -> str:
        return key_of(self.rule, self.subject)


class Over(Struct, frozen=True, kw_only=True):
    """A rule says: that is over. ``words``: how it ended, if there is more to say than that."""

    key: str
    words: str = ""


class Change(Struct, frozen=True, kw_only=True):
    """What people may want to hear of: an alert ``fired``, became ``worse``, was ``resolved``, or fires on (``reminder``)."""

    what: Literal["fired", "worse", "resolved", "reminder"]
    id: str


class Saved(Struct, frozen=True, kw_only=True):
    """The book on disk."""

    alerts: tuple[AlertView, ...] = ()
    told: dict[str, float] = field(default_factory=dict)
    silences: tuple[Silence, ...] = ()
    waiting: tuple[Change, ...] = ()


def key_of(rule: str, subject: dict[str, str]) -> str:
    return " ".join([rule, *(f"{name}={value}" for name, value in sorted(subject.items()))])


class AlertBook:
    """``told``: alerts that people were told of, and when last. ``waiting``: changes that nobody was told of yet."""

    def __init__(self, new_id: Callable[[], str], saved: Saved | None = None) -> None:
        saved = saved or Saved()
        self._new_id = new_id
        self.alerts = {alert.id: alert for alert in saved.alerts}
        self.open = {key_of(a.rule, a.subject): a.id for a in saved.alerts if a.state != "resolved"}
        self.told = dict(saved.told)
        self.silences = list(saved.silences)
        self.waiting: list[Change] = list(saved.waiting)

    def saved(self) -> Saved:
        return Saved(
            alerts=tuple(self.alerts.values()),
            told=self.told,
            silences=tuple(self.silences),
            waiting=tuple(self.waiting),
        )

    # -- what rules say ----------------------------------------------------------------------------

    def bad(self, bad: Bad, now: float) -> AlertView | None:
        """The alert, if something changed that is worth an event: it is new, or became critical."""
        known = self.open.get(bad.key)
        if known is None:
            return self._fire(bad, now)
        alert = self.alerts[known]
        worse = bad.severity == "critical" and alert.severity != "critical"
        self.alerts[known] = alert = replace(
            alert,
            severity="critical" if worse else alert.severity,
            value=bad.value,
            threshold=bad.threshold,
            summary=bad.summary,
            count=alert.count + bad.again,
        )
        if worse:
            self.waiting.append(Change(what="worse", id=known))
        return alert if worse else None

    def _fire(self, bad: Bad, now: float) -> AlertView | None:
        if len(self.open) >= MOST_OPEN:
            return None
        alert = AlertView(
            id=self._new_id(),
            kind=bad.kind,
            rule=bad.rule,
            severity=bad.severity,
            app=bad.subject.get("app"),
            process=bad.subject.get("process"),
            container=bad.subject.get("container"),
            subject=bad.subject,
            since=min(bad.since, now),
            fired_at=now,
            value=bad.value,
            threshold=bad.threshold,
            unit=bad.unit,
            summary=bad.summary,
            advice=bad.advice,
        )
        self.alerts[alert.id] = alert
        self.open[bad.key] = alert.id
        self.waiting.append(Change(what="fired", id=alert.id))
        return alert

    def over(self, over: Over, now: float) -> AlertView | None:
        """The alert that is over now; None if there was none."""
        id = self.open.pop(over.key, None)
        if id is None:
            return None
        alert = self.alerts[id]
        summary = f"{alert.summary} ({over.words})" if over.words else alert.summary
        self.alerts[id] = alert = replace(
            alert, state="resolved", resolved_at=max(now, alert.fired_at), summary=summary, silenced=False
        )
        self.waiting.append(Change(what="resolved", id=id))
        self._forget(now)
        return alert

    def _forget(self, now: float) -> None:
        ended = sorted((a.resolved_at or 0.0, a.id) for a in self.alerts.values() if a.state == "resolved")
        waited_for = {change.id for change in self.waiting}
        for place, (at, id) in enumerate(ended):
            if (place < len(ended) - KEPT or at < now - KEPT_SECONDS) and id not in waited_for:
                del self.alerts[id]
                self.told.pop(id, None)

    # -- what people say ---------------------------------------------------------------------------

    def acknowledge(self, id: str, by: str, now: float) -> AlertView | None:
        """None if it is over. ``KeyError`` if there is none."""
        alert = self.alerts[id]
        if alert.state == "resolved":
            return None
        if alert.state == "firing":
            alert = replace(alert, state="acknowledged", acknowledged_at=now, acknowledged_by=by)
            self.alerts[id] = alert
        return alert

    def silence(self, silence: Silence, now: float) -> bool:
        """False if there are too many."""
        self.silences = [each for each in self.silences if each.ends > now]
        if len(self.silences) >= MOST_SILENCES:
            return False
        self.silences.append(silence)
        return True

    def end_silence(self, id: str, now: float) -> Silence | None:
        """None if there is none."""
        found = next((each for each in self.silences if each.id == id and each.ends > now), None)
        self.silences = [each for each in self.silences if each.id != id]
        return found

    # -- what people are told ----------------------------------------------------------------------

    def mark_silenced(self, now: float) -> None:
        """Alerts know whether they are silenced; one whose silence ended and that nobody was told of is told now."""
        for key, id in self.open.items():
            alert = self.alerts[id]
            silenced = self.is_silenced(alert, now)
            if silenced != alert.silenced:
                self.alerts[id] = replace(alert, silenced=silenced)
                if not silenced and id not in self.told and alert.state == "firing":
                    self.waiting.append(Change(what="fired", id=self.open[key]))

    def is_silenced(self, alert: AlertView, now: float) -> bool:
        return any(silence.fits(alert, now) for silence in self.silences)

    def remind(self, now: float) -> None:
        """What fires on unacknowledged is told again after a day."""
        for id in self.open.values():
            if self.alerts[id].state == "firing" and now - self.told.get(id, now) >= REMIND_SECONDS:
                self.waiting.append(Change(what="reminder", id=id))
                self.told[id] = now

    def take(self, kinds: Iterable[str], now: float) -> tuple[list[AlertView], list[AlertView]]:
        """What people are to be told now: alerts that fire, and alerts that are over. Nothing of kinds that nobody wants to
        hear of, nor of what is silenced; an end only where they heard of the begin."""
        wanted, firing, over = set(kinds), dict[str, AlertView](), dict[str, AlertView]()
        changes, self.waiting = self.waiting, []
        # somebody who looks after it wants to know that it became worse, not that it fires on
        for change in changes:
            alert = self.alerts.get(change.id)
            if alert is None or alert.kind not in wanted:
                continue
            if change.what == "resolved":
                firing.pop(alert.id, None)
                if self.told.pop(alert.id, None) is not None:
                    over[alert.id] = alert
            elif (alert.state == "firing" or change.what == "worse") and not self.is_silenced(alert, now):
                firing[alert.id] = alert
        for id in firing:
            self.told[id] = now
        return list(firing.values()), list(over.values())
