"""The rules at work: signals and events go in, what is wrong (``Bad``) and what is over (``Over``) comes out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from .alert_levels import Limit, Watched, look
from .alert_rules import BY_SIGNAL, EVENTS, LEVELS, MINUTE, EventRule, LevelRule, shown
from .alerts import Bad, Over, Severity, key_of
from .anomalies import USUAL, Seasons, Usual
from .forecasting import Filling
from .model import Monitoring
from .signals import Signal

MOST_SUBJECTS = 20_000
MOST_TIMES = 100
GONE = "it is not there any more"
ANOMALY_LASTS = 14 * MINUTE
"""Three means in a row."""
RESUME_SECONDS = 10 * MINUTE
RENEW_SECONDS = 2 * MINUTE
"""So long a new daemon has to find again what an earlier one told of."""
ANOMALY = "anomaly."
MEGABYTE = 1024.0 * 1024.0

SeasonState = tuple[int, bytes, bytes, bytes]


class _Words(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "?"


def said(words: str, subject: Mapping[str, str], **more: str) -> str:
    return words.format_map(_Words({**subject, **more}))


# -- signals ---------------------------------------------------------------------------------------


def limit_of(rule: LevelRule, monitoring: Monitoring) -> Limit:
    bad = rule.threshold(monitoring)
    return Limit(bad=bad, good=bad + rule.margin if rule.below else bad - rule.margin, lasts=rule.lasts, over=rule.over)


class LevelWatch:
    """Every signal under every rule that is about it."""

    def __init__(self) -> None:
        self._watched: dict[str, Watched] = {}
        self._sources: dict[str, set[str]] = {}
        """The keys that each source's signals had the last time."""
        self._heard: dict[str, float] = {}
        self._filling: dict[str, Filling] = {}
        self._anomalies = AnomalyWatch()
        self._resumed: dict[str, float] = {}
        """When, of what fired before and was not looked at since."""

    def resume(self, keys: Iterable[str], now: float) -> None:
        """These fired when the daemon ended. What nobody tells of within some minutes is gone."""
        for key in keys:
            self._resumed[key] = now
            watched = self._anomalies.watched if key.startswith(ANOMALY) else self._watched
            watched.setdefault(key, Watched(state="firing"))

    def look(self, source: str, signals: Sequence[Signal], monitoring: Monitoring, at: float) -> Iterator[Bad | Over]:
        """What one source's signals of ``at`` (Unix seconds) say. What it told of before and does not now is gone."""
        self._heard[source] = at
        seen: set[str] = set()
        for signal in (*signals, *self._derived(signals, at)):
            subject = dict(signal.subject)
            for rule in BY_SIGNAL.get(signal.name, ()):
                seen.add(key_of(rule.rule, subject))
                yield from self._judged(rule, subject, signal.value, limit_of(rule, monitoring), at)
            for usual, found in self._anomalies.look(signal, monitoring, at):
                seen.add(key_of(f"{ANOMALY}{usual.signal}", subject))
                yield from found
        gone = self._sources.get(source, set()) - seen
        self._sources[source] = seen
        for key in seen & self._resumed.keys():
            del self._resumed[key]
        for key in gone:
            if self._forget(key):
                yield Over(key=key, words=GONE)

    def tick(self, monitoring: Monitoring, now: float) -> Iterator[Bad | Over]:
        """Now and then: who has told nothing for too long?"""
        (rule,) = BY_SIGNAL["figures.age"]
        for source, at in self._heard.items():
            age = now - at
            if age < 0:  # the clock went back
                self._heard[source] = now
            yield from self._judged(rule, {"source": source}, max(0.0, age), limit_of(rule, monitoring), now)
            self._resumed.pop(key_of(rule.rule, {"source": source}), None)
        for key, at in list(self._resumed.items()):
            if not 0 <= now - at < RESUME_SECONDS:
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
        after = self._watched[key] = look(before, limit, value, at)
        if after.state in ("firing", "falling"):
            critical = rule.critical is not None and (value <= rule.critical if rule.below else value >= rule.critical)
            yield bad_of(rule, subject, after, limit, "critical" if critical else "warning")
        elif before.state in ("firing", "falling"):
            yield Over(key=key)

    def _derived(self, signals: Sequence[Signal], at: float) -> Iterator[Signal]:
        sizes = {signal.subject: signal.value for signal in signals if signal.name == "disk.size"}
        for signal in signals:
            if signal.name == "disk.bytes" and signal.subject in sizes:
                filling = self._filling.setdefault(key_of("", dict(signal.subject)), Filling())
                hours = filling.look(signal.value, sizes[signal.subject], at)
                yield replace(signal, name="disk.hours_left", value=hours)
            elif signal.name == "certificate.ends":
                yield replace(signal, name="certificate.days_left", value=(signal.value - at) / 86_400)

    # -- to keep -----------------------------------------------------------------------------------

    def seasons(self) -> dict[str, SeasonState]:
        return self._anomalies.state()

    def restore_seasons(self, state: Mapping[str, SeasonState], window: float) -> None:
        self._anomalies.restore(state, window)


