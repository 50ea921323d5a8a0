"""Cron schedules: what five fields mean, and when they are next due. As in Vixie's cron, also where clocks change.

- Day of month and day of week: either will do if both are restricted, else both must fit. A field that begins with ``*``
  is not restricted.
- Fixed times (neither minute nor hour begins with ``*``): one that the clock jumps over is due at the jump, several of
  them once; in an hour that comes twice it is due the first time only.
- All others go by the real clock: nothing in an hour that is jumped over, and both times in one that comes twice.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from functools import lru_cache

UTC = datetime.UTC
MINUTE = datetime.timedelta(minutes=1)
DAY = datetime.timedelta(days=1)
SEARCH = datetime.timedelta(days=366 * 41)
"""29 February on a given weekday can be 40 years away, and nothing is further."""
MAX_TEXT = 200

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
NICKNAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True)
class _Kind:
    name: str
    low: int
    high: int
    words: dict[str, int]


KINDS = (
    _Kind("minute", 0, 59, {}),
    _Kind("hour", 0, 23, {}),
    _Kind("day of the month", 1, 31, {}),
    _Kind("month", 1, 12, {word: number for number, word in enumerate(MONTHS, 1)}),
    _Kind("day of the week", 0, 7, {word: number for number, word in enumerate(WEEKDAYS)}),
)


@dataclass(frozen=True)
class Schedule:
    """Minutes and hours are sorted; weekdays count from Sunday, 0. ``either``: one of the two days is enough.
    ``fixed``: it is due at times of the day, not in intervals."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool
    fixed: bool

    def on(self, day: datetime.date) -> bool:
        """Whether it is due at all on that day."""
        if day.month not in self.months:
            return False
        by_date, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_date or by_weekday if self.either else by_date and by_weekday


@lru_cache(maxsize=256)
def parse(text: str) -> Schedule:
    """Of five fields or a nickname such as ``@daily``. ``ValueError`` with a sentence for the user."""
    words = NICKNAMES.get(text.strip().lower(), text).split() if len(text) <= MAX_TEXT else []
    if len(words) != len(KINDS):
        raise ValueError(
            "Not a valid schedule: write five fields (minute, hour, day, month, weekday) or one like @daily."
        )
    minutes, hours, days, months, weekdays = (_field(word, kind) for word, kind in zip(words, KINDS, strict=True))
    schedule = Schedule(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(day % 7 for day in weekdays),
        either=not words[2].startswith("*") and not words[4].startswith("*"),
        fixed=not words[0].startswith("*") and not words[1].startswith("*"),
    )
    if next_after(schedule, datetime.datetime(2000, 1, 1, tzinfo=UTC)) is None:
        raise ValueError("Not a valid schedule: there is no such date.")
    return schedule


def _field(text: str, kind: _Kind) -> set[int]:
    return {number for part in text.split(",") for number in _part(part, kind)}


def _part(text: str, kind: _Kind) -> range:
    """``*``, ``5``, ``1-5``, each with ``/step`` behind; ``5/15`` goes on to the end."""
    if not text:
        raise ValueError(f"Not a valid schedule: a {kind.name} is missing.")
    span, slash, step = text.partition("/")
    first, dash, last = span.partition("-")
    if slash and not re.fullmatch(r"0*[1-9][0-9]{0,2}", step):
        raise ValueError(f"Not a valid schedule: `{text}` has no valid step for the {kind.name}.")
    if span == "*":
        return range(kind.low, kind.high + 1, int(step or 1))
    low = _number(first, text, kind)
    high = _number(last, text, kind) if dash else kind.high if slash else low
    if high == 0 and low > 0 and kind.high == 7:
        high = 7  # FRI-SUN
    if high < low:
        raise ValueError(f"Not a valid schedule: `{span}` goes backwards.")
    return range(low, high + 1, int(step or 1))


def _number(word: str, text: str, kind: _Kind) -> int:
    named = kind.words.get(word.upper())
    number = named if named is not None else int(word) if re.fullmatch(r"[0-9]{1,3}", word) else -1
    if not kind.low <= number <= kind.high:
        raise ValueError(f"Not a valid schedule: `{text}` is no {kind.name}.")
    return number


def zone(name: str) -> datetime.tzinfo:
    """An IANA time zone. ``ValueError`` with a sentence for the user."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # not there; no such name; a folder of them
        raise ValueError("Not a time zone; write it like Europe/Berlin or UTC.") from None


# -- when ------------------------------------------------------------------------------------------


def next_after(schedule: Schedule, moment: datetime.datetime) -> datetime.datetime | None:
    """The first time after ``moment`` at which it is due, in ``moment``'s time zone; None if there is none."""
    assert moment.tzinfo is not None
    found = (_next_time if schedule.fixed else _next_interval)(schedule, moment.astimezone(UTC), moment.tzinfo)
    return found.astimezone(moment.tzinfo) if found is not None else None


def _next_time(schedule: Schedule, moment: datetime.datetime, own: datetime.tzinfo) -> datetime.datetime | None:
    """Times of the day in the order of the wall clock, each at the first moment it stands for."""
    wall = moment.astimezone(own).replace(tzinfo=None)
    day = wall.date()
    end = day + SEARCH
    while day <= end:
        if schedule.on(day):
            for hour in schedule.hours:
                if datetime.datetime.combine(day, datetime.time(hour, 59)) < wall:
                    continue
                for minute in schedule.minutes:
                    due = _first(datetime.datetime.combine(day, datetime.time(hour, minute)), own)
                    if due > moment:
                        return due
        day = _later_day(schedule, day)
    return None


def _next_interval(schedule: Schedule, moment: datetime.datetime, own: datetime.tzinfo) -> datetime.datetime | None:
    """Along the real clock, in the longest steps in which the clock does not change."""
    now = moment.replace(second=0, microsecond=0) + MINUTE
    end = moment + SEARCH
    while now <= end:
        wall = now.astimezone(own)
        if not schedule.on(wall.date()):
            later = _later_day(schedule, wall.date())
            now = max(now + MINUTE, _first(datetime.datetime.combine(later, datetime.time()), own))
            continue
        if wall.hour not in schedule.hours:
            step = 60 - wall.minute
        else:
            step = next((m for m in schedule.minutes if m >= wall.minute), 60) - wall.minute
            if step == 0:
                return now
        then = now + step * MINUTE
        same = then.astimezone(own).utcoffset() == wall.utcoffset()
        now = then if same else now + MINUTE
    return None


def _later_day(schedule: Schedule, day: datetime.date) -> datetime.date:
    """The next day, or the next month's first if no day of this month will do."""
    if day.month in schedule.months:
        return day + DAY
    return (day.replace(day=28) + 4 * DAY).replace(day=1)


def _first(wall: datetime.datetime, own: datetime.tzinfo) -> datetime.datetime:
    """The moment at which the clock first shows ``wall``, or the jump that leaves it out."""
    moment = wall.replace(tzinfo=own).astimezone(UTC)
    while moment.astimezone(own).replace(tzinfo=None) != wall:
        wall += MINUTE
        moment = wall.replace(tzinfo=own).astimezone(UTC)
    return moment
