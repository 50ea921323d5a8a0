"""Which log records somebody wants. A filter is judged on whole blocks first, then on columns, and line by line only
where that is needed."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal

import msgspec
from msgspec import Struct

from ..errors import Invalid
from .levels import LEVELS
from .logrecords import STREAMS, Columns, LogSource
from .needed_text import needed_texts

MAX_QUERY_CHARACTERS = 1000
ANSI = re.compile(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b\n]{0,256}(?:\x07|\x1b\\)|[@-Z\\-_])")
"""ECMA-48: control sequences (colours), operating system commands, single escapes; within one line."""
_FIELD = re.compile(r"([A-Za-z_@][\w@.\-\[\]]{0,127}):(?![/\s:])(\S.*)")
_OF_THE_WHOLE = re.compile(r"\\[Az]|\(\?[A-Za-z]*-")
"""In a regular expression: what stands for begin and end of the text, or may take that from ``^`` and ``$``."""
_QUICK = 4
"""Characters of a text that is found sooner than a regular expression."""
_RARE = 8
"""One in so many records: so few are searched one by one."""
_GROUP_BYTES = 16 * 1024
"""So much is searched at once, as an expression may look on to the end for every record."""

Search = Callable[[bytes, int, int], Any]
"""``pattern.search(text, start, end)`` of a regular expression over UTF-8 that takes linear time; the match has ``start()``
and ``end()``."""


class LogFilter(Struct, frozen=True, kw_only=True):
    """None or empty: whatever. ``apps``: only of these (who asks may see no others). ``container`` is the beginning of an
    id. ``levels`` has bit n for ``LEVELS[n]``; 0: all. ``since`` and ``until`` (exclusive) are RFC 3339 in UTC with
    nanoseconds. ``q`` is literal text, ``/…/`` a regular expression (RE2), ``field:value`` a field of a JSON line."""

    app: str | None = None
    apps: tuple[str, ...] | None = None
    process: str | None = None
    container: str | None = None
    replica: int | None = None
    stream: Literal["stdout", "stderr"] | None = None
    levels: int = 0
    q: str | None = None
    request_id: str | None = None
    since: str | None = None
    until: str | None = None

    def wants(self, source: LogSource) -> bool:
        return (
            (self.app is None or source.app == self.app)
            and (self.apps is None or source.app in self.apps)
            and (self.process is None or source.process == self.process)
            and (self.container is None or source.container.startswith(self.container))
            and (self.replica is None or source.replica == self.replica)
        )


def level_mask(text: str) -> int:
    """``error``: that and worse; several with commas: exactly these. ``Invalid`` for no level."""
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in LEVELS:
            raise Invalid(f"level must be one of {', '.join(LEVELS)}.")
    if len(names) == 1:
        return sum(1 << n for n in range(LEVELS.index(names[0]), len(LEVELS)))
    return sum({1 << LEVELS.index(name) for name in names})


class Matcher:
    """A filter, ready to be used. ``compile`` makes a regular expression's search; what it raises is ``Invalid``."""

    def __init__(self, wanted: LogFilter, compile: Callable[[str], Search]) -> None:
        self.filter = wanted
        self._literals: list[str] = []
        self._search: Search | None = None
        self._needed: list[str] = []
        """Texts that whatever it finds has."""
        self._whole_records = False
        self._field: tuple[list[str], str] | None = None
        if wanted.request_id:
            self._literals.append(wanted.request_id)
        if wanted.q:
            self._understand(wanted.q, compile)

    def _understand(self, q: str, compile: Callable[[str], Search]) -> None:
        if len(q) > MAX_QUERY_CHARACTERS:
            raise Invalid(f"q must have at most {MAX_QUERY_CHARACTERS} characters.")
        if len(q) > 2 and q.startswith("/") and q.endswith("/"):
            self._search = compile(q[1:-1])
            self._needed = [text for text in needed_texts(q[1:-1]) if len(text) >= _QUICK]
            self._whole_records = _OF_THE_WHOLE.search(q) is not None
        elif len(q) > 2 and q.startswith('"') and q.endswith('"'):
            self._literals.append(q[1:-1])
        elif field := _FIELD.fullmatch(q):
            self._field = (re.split(r"[.\[\]]+", field[1].rstrip("]")), field[2])
        else:
            self._literals.append(q)

    def rows(self, columns: Columns, first: str, last: str) -> Sequence[int]:
        """Which of the records it wants, in order."""
        wanted = self.filter
        count = len(columns)
        rows: Sequence[int] = range(count)
        if self._literals or self._search or self._field:
            rows = self._by_text(columns)
        if wanted.levels and rows:
            levels = columns.levels
            rows = [i for i in rows if wanted.levels >> levels[i] & 1]
        if wanted.stream and rows:
            stream = STREAMS.index(wanted.stream)
            rows = [i for i in rows if columns.streams[i] == stream]
        if wanted.since is not None and first < wanted.since:
            rows = [i for i in rows if columns.time(i) >= wanted.since]
        if wanted.until is not None and last >= wanted.until:
            rows = [i for i in rows if columns.time(i) < wanted.until]
        return rows

    def _by_text(self, columns: Columns) -> Sequence[int]:
        text = columns.text
        if "\x1b" in text:
            text = ANSI.sub("", text)
        if any(each not in text for each in (*self._literals, *self._needed)):
            return ()
        if self._search is not None and not self._whole_records and not columns.lines:
            data = text.encode()
            if not any(self._search(data, begin, end) for begin, end in _groups(data)):
                return ()
        starts = _starts(text, columns.lines)
        rows: Sequence[int] | None = None
        for literal in self._literals:
            rows = (
                _with(text, literal, starts) if rows is None else [i for i in rows if literal in _one(text, starts, i)]
            )
        if self._search is not None:
            if rows is None and self._needed and text.count(self._needed[0]) * _RARE < len(columns):
                rows = _with(text, self._needed[0], starts)
            rows = self._matching(text, starts, self._search, rows)
        if self._field is not None:
            rows = self._with_field(text, starts, rows)
        return rows if rows is not None else ()

    def _matching(self, text: str, starts: list[int], search: Search, rows: Sequence[int] | None) -> Sequence[int]:
        if rows is not None or self._whole_records:
            wanted = rows if rows is not None else range(len(starts) - 1)
            texts = ((i, _one(text, starts, i).encode()) for i in wanted)
            return [i for i, own in texts if search(own, 0, len(own))]
        data = text.encode()
        if len(data) != len(text):
            starts = list(accumulate([len(text[a:b].encode()) for a, b in pairwise(starts)], initial=0))
        found, at = [], 0
        while at < len(data):
            group = max(bisect_right(starts, at) + 1, bisect_right(starts, at + _GROUP_BYTES))
            end = starts[group - 1] - 1
            while at <= end and (match := search(data, at, end)):
                row = bisect_right(starts, match.start()) - 1
                # what matched may run over several records
                own = data[starts[row] : starts[row + 1] - 1]
                if match.end() < starts[row + 1] or search(own, 0, len(own)):
                    found.append(row)
                at = starts[row + 1]
            at = end + 1
        return found

    def _with_field(self, text: str, starts: list[int], rows: Sequence[int] | None) -> Sequence[int]:
        assert self._field is not None
        path, value = self._field
        # keys are written as they are; what counts entries of a list is not written at all
        names = [name for name in path if name.isascii() and not name.isdecimal()]
        if any(name not in text for name in names):
            return ()
        found = []
        for i in rows if rows is not None else range(len(starts) - 1):
            message = _one(text, starts, i).strip()
            if message.startswith("{") and all(name in message for name in names) and _has(message, path, value):
                found.append(i)
        return found


