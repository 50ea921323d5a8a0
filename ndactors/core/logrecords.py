"""Lines of containers as the log store holds them: in columns, one block for some records of one container."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence

from msgspec import Struct, field

from .levels import LEVELS
from .requestids import request_id_of

STREAMS = ("stdout", "stderr")
TIME_LENGTH = 30
"""Of ``2026-01-31T12:00:00.123456789Z``."""
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DIGITS = b"0123456789"
_SHAPE = b"--T::.Z"
_HOUR = 13
"""So many characters of a time tell day and hour."""
LATEST_NS = 9_214_646_400 * 1_000_000_000
"""The year 2262: later times do not fit into 64 bits, and lines have none."""
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class LogSource(Struct, frozen=True, kw_only=True):
    """A container whose output is kept. ``path``: its newest json-file log, ``path.1`` the one before; empty: the engine
    is asked, because its files cannot be read here."""

    container: str
    app: str
    process: str
    replica: int = 1
    path: str = ""


class Gap(Struct, frozen=True, kw_only=True):
    """Output that was lost. ``bytes`` are of the log file, and exact unless ``at_least``; ``lines`` None: not known."""

    bytes: int
    lines: int | None = None
    at_least: bool = False
    since: str = ""
    """Time of the last line before it; empty: not known."""
    reason: str = ""

    def words(self) -> str:
        size = f"{'at least ' if self.at_least else ''}{self.bytes:,} bytes"
        lines = f" ({self.lines:,} lines)" if self.lines is not None else ""
        return f"[gap: {size}{lines} of output were lost: {self.reason}]"


class Position(Struct, frozen=True, kw_only=True):
    """How far a source is stored: the file by its inode and ``head`` (a digest of its first bytes, as inodes are used
    again), and the bytes of it that are in the store. ``partial``: the pieces of a long line so far, by stream, as (time,
    text). ``last``: the time of the newest line; ``same``: how many lines with that very time are stored."""

    inode: int = 0
    head: bytes = b""
    offset: int = 0
    partial: dict[str, tuple[str, str]] = field(default_factory=dict)
    last: str = ""
    same: int = 0


class Columns(Struct, kw_only=True):
    """Records in the order in which they were written. ``text`` is all their lines, each with a newline at its end;
    ``times`` are RFC 3339 in UTC with nanoseconds, joined; ``levels`` and ``streams`` have a byte for each record. ``lines`` says
    how many lines each record has; empty: each has one."""

    text: str
    times: str
    levels: bytes
    streams: bytes
    lines: list[int] = []

    def __len__(self) -> int:
        return len(self.levels)

    def time(self, i: int) -> str:
        return self.times[i * TIME_LENGTH : (i + 1) * TIME_LENGTH]

    def messages(self) -> list[str]:
        """Each record's, without the newline at its end."""
        rows = self.text.split("\n")
        rows.pop()
        if not self.lines:
            return rows
        found, at = [], 0
        for count in self.lines:
            found.append("\n".join(rows[at : at + count]))
            at += count
        return found

    def without_last(self, lines: int) -> Columns:
        """Less so many lines at the end, which are whole records."""
        keep = len(self)
        while lines > 0 and keep:
            keep -= 1
            lines -= self.lines[keep] if self.lines else 1
        cut = sum(self.lines[keep:]) if self.lines else len(self) - keep
        return Columns(
            text=self.text.rsplit("\n", cut + 1)[0] + "\n" if keep else "",
            times=self.times[: keep * TIME_LENGTH],
            levels=self.levels[:keep],
            streams=self.streams[:keep],
            lines=self.lines[:keep],
        )

    def pick(self, wanted: Sequence[int]) -> Columns:
        """Only these records."""
        messages = self.messages()
        return Columns(
            text="".join(f"{messages[i]}\n" for i in wanted),
            times="".join([self.time(i) for i in wanted]),
            levels=bytes(self.levels[i] for i in wanted),
            streams=bytes(self.streams[i] for i in wanted),
            lines=[self.lines[i] for i in wanted] if self.lines else [],
        )


class LogRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record as the API shows it. ``container`` is the container's id."""

    ts: str
    app: str
    process: str
    container: str
    replica: int
    stream: str
    level: str
    message: str
    request_id: str | None = None
    gap: Gap | None = None


def records(
    source: LogSource, columns: Columns, wanted: Sequence[int] | None = None, gap: Gap | None = None
) -> Iterator[LogRecord]:
    messages = columns.messages()
    for i in range(len(columns)) if wanted is None else wanted:
        yield record(source, columns, i, messages[i], gap)


def record(source: LogSource, columns: Columns, i: int, message: str, gap: Gap | None = None) -> LogRecord:
    return LogRecord(
        ts=columns.time(i),
        app=source.app,
        process=source.process,
        container=source.container,
        replica=source.replica,
        stream=STREAMS[columns.streams[i]],
        level=LEVELS[columns.levels[i]],
        message=message,
        request_id=request_id_of(message),
        gap=gap,
    )


def joined(parts: Sequence[Columns]) -> Columns:
    """One after the other."""
    if len(parts) == 1:
        return parts[0]
    many = any(part.lines for part in parts)
    return Columns(
        text="".join([part.text for part in parts]),
        times="".join([part.times for part in parts]),
        levels=b"".join([part.levels for part in parts]),
        streams=b"".join([part.streams for part in parts]),
        lines=[count for part in parts for count in part.lines or [1] * len(part)] if many else [],
    )


def normal_times(times: list[str], before: str) -> str:
    """Every time with nine digits of fraction, in UTC, joined. What is no time becomes that of the line before it."""
    padded = "".join([time if len(time) == TIME_LENGTH else _padded(time) for time in times])
    if _are_of_one_hour(padded, len(times)):
        return padded
    found = []
    for time in times:
        before = normal_time(time) or before or format_ns(0)
        found.append(before)
    return "".join(found)


def _are_of_one_hour(times: str, count: int) -> bool:
    """Whether these are ``count`` times, as they should be: nearly always they are, and this costs nearly nothing."""
    data = times.encode("ascii", "replace")
    return (
        data.translate(None, _DIGITS) == _SHAPE * count
        and data[29::30] == b"Z" * count
        and data[19::30] == b"." * count
        and data[16::30] == data[13::30] == b":" * count
        and not data[14::30].translate(None, b"012345")
        and not data[17::30].translate(None, b"012345")
        and data.count(data[:_HOUR]) == count
        and normal_time(times[:TIME_LENGTH]) is not None
    )


def normal_time(time: str) -> str | None:
    """None for what is no time, or none that a line can have."""
    found = parse_ns(time)
    return format_ns(found) if found is not None and 0 <= found < LATEST_NS else None


def _padded(time: str) -> str:
    whole, point, fraction = time[:-1].partition(".")
    return f"{whole}.{fraction:0<9}Z" if time[-1:] == "Z" and bool(point) == bool(fraction) else time


def parse_ns(time: str) -> int | None:
    """Nanoseconds since 1970 of an RFC 3339 time; None if it is none."""
    match = _TIME.fullmatch(time)
    if match is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(f"{time[:19]}{match[2]}")
    except ValueError:
        return None
    delta = moment - _EPOCH
    return (delta.days * 86400 + delta.seconds) * 1_000_000_000 + int(f"{match[1] or '':0<9}")


def format_ns(ns: int) -> str:
    """The other way round."""
    seconds, rest = divmod(max(0, ns), 1_000_000_000)
    moment = _EPOCH + datetime.timedelta(seconds=min(seconds, 253_402_300_799))
    return f"{moment.strftime('%Y-%m-%dT%H:%M:%S')}.{rest:09d}Z"
