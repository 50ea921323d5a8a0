from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ndactors.core.loglines import understand
from ndactors.core.logrecords import TIME_LENGTH, format_ns

PYTHON = [
    "Traceback (most recent call last):",
    '  File "/app/x.py", line 1, in <module>',
    "    1 / 0",
    "ZeroDivisionError: division by zero",
]
JAVA = [
    "java.lang.IllegalStateException: no",
    "\tat a.B.c(B.java:1)",
    "\tat a.B.d(B.java:2)",
    "Caused by: java.io.IOException: x",
    "\tat e.F.g(F.java:3)",
]
GO = ["panic: no", "", "goroutine 1 [running]:", "main.main()", "\t/app/main.go:3 +0x1d", "exit status 2"]
DOTNET = ["info: Shop.Orders[0]", "      An order came"]


def understood(lines: list[str], streams: bytes = b""):
    """Records as (message, time, level, stream), and how many lines may go on."""
    times = [format_ns(n) for n in range(len(lines))]
    columns, left = understand([f"{line}\n" for line in lines], times, streams or bytes(len(lines)), "")
    messages = columns.messages()
    assert len(messages) == len(columns) == len(columns.streams) == len(columns.times) // TIME_LENGTH
    return [
        (message, columns.time(i), columns.levels[i], columns.streams[i]) for i, message in enumerate(messages)
    ], left


def test_each_line_is_a_record_with_its_level():
    rows, left = understood(["ERROR a", "b", "c"], b"\1\0\1")
    assert rows == [("ERROR a", format_ns(0), 3, 1), ("b", format_ns(1), 1, 0), ("c", format_ns(2), 1, 1)]
    assert left == 0


def test_there_may_be_nothing():
    assert understood([]) == ([], 0)


def test_the_line_end_of_windows_is_one_and_others_stay():
    assert [row[0] for row in understood(["a\r", "b\rc\r", "\r", "d\r\r", "e"])[0]] == ["a", "b\rc", "", "d\r", "e"]


@pytest.mark.parametrize("lines", [PYTHON, JAVA, GO, DOTNET], ids=["python", "java", "go", "dotnet"])
def test_a_traceback_is_one_record_of_its_worst_level_and_first_time(lines):
    rows, _ = understood(["before", *lines, "INFO after"])
    assert [row[0] for row in rows] == ["before", "\n".join(lines), "INFO after"]
    assert rows[1][1] == format_ns(1)
    assert rows[1][2] == (1 if lines is DOTNET else 4 if lines is GO else 3)


@pytest.mark.parametrize("lines", [PYTHON, JAVA, GO, DOTNET], ids=["python", "java", "go", "dotnet"])
def test_wherever_a_traceback_is_cut_its_begin_is_said_to_go_on(lines):
    for cut in range(1, len(lines)):
        _, left = understood(["INFO before", *lines[:cut]])
        assert left == cut, lines[:cut]


def test_streams_are_apart_and_a_record_stands_where_it_begins():
    lines, streams = [], bytearray()
    for line in PYTHON:
        lines += [line, "other"]
        streams += b"\1\0"
    rows, left = understood([*lines, "INFO after"], bytes(streams + b"\1"))
    assert [(row[0], row[3]) for row in rows] == [("\n".join(PYTHON), 1)] + [("other", 0)] * 4 + [("INFO after", 1)]
    assert left == 0


def test_what_goes_on_reaches_back_to_where_any_record_in_it_begins():
    # the one of stderr goes on; of that of stdout, which is over, there are lines before and behind
    lines = [PYTHON[0], PYTHON[0], PYTHON[1], PYTHON[1], PYTHON[2], "INFO after"]
    rows, left = understood(lines, b"\0\1\0\1\0\0")
    assert left == len(lines)
    assert [row[0] for row in rows] == ["\n".join(PYTHON[:3]), "\n".join(PYTHON[:2]), "INFO after"]


_LINES = st.lists(
    st.tuples(st.sampled_from([*PYTHON, *JAVA, *GO, *DOTNET, "", "a", "ERROR b", "\r"]), st.integers(0, 1)), max_size=25
)


@given(_LINES)
def test_no_line_is_lost_and_of_each_stream_they_stay_in_order(rows):
    found, left = understood([line for line, _ in rows], bytes(stream for _, stream in rows))
    for stream in (0, 1):
        whole = [line.removesuffix("\r") for line, each in rows if each == stream]
        assert "\n".join(row[0] for row in found if row[3] == stream) == "\n".join(whole)
    assert 0 <= left <= len(rows)


@example(
    [
        ('  File "/app/x.py", line 1, in <module>', 1),
        ("    1 / 0", 1),
        ("\tat a.B.c(B.java:1)", 1),
        ("Traceback (most recent call last):", 1),
    ]
)
@given(_LINES)
def test_what_goes_on_are_whole_records_at_the_end(rows):
    lines, streams = [f"{line}\n" for line, _ in rows], bytes(stream for _, stream in rows)
    times = [format_ns(n) for n in range(len(rows))]
    columns, left = understand(lines, times, streams, "")
    kept = len(rows) - left
    closed = columns.without_last(left)
    again, _ = understand(lines[:kept], times[:kept], streams[:kept], "")
    assert (closed.messages(), closed.times, closed.levels, closed.streams) == (
        again.messages(),
        again.times,
        again.levels,
        again.streams,
    )