def _groups(data: bytes) -> Iterator[tuple[int, int]]:
    """Where some whole lines begin, and end without the last newline."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at + _GROUP_BYTES)
        end = end if end >= 0 else len(data) - 1
        yield at, end
        at = end + 1


def _has(message: str, path: list[str], value: str) -> bool:
    try:
        return any(_shown(found) == value for found in _found(msgspec.json.decode(message), path))
    except (msgspec.DecodeError, RecursionError):
        return False


def _found(tree: Any, path: list[str]) -> list[Any]:
    """Keys may contain dots themselves, so every way to read the path counts."""
    if not path:
        return [each for item in tree for each in _found(item, path)] if isinstance(tree, list) else [tree]
    if isinstance(tree, list):
        if path[0].isdecimal() and int(path[0]) < len(tree):
            return _found(tree[int(path[0])], path[1:])
        return [each for item in tree for each in _found(item, path)]
    if not isinstance(tree, dict):
        return []
    found: list[Any] = []
    for length in range(1, len(path) + 1):
        key = ".".join(path[:length])
        if key in tree:
            found += _found(tree[key], path[length:])
    return found


def _shown(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | int | float):
        return msgspec.json.encode(value).decode()
    return None


def _starts(text: str, lines: list[int]) -> list[int]:
    """Where each record begins in the text, and the text's end."""
    ends = list(accumulate([len(row) + 1 for row in text.split("\n")]))
    ends.pop()
    if lines:
        rows = accumulate(lines)
        ends = [ends[row - 1] for row in rows]
    return [0, *ends]


def _one(text: str, starts: list[int], i: int) -> str:
    return text[starts[i] : starts[i + 1] - 1]


def _with(text: str, literal: str, starts: list[int]) -> list[int]:
    found, at = [], text.find(literal)
    while at >= 0:
        row = bisect_right(starts, at) - 1
        if at + len(literal) < starts[row + 1]:
            found.append(row)
            at = text.find(literal, starts[row + 1])
        else:
            # it runs over the record's end; the next place may be in the same one
            at = text.find(literal, at + 1)
    return found
