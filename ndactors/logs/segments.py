"""The files of the log store: numbered segments of blocks, each with an index beside it once it is closed. The writer owns
them; others only read. A segment begins with a checkpoint, so the newest one tells how far every source is read."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from backports import zstd
from msgspec.structs import replace

from ..core.logrecords import Columns, Gap, LogSource, Position
from . import blocks
from .blocks import Damaged, Place

SEGMENT_BYTES = 64 * 1024 * 1024
SMALLEST_SEGMENT = 1024 * 1024
SEGMENT_SECONDS = 3600.0
"""After so long a segment is closed, if there is anything in it."""
SYNC_SECONDS = 1.0
INDEX_LEVEL = 3
_INDEX = struct.Struct(">4sQQQI")
"""Magic, the segment's number and length, nanoseconds of its newest record, CRC-32 of the places."""
_CRC = struct.Struct(">I")
"""Of that."""
_INDEX_MAGIC = b"nli2"
_places = msgspec.msgpack.Decoder(list[Place])

Positions = dict[str, tuple[LogSource, Position]]
"""By container."""


def segment_path(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}.seg"


def index_path(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}.idx"


def segment_numbers(folder: Path) -> list[int]:
    """Oldest first."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(int(name[:-4]) for name in names if name.endswith(".seg") and name[:-4].isdigit())


@contextlib.contextmanager
def mapped(path: Path, upto: int | None = None) -> Iterator[memoryview]:
    """A file's bytes, up to a length."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        size = size if upto is None else min(size, upto)
        if not size:
            yield memoryview(b"")
            return
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
            yield view


# -- indexes ---------------------------------------------------------------------------------------


def write_index(folder: Path, number: int, places: list[Place]) -> None:
    """``OSError`` if the disk does not take it; then whoever reads looks through the segment."""
    body = zstd.compress(msgspec.msgpack.encode(places), INDEX_LEVEL)
    length = places[-1].end if places else 0
    newest = max((place.header.last for place in places), default=0)
    head = _INDEX.pack(_INDEX_MAGIC, number, length, newest, zlib.crc32(body))
    path = index_path(folder, number)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        temporary.write_bytes(head + _CRC.pack(zlib.crc32(head)) + body)
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def read_index(folder: Path, number: int) -> list[Place] | None:
    """None if there is none, or it is damaged, or not of this segment as it is now."""
    try:
        data = index_path(folder, number).read_bytes()
        if _newest(folder, number, data) is None:
            return None
        body = data[_INDEX.size + _CRC.size :]
        if zlib.crc32(body) != _INDEX.unpack_from(data)[4]:
            return None
        places = _places.decode(blocks.expanded(body))
        return [replace(place, header=blocks.with_known_source(place.header)) for place in places]
    except (OSError, zstd.ZstdError, msgspec.DecodeError, Damaged):
        return None


def read_newest(folder: Path, number: int) -> int | None:
    """Nanoseconds since 1970 of the newest record in a segment, by its index; None if that cannot tell."""
    try:
        with open(index_path(folder, number), "rb", buffering=0) as file:
            return _newest(folder, number, file.read(_INDEX.size + _CRC.size))
    except OSError:
        return None


def _newest(folder: Path, number: int, data: bytes) -> int | None:
    head, crc = data[: _INDEX.size], data[_INDEX.size : _INDEX.size + _CRC.size]
    if len(crc) < _CRC.size or zlib.crc32(head) != _CRC.unpack(crc)[0]:
        return None
    magic, own, length, newest, _ = _INDEX.unpack(head)
    if (magic, own) != (_INDEX_MAGIC, number) or length != segment_path(folder, number).stat().st_size:
        return None
    return int(newest)


# -- writing ---------------------------------------------------------------------------------------


