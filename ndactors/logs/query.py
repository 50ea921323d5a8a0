"""Queries over the store: a page of records in the order of their times, from as few blocks as possible, within a bounded
time. What was not searched by then is told by the page's cursor."""

from __future__ import annotations

import base64
import binascii
import heapq
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from ..core.logquery import Matcher
from ..core.logrecords import Columns, LogRecord, format_ns, parse_ns, record
from ..errors import Invalid
from ..messages.logs import MAX_LIMIT, GetLogs, LogPage
from . import blocks, segments
from .blocks import Damaged, Place
from .expressions import compile_re2

PAGE_SECONDS = 3.0
PAGE_CHARACTERS = 3 * 1024 * 1024
"""Of messages: a page with more is cut there, so that it fits into a frame whatever it has."""
KEPT_PLACES = 400_000
"""Of blocks; some 0.25 KB each."""
_FIRST, _LAST = -1, (1 << 63) - 1

MOST_AT_ONCE = 8
THREADS = 2

Key = tuple[int, int, int, int]
"""Where a record is in the order of all: its time, segment, block, place in the block."""


class Cursor(Struct, frozen=True, array_like=True):
    """Go on behind this key."""

    oldest_first: bool
    key: Key


def cursor_text(cursor: Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).decode().rstrip("=")


def cursor_of(text: str, oldest_first: bool) -> Key:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        cursor = msgspec.msgpack.decode(raw, type=Cursor)
    except (ValueError, binascii.Error, msgspec.DecodeError) as error:
        raise Invalid("cursor is none that a page has told.") from error
    if cursor.oldest_first != oldest_first:
        raise Invalid("cursor is of a page in the other order.")
    return cursor.key


class _Known(Struct):
    """The blocks in the first ``size`` bytes of a segment; how many places between them are damaged, and whether what
    follows the last one is."""

    size: int
    places: list[Place]
    damaged: int = 0
    torn: bool = False


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS)


