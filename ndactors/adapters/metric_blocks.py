"""How points are packed: ``Row`` is one slot of many series, a block is one series over many slots. Numbers are doubles whose
bytes are sorted by their place (so that zeros and exponents stand together), then compressed."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

ROW_LEVEL, BLOCK_LEVEL = 1, 6
"""Rows are written every 10 s and stay for an hour. By zlib, which is in memory anyway: Zstandard is no smaller here."""
LARGEST = 64 * 1024 * 1024
"""No packed row is larger than this when unpacked."""
KINDS = ("counter", "gauge", "histogram")
"""By the two bits that they are stored in."""


class Layout(NamedTuple):
    """Where each series is among the numbers: id → (kind, first, after the last)."""

    places: dict[int, tuple[str, int, int]]
    size: int


class Row(NamedTuple):
    layout: Layout
    numbers: array[float]

    def of(self, series: int) -> tuple[str, array[float]] | None:
        place = self.layout.places.get(series)
        return None if place is None else (place[0], self.numbers[place[1] : place[2]])

    def all(self) -> dict[int, tuple[str, array[float]]]:
        return {series: (kind, self.numbers[a:b]) for series, (kind, a, b) in self.layout.places.items()}


def pack_row(points: Mapping[int, tuple[str, Sequence[float]]]) -> bytes:
    """Of series by their ids."""
    ids, shapes, numbers = array("I"), array("H"), array("d")
    for series in sorted(points):
        kind, point = points[series]
        ids.append(series)
        shapes.append(len(point) << 2 | KINDS.index(kind))
        numbers.extend(point)
    head = array("I", [len(ids)]).tobytes() + ids.tobytes() + shapes.tobytes()
    return zlib.compress(head + _sorted(numbers.tobytes()), ROW_LEVEL)


def unpack_row(body: bytes) -> Row:
    """``ValueError`` for what was never packed."""
    data = _decompress(body)
    count = int.from_bytes(data[:4], "little")
    border = 4 + 6 * count
    layout = _layout(data[4:border])
    numbers = array("d", _unsorted(data[border:]))
    if len(numbers) != layout.size:
        raise ValueError("a row of another size")
    return Row(layout, numbers)


@lru_cache(maxsize=64)
def _layout(head: bytes) -> Layout:
    """Most rows have the layout of the one before."""
    count = len(head) // 6
    ids, shapes = array("I", head[: 4 * count]), array("H", head[4 * count :])
    places, at = {}, 0
    if len(ids) != len(shapes) or any(shape & 3 >= len(KINDS) for shape in shapes):
        raise ValueError("a row of something else")
    for series, shape in zip(ids, shapes, strict=True):
        places[series] = (KINDS[shape & 3], at, at + (shape >> 2))
        at += shape >> 2
    return Layout(places, at)


def pack_block(kind: str, points: Iterable[tuple[int, Sequence[float]]]) -> bytes:
    """Points by their place in the block, all of one width, in order."""
    places, rows = array("H"), []
    for place, point in points:
        places.append(place)
        rows.append(point)
    width = len(rows[0])
    columns = array("d")
    for column in range(width):
        columns.extend([row[column] for row in rows])
    head = array("H", [len(rows), width << 2 | KINDS.index(kind)]).tobytes() + places.tobytes()
    return zlib.compress(head + _sorted(columns.tobytes()), BLOCK_LEVEL)


def unpack_block(body: bytes) -> tuple[str, list[tuple[int, tuple[float, ...]]]]:
    """``ValueError`` for what was never packed."""
    data = _decompress(body)
    if len(data) < 4 or data[2] & 3 >= len(KINDS):
        raise ValueError("a block of something else")
    count, shape = array("H", data[:4])
    places = array("H", data[4 : 4 + 2 * count])
    numbers = array("d", _unsorted(data[4 + 2 * count :]))
    width = shape >> 2
    if len(places) != count or len(numbers) != count * width:
        raise ValueError("a block of another size")
    columns = [numbers[column * count : (column + 1) * count] for column in range(width)]
    return KINDS[shape & 3], list(zip(places, zip(*columns, strict=True), strict=True))


def _decompress(body: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    try:
        data = unpacking.decompress(body, LARGEST)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not unpacking.eof:
        raise ValueError("cut off, or too large")
    return data


def _sorted(data: bytes) -> bytes:
    return b"".join([data[place::8] for place in range(8)])


def _unsorted(data: bytes) -> bytes:
    count, rest = divmod(len(data), 8)
    if rest:
        raise ValueError("not whole numbers")
    found = bytearray(len(data))
    for place in range(8):
        found[place::8] = data[place * count : (place + 1) * count]
    return bytes(found)