def bad_of(rule: LevelRule, subject: dict[str, str], watched: Watched, limit: Limit, severity: Severity) -> Bad:
    value, bad = shown(watched.value, rule.unit), shown(limit.bad, rule.unit)
    return Bad(
        rule=rule.rule,
        kind=rule.kind,
        subject=subject,
        since=watched.began or watched.at,
        severity=severity,
        value=watched.value,
        threshold=limit.bad,
        unit=rule.unit,
        summary=said(rule.words, subject, value=value, limit=bad),
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

    def look(self, signal: Signal, monitoring: Monitoring, at: float) -> Iterator[tuple[Usual, list[Bad | Over]]]:
        for usual in USUAL:
            if usual.signal == signal.name:
                yield usual, list(self._judged(usual, signal, monitoring, at))

    def _judged(self, usual: Usual, signal: Signal, monitoring: Monitoring, at: float) -> Iterator[Bad | Over]:
        subject = dict(signal.subject)
        rule = f"{ANOMALY}{usual.signal}"
        key = key_of(rule, subject)
        seasons = self._seasons_of(key, monitoring.anomaly.window)
        if seasons is None:
            return
        verdict = seasons.look(
            signal.value, at, monitoring.anomaly.sigma, floor=usual.floor, up=usual.up, down=usual.down
        )
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
            words = {"value": shown(signal.value / scale, usual.unit), "usual": shown(often / scale, usual.unit)}
            yield Bad(
                rule=rule,
                kind="anomaly",
                subject=subject,
                since=after.began,
                value=signal.value,
                threshold=often,
                unit=usual.unit,
                summary=said(usual.words, subject, **words),
                advice="Look at what changed: a deploy, a campaign, a crawler, a leak. It counts as usual once it goes on for days.",
            )

    def _seasons_of(self, key: str, window: float) -> Seasons | None:
        if window != self._window:
            self._seasons.clear()
            self._window = window
        found = self._seasons.get(key)
        if found is None and len(self._seasons) < MOST_SUBJECTS:
            found = self._seasons[key] = Seasons(window)
            if key in self._kept:
                found.restore(self._kept.pop(key))
        return found

    def forget(self, key: str) -> Watched | None:
        """What is gone is compared with nothing; what was usual is remembered, as it may come back."""
        self._scores.pop(key, None)
        return self.watched.pop(key, None)

    def state(self) -> dict[str, SeasonState]:
        return {**self._kept, **{key: seasons.state() for key, seasons in self._seasons.items()}}

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
        return None if value is None else str(value)


class EventWatch:
    """Events under the rules about them."""

    def __init__(self) -> None:
        self._times: dict[str, deque[float]] = {}
        self._open: dict[str, tuple[EventRule, dict[str, str], float]] = {}
        """What fires: its rule, its subject, and when it last happened."""
        self._resumed: dict[str, float] = {}
        """When, of what may be over without a word."""

    def resume(self, rule: str, subject: dict[str, str], at: float, now: float) -> bool:
        """It fired when the daemon ended, and happened at ``at``. False: that is none of ours."""
        found = next((each for each in EVENTS if each.rule == rule), None)
        if found is None:
            return False
        key = key_of(rule, subject)
        self._open[key] = found, subject, at
        if found.renewed:
            self._resumed[key] = now
        return True

    def hear(self, event: Happened, at: float) -> Iterator[Bad | Over]:
        for rule in _RULES_BY_EVENT.get(event.kind, ()):
            if event.kind in rule.clears:
                yield from self._cleared(rule, event)
            else:
                yield from self._happened(rule, event, at)

    def _happened(self, rule: EventRule, event: Happened, at: float) -> Iterator[Bad]:
        subject = {name: value for name in rule.by if (value := event.value_of(name)) is not None}
        key = key_of(rule.rule, subject)
        if key not in self._times and len(self._times) >= MOST_SUBJECTS:
            return
        times = self._times.setdefault(key, deque(maxlen=MOST_TIMES))
        times.append(at)
        recent = sum(0 <= at - time <= rule.within for time in times)
        if recent < rule.many and key not in self._open:
            return
        again = key in self._open
        self._resumed.pop(key, None)
        self._open[key] = rule, subject, at
        words = {"reason": event.reason or event.kind}
        yield Bad(
            rule=rule.rule,
            kind=rule.kind,
            subject=subject,
            since=times[0] if not again else at,
            severity="critical" if rule.critical_at and recent >= rule.critical_at else "warning",
            value=float(recent) if rule.critical_at > 1 or rule.many > 1 else None,
            unit=f"times in {shown(rule.within / 60, 'min')}" if rule.critical_at > 1 or rule.many > 1 else "",
            summary=said(rule.words, subject, **words),
            advice=said(rule.advice, subject, **words),
            again=again,
        )

    def _cleared(self, rule: EventRule, event: Happened) -> Iterator[Over]:
        told = {name: value for name in rule.by if (value := event.value_of(name)) is not None}
        for key, (own, subject, _) in list(self._open.items()):
            if own is rule and (told or not rule.by) and all(subject.get(name) == told[name] for name in told):
                self._end(key)
                yield Over(key=key)

    def tick(self, now: float) -> Iterator[Over]:
        """Now and then: what has not happened again for long enough?"""
        for key, since in list(self._resumed.items()):
            if not 0 <= now - since < RENEW_SECONDS:
                self._end(key)
                yield Over(key=key)
        for key, (rule, subject, at) in list(self._open.items()):
            if at > now:  # the clock went back
                self._open[key] = rule, subject, now
            elif rule.calm is not None and now - at >= rule.calm:
                self._end(key)
                yield Over(key=key)
        longest = max(rule.within for rule in EVENTS)
        self._times = {key: times for key, times in self._times.items() if now - times[-1] <= longest}

    def _end(self, key: str) -> None:
        del self._open[key]
        self._times.pop(key, None)
        self._resumed.pop(key, None)


_RULES_BY_EVENT: dict[str, list[EventRule]] = {}
for _rule in EVENTS:
    for _kind in (*_rule.fires, *_rule.clears):
        _RULES_BY_EVENT.setdefault(_kind, []).append(_rule)

KINDS = frozenset({rule.kind for rule in LEVELS} | {rule.kind for rule in EVENTS} | {"anomaly", "budget"})
"""Every kind of alert that there is."""