class Store:
    """The segments as somebody sees them who only reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._indexes: OrderedDict[int, _Known] = OrderedDict()
        self.damaged = 0

    def forget(self) -> None:
        """Let go of all that is remembered."""
        self._indexes.clear()

    def numbers(self) -> list[int]:
        return segments.segment_numbers(self._folder)

    def places(self, number: int, upto: int | None) -> list[Place]:
        """The blocks with records of one segment, up to a length of it. Those that are damaged are counted."""
        known = self._indexes.pop(number, None)
        size = segments.segment_path(self._folder, number).stat().st_size
        size = size if upto is None else min(size, upto)
        if known is None and upto is None:
            found = segments.read_index(self._folder, number)
            known = _Known(size, found) if found is not None else None
        if known is None or known.size < size:
            known = self._scanned(number, size, known or _Known(0, []))
        self._indexes[number] = known
        while len(self._indexes) > 1 and sum(len(each.places) for each in self._indexes.values()) > KEPT_PLACES:
            self._indexes.popitem(last=False)
        self.damaged += known.damaged + known.torn
        return [place for place in known.places if not place.header.checkpoint and place.end <= size]

    def _scanned(self, number: int, size: int, known: _Known) -> _Known:
        found = _Known(size, list(known.places), known.damaged)
        start = found.places[-1].end if found.places else 0
        with segments.mapped(segments.segment_path(self._folder, number), size) as data:
            for place in blocks.scan(data, start):
                if isinstance(place, Place):
                    found.damaged, found.torn = found.damaged + found.torn, False
                    found.places.append(place)
                else:
                    found.torn = True
        return found

    def columns(self, number: int, place: Place) -> Columns | None:
        """None, and counted, if it cannot be read."""
        try:
            with open(segments.segment_path(self._folder, number), "rb", buffering=0) as file:
                return blocks.load(file.fileno(), place)
        except FileNotFoundError:
            return None  # expired meanwhile
        except (OSError, Damaged):
            self.damaged += 1
            return None

    def newest(self, number: int) -> int:
        """Nanoseconds since 1970; nothing in the segment is newer."""
        found = segments.read_newest(self._folder, number)
        return _LAST if found is None else found


def page(
    store: Store,
    query: GetLogs,
    upto: tuple[int, int] | None,
    clock: Callable[[], float],
    seconds: float = PAGE_SECONDS,
) -> LogPage:
    """``upto``: the segment that is written, and its length. ``Invalid`` for a query that cannot be."""
    limit = max(1, min(query.limit, MAX_LIMIT))
    after = cursor_of(query.cursor, query.oldest_first) if query.cursor else None
    search = _Search(store, query, upto, after, limit)
    store.damaged = 0
    deadline = clock() + seconds
    found: list[tuple[Key, LogRecord]] = []
    more, size = False, 0
    for entry in search.entries():
        if entry is not None:
            if len(found) == limit or size > PAGE_CHARACTERS:
                more = True
                break
            found.append(entry)
            size += len(entry[1].message)
        elif clock() >= deadline and (horizon := search.horizon()) is not None:
            return _page(found, Cursor(query.oldest_first, horizon), store, query)
    return _page(found, Cursor(query.oldest_first, found[-1][0]) if more else None, store, query)


def _page(found: list[tuple[Key, LogRecord]], cursor: Cursor | None, store: Store, query: GetLogs) -> LogPage:
    items = [record for _, record in found]
    if not query.oldest_first:
        items.reverse()
    return LogPage(items=tuple(items), next=cursor_text(cursor) if cursor else None, damaged=store.damaged)


class _Search:
    """A queue of what is not opened yet (segments, blocks) and of opened blocks, each at the time of the first record that
    it may still have. What is in front is opened, or gives its next record."""

    def __init__(
        self, store: Store, query: GetLogs, upto: tuple[int, int] | None, after: Key | None, limit: int
    ) -> None:
        self._store = store
        self._upto = upto
        self._after = after
        self._limit = limit
        self.forward = query.oldest_first
        self._matcher = Matcher(query.filter, compile_re2)
        wanted = query.filter
        self._since = parse_ns(wanted.since) if wanted.since else None
        self._until = parse_ns(wanted.until) if wanted.until else None
        self._queue: list[tuple[int, int, int, int, Any]] = []
        """Rank (a time, negative if the newest come first), then what makes it unique, then what it is."""
        self._count = 0
        self._batch = 1
        """So many blocks are opened at once next time."""

    def horizon(self) -> Key | None:
        """Everything before this was found. None: there is no more, or nothing was gained yet."""
        if not self._queue:
            return None
        rank, number, offset, _, thing = self._queue[0]
        if isinstance(thing, _Block) and (key := thing.peek()) is not None:
            before = (*key[:3], key[3] - 1 if self.forward else key[3] + 1)
        elif self.forward:
            before = (rank, number, offset, _FIRST)
        else:
            before = (-rank, -number, -offset, _LAST)
        return before if self._is_behind(before) else None

    def _rank(self, time: int) -> int:
        return time if self.forward else -time

    def _push(self, time: int, number: int, offset: int, thing: Any) -> None:
        self._count += 1
        order = (number, offset) if self.forward else (-number, -offset)
        heapq.heappush(self._queue, (self._rank(time), *order, self._count, thing))

    def entries(self) -> Iterator[tuple[Key, LogRecord] | None]:
        """Records in order; None between them: a moment to look at the clock."""
        for number in self._store.numbers():
            self._offer_segment(number)
        while self._queue:
            _, _, _, _, thing = heapq.heappop(self._queue)
            if isinstance(thing, int):
                self._open_segment(thing)
            elif isinstance(thing, tuple):
                self._open_blocks(self._with_the_next(thing))
                yield None
            else:
                yield thing.take()
                self._push_block(thing)

    def _offer_segment(self, number: int) -> None:
        if self._upto is not None and number > self._upto[0]:
            return
        written = self._upto is not None and number == self._upto[0]
        newest = _LAST if written else self._store.newest(number)
        if self._since is not None and newest < self._since:
            return
        if not self.forward:
            self._push(newest, number, _LAST, number)
        elif self._after is None or newest >= self._after[0]:
            self._push(0, number, _FIRST, number)

    def _open_segment(self, number: int) -> None:
        upto = self._upto[1] if self._upto is not None and number == self._upto[0] else None
        try:
            places = self._store.places(number, upto)
        except FileNotFoundError:
            return
        wanted = self._matcher.filter
        for place in places:
            header = place.header
            if header.source is None or not wanted.wants(header.source):
                continue
            if wanted.levels and not wanted.levels & header.levels:
                continue
            if self._since is not None and header.last < self._since:
                continue
            if self._until is not None and header.first >= self._until:
                continue
            if self._after is not None and not self._reaches(place):
                continue
            self._push(header.first if self.forward else header.last, number, place.offset, (number, place))

    def _reaches(self, place: Place) -> bool:
        """Whether it may have something behind the cursor."""
        assert self._after is not None
        return place.header.last >= self._after[0] if self.forward else place.header.first <= self._after[0]

    def _with_the_next(self, first: tuple[int, Place]) -> list[tuple[int, Place]]:
        """The block in front, and those behind it: one more each time, as long as nothing is found."""
        batch = [first]
        while len(batch) < self._batch and self._queue and isinstance(self._queue[0][4], tuple):
            batch.append(heapq.heappop(self._queue)[4])
        self._batch = min(self._batch * 2, MOST_AT_ONCE)
        return batch

    def _open_blocks(self, batch: list[tuple[int, Place]]) -> None:
        """Expanding and searching let go of the interpreter's lock, so two threads take little more than half the time."""
        opened = _threads().map(self._opened, batch) if len(batch) > 1 else map(self._opened, batch)
        for (number, place), found in zip(batch, opened, strict=True):
            if found is not None and found[1]:
                self._batch = 1
                self._push_block(_Block(self, number, place, *found))

    def _opened(self, block: tuple[int, Place]) -> tuple[Columns, Sequence[int]] | None:
        number, place = block
        columns, header = self._store.columns(number, place), place.header
        if columns is None:
            return None
        return columns, self._matcher.rows(columns, format_ns(header.first), format_ns(header.last))

    def _push_block(self, block: _Block) -> None:
        if (key := block.peek()) is not None:
            self._push(key[0], key[1], key[2], block)

    def behind(self, times: list[str], number: int, offset: int, rows: Sequence[int]) -> list[tuple[Key, int]]:
        """The keys of these rows that are behind the cursor, as many as a page can need."""
        low, high = 0, len(times)
        if self._after is not None:
            text = format_ns(self._after[0])
            if self.forward:
                low = bisect_left(times, text)
            else:
                high = bisect_right(times, text)
        if self._after is None or not (low < high and self._ties(times, low, high)):
            # one more than a page has tells that there is another page
            low, high = (
                (low, min(high, low + self._limit + 1)) if self.forward else (max(low, high - self._limit - 1), high)
            )
        keys = [((parse_ns(times[at]) or 0, number, offset, rows[at]), rows[at]) for at in range(low, high)]
        return [entry for entry in keys if self._is_behind(entry[0])]

    def _ties(self, times: list[str], low: int, high: int) -> bool:
        """Whether some have the cursor's very time, so that some of them may be before it."""
        assert self._after is not None
        return times[low if self.forward else high - 1] == format_ns(self._after[0])

    def _is_behind(self, key: Key) -> bool:
        if self._after is None:
            return True
        return key > self._after if self.forward else key < self._after


class _Block:
    """The wanted records of one block that are still to come, in the order of the search."""

    def __init__(self, search: _Search, number: int, place: Place, columns: Columns, rows: Sequence[int]) -> None:
        assert place.header.source is not None
        self._source = place.header.source
        self._gap = place.header.gap
        # a clock that steps back does not move a line before the one it followed
        times = list(accumulate((columns.time(i) for i in rows), max))
        keys = search.behind(times, number, place.offset, rows)
        own = [i for _, i in keys]
        self._columns = columns.pick(own) if len(own) < len(columns) // 2 else columns
        self._messages = self._columns.messages()
        picked = self._columns is not columns
        self._keys = [(key, at if picked else i) for at, (key, i) in enumerate(keys)]
        if search.forward:
            self._keys.reverse()

    def peek(self) -> Key | None:
        """Of the next one."""
        return self._keys[-1][0] if self._keys else None

    def take(self) -> tuple[Key, LogRecord]:
        key, i = self._keys.pop()
        return key, record(self._source, self._columns, i, self._messages[i], self._gap)
