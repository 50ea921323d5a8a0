"""What the outlets have done, kept where it survives: the log process reads ``outlets.json``, which is written at most once
a second. Between two of those each cursor is noted in a small file of its own, so that a kill costs one batch at most."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import threading
import zlib
from pathlib import Path

import msgspec

from .outlet_process import CURSORS, STATE, OutletState
from .walk import Cursor

_CURSOR = struct.Struct(">QQQ")
_CRC = struct.Struct(">I")
MAX_WORDS = 300


class Progress:
    """Of one process; any of its threads may tell it something. ``folder`` is the log process's own."""

    def __init__(self, folder: Path, outlets: list[str], place: str) -> None:
        """``outlets``: all that there are; what is known of others is forgotten. ``place``: of the archive; empty: there
        is none."""
        self._folder = folder
        self._lock = threading.Lock()
        self._files: dict[str, int] = {}
        self.news = threading.Event()
        """There is something to write down."""
        self.damaged = False
        """What was written down cannot be read."""
        state = self._read()
        if state.place != place:
            state.place, state.archived, state.owner, state.lost = place, 0, "", 0
        state.errors = {}
        state.skipped = {name: count for name, count in state.skipped.items() if name in outlets}
        self._state = state
        self._cursors = {name: Cursor(*at, state.within.get(name, 0)) for name, at in state.cursors.items()}
        self._open(outlets)
        self._dirty = True

    def _read(self) -> OutletState:
        path = self._folder / STATE
        try:
            return msgspec.json.decode(path.read_bytes(), type=OutletState)
        except FileNotFoundError:
            return OutletState()
        except msgspec.DecodeError:
            self.damaged = True
            path.rename(path.with_suffix(".damaged"))
            return OutletState()

    def _open(self, outlets: list[str]) -> None:
        folder = self._folder / CURSORS
        folder.mkdir(mode=0o700, exist_ok=True)
        names = {hashlib.sha256(name.encode()).hexdigest()[:16]: name for name in outlets}
        for stray in folder.iterdir():
            if stray.name not in names:
                stray.unlink()
        for file, name in names.items():
            self._files[name] = os.open(folder / file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            noted = _noted(os.pread(self._files[name], _CURSOR.size + _CRC.size, 0))
            if noted is not None:
                self._cursors[name] = max(noted, self._cursors.get(name, noted))
        self._cursors = {name: cursor for name, cursor in self._cursors.items() if name in outlets}

    # -- forwarding --------------------------------------------------------------------------------

    def cursor(self, outlet: str) -> Cursor | None:
        """None: it is new."""
        with self._lock:
            return self._cursors.get(outlet)

    def moved(self, outlet: str, cursor: Cursor) -> None:
        """What is before it was taken. ``OSError``."""
        body = _CURSOR.pack(*cursor)
        os.pwrite(self._files[outlet], body + _CRC.pack(zlib.crc32(body)), 0)
        with self._lock:
            self._cursors[outlet] = cursor
            self._changed()

    def missed(self, outlet: str, records: int) -> None:
        with self._lock:
            self._state.skipped[outlet] = self._state.skipped.get(outlet, 0) + records
            self._changed()

    def rearmost(self) -> int | None:
        """The segment that the slowest outlet is in; None: nobody is told where to."""
        with self._lock:
            return min((cursor.segment for cursor in self._cursors.values()), default=None)

    # -- the archive -------------------------------------------------------------------------------

    @property
    def archived(self) -> int:
        return self._state.archived

    @property
    def owner(self) -> str:
        """Under which name this store's segments are in the archive; empty: not decided."""
        return self._state.owner

    def owned(self, owner: str) -> None:
        with self._lock:
            self._state.owner = owner
            self._changed()

    def kept(self, number: int, *, segments: int = 0, lost: int = 0) -> None:
        """Everything up to ``number`` is in the archive, ``segments`` more than before; ``lost`` went away too early."""
        with self._lock:
            self._state.archived = number
            self._state.segments += segments
            self._state.lost += lost
            self._changed()

    # -- what is said ------------------------------------------------------------------------------

    def failed(self, outlet: str, words: str) -> None:
        with self._lock:
            if self._state.errors.get(outlet) != words[:MAX_WORDS]:
                self._state.errors[outlet] = words[:MAX_WORDS]
                self._changed()

    def fine(self, outlet: str) -> None:
        with self._lock:
            if self._state.errors.pop(outlet, None) is not None:
                self._changed()

    # -- writing it down ---------------------------------------------------------------------------

    def _changed(self) -> None:
        self._dirty = True
        self.news.set()

    def save(self) -> None:
        """If anything is new. It is on the disk, or ``OSError``."""
        self.news.clear()
        with self._lock:
            if not self._dirty:
                return
            self._state.cursors = {name: (at.segment, at.offset) for name, at in self._cursors.items()}
            self._state.within = {name: at.records for name, at in self._cursors.items() if at.records}
            content = msgspec.json.encode(self._state)
            self._dirty = False
        try:
            _replace(self._folder / STATE, content)
        except BaseException:
            self._dirty = True
            raise


def _noted(data: bytes) -> Cursor | None:
    body, crc = data[: _CURSOR.size], data[_CURSOR.size :]
    if len(crc) != _CRC.size or _CRC.unpack(crc)[0] != zlib.crc32(body):
        return None
    return Cursor(*_CURSOR.unpack(body))


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(file)
    temporary.rename(path)
