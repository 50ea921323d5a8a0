"""What waits for one channel: in order, tried again, no more than some in an hour, given up in the end. Every function
takes a record and gives the next one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from .alerts import AlertView
from .model import Value
from .notices import MAX_ALERTS, line
from .notifications import DeadLetter, Notification
from .webhooks import LONGEST_WAIT, HookAnswer, wait_before

DELAYS = (5.0, 20.0, 60.0, 180.0, 600.0)
"""Seconds before the second try and those after it; then it is given up. Mail servers that do not know us yet often want
to be asked again after five or ten minutes."""
LONGEST_DELAY = max(LONGEST_WAIT, *DELAYS)
HOURLY = 30
"""So many messages go to one channel in an hour, besides those that are urgent."""
HOUR = 3600.0
FOLDER = "notify"
MAX_WAITING = 100
MAX_DEAD = 100
MAX_SEEN = 50


class Queued(Value, frozen=True, kw_only=True):
    """One message. ``due`` is Unix seconds. ``begun``: it may have arrived, so it stays as it is. ``digest``: alerts that
    came when the hour's messages were used up."""

    notification: Notification
    tries: int = 0
    due: float = 0.0
    begun: bool = False
    digest: bool = False

    @property
    def urgent(self) -> bool:
        return urgent(self.notification)

    @property
    def open(self) -> bool:
        """Further alerts may be put into it."""
        return self.digest and not self.begun


class ChannelRecord(Value, frozen=True, kw_only=True):
    """``name`` is what is shown of the channel. ``waiting`` is oldest first; ``sent`` are the times of
    messages that counted, within the last hour; ``seen`` are the newest messages by id, state and time."""

    name: str
    waiting: tuple[Queued, ...] = ()
    sent: tuple[float, ...] = ()
    delivered: int = 0
    failed: int = 0
    last_words: str = ""
    dead: tuple[DeadLetter, ...] = ()
    seen: tuple[str, ...] = ()


def record_name(key: str) -> str:
    """Of a channel's record; ``key`` may be secret, this is not."""
    return f"{FOLDER}/{hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:24]}"


class Step(NamedTuple):
    """What to do now: send ``message``, or look again at ``at`` (None: when something happens)."""

    message: Queued | None = None
    at: float | None = None


def urgent(notification: Notification) -> bool:
    """What is critical, and what is over, goes whatever went before."""
    return notification.state == "resolved" or any(alert.severity == "critical" for alert in notification.alerts)


# -- what comes ------------------------------------------------------------------------------------


def added(
    record: ChannelRecord, notification: Notification, now: float
) -> tuple[ChannelRecord, tuple[DeadLetter, ...]]:
    """With one more message, and what had to go for it. The very same message twice is one."""
    mark = f"{notification.id} {notification.state} {notification.at}"
    if mark in record.seen:
        return record, ()
    record = replace(record, seen=(*record.seen, mark)[-MAX_SEEN:])
    if notification.state == "resolved":
        record = replace(record, waiting=_without(record.waiting, {alert.id for alert in notification.alerts}))
    if not urgent(notification) and not _room_for_another(record, now):
        return replace(record, waiting=_merged(record.waiting, notification)), ()
    record = replace(record, waiting=(*record.waiting, Queued(notification=notification, due=now)))
    dropped: list[DeadLetter] = []
    while len(record.waiting) > MAX_WAITING:
        oldest = next(each for each in record.waiting if not each.begun and not each.digest)
        record, letter = buried(record, oldest, f"more than {MAX_WAITING} messages wait", now)
        dropped.append(letter)
    return record, tuple(dropped)


def _room_for_another(record: ChannelRecord, now: float) -> bool:
    if any(each.open for each in record.waiting):
        return False
    return len(_recent(record.sent, now)) + sum(not each.urgent for each in record.waiting) < HOURLY


def _merged(waiting: tuple[Queued, ...], notification: Notification) -> tuple[Queued, ...]:
    """Into the digest. What is told once more replaces what was told before."""
    last = next((each for each in waiting if each.open), None)
    if last is None:
        return (
            *waiting,
            Queued(notification=_digest(notification, notification.alerts, notification.more), digest=True),
        )
    told = last.notification
    newer = {alert.id for alert in notification.alerts}
    alerts = (*(alert for alert in told.alerts if alert.id not in newer), *notification.alerts)
    merged = _digest(notification, alerts, told.more + notification.more)
    merged = replace(merged, id=told.id)
    return tuple(replace(each, notification=merged) if each is last else each for each in waiting)


