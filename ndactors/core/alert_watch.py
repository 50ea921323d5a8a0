"""The rules at work: signals and events go in, what is wrong (``Bad``) and what is over (``Over``) comes out."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from .alert_levels import Limit, Span, Watched, look
from .alert_rules import BY_SIGNAL, EVENTS, LEVELS, MINUTE, EventRule, LevelRule, shown
from .alerts import AlertView, Bad, Over, Severity, key_of
from .anomalies import USUAL, Seasons, SeasonState, Usual, amount, is_known, most_seasons
from .forecasting import Filling
from .model import Monitoring
from .one_line import name as short
from .signals import Signal

MOST_SUBJECTS = 20_000
MOST_TIMES = 100
GONE = "it is not there any more"
JOB = "job"
ANOMALY_LASTS = 14 * MINUTE
"""Three means in a row."""
RESUME_SECONDS = 10 * MINUTE
RENEW_SECONDS = 10 * MINUTE
"""So long a new daemon has to find again what an earlier one told of: a slow health check needs some tries."""
AGING_SECONDS = 15.0
"""Figures age by no more between two ticks, which come every few seconds: a clock that jumps makes none old."""
MISSING = "figures.missing"
ANOMALY = "anomaly."
MEGABYTE = 1024.0 * 1024.0


class _Words(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "?"


def said(words: str, subject: Mapping[str, str], **more: str) -> str:
    return words.format_map(_Words({**subject, **more}))


# -- signals ---------------------------------------------------------------------------------------


def limit_of(rule: LevelRule, monitoring: Monitoring) -> Limit:
    """A threshold of 0 is never reached; one that is smaller than its margin has room below it all the same."""
    bad = rule.threshold(monitoring)
    if rule.below:
        return Limit(bad=bad, good=bad + rule.margin, lasts=rule.lasts, over=rule.over)
    bad = bad if bad > 0 else math.inf
    return Limit(bad=bad, good=max(bad - rule.margin, bad / 2), lasts=rule.lasts, over=rule.over)


def subject_of(given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """What an alert is about, as it can be written and shown."""
    return {key: short(value) for key, value in given}


class LevelWatch:
    """Every signal under every rule that is about it."""

    def __init__(self) -> None:
        self._watched: dict[str, Watched] = {}
        self._sources: dict[str, set[str]] = {}
        """The keys that each source's signals had the last time."""
        self._ages: dict[str, Span] = {}
        """Of each source's last figures."""
        self._filling: dict[str, Filling] = {}
        self._anomalies = AnomalyWatch()
        self._resumed: dict[str, Span] = {}
        """For how long, of what fired before and was not looked at since."""

    def expect(self, sources: Iterable[str], now: float) -> None:
        """These tell figures: if one does not, from now on, they are missing."""
        for source in sources:
            self._ages.setdefault(source, Span(at=now))

    def resume(self, alerts: Iterable[AlertView], now: float) -> None:
        """These fired when the daemon ended. What nobody tells of within some minutes is gone."""
        for alert in alerts:
            key = key_of(alert.rule, alert.subject)
            self._resumed[key] = Span(at=now)
            watched = self._anomalies.watched if key.startswith(ANOMALY) else self._watched
            watched.setdefault(key, Watched(state="firing", began=alert.since, value=alert.value or 0.0))
            if alert.rule == MISSING:
                self.expect(alert.subject.values(), now)

    def look(self, source: str, signals: Sequence[Signal], monitoring: Monitoring, at: float) -> Iterator[Bad | Over]:
        """What one source's signals of ``at`` (Unix seconds) say. What it told of before and does not now is gone."""
        self._ages[source] = Span(at=at)
        seen: set[str] = set()
        for signal in (*signals, *self._derived(signals, at)):
            subject = subject_of(signal.subject)
            for rule in BY_SIGNAL.get(signal.name, ()):
                seen.add(key_of(rule.rule, subject))
                if signal.value is not None:
                    yield from self._judged(rule, subject, signal.value, limit_of(rule, monitoring), at)
            for usual, found in self._anomalies.look(signal, subject, monitoring, at):
                seen.add(key_of(f"{ANOMALY}{usual.signal}", subject))
                yield from found
        gone = self._sources.get(source, set()) - seen
        self._sources[source] = seen
        for key in seen & self._resumed.keys():
            del self._resumed[key]
        for key in gone:
            if self._forget(key):
                yield Over(key=key, words=_GONE.get(key.partition(" ")[0], GONE))

    def tick(self, monitoring: Monitoring, now: float) -> Iterator[Bad | Over]:
        """Now and then: who has told nothing for too long?"""
        (rule,) = BY_SIGNAL["figures.age"]
        for source, age in self._ages.items():
            subject = {"source": source}
            yield from self._judged(rule, subject, age.seen(now, AGING_SECONDS), limit_of(rule, monitoring), now)
            self._resumed.pop(key_of(rule.rule, subject), None)
        for key, span in list(self._resumed.items()):
            if span.seen(now) >= RESUME_SECONDS:
                del self._resumed[key]
                if self._forget(key):
                    yield Over(key=key, words=GONE)

    def _forget(self, key: str) -> bool:
        """True if it fired."""
        before = self._watched.pop(key, None) or self._anomalies.forget(key)
        return before is not None and before.state in ("firing", "falling")

    def _judged(
        self, rule: LevelRule, subject: dict[str, str], value: float, limit: Limit, at: float
    ) -> Iterator[Bad | Over]:
        key = key_of(rule.rule, subject)
        before = self._watched.get(key, Watched())
        if before.state == "calm" and not limit.is_bad(value):
            self._watched.pop(key, None)  # nearly all of them, nearly always
            return
        if key not in self._watched and len(self._watched) >= MOST_SUBJECTS:
            return
        after = look(before, limit, value, at)
        if rule.sums and before.state in ("firing", "falling") and limit.is_bad(value):
            after = replace(after, value=before.value + value)
        self._watched[key] = after
        if after.state in ("firing", "falling"):
            critical = rule.critical is not None and (value <= rule.critical if rule.below else value >= rule.critical)
            yield bad_of(rule, subject, after, limit, "critical" if critical else "warning")
        elif before.state in ("firing", "falling"):
            yield Over(key=key)

    def _derived(self, signals: Sequence[Signal], at: float) -> Iterator[Signal]:
        sizes = {signal.subject: signal.value for signal in signals if signal.name == "disk.size"}
        for signal in signals:
            if signal.value is None:
                continue
            if signal.name == "disk.bytes" and (size := sizes.get(signal.subject)) is not None:
                filling = self._filling.setdefault(key_of("", dict(signal.subject)), Filling())
                hours = filling.look(signal.value, size, at)
                yield replace(signal, name="disk.hours_left", value=hours)
            elif signal.name == "certificate.ends":
                yield replace(signal, name="certificate.days_left", value=(signal.value - at) / 86_400)

    # -- to keep -----------------------------------------------------------------------------------

    def seasons(self, now: float) -> dict[str, SeasonState]:
        return self._anomalies.state(now)

    def restore_seasons(self, state: Mapping[str, SeasonState], window: float) -> None:
        self._anomalies.restore(state, window)


