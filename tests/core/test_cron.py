"""Schedules against a second reading of the same rules: minute by minute, over days on which clocks change."""

from __future__ import annotations

import datetime
import time
import zoneinfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ndactors.core.cron import next_after, parse, zone

UTC = datetime.UTC
MINUTE = datetime.timedelta(minutes=1)

CHANGES = {
    "UTC": ["2026-02-27", "2026-12-30"],
    "Europe/Berlin": ["2026-03-28", "2026-10-24"],
    "America/New_York": ["2026-03-07", "2026-10-31"],
    "America/Sao_Paulo": ["2018-11-03", "2018-02-17"],  # at midnight
    "Africa/Cairo": ["2026-04-23", "2026-10-29"],
    "America/Havana": ["2026-03-07", "2026-10-31"],
    "Australia/Lord_Howe": ["2026-10-03", "2026-04-04"],  # by half an hour
    "Pacific/Apia": ["2011-12-29"],  # a whole day is left out
    "Asia/Kathmandu": ["2026-02-27"],
}


def numbers(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        a, b = (low, high) if span == "*" else (int(first), int(last) if last else high if step else int(first))
        found |= set(range(a, b + 1, int(step or 1)))
    return found


def runs(text: str, own: datetime.tzinfo, start: datetime.datetime, end: datetime.datetime) -> list[datetime.datetime]:
    """Every moment in (start, end] at which it is due, by looking at each minute."""
    m, h, d, mo, w = text.split()
    minutes, hours, days, months = numbers(m, 0, 59), numbers(h, 0, 23), numbers(d, 1, 31), numbers(mo, 1, 12)
    weekdays = {n % 7 for n in numbers(w, 0, 7)}
    both = d[0] == "*" or w[0] == "*"

    def fits(wall: datetime.datetime) -> bool:
        by_date, by_weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
        on = (by_date and by_weekday) if both else (by_date or by_weekday)
        return on and wall.month in months and wall.hour in hours and wall.minute in minutes

    def shown(moment: datetime.datetime) -> datetime.datetime:
        return moment.astimezone(own).replace(tzinfo=None)

    found = set()
    if m[0] == "*" or h[0] == "*":
        moment = start.replace(second=0) + MINUTE
        while moment <= end:
            if fits(shown(moment)):
                found.add(moment)
            moment += MINUTE
        return sorted(found)
    # every minute that a clock on the wall could show, at the first moment at or after which one did
    first_seen: dict[datetime.datetime, datetime.datetime] = {}
    moment = start.replace(second=0) - datetime.timedelta(days=2)
    while moment <= end + datetime.timedelta(days=2):
        first_seen.setdefault(shown(moment), moment)
        moment += MINUTE
    wall = shown(start) - datetime.timedelta(days=1)
    wall = wall.replace(second=0)
    while wall <= shown(end) + datetime.timedelta(days=1):
        if fits(wall):
            seen = wall
            while seen not in first_seen:
                seen += MINUTE
            if start < first_seen[seen] <= end:
                found.add(first_seen[seen])
        wall += MINUTE
    return sorted(found)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    stepped = st.tuples(st.one_of(st.just("*"), span, number.map(str)), st.integers(1, 40)).map("{0[0]}/{0[1]}".format)
    one = st.one_of(number.map(str), span, stepped)
    return st.one_of(st.just("*"), one, st.lists(one, min_size=1, max_size=3).map(",".join))


@st.composite
def cases(draw):
    name = draw(st.sampled_from(sorted(CHANGES)))
    day = datetime.datetime.fromisoformat(draw(st.sampled_from(CHANGES[name]))).replace(tzinfo=UTC)
    start = day + datetime.timedelta(minutes=draw(st.integers(0, 60 * 30)), seconds=draw(st.sampled_from([0, 17])))
    often = st.one_of(st.just("*"), st.just("*"), field(1, 12))
    text = " ".join(
        (
            draw(field(0, 59)),
            draw(st.one_of(field(0, 23), field(0, 3))),
            draw(st.one_of(st.just("*"), field(1, 31))),
            draw(often),
            draw(st.one_of(st.just("*"), field(0, 7))),
        )
    )
    return text, name, start


@given(cases())
@example(("*/7 1 * * 0,5", "America/Havana", datetime.datetime(2026, 3, 7, 0, 13, tzinfo=UTC)))
@example(("46 * * * *", "Australia/Lord_Howe", datetime.datetime(2026, 4, 4, 8, 15, 17, tzinfo=UTC)))
@example(("30 3 * * *", "Pacific/Apia", datetime.datetime(2011, 12, 30, 5, 0, tzinfo=UTC)))
@settings(max_examples=120, deadline=None)
def test_it_is_due_when_a_second_reading_says_so(case):
    text, name, start = case
    own, end = zoneinfo.ZoneInfo(name), start + datetime.timedelta(days=2)
    try:
        schedule = parse(text)
    except ValueError:
        assert runs(text, own, start, end) == []
        return
    found, moment = [], start
    while (due := next_after(schedule, moment.astimezone(own))) is not None and due.astimezone(UTC) <= end:
        assert due.tzinfo is own
        assert due.astimezone(UTC) > moment
        moment = due.astimezone(UTC)
        found.append(moment)
    assert found == runs(text, own, start, end)


def times(text: str, name: str, start: str, count: int = 4) -> list[str]:
    own = zone(name)
    moment = datetime.datetime.fromisoformat(start).replace(tzinfo=own)
    found = []
    for _ in range(count):
        due = next_after(parse(text), moment)
        assert due is not None
        moment = due
        found.append(due.isoformat(timespec="minutes"))
    return found


def test_a_time_that_is_jumped_over_is_due_once_at_the_jump():
    assert times("0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 2) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:00+02:00",
    ]


def test_a_time_in_an_hour_that_comes_twice_is_due_once():
    assert times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2) == [
        "2026-10-25T02:30+02:00",
        "2026-10-26T02:30+01:00",
    ]
    # also when asked in the middle of the second one
    second = datetime.datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=zone("Europe/Berlin"))
    due = next_after(parse("30 2 * * *"), second)
    assert due is not None
    assert due.isoformat() == "2026-10-26T02:30:00+01:00"


