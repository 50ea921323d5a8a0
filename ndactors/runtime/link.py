"""Messages over a socket to another of our processes: length-prefixed MessagePack frames, size-limited, never pickle.

This file does no waiting and knows no event loop: the daemon drives it from greenlets, the edge from callbacks.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from ..errors import LinkError

MAX_FRAME_BYTES = 16 * 1024 * 1024
MAX_BUFFER_BYTES = 32 * 1024 * 1024
_LENGTH = struct.Struct(">I")
_UNIX_PATH_BYTES = 107
"""Linux, unix(7): sun_path holds 108 bytes with the final NUL."""

T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """One frame. ``LinkError`` if it is larger than a peer would accept."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME_BYTES:
        raise LinkError(f"a {type(message).__name__} of {len(body)} bytes is over the frame limit of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(body)) + body


class FrameReader(Generic[T]):
    """Turns received bytes into messages of the given tagged union, in order.

    Anything else (an oversized length, bytes that do not decode, a message of another type) is a ``LinkError``:
    the caller closes that peer and nothing else.
    """

    def __init__(self, types: Any, limit: int = MAX_FRAME_BYTES) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(types)
        self._limit = limit
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[T]:
        pending = self._pending
        pending += data
        messages: list[T] = []
        start = 0
        while len(pending) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(pending, start)
            if length > self._limit:
                raise LinkError(f"a frame of {length} bytes is over the limit of {self._limit}")
            end = start + _LENGTH.size + length
            if len(pending) < end:
                break
            try:
                messages.append(self._decoder.decode(memoryview(pending)[start + _LENGTH.size : end]))
            except (msgspec.DecodeError, RecursionError, ValueError) as error:
                raise LinkError(f"malformed frame: {error}") from error
            start = end
        if start:
            # a memoryview of `pending` may still be held by a traceback; replacing never needs the export released
            self._pending = pending[start:]
        return messages


class SendBuffer:
    """Frames on their way out, bounded: what does not fit is dropped whole and counted, so a peer that is slow or
    away never blocks its sender and never receives half a frame."""

    def __init__(self, limit: int = MAX_BUFFER_BYTES) -> None:
        self._limit = limit
        self._frames: deque[memoryview] = deque()
        self.size = 0
        self.dropped = 0

    def __bool__(self) -> bool:
        return bool(self._frames)

    def push(self, frame: bytes) -> bool:
        """False if it was dropped."""
        if self.size + len(frame) > self._limit:
            self.dropped += 1
            return False
        self._frames.append(memoryview(frame))
        self.size += len(frame)
        return True

    def flush(self, sock: socket.socket) -> bool:
        """Send what the non-blocking socket takes; True when nothing is left. ``OSError`` when the peer is gone."""
        while self._frames:
            frame = self._frames[0]
            try:
                sent = sock.send(frame)
            except (BlockingIOError, InterruptedError):
                return False
            self.size -= sent
            if sent == len(frame):
                self._frames.popleft()
            else:
                self._frames[0] = frame[sent:]
        return True


# -- unix sockets at paths of any length -----------------------------------------------------------


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A spelling of ``path`` that fits into sun_path, by way of a descriptor of its folder when it is too long."""
    if len(os.fsencode(path)) <= _UNIX_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen_unix(path: Path, mode: int = 0o600, backlog: int = 64) -> socket.socket:
    """A listening socket at ``path`` with exactly ``mode``; a stale socket file there is replaced.

    The caller holds whatever lock makes it the only one entitled to that path.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        with _short(temporary) as address:
            # bound under another name first: nobody can connect between bind and chmod
            sock.bind(address)
        os.chmod(temporary, mode)
        sock.listen(backlog)
        os.rename(temporary, path)
    except BaseException:
        sock.close()
        raise
    return sock


def connect_unix(path: Path, timeout: float = 5.0) -> socket.socket:
    """A connected socket; ``OSError`` if nobody listens."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        with _short(path) as address:
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock
