"""What waits for one channel: in order, tried again, no more than some in an hour, given up in the end. Every function
takes a record and gives the next one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from .model import Value
from .notices import MAX_ALERTS, MAX_UNLISTED
from .notifications import DeadLetter, Notification
from .one_line import line
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
MAX_TOLD = 2000


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
    messages that counted, within the last hour; ``seen`` are the newest messages by id, state and time; ``told`` the ids of
    alerts whose begin was delivered and whose end was not."""

    name: str
    waiting: tuple[Queued, ...] = ()
    sent: tuple[float, ...] = ()
    delivered: int = 0
    failed: int = 0
    last_words: str = ""
    dead: tuple[DeadLetter, ...] = ()
    seen: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


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
        over = ids_of(notification)
        unheard = {id for each in record.waiting if each.open for id in ids_of(each.notification)} - set(record.told)
        record = replace(record, waiting=_without(record.waiting, over))
        notification = _less_of(notification, over & unheard)
        if not notification.alerts and not notification.more:
            return record, ()
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


def ids_of(notification: Notification) -> set[str]:
    return {*(alert.id for alert in notification.alerts), *notification.unlisted}


def _less_of(notification: Notification, ids: set[str]) -> Notification:
    """Without these alerts."""
    alerts = tuple(alert for alert in notification.alerts if alert.id not in ids)
    unlisted = tuple(id for id in notification.unlisted if id not in ids)
    more = notification.more - (len(notification.unlisted) - len(unlisted))
    if len(alerts) == len(notification.alerts) and more == notification.more:
        return notification
    number = len(alerts) + more - 1
    title = (alerts[0].summary or alerts[0].kind) if alerts else f"{more} alerts"
    if alerts and number:
        title = f"{title}, and {number} more"
    return replace(notification, title=line(title, 200), alerts=alerts, unlisted=unlisted, more=more)


def _merged(waiting: tuple[Queued, ...], notification: Notification) -> tuple[Queued, ...]:
    """Into the digest. What is told once more replaces what was told before."""
    last = next((each for each in waiting if each.open), None)
    if last is None:
        return (*waiting, Queued(notification=_digest(notification, notification), digest=True))
    newer = ids_of(notification)
    told = _less_of(last.notification, newer)
    merged = replace(_digest(notification, told, notification), id=told.id)
    return tuple(replace(each, notification=merged) if each is last else each for each in waiting)


def _without(waiting: tuple[Queued, ...], over: set[str]) -> tuple[Queued, ...]:
    """What is over goes from the digest."""
    kept: list[Queued] = []
    for each in waiting:
        if each.open:
            left = _less_of(each.notification, over)
            if not left.alerts and not left.more:
                continue
            each = replace(each, notification=_digest(left, left))
        kept.append(each)
    return tuple(kept)


def _digest(like: Notification, *parts: Notification) -> Notification:
    """One message for many: the newest are listed."""
    alerts = [alert for part in parts for alert in part.alerts]
    listed, number = tuple(alerts[-MAX_ALERTS:]), len(alerts) + sum(part.more for part in parts)
    further = (*(alert.id for alert in alerts[:-MAX_ALERTS]), *(id for part in parts for id in part.unlisted))
    what = "; ".join(alert.summary or alert.kind for alert in listed)
    title = line(f"{number} more alert{'' if number == 1 else 's'}: {what}", 200)
    return replace(like, title=title, alerts=listed, more=number - len(listed), unlisted=further[-MAX_UNLISTED:])


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
        ids = ids_of(message.notification)
        told = tuple(id for id in record.told if id not in ids)
        if message.notification.state == "firing":
            told = (*told, *sorted(ids))[-MAX_TOLD:]
        return replace(record, waiting=waiting, sent=sent, delivered=record.delivered + 1, told=told), None
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