def _without(waiting: tuple[Queued, ...], over: set[str]) -> tuple[Queued, ...]:
    """Nobody was told yet of what a digest holds: what is over goes from it, for its end is told by itself."""
    kept: list[Queued] = []
    for each in waiting:
        if each.open:
            alerts = tuple(alert for alert in each.notification.alerts if alert.id not in over)
            if not alerts and not each.notification.more:
                continue
            each = replace(each, notification=_digest(each.notification, alerts, each.notification.more))
        kept.append(each)
    return tuple(kept)


def _digest(like: Notification, alerts: Sequence[AlertView], more: int) -> Notification:
    """One message for many: the newest are listed."""
    listed, number = tuple(alerts[-MAX_ALERTS:]), len(alerts) + more
    what = "; ".join(alert.summary or alert.kind for alert in listed)
    title = line(f"{number} more alert{'' if number == 1 else 's'}: {what}", 200)
    return replace(like, title=title, alerts=listed, more=number - len(listed))


# -- what goes -------------------------------------------------------------------------------------


def next_step(record: ChannelRecord, now: float) -> Step:
    """One message is on its way at a time, in their order; a digest that has to wait lets pass what need not."""
    recent = _recent(record.sent, now)
    opens = recent[-HOURLY] + HOUR if len(recent) >= HOURLY else now
    for each in record.waiting:
        if not each.open or opens <= now:
            step = _due(each, now)
            held_back = opens > now and any(other.open for other in record.waiting)
            return step if step.message is not None or not held_back else Step(at=min(opens, step.at or opens))
    return Step(at=opens) if record.waiting else Step()


def _due(message: Queued, now: float) -> Step:
    # one that waits longer than any wait is from a clock that was wrong
    if message.due <= now or message.due > now + LONGEST_DELAY:
        return Step(message=message)
    return Step(at=message.due)


def began(record: ChannelRecord, message: Queued) -> tuple[ChannelRecord, Queued]:
    """Just before a try."""
    begun = replace(message, begun=True)
    return replace(record, waiting=_put(record.waiting, begun)), begun


def answered(
    record: ChannelRecord, message: Queued, answer: HookAnswer, now: float
) -> tuple[ChannelRecord, DeadLetter | None]:
    """After a try: delivered, to be tried again, or a dead letter. Whatever came meanwhile stays."""
    record = replace(record, last_words=answer.words)
    if answer.good:
        sent = (*_recent(record.sent, now), *(() if message.urgent else (now,)))
        waiting = _less(record.waiting, message)
        return replace(record, waiting=waiting, sent=sent, delivered=record.delivered + 1), None
    wait = wait_before(message.tries, answer, DELAYS)
    if wait is None:
        return buried(record, message, answer.words, now, tried=True)
    again = replace(message, tries=message.tries + 1, due=now + wait)
    return replace(record, waiting=_put(record.waiting, again)), None


def buried(
    record: ChannelRecord, message: Queued, words: str, now: float, *, tried: bool = False
) -> tuple[ChannelRecord, DeadLetter]:
    """Given up."""
    letter = DeadLetter(
        id=message.notification.id,
        channel=record.name,
        at=now,
        tries=message.tries + int(tried),
        words=line(words, 300),
        title=message.notification.title,
    )
    return (
        replace(
            record,
            waiting=_less(record.waiting, message),
            failed=record.failed + 1,
            dead=(*record.dead, letter)[-MAX_DEAD:],
        ),
        letter,
    )


def held(record: ChannelRecord) -> int:
    """Alerts in digests that did not go yet."""
    return sum(len(each.notification.alerts) + each.notification.more for each in record.waiting if each.digest)


def _put(waiting: tuple[Queued, ...], message: Queued) -> tuple[Queued, ...]:
    return tuple(message if _same(each, message) else each for each in waiting)


def _less(waiting: tuple[Queued, ...], message: Queued) -> tuple[Queued, ...]:
    return tuple(each for each in waiting if not _same(each, message))


def _same(one: Queued, other: Queued) -> bool:
    a, b = one.notification, other.notification
    return (a.id, a.state, a.at, one.digest) == (b.id, b.state, b.at, other.digest)


def _recent(sent: Sequence[float], now: float) -> tuple[float, ...]:
    """Within the last hour; times to come are from a clock that was wrong."""
    return tuple(time for time in sent if now - HOUR < time <= now)