def test_intervals_go_by_the_real_clock():
    assert times("*/30 * * * *", "Europe/Berlin", "2026-10-25T01:45", 5) == [
        "2026-10-25T02:00+02:00",
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:00+01:00",
        "2026-10-25T02:30+01:00",
        "2026-10-25T03:00+01:00",
    ]
    assert times("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 1) == ["2026-03-30T02:00+02:00"]


def test_one_of_two_restricted_days_is_enough():
    assert times("0 0 13 * FRI", "UTC", "2026-11-01T00:00") == [
        "2026-11-06T00:00+00:00",
        "2026-11-13T00:00+00:00",
        "2026-11-20T00:00+00:00",
        "2026-11-27T00:00+00:00",
    ]
    # a field that begins with a star restricts nothing by itself
    assert times("0 0 */2 * MON", "UTC", "2026-11-01T00:00", 2) == ["2026-11-09T00:00+00:00", "2026-11-23T00:00+00:00"]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 7"),
        ("@daily", "0 0 * * *"),
        ("@Midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("0 0 * jan-MAR sun,Mon", "0 0 * 1-3 0,1"),
        ("0 0 * * FRI-SUN", "0 0 * * 0,5,6"),
        ("5/20 1-5/2 * * *", "5,25,45 1,3,5 * * *"),
        ("  0  0 * * *", "0 0 * * *"),
    ],
)
def test_other_spellings(text, same):
    assert parse(text) == parse(same)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "write five fields"),
        ("* * * *", "write five fields"),
        ("* * * * * *", "write five fields"),
        ("@sometimes", "write five fields"),
        ("@reboot", "write five fields"),
        ("60 * * * *", "`60` is no minute"),
        ("* 24 * * *", "`24` is no hour"),
        ("* * 0 * *", "`0` is no day of the month"),
        ("* * * 13 *", "`13` is no month"),
        ("* * * * 8", "`8` is no day of the week"),
        ("* * * * FOO", "`FOO` is no day of the week"),
        ("JAN * * * *", "`JAN` is no minute"),
        ("5-1 * * * *", "goes backwards"),
        ("*/0 * * * *", "no valid step"),
        ("*/x * * * *", "no valid step"),
        ("1,,2 * * * *", "a minute is missing"),
        ("-5 * * * *", "is no minute"),
        ("٣ * * * *", "is no minute"),
        ("0 0 30 2 *", "there is no such date"),
        ("0 0 31 4,6,9,11 *", "there is no such date"),
        ("1" * 5000 + " * * * *", "write five fields"),
    ],
)
def test_what_makes_no_sense_is_told(text, words):
    with pytest.raises(ValueError, match="Not a valid schedule") as caught:
        parse(text)
    assert words in str(caught.value)


def test_the_rarest_dates_are_found_quickly():
    began = time.process_time()
    due = next_after(parse("*/7 * 29 2 */7"), datetime.datetime(2088, 3, 1, tzinfo=zone("Europe/Berlin")))
    assert due is not None
    assert due.isoformat() == "2128-02-29T00:00:00+01:00"
    assert time.process_time() - began < 0.5


@given(st.text(alphabet="0123456789*/-,@ JANSU", max_size=60))
def test_any_text_is_read_or_refused(text):
    began = time.process_time()
    try:
        parse(text)
    except ValueError:
        pass
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("name", ["", "Europe", "Mars/Olympus", "../etc/passwd", "/etc/passwd", "a\0b", "x" * 5000])
def test_what_is_no_time_zone_is_told(name):
    with pytest.raises(ValueError, match="Not a time zone"):
        zone(name)
