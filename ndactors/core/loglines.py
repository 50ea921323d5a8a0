"""From lines of output to records: level, time, and which lines belong together."""

from __future__ import annotations

from collections.abc import Sequence

from . import tracebacks
from .loglevels import levels_of
from .logrecords import TIME_LENGTH, Columns, normal_times


def understand(lines: list[str], times: list[str], streams: bytes, before: str) -> tuple[Columns, int]:
    """``lines`` have a newline each; ``before`` is the time of the line before them. Also how many lines at the end may
    belong to a record that goes on with lines to come."""
    text = "".join(lines)
    if "\r\n" in text:
        lines = [line[:-2] + "\n" if line.endswith("\r\n") else line for line in lines]
        text = "".join(lines)
    levels = levels_of(lines, text)
    columns = Columns(text=text, times=normal_times(times, before), levels=levels, streams=streams)
    if not tracebacks.may_have(text) and not _ends_open(lines, columns):
        return columns, 0
    return _grouped(lines, columns)


def _ends_open(lines: list[str], columns: Columns) -> bool:
    """Whether the last lines may be the begin of a record, when there is none of several lines before."""
    last = lines[-tracebacks.MOST_TENTATIVE :]
    levels, streams = columns.levels[-len(last) :], columns.streams[-len(last) :]
    for stream in set(streams):
        own = [i for i, each in enumerate(streams) if each == stream]
        if tracebacks.continuations([last[i] for i in own], [levels[i] for i in own])[1]:
            return True
    return False


def _grouped(lines: list[str], columns: Columns) -> tuple[Columns, int]:
    heads = list(range(len(lines)))
    first_open = len(lines)
    for stream in set(columns.streams):
        own = [i for i, each in enumerate(columns.streams) if each == stream]
        flags, left = tracebacks.continuations([lines[i] for i in own], [columns.levels[i] for i in own])
        for place, (i, goes_on) in enumerate(zip(own, flags, strict=True)):
            if goes_on and place:
                heads[i] = heads[own[place - 1]]
        if left:
            first_open = min(first_open, heads[own[-min(left, len(own))]])
    # lines of a record that was begun before stay with it
    while first_open < len(lines) and (head := min(heads[first_open:])) < first_open:
        first_open = head
    return _as_records(lines, heads, columns), len(lines) - first_open


def _as_records(lines: Sequence[str], heads: Sequence[int], columns: Columns) -> Columns:
    """``heads`` says of each line which line its record begins with. A record stands where it begins."""
    members: dict[int, list[int]] = {}
    for i, head in enumerate(heads):
        members.setdefault(head, []).append(i)
    if len(members) == len(lines):
        return columns
    rows = sorted(members.items())
    return Columns(
        text="".join([lines[i] for _, own in rows for i in own]),
        times="".join([columns.times[head * TIME_LENGTH : (head + 1) * TIME_LENGTH] for head, _ in rows]),
        levels=bytes(max(columns.levels[i] for i in own) for _, own in rows),
        streams=bytes(columns.streams[head] for head, _ in rows),
        lines=[len(own) for _, own in rows],
    )
