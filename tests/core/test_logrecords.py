from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.core.logrecords import (
    LATEST_NS,
    TIME_LENGTH,
    Columns,
    Gap,
    LogSource,
    format_ns,
    joined,
    normal_time,
    normal_times,
    parse_ns,
    records,
)

NS = st.integers(0, LATEST_NS - 1)
BEFORE = "2020-01-01T00:00:00.000000000Z"


def split(times: str) -> list[str]:
    assert len(times) % TIME_LENGTH == 0
    return [times[at : at + TIME_LENGTH] for at in range(0, len(times), TIME_LENGTH)]


# -- times -----------------------------------------------------------------------------------------


@given(NS)
def test_formatted_times_parse_to_what_they_were_and_are_normal(ns):
    text = format_ns(ns)
    assert len(text) == TIME_LENGTH
    assert parse_ns(text) == ns
    assert normal_time(text) == text
    assert normal_times([text], "") == text


@given(NS, NS)
def test_times_as_text_have_the_order_of_times(one, other):
    assert (format_ns(one) < format_ns(other)) == (one < other)


@given(NS, st.integers(-23 * 60 - 59, 23 * 60 + 59))
def test_a_time_in_any_zone_is_the_same_time(ns, minutes):
    local = format_ns(ns + minutes * 60 * 10**9)
    if 0 <= ns + minutes * 60 * 10**9 < LATEST_NS:
        zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
        assert normal_time(local[:-1] + zone) == format_ns(ns)


@pytest.mark.parametrize(
    ("time", "normal"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000000Z"),
        ("2026-01-31T12:00:00.5Z", "2026-01-31T12:00:00.500000000Z"),
        ("2026-01-31T12:00:00.123456789123Z", "2026-01-31T12:00:00.123456789Z"),
        ("2026-01-31T12:00:00.5+01:00", "2026-01-31T11:00:00.500000000Z"),
        ("2026-01-01T00:30:00+01:00", "2025-12-31T23:30:00.000000000Z"),
        ("2026-01-31T12:00:00-00:00", "2026-01-31T12:00:00.000000000Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000000Z"),
        ("2261-12-31T23:59:59.999999999Z", "2261-12-31T23:59:59.999999999Z"),
    ],
)
def test_times_become_utc_with_nine_digits(time, normal):
    assert normal_time(time) == normal
    assert normal_times([time], BEFORE) == normal


@pytest.mark.parametrize(
    "time",
    [
        "",
        "2026-01-31T12:00:00.Z",
        "now",
        "2026-02-30T12:00:00Z",
        "2026-13-01T12:00:00.000000000Z",
        "2026-01-31T24:00:00.000000000Z",
        "2026-01-31T12:60:00.000000000Z",
        "2026-01-31T23:59:60.000000000Z",
        "2026-01-31T12:00:00+24:00",
        "2026-01-31 12:00:00Z",
        "2026-01-31T12:00:00",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+01:00",
        "2262-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999999Z",
        "0000-01-01T00:00:00.000000000Z",
        "2026-1-31T12:00:00.0000000000Z",
        "92026-01-31T12:0:00.123456789Z",
        "٢٠٢٦-٠١-٣١T12:00:00.000000000Z",
        "2026-01-31T12:00:00.00000000\nZ",
        "x" * 30,
    ],
)
def test_what_is_no_time_becomes_that_of_the_line_before(time):
    good = "2026-01-31T12:00:00.000000000Z"
    assert normal_time(time) is None
    assert normal_times([time], BEFORE) == BEFORE
    assert normal_times([time], "") == format_ns(0)
    assert split(normal_times([good, time, good, time], BEFORE)) == [good] * 4


def test_two_wrong_lengths_that_add_up_are_noticed():
    short, long = "2026-01-31T12:00:00.00000000Z", "2026-01-31T12:00:00.0000000000Z"
    assert len(short + long) == 2 * TIME_LENGTH
    assert split(normal_times([short, long], "")) == ["2026-01-31T12:00:00.000000000Z"] * 2
    odd, other = "2026-01-3T12:00:00.000000000Z", "2026-01-312T12:00:00.000000000Z"
    assert split(normal_times([odd, other, BEFORE], BEFORE)) == [BEFORE] * 3


