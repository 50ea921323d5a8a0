"""Alerts: what is wrong, since when, who knows. A book of them; rules write into it (``Bad``, ``Over``), people are told of
what changed in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

from .one_line import line

AlertState = Literal["firing", "acknowledged", "resolved"]
Severity = Literal["warning", "critical"]

KEPT = 500
"""Alerts that are over."""
KEPT_SECONDS = 30 * 86_400.0
MOST_OPEN = 2000
"""At once; a fault that makes more is told by the first of them."""
FOR_CRITICAL = 200
"""So many more, if they are critical."""
REMIND_SECONDS = 86_400.0
"""What nobody has acknowledged is told again."""
MOST_SILENCES = 200
MOST_OF_AN_APP = 20
"""Silences: who may silence one app leaves room for the others."""
LONGEST_SILENCE = 366 * 86_400.0
SHORTEST_ID = 4
MOST_WORDS = 500
"""Characters of a sentence."""


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
    last_at: float = 0.0
    """When it happened last."""
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
    begun: bool = False
    """It has begun, and a clock that goes back changes nothing about that."""

    def holds(self, now: float) -> bool:
        return (self.begun or self.begins <= now) and now < self.ends

    def fits(self, alert: AlertView) -> bool:
        return (self.kind is None or self.kind == alert.kind) and (self.app is None or self.app == alert.app)


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


class Heard(Struct, frozen=True, kw_only=True):
    """People know of an alert: since when (they are reminded of it), and how severe it was then. ``told`` False: nobody was
    told, as somebody had acknowledged it before."""

    at: float
    severity: Severity
    told: bool = True


class Saved(Struct, frozen=True, kw_only=True):
    """The book on disk."""

    alerts: tuple[AlertView, ...] = ()
    heard: dict[str, Heard] = field(default_factory=dict)
    silences: tuple[Silence, ...] = ()


def key_of(rule: str, subject: dict[str, str]) -> str:
    return " ".join([rule, *(f"{name}={value}" for name, value in sorted(subject.items()))])


def one_of(ids: Iterable[str], wanted: str) -> str | None:
    """The id that is meant: all of it, or at least four characters that only one begins or ends with."""
    found = set()
    for id in ids:
        if id == wanted:
            return id
        if len(wanted) >= SHORTEST_ID and (id.startswith(wanted) or id.endswith(wanted)):
            found.add(id)
    return found.pop() if len(found) == 1 else None


class AlertBook:
    """``heard``: alerts that people know of. What they are to be told follows from it."""

    def __init__(self, new_id: Callable[[], str], saved: Saved | None = None) -> None:
        saved = saved or Saved()
        self._new_id = new_id
        self.alerts = {alert.id: alert for alert in saved.alerts}
        self.open = {key_of(a.rule, a.subject): a.id for a in saved.alerts if a.state != "resolved"}
        self.heard = {id: heard for id, heard in saved.heard.items() if id in self.alerts}
        self.silences = list(saved.silences)

    def saved(self) -> Saved:
        return Saved(alerts=tuple(self.alerts.values()), heard=self.heard, silences=tuple(self.silences))

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
            summary=line(bad.summary, MOST_WORDS),
            count=alert.count + bad.again,
            last_at=now if bad.again else alert.last_at,
        )
        return alert if worse else None

    def _fire(self, bad: Bad, now: float) -> AlertView | None:
        if len(self.open) >= MOST_OPEN + (FOR_CRITICAL if bad.severity == "critical" else 0):
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
            last_at=now,
            value=bad.value,
            threshold=bad.threshold,
            unit=bad.unit,
            summary=line(bad.summary, MOST_WORDS),
            advice=line(bad.advice, MOST_WORDS),
        )
        self.alerts[alert.id] = alert = replace(alert, silenced=self.is_silenced(alert, now))
        self.open[bad.key] = alert.id
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
        return alert

    def _forget(self, now: float) -> None:
        ended = sorted((a.resolved_at or 0.0, a.id) for a in self.alerts.values() if a.state == "resolved")
        for place, (at, id) in enumerate(ended):
            if place < len(ended) - KEPT or at < now - KEPT_SECONDS:
                del self.alerts[id]

    # -- what people say ---------------------------------------------------------------------------

    def acknowledge(self, id: str, by: str, now: float) -> AlertView | None:
        """None if it is over. ``KeyError`` if there is none."""
        alert = self.alerts[id]
        if alert.state == "resolved":
            return None
        if alert.state == "firing":
            alert = replace(alert, state="acknowledged", acknowledged_at=now, acknowledged_by=by)
            self.alerts[id] = alert
            self.heard.setdefault(id, Heard(at=now, severity=alert.severity, told=False))
        return alert

    def silence(self, silence: Silence, now: float) -> bool:
        """False if there are too many."""
        self.silences = [each for each in self.silences if each.ends > now]
        of_app = sum(each.app == silence.app for each in self.silences) if silence.app is not None else 0
        if len(self.silences) >= MOST_SILENCES or of_app >= MOST_OF_AN_APP:
            return False
        self.silences.append(replace(silence, begun=True) if silence.begins <= now else silence)
        return True

    def end_silence(self, id: str, now: float) -> Silence | None:
        """None if there is none."""
        found = next((each for each in self.silences if each.id == id and each.ends > now), None)
        self.silences = [each for each in self.silences if each.id != id]
        return found

    # -- what people are told ----------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Alerts know whether they are silenced; times to come, of a clock that went back, are now."""
        self.silences = [replace(each, begun=True) if each.begins <= now else each for each in self.silences]
        holding = self._holding(now)
        for id in self.open.values():
            alert = self.alerts[id]
            silenced = any(silence.fits(alert) for silence in holding)
            if silenced != alert.silenced:
                self.alerts[id] = replace(alert, silenced=silenced)
        self.heard = {id: replace(each, at=now) if each.at > now else each for id, each in self.heard.items()}

    def _holding(self, now: float) -> list[Silence]:
        return [silence for silence in self.silences if silence.holds(now)]

    def is_silenced(self, alert: AlertView, now: float) -> bool:
        return any(silence.fits(alert) for silence in self._holding(now))

    def news(self, kinds: Iterable[str], now: float) -> list[AlertView]:
        """What fires and is to be told: what nobody heard of, what became critical since, what nobody acknowledged for a day.
        Nothing of kinds that nobody wants to hear of, nor, for now, of what is silenced."""
        wanted, holding = set(kinds), self._holding(now)
        return [
            alert
            for alert in map(self.alerts.__getitem__, self.open.values())
            if alert.kind in wanted and self._is_news(alert, now) and not any(each.fits(alert) for each in holding)
        ]

    def _is_news(self, alert: AlertView, now: float) -> bool:
        heard = self.heard.get(alert.id)
        if heard is None:
            return alert.state == "firing"
        # somebody who looks after it wants to know that it became worse, not that it fires on
        worse = alert.severity == "critical" and heard.severity != "critical"
        return worse or (alert.state == "firing" and now - heard.at >= REMIND_SECONDS)

    def take(self, kinds: Iterable[str], now: float) -> tuple[list[AlertView], list[AlertView]]:
        """What people are told now: alerts that fire (``news``), and alerts that are over, if they were told of the begin."""
        firing = self.news(kinds, now)
        for alert in firing:
            self.heard[alert.id] = Heard(at=now, severity=alert.severity)
        ended = {id: heard for id, heard in self.heard.items() if self.alerts[id].state == "resolved"}
        over = [self.alerts[id] for id, heard in ended.items() if heard.told]
        for id in ended:
            del self.heard[id]
        self._forget(now)
        return firing, over