def bad_of(rule: LevelRule, subject: dict[str, str], watched: Watched, limit: Limit, severity: Severity) -> Bad:
    words = rule.past if rule.past and watched.value <= 0 else rule.words
    value, bad = shown(abs(watched.value), rule.unit), shown(limit.bad, rule.unit)
    return Bad(
        rule=rule.rule,
        kind=rule.kind,
        subject=subject,
        since=watched.began or watched.at,
        severity=severity,
        value=watched.value,
        threshold=limit.bad,
        unit=rule.unit,
        summary=said(words, subject, value=value, limit=bad),
        advice=said(rule.advice, subject, value=value, limit=bad),
    )


class AnomalyWatch:
    """Signals beside what is usual for them at this time."""

    def __init__(self) -> None:
        self._seasons: dict[str, Seasons] = {}
        self._window = 0.0
        self.watched: dict[str, Watched] = {}
        self._scores: dict[str, tuple[float, float]] = {}
        """The last score and what is usual, by key: it holds until there is another one."""
        self._kept: dict[str, SeasonState] = {}
        """Of signals that nobody told of since the start."""
        self._looked: set[str] = set()

    def look(
        self, signal: Signal, subject: dict[str, str], monitoring: Monitoring, at: float
    ) -> Iterator[tuple[Usual, list[Bad | Over]]]:
        for usual in USUAL:
            if usual.signal == signal.name:
                found = [] if signal.value is None else self._judged(usual, subject, signal.value, monitoring, at)
                yield usual, list(found)

    def _judged(
        self, usual: Usual, subject: dict[str, str], value: float, monitoring: Monitoring, at: float
    ) -> Iterator[Bad | Over]:
        rule = f"{ANOMALY}{usual.signal}"
        key = key_of(rule, subject)
        seasons = self._seasons_of(key, monitoring.anomaly.window)
        if seasons is None:
            return
        verdict = seasons.look(value, at, monitoring.anomaly.sigma, floor=usual.floor, up=usual.up, down=usual.down)
        if verdict is not None:
            self._scores[key] = verdict.score, verdict.usual
        score, often = self._scores.get(key, (0.0, 0.0))
        limit = Limit(bad=1.0, good=0.6, lasts=ANOMALY_LASTS, over=ANOMALY_LASTS)
        before = self.watched.get(key, Watched())
        after = look(before, limit, score, at)
        if after.state == "calm":
            self.watched.pop(key, None)
            if before.state in ("firing", "falling"):
                yield Over(key=key)
            return
        self.watched[key] = after
        if after.state in ("firing", "falling"):
            scale = MEGABYTE if usual.unit == "MB" else 1.0
            words = {"value": shown(value / scale, usual.unit), "usual": shown(often / scale, usual.unit)}
            yield Bad(
                rule=rule,
                kind="anomaly",
                subject=subject,
                since=after.began,
                value=value,
                threshold=often,
                unit=usual.unit,
                summary=said(usual.words, subject, **words),
                advice="Look at what changed: a deploy, a campaign, a crawler, a leak. It counts as usual once it goes on for days.",
            )

    def _seasons_of(self, key: str, window: float) -> Seasons | None:
        if window != self._window:
            self._seasons.clear()
            self._kept.clear()
            self._window = window
        found = self._seasons.get(key)
        if found is None and len(self._seasons) < 2 * most_seasons(window):
            found = self._seasons[key] = Seasons(window)
            if key in self._kept:
                found.restore(self._kept.pop(key))
        if found is not None:
            self._looked.add(key)
        return found

    def forget(self, key: str) -> Watched | None:
        """What is gone is compared with nothing; what was usual is remembered, as it may come back."""
        self._scores.pop(key, None)
        return self.watched.pop(key, None)

    def state(self, now: float) -> dict[str, SeasonState]:
        """What was usual. What was not looked at for ``KEPT`` windows is forgotten; of too many those that nobody looked at
        since the last time, and those that know least."""
        states = {**self._kept, **{key: seasons.state() for key, seasons in self._seasons.items()}}
        known = {key: state for key, state in states.items() if is_known(state, self._window, now)}
        rank = sorted(known, key=lambda key: (key in self._looked, amount(known[key])), reverse=True)
        kept = rank[: most_seasons(self._window)]
        chosen = set(kept)
        self._kept = {key: state for key, state in self._kept.items() if key in chosen}
        young = self._looked - known.keys()
        self._seasons = {key: each for key, each in self._seasons.items() if key in young or key in chosen}
        self._looked = set()
        return {key: known[key] for key in kept}

    def restore(self, state: Mapping[str, SeasonState], window: float) -> None:
        self._kept, self._window = dict(state), window