def test_a_batch_may_go_on_into_another_hour_and_back():
    times = ["2026-01-31T12:59:59.9Z", "2026-01-31T13:00:00Z", "2026-01-31T12:59:59.8Z", "2027-02-01T13:00:00Z"]
    assert split(normal_times(times, "")) == [normal_time(time) for time in times]


_ODD = st.one_of(
    NS.map(format_ns),
    NS.map(lambda ns: format_ns(ns)[:19] + "Z"),
    st.text("0123456789-:TZ.+", max_size=32),
    st.text(max_size=31),
)


@given(st.lists(_ODD, max_size=6), NS.map(format_ns))
def test_whatever_is_told_as_times_every_line_gets_one(times, before):
    found = split(normal_times(times, before))
    assert len(found) == len(times)
    for time, text in zip(found, times, strict=True):
        assert parse_ns(time) is not None and format_ns(parse_ns(time) or 0) == time
        before = normal_time(text) or before
        assert time == before


@given(st.text(max_size=40))
def test_no_text_makes_a_time_fail(text):
    found = parse_ns(text)
    assert found is None or datetime.datetime.fromisoformat(text[:19])


def test_times_beyond_the_calendar_are_the_last_there_is():
    assert format_ns(10**30).startswith("9999-12-31T23:59:59.")
    assert format_ns(-1) == format_ns(0)


# -- columns ---------------------------------------------------------------------------------------


def columns(*messages: str) -> Columns:
    counts = [message.count("\n") + 1 for message in messages]
    return Columns(
        text="".join(f"{message}\n" for message in messages),
        times="".join(format_ns(n) for n in range(len(messages))),
        levels=bytes(n % 5 for n in range(len(messages))),
        streams=bytes(n % 2 for n in range(len(messages))),
        lines=counts if any(count > 1 for count in counts) else [],
    )


def rows(found: Columns) -> list[tuple[str, str, int, int]]:
    messages = found.messages()
    assert len(messages) == len(found) == len(found.streams) == len(found.times) // TIME_LENGTH
    return [(message, found.time(i), found.levels[i], found.streams[i]) for i, message in enumerate(messages)]


MESSAGES = st.lists(st.text("ab\n", max_size=5), max_size=8)


@given(MESSAGES, st.data())
def test_picked_records_are_those_and_no_others(messages, data):
    all_of = columns(*messages)
    wanted = data.draw(st.lists(st.integers(0, max(0, len(messages) - 1)), unique=True).map(sorted)) if messages else []
    assert rows(all_of.pick(wanted)) == [rows(all_of)[i] for i in wanted]


@given(MESSAGES, st.data())
def test_without_the_last_lines_the_others_are_as_they_were(messages, data):
    all_of = columns(*messages)
    less = data.draw(st.integers(0, len(messages)))
    lines = sum(message.count("\n") + 1 for message in messages[len(messages) - less :])
    assert rows(all_of.without_last(lines)) == rows(all_of)[: len(messages) - less]


@given(st.lists(MESSAGES, min_size=1, max_size=4))
def test_joined_columns_are_one_after_the_other(parts):
    found = rows(joined([columns(*part) for part in parts]))
    assert found == [row for part in parts for row in rows(columns(*part))]


def test_a_record_is_shown_with_its_source():
    source = LogSource(container="c" * 64, app="shop", process="web", replica=2)
    gap = Gap(bytes=1234, lines=5, reason="the disk was full")
    (found,) = records(source, columns("a", gap.words()), [1], gap)
    assert (found.app, found.process, found.container, found.replica) == ("shop", "web", "c" * 64, 2)
    assert (found.ts, found.level, found.stream, found.gap) == (format_ns(1), "info", "stderr", gap)
    assert found.message == "[gap: 1,234 bytes (5 lines) of output were lost: the disk was full]"


def test_a_gap_says_what_is_not_known():
    assert Gap(bytes=0, at_least=True, reason="why").words() == "[gap: at least 0 bytes of output were lost: why]"
