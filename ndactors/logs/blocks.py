"""Blocks: how columns of records lie on disk. A block is all there or it is not: its checksum says so. It carries how far
its source was read, so what is stored and how far it was read can never disagree."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator

import msgspec
from backports import zstd
from msgspec import Struct
from msgspec.structs import replace

from ..core.logrecords import Columns, Gap, LogSource, Position, parse_ns

MAGIC = b"nlg1"
_HEAD = struct.Struct(">4sIII")
"""Magic, length of the header, length of the payload, CRC-32 of both."""
HEAD_BYTES = _HEAD.size
MAX_HEADER = 16 * 1024 * 1024
MAX_PAYLOAD = 256 * 1024 * 1024
LEVEL = 1
"""Of zstd: three times as fast as 3, for some 10 % more bytes."""


class Header(Struct, frozen=True, array_like=True):
    """What a query must know of a block to leave it out. Times are nanoseconds since 1970. ``levels`` has bit n for level
    n. ``checkpoint``: no records, but how far every source is read."""

    source: LogSource | None
    first: int = 0
    last: int = 0
    records: int = 0
    levels: int = 0
    text_bytes: int = 0
    gap: Gap | None = None
    position: Position | None = None
    checkpoint: bool = False


class Place(Struct, frozen=True, array_like=True):
    """A block in its file: where it begins, and how long its parts are."""

    offset: int
    header_bytes: int
    payload_bytes: int
    header: Header

    @property
    def end(self) -> int:
        return self.offset + HEAD_BYTES + self.header_bytes + self.payload_bytes


_encoder = msgspec.msgpack.Encoder()
_header = msgspec.msgpack.Decoder(Header)
_columns = msgspec.msgpack.Decoder(Columns)
_positions = msgspec.msgpack.Decoder(dict[str, tuple[LogSource, Position]])


MOST_SOURCES = 10_000
_sources: dict[LogSource, LogSource] = {}


class Damaged(Exception):
    """These bytes are no block."""


def encode(source: LogSource, columns: Columns, position: Position | None, gap: Gap | None = None) -> bytes:
    times = [columns.times[i : i + 30] for i in range(0, len(columns.times), 30)]
    levels = 0
    for level in set(columns.levels):
        levels |= 1 << level
    header = Header(
        source=source,
        first=parse_ns(min(times)) or 0,
        last=parse_ns(max(times)) or 0,
        records=len(columns),
        levels=levels,
        text_bytes=len(columns.text),
        gap=gap,
        position=position,
    )
    return _block(header, _encoder.encode(columns))


def encode_checkpoint(positions: dict[str, tuple[LogSource, Position]]) -> bytes:
    return _block(Header(source=None, checkpoint=True), _encoder.encode(positions))


def _block(header: Header, payload: bytes) -> bytes:
    top, body = _encoder.encode(header), zstd.compress(payload, LEVEL)
    return _HEAD.pack(MAGIC, len(top), len(body), zlib.crc32(body, zlib.crc32(top))) + top + body


def decode(data: bytes | memoryview, place: Place) -> Columns:
    """Of the payload's bytes. ``Damaged``."""
    try:
        columns = _columns.decode(expanded(data))
    except (zstd.ZstdError, msgspec.DecodeError, MemoryError) as error:
        raise Damaged(str(error)) from error
    if len(columns) != place.header.records or len(columns.times) != 30 * len(columns):
        raise Damaged("the columns do not fit together")
    return columns


def load(file: int, place: Place) -> Columns:
    """Read from an open file, and checked. ``Damaged``, ``OSError``."""
    data = os.pread(file, place.end - place.offset, place.offset)
    found = _at(memoryview(data), 0)
    if found is None or found.end != len(data):
        raise Damaged("it is not as it was written")
    return decode(data[HEAD_BYTES + found.header_bytes :], found)


def decode_checkpoint(data: bytes | memoryview) -> dict[str, tuple[LogSource, Position]]:
    try:
        return _positions.decode(expanded(data))
    except (zstd.ZstdError, msgspec.DecodeError) as error:
        raise Damaged(str(error)) from error


def expanded(data: bytes | memoryview) -> bytes:
    """Told how long it will be, zstd is eight times as fast, and needs no more room than that."""
    size = zstd.get_frame_info(data).decompressed_size
    if size is None or size > MAX_PAYLOAD:
        raise Damaged(f"a payload of {size} bytes")
    return zstd.ZstdDecompressor().decompress(data, size)


def scan(data: memoryview, start: int = 0) -> Iterator[Place | int]:
    """The blocks in a whole file's bytes from ``start`` on, all checked; an int: so many bytes that are none."""
    at, size = start, len(data)
    while at < size:
        place = _at(data, at)
        if place is not None:
            yield place
            at = place.end
            continue
        again = _search(data, at + 1)
        yield again - at
        at = again


def _at(data: memoryview, at: int) -> Place | None:
    if len(data) - at < HEAD_BYTES:
        return None
    magic, top, body, crc = _HEAD.unpack_from(data, at)
    end = at + HEAD_BYTES + top + body
    if magic != MAGIC or top > MAX_HEADER or body > MAX_PAYLOAD or end > len(data):
        return None
    if zlib.crc32(data[at + HEAD_BYTES : end]) != crc:
        return None
    try:
        header = _header.decode(data[at + HEAD_BYTES : at + HEAD_BYTES + top])
    except (msgspec.DecodeError, ValueError):
        return None
    return Place(at, top, body, with_known_source(header))


def with_known_source(header: Header) -> Header:
    """Thousands of blocks are of the same few containers: their sources are kept once."""
    source = header.source
    if source is None:
        return header
    if len(_sources) > MOST_SOURCES:
        _sources.clear()
    known = _sources.setdefault(source, source)
    return header if known is source else replace(header, source=known)


def _search(data: memoryview, at: int) -> int:
    """Where the next whole block begins, or the end."""
    step = 1 << 20
    while at < len(data):
        found = bytes(data[at : at + step + len(MAGIC) - 1]).find(MAGIC)
        if found < 0:
            at += step
        elif _at(data, at + found) is not None:
            return at + found
        else:
            at += found + 1
    return len(data)