# -- events ----------------------------------------------------------------------------------------


class Happened(Struct, frozen=True, kw_only=True):
    """An event, as this file needs it."""

    kind: str
    app: str | None = None
    process: str | None = None
    container: str | None = None
    reason: str = ""
    detail: Mapping[str, object] = {}

    def value_of(self, name: str) -> str | None:
        own = {"app": self.app, "process": self.process, "container": self.container}
        value = own[name] if name in own else self.detail.get(name)
        return None if value is None else short(str(value))

    def subject(self, rule: EventRule) -> dict[str, str]:
        return {part: value for part in rule.by if (value := self.value_of(part)) is not None}


class Happening(Struct, kw_only=True):
    """What fires: ``quiet``, since it happened last; ``unrenewed``, since a new daemon waits for it to happen again."""

    rule: EventRule
    subject: dict[str, str]
    quiet: Span
    unrenewed: Span | None = None


class EventWatch:
    """Events under the rules about them."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}
        self._open: dict[str, Happening] = {}

    def resume(self, alert: AlertView, now: float, *, renew: bool) -> bool:
        """It fired when it was written down. ``renew``: by a daemon that ended since, so that what is told anew by each
        daemon is over if it is not. False: that is none of ours."""
        found = next((each for each in EVENTS if each.rule == alert.rule), None)
        if found is None:
            return False
        self._open[key_of(alert.rule, alert.subject)] = Happening(
            rule=found,
            subject=alert.subject,
            quiet=Span(at=now, seconds=max(0.0, now - (alert.last_at or alert.fired_at))),
            unrenewed=Span(at=now) if renew and found.renewed else None,
        )
        return True

    def unrenewed(self) -> tuple[str, ...]:
        """The keys of what a new daemon has not found again yet."""
        return tuple(key for key, each in self._open.items() if each.unrenewed is not None)

    def hear(self, event: Happened, at: float) -> Iterator[Bad | Over]:
        for rule in _RULES_BY_EVENT.get(event.kind, ()):
            if event.kind in rule.clears:
                yield from self._cleared(rule, event)
            else:
                yield from self._happened(rule, event, at)

    def _happened(self, rule: EventRule, event: Happened, at: float) -> Iterator[Bad]:
        subject = event.subject(rule)
        key = key_of(rule.rule, subject)
        if key not in self._times and len(self._times) >= MOST_SUBJECTS:
            return
        times = self._times.setdefault(key, deque(maxlen=MOST_TIMES))
        times.append(at)
        recent = [time for time in times if 0 <= at - time <= rule.within]
        again = key in self._open
        if len(recent) < rule.many and not again:
            return
        self._open[key] = Happening(rule=rule, subject=subject, quiet=Span(at=at))
        words = {"reason": event.reason or event.kind}
        counted = rule.critical_at > 1 or rule.many > 1
        yield Bad(
            rule=rule.rule,
            kind=rule.kind,
            subject=subject,
            since=recent[0],
            severity="critical" if rule.critical_at and len(recent) >= rule.critical_at else "warning",
            value=float(len(recent)) if counted else None,
            unit=f"times in {shown(rule.within / 60, 'min')}" if counted else "",
            summary=said(rule.words, subject, **words),
            advice=said(rule.advice, subject, **words),
            again=again,
        )

    def _cleared(self, rule: EventRule, event: Happened) -> Iterator[Over]:
        told = event.subject(rule)
        for key, each in list(self._open.items()):
            if each.rule is rule and (told or not rule.by) and told.items() <= each.subject.items():
                self._end(key)
                yield Over(key=key)

    def tick(self, now: float, processes: Mapping[str, Collection[str]] | None = None) -> Iterator[Over]:
        """Now and then: what has not happened again for long enough, and what is not configured any more? ``processes``: by
        app, of those that are."""
        for key, each in list(self._open.items()):
            quiet, unrenewed = each.quiet.seen(now), each.unrenewed.seen(now) if each.unrenewed is not None else 0.0
            if (each.rule.calm is not None and quiet >= each.rule.calm) or unrenewed >= RENEW_SECONDS:
                self._end(key)
                yield Over(key=key)
            elif each.rule.rule == JOB and _is_gone(each.subject, processes or {}):
                self._end(key)
                yield Over(key=key, words=GONE)
        longest = max(rule.within for rule in EVENTS)
        self._times = {key: times for key, times in self._times.items() if now - times[-1] <= longest}

    def end(self, key: str) -> bool:
        """Somebody says that it is over. False if it does not fire here."""
        if key not in self._open:
            return False
        self._end(key)
        return True

    def _end(self, key: str) -> None:
        del self._open[key]
        self._times.pop(key, None)


def _is_gone(subject: Mapping[str, str], processes: Mapping[str, Collection[str]]) -> bool:
    """Its app is there, and has no such process."""
    known = processes.get(subject.get("app", ""))
    return known is not None and subject.get("process") not in known


_GONE = {rule.rule: rule.gone for rule in LEVELS}
_RULES_BY_EVENT: dict[str, list[EventRule]] = {}
for _rule in EVENTS:
    for _kind in (*_rule.fires, *_rule.clears):
        _RULES_BY_EVENT.setdefault(_kind, []).append(_rule)

KINDS = frozenset({rule.kind for rule in LEVELS} | {rule.kind for rule in EVENTS} | {"anomaly", "budget"})
"""Every kind of alert that there is."""