class Segments:
    """What is written. ``report`` hears of what was found damaged: a kind and words."""

    def __init__(self, folder: Path, report: Callable[[str, str], None], wall: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._report = report
        self._wall = wall
        self._file = -1
        self._opened = 0.0
        self._places: list[Place] = []
        self.number = 0
        """Of the segment that is written."""
        self.length = 0
        """Bytes of it that are whole blocks."""
        self.positions: Positions = {}
        self.segment_bytes = SEGMENT_BYTES
        self._sizes: dict[int, int] = {}
        self._syncer = _Syncer()

    def open(self) -> None:
        """Find out how far everything is stored; whatever a crash tore off is cut."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for stray in self._folder.glob("*.tmp"):
            stray.unlink(missing_ok=True)
        numbers = segment_numbers(self._folder)
        self._sizes = {number: segment_path(self._folder, number).stat().st_size for number in numbers}
        self.positions = self._recovered(numbers)
        if numbers:
            self.number = numbers[-1]
            self._file = os.open(segment_path(self._folder, self.number), os.O_RDWR | os.O_CLOEXEC)
            self._opened = self._wall()
            os.ftruncate(self._file, self.length)
            self._sizes[self.number] = self.length
            # of what was there when it was closed; it goes on now
            index_path(self._folder, self.number).unlink(missing_ok=True)
        self._syncer.start()

    def _recovered(self, numbers: list[int]) -> Positions:
        """From the newest segment that begins with a checkpoint on."""
        replayed: list[Positions] = []
        for number in reversed(numbers):
            with mapped(segment_path(self._folder, number)) as data:
                found = list(blocks.scan(data))
                begin, changes = _replay(data, found)
            if number == numbers[-1]:
                self._places = [_lighter(place) for place in found if isinstance(place, Place)]
                self.length = self._places[-1].end if self._places else 0
                torn = found[-1] if found and isinstance(found[-1], int) else 0
                if torn:
                    self._report("logs.repaired", f"{torn} bytes at the end of segment {number} were no whole block")
            replayed.append(changes)
            if begin is not None:
                replayed.append(begin)
                break
        positions: Positions = {}
        for changes in reversed(replayed):
            positions |= changes
        return positions

    @property
    def stored_bytes(self) -> int:
        return sum(self._sizes.values())

    @property
    def size(self) -> int:
        """How many segments there are."""
        return len(self._sizes)

    def append(self, source: LogSource, columns: Columns, position: Position | None, gap: Gap | None = None) -> None:
        """In the store when it returns, whatever becomes of us. ``OSError``: nothing of it is."""
        block = blocks.encode(source, columns, position, gap)
        self._roll(len(block))
        self._write(block)
        if position is not None:
            self.positions[source.container] = (source, position)

    def note(self, source: LogSource, position: Position | None) -> None:
        """How far it is, though there are no records; None: it is gone for good. Remembered with the next checkpoint."""
        if position is None:
            self.positions.pop(source.container, None)
        else:
            self.positions[source.container] = (source, position)

    def checkpoint(self) -> None:
        """Write down where everything is. ``OSError``."""
        self._roll(0)
        self._write(blocks.encode_checkpoint(self.positions))

    def _roll(self, size: int) -> None:
        old = self._wall() - self._opened > SEGMENT_SECONDS and len(self._places) > 1
        if self._file < 0 or old or (self.length and self.length + size > self.segment_bytes):
            self._close()
            number = self.number + 1
            path = segment_path(self._folder, number)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._file, self.number, self.length, self._places = file, number, 0, []
            self._opened = self._wall()
            self._sizes[number] = 0
        if not self.length:
            self._write(blocks.encode_checkpoint(self.positions))

    def _write(self, block: bytes) -> None:
        rest = memoryview(block)
        at = self.length
        try:
            while rest:
                written = os.pwrite(self._file, rest, at)
                rest, at = rest[written:], at + written
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.length)
            raise
        with memoryview(block) as view:
            place = next(blocks.scan(view))
        assert isinstance(place, Place)
        self._places.append(replace(_lighter(place), offset=self.length))
        self.length = at
        self._sizes[self.number] = at
        self._syncer.dirty(self._file)

    def _close(self) -> None:
        if self._file < 0:
            return
        self._syncer.retire(self._file)
        self._file = -1
        with contextlib.suppress(OSError):
            write_index(self._folder, self.number, self._places)

    def close(self) -> None:
        """The end; what is written is on the disk."""
        self._close()
        self._syncer.stop()

    # -- letting go --------------------------------------------------------------------------------

    def expire(self, days: float, size: int, may_go: Callable[[int], bool]) -> list[int]:
        """Remove segments that are older than ``days`` or too many for ``size`` bytes; never the one that is written.
        ``may_go`` False keeps one, unless there are twice as many bytes as allowed. Which ones went."""
        gone, total = [], self.stored_bytes
        for number in sorted(self._sizes)[:-1]:
            path = segment_path(self._folder, number)
            try:
                old = path.stat().st_mtime < self._wall() - days * 86400
            except FileNotFoundError:
                old = True
            if not old and total <= size:
                break
            if not may_go(number) and total <= 2 * size:
                continue
            try:
                for each in (index_path(self._folder, number), path):
                    each.unlink(missing_ok=True)
            except OSError as error:
                self._report("logs.kept", f"segment {number} cannot be removed: {error.strerror}")
                continue
            total -= self._sizes.pop(number)
            gone.append(number)
        return gone

    def oldest(self) -> int:
        """Nanoseconds since 1970 of the oldest block; 0 if there is none."""
        for number in sorted(self._sizes):
            places = self._places if number == self.number else self._closed(number)
            for place in places:
                if not place.header.checkpoint:
                    return place.header.first
        return 0

    def _closed(self, number: int) -> list[Place]:
        found = read_index(self._folder, number)
        if found is None:
            with contextlib.suppress(FileNotFoundError), mapped(segment_path(self._folder, number)) as data:
                return [place for place in blocks.scan(data) if isinstance(place, Place)]
        return found or []


def _lighter(place: Place) -> Place:
    """Without its position, which may be long and is needed once."""
    return replace(place, header=replace(place.header, position=None))


def _replay(data: memoryview, found: list[Place | int]) -> tuple[Positions | None, Positions]:
    """The checkpoint at the segment's begin, and what its blocks say after that."""
    begin: Positions | None = None
    changes: Positions = {}
    for index, place in enumerate(found):
        if isinstance(place, int):
            continue
        header = place.header
        if header.checkpoint:
            body = place.offset + blocks.HEAD_BYTES + place.header_bytes
            with contextlib.suppress(Damaged):
                whole = blocks.decode_checkpoint(data[body : place.end])
                changes = dict(whole)
                if index == 0:
                    begin = whole
        elif header.source is not None and header.position is not None:
            changes[header.source.container] = (header.source, header.position)
    return begin, changes


class _Syncer:
    """Writes through to the disk in a thread of its own, once a second: only a loss of power could undo more than that,
    and what it undoes is read again."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._dirty: set[int] = set()
        self._retired: set[int] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sync", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def dirty(self, file: int) -> None:
        if file not in self._dirty:
            with self._wake:
                self._dirty.add(file)
                self._wake.notify()

    def retire(self, file: int) -> None:
        """Nothing more is written there: close it."""
        with self._wake:
            self._retired.add(file)
            self._wake.notify()

    def stop(self) -> None:
        self._over.set()
        with self._wake:
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._dirty or self._retired or self._over.is_set()):
                    self._wake.wait()
                dirty, self._dirty = self._dirty, set()
                retired, self._retired = self._retired, set()
                over = self._over.is_set()
            for file in dirty | retired:
                with contextlib.suppress(OSError):
                    os.fdatasync(file)
            for file in retired:
                os.close(file)
            if over:
                return
            self._over.wait(SYNC_SECONDS)
