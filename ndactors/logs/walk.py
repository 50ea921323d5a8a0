"""A walk through the store for somebody who wants every record once and in order: where it is now, what comes next, and what
is gone. It only reads, while the writer writes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from ..core.logrecords import Columns, Gap, LogSource
from . import blocks
from .blocks import Damaged, Place
from .segments import mapped, read_index, segment_numbers, segment_path

WINDOW_BYTES = 1024 * 1024


class Cursor(NamedTuple):
    """Behind what is done: a segment, the offset of a block in it, and how many of that block's records."""

    segment: int = 0
    offset: int = 0
    records: int = 0


class Found(NamedTuple):
    """A block's records. ``at`` has how many of them are done already; ``end`` is behind the block."""

    source: LogSource
    columns: Columns
    gap: Gap | None
    at: Cursor
    end: Cursor


def newest(store: Path) -> Cursor:
    """Behind the last whole block that is there now."""
    numbers = segment_numbers(store)
    if not numbers:
        return Cursor()
    end = 0
    with mapped(segment_path(store, numbers[-1])) as data:
        for place in blocks.scan(data):
            end = place.end if isinstance(place, Place) else end
    return Cursor(numbers[-1], end)


class Walk:
    """The file that it is in stays open, so what is in there can be read even if retention removes it. ``passed`` are the
    segments that went away before they could be read, until somebody takes them from there."""

    def __init__(self, store: Path, cursor: Cursor) -> None:
        self._store = store
        self._at = cursor
        self._file = -1
        self._final = False
        """Nothing more is written to this file, and that was known before the last look at its size."""
        self._data = b""
        self._base = 0
        self.passed: list[int] = []
        self.damaged = 0
        """Records in blocks that cannot be read, as far as their number is known."""

    def next(self) -> Found | None:
        """None: there is no more for now. ``OSError``."""
        while self._file >= 0 or self._open():
            place = self._place()
            if isinstance(place, Place):
                found = self._found(place)
                if found is not None:
                    return found
            elif place is not None:
                self._at = Cursor(self._at.segment, self._at.offset + place)
            elif self._final:
                self._leave(self._at.segment + 1)
            else:
                self._final = max(segment_numbers(self._store), default=0) > self._at.segment
                if not self._final:
                    return None
        return None

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _open(self) -> bool:
        while numbers := segment_numbers(self._store):
            wanted = self._at.segment
            if wanted > numbers[-1] + 1 or (wanted > numbers[-1] and self._at.offset):
                # a new store: whoever made it threw the old one away
                self._leave(0)
                continue
            number = next((number for number in numbers if number >= wanted), 0)
            if not number:
                return False
            if number != wanted:
                self.passed += range(max(1, wanted), number)
                self._leave(number)
            with contextlib.suppress(FileNotFoundError):  # it went away just now
                self._file = os.open(segment_path(self._store, number), os.O_RDONLY | os.O_CLOEXEC)
                self._final = number < numbers[-1]
                if self._at.offset > os.fstat(self._file).st_size:
                    # a loss of power undid some of it: rather twice than never
                    self._at = Cursor(number)
                return True
        return False

    def _leave(self, number: int) -> None:
        self.close()
        self._at = Cursor(number)
        self._final = False
        self._data, self._base = b"", 0

    def _place(self) -> Place | int | None:
        """The block that begins here; or how many bytes are none; None: there is no whole one, or not yet."""
        at = self._at.offset
        known = next(blocks.scan(memoryview(self._data)[at - self._base :]), None) if self._data else None
        if isinstance(known, Place):
            return known
        # what looked torn may be whole by now, or written anew
        size, want = os.fstat(self._file).st_size, WINDOW_BYTES
        while at < size:
            self._base, self._data = at, os.pread(self._file, want, at)
            found = next(blocks.scan(memoryview(self._data)), None)
            if found is None or isinstance(found, Place) or found < len(self._data):
                return found
            if at + len(self._data) >= size:
                return found if self._final else None
            want = 2 * len(self._data)
        return None

    def _found(self, place: Place) -> Found | None:
        at = self._at
        end = Cursor(at.segment, at.offset + place.end)
        self._at = end
        header = place.header
        if header.checkpoint or header.source is None:
            return None
        begin = at.offset - self._base + blocks.HEAD_BYTES + place.header_bytes
        try:
            columns = blocks.decode(self._data[begin : begin + place.payload_bytes], place)
        except Damaged:
            self.damaged += header.records - at.records
            return None
        return Found(header.source, columns, header.gap, at, end)


class Counts:
    """How many records each closed segment has, looked up while it is there, for those that may go before they are read."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._known: dict[int, int] = {}

    def learn(self, after: int, most: int = 8) -> None:
        """Of segments after this one; a few at once. ``OSError``."""
        closed = [number for number in segment_numbers(self._store)[:-1] if number > after]
        self._known = {number: count for number, count in self._known.items() if number > after}
        for number in [number for number in closed if number not in self._known][:most]:
            with contextlib.suppress(FileNotFoundError):
                self._known[number] = self._count(number)

    def _count(self, number: int) -> int:
        places = read_index(self._store, number)
        if places is None:
            with mapped(segment_path(self._store, number)) as data:
                places = [place for place in blocks.scan(data) if isinstance(place, Place)]
        return sum(place.header.records for place in places)

    def of(self, numbers: list[int]) -> int:
        """As far as they are known."""
        return sum(self._known.get(number, 0) for number in numbers)
