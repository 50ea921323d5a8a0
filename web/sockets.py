"""A client's WebSocket, after the handshake. Reading is strict (core/websocket.py), writing goes through one bounded queue,
and a peer that is half dead is ended. No extension is agreed on."""

from __future__ import annotations

import json
import logging
import socket as sockets
import time
from collections import deque
from typing import Any

import gevent
from gevent.event import Event
from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.websocket import MSG_ALREADY_CLOSED, Header, WebSocket

from ndactors.core.websocket import (
    BINARY,
    CLOSE,
    NORMAL,
    PING,
    PONG,
    TEXT,
    Close,
    Message,
    Ping,
    Reader,
    Violation,
    close_payload,
)

log = logging.getLogger("ndactors.web")

MESSAGE_BYTES = 1024 * 1024
QUEUE_BYTES = 256 * 1024
BATCH_BYTES = READ_BYTES = 64 * 1024
PING_SECONDS = 20.0
"""After so long without a byte from the peer it is asked whether it lives."""
SILENCE_SECONDS = 20.0
"""So long it may take to answer that."""
STALL_SECONDS = 30.0
"""So long it may take nothing of what is being sent to it."""
CLOSE_SECONDS = 5.0
TURNS = 32
"""After so many frames or reads the others have their turn."""


class Socket(WebSocket):  # type: ignore[misc]
    """One client's WebSocket. ``receive`` belongs to one greenlet, ``send`` to any. The package gives the interface, the
    heads of frames and the errors; how it reads, writes and ends is ours."""

    def __init__(
        self,
        sock: sockets.socket,
        *,
        message_bytes: int = MESSAGE_BYTES,
        queue_bytes: int = QUEUE_BYTES,
        ping: float = PING_SECONDS,
        silence: float = SILENCE_SECONDS,
        stall: float = STALL_SECONDS,
    ) -> None:
        self.environ = None
        self.closed = False
        """Nothing can be sent any more."""
        self.ending: Close | None = None
        """How the peer closed, if it did."""
        self._sock = sock
        self._reader = Reader(message_bytes)
        self._receiving = False
        self._turns = 0
        self._silence, self._stall = silence, stall
        self._asked: float | None = None
        """When it was asked whether it lives, unless it has sent something since."""
        self._queue: deque[bytes] = deque()
        self._queued, self._queue_bytes = 0, queue_bytes
        self._reply: bytes | None = None
        """The latest ping's answer, which goes before everything else."""
        self._work, self._room, self._over = Event(), Event(), Event()
        sock.settimeout(ping)
        self._writer = gevent.spawn(self._write)

    def __del__(self) -> None:
        """``finish`` is how it ends; a finalizer must not wait for a peer, as the package's does."""

    # -- what others call --------------------------------------------------------------------------

    def receive(self) -> str | bytes | None:
        """The next message; None at the end, whatever ended it."""
        self._receiving = True
        try:
            while not self._over.is_set():
                self._take_turns()
                match self._reader.take():
                    case None:
                        self._hear()
                    case Message(data):
                        return data
                    case Ping(payload):
                        self._reply = _frame(PONG, payload)
                        self._work.set()
                    case Close() as ending:
                        self._closed_by_peer(ending)
        except Violation as violation:
            log.info("a WebSocket's peer is refused: %s", violation)
            self._put_last(violation.code, str(violation), at_once=True)
            self._writer.join(CLOSE_SECONDS)
            self._drain(CLOSE_SECONDS)
            self._end()
        finally:
            self._receiving = False
        return None

    def send(self, message: str | bytes, binary: bool | None = None) -> None:
        """Waits while the queue is full. ``WebSocketError`` when the peer is gone."""
        frame = _message(message, binary)
        while not self.closed and not self._fits(frame):
            self._room.clear()
            self._room.wait()
        self._put(frame)

    def offer(self, message: str | bytes) -> bool:
        """Send without waiting: False if the queue is full. ``WebSocketError`` when the peer is gone."""
        frame = _message(message)
        if self.closed or self._fits(frame):
            self._put(frame)
            return True
        return False

    def close(
        self, code: int = NORMAL, message: str = "", within: float = CLOSE_SECONDS, flush: float | None = None
    ) -> None:
        """Send what waits (for at most ``flush`` seconds), say goodbye, and wait ``within`` seconds for the peer's."""
        self._put_last(code, message, at_once=False)
        self._writer.join(flush)
        if self._receiving:
            self._over.wait(within)
        elif self._writer.dead:
            self._drain(within)
        self._end()

    def finish(self) -> None:
        """Nothing of it runs any more, and its connection is shut down."""
        self._end()
        self._writer.kill()

    # -- reading -----------------------------------------------------------------------------------

    def _hear(self) -> None:
        try:
            data = self._sock.recv(READ_BYTES)
        except TimeoutError:
            now = time.monotonic()
            if self._asked is None:
                self._asked = now
            elif now - self._asked >= self._silence:
                return self._end("it does not answer")
            if not self.closed:
                self._put(_frame(PING, b""))
            return None
        except OSError as error:
            return self._end(str(error))
        if not data:
            return self._end("it left without a goodbye")
        self._asked = None
        self._reader.feed(data)
        return None

    def _closed_by_peer(self, ending: Close) -> None:
        """It reads no more than our goodbye, so what waits for it is dropped."""
        self.ending = ending
        self._put_last(ending.code, "", at_once=True)
        self._writer.join(CLOSE_SECONDS)
        self._end()

    def _drain(self, within: float) -> None:
        """Read and drop until the peer's goodbye or its end: closing earlier could cost it what it has not read yet."""
        deadline = time.monotonic() + within
        broken = False
        while not self._over.is_set() and (left := deadline - time.monotonic()) > 0:
            self._take_turns()
            try:
                event = None if broken else self._reader.take()
            except Violation:
                broken = True
                continue
            if isinstance(event, Close):
                self.ending = event
                return
            if event is not None:
                continue
            try:
                self._sock.settimeout(left)
                data = self._sock.recv(READ_BYTES)
            except OSError:
                return
            if not data:
                return
            self._reader.feed(data)

    def _take_turns(self) -> None:
        self._turns += 1
        if self._turns % TURNS == 0:
            gevent.sleep(0)

    # -- writing -----------------------------------------------------------------------------------

    def _fits(self, frame: bytes) -> bool:
        return not self._queued or self._queued + len(frame) <= self._queue_bytes

    def _put(self, frame: bytes) -> None:
        if self.closed:
            raise WebSocketError(MSG_ALREADY_CLOSED)
        self._queue.append(frame)
        self._queued += len(frame)
        self._work.set()

    def _put_last(self, code: int, reason: str, *, at_once: bool) -> None:
        """Our goodbye; ``at_once``: instead of what waits."""
        if at_once:
            self._queue.clear()
            self._queued = 0
        if not self.closed:
            self._put(_frame(CLOSE, close_payload(code, reason)))
        self.closed = True
        self._work.set()
        self._room.set()

    def _write(self) -> None:
        """The writer: ends when the last frame is sent, or cannot be."""
        try:
            while not self._over.is_set():
                batch = self._batch()
                if batch:
                    self._send(batch)
                    self._room.set()
                elif self.closed:
                    return
                else:
                    self._work.clear()
                    self._work.wait()
        except OSError as error:
            self._end(str(error) or "it takes nothing")

    def _batch(self) -> bytes:
        """Whole frames, small ones together."""
        frames, size = [], 0
        if self._reply is not None and not self.closed:
            frames.append(self._reply)
        self._reply = None
        while self._queue and (not size or size + len(self._queue[0]) <= BATCH_BYTES):
            frames.append(self._queue.popleft())
            size += len(frames[-1])
        self._queued -= size
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def _send(self, batch: bytes) -> None:
        rest, moved = memoryview(batch), time.monotonic()
        while rest:
            try:
                rest = rest[self._sock.send(rest) :]
                moved = time.monotonic()
            except TimeoutError:
                if time.monotonic() - moved >= self._stall:
                    raise

    def _end(self, words: str | None = None) -> None:
        if self._over.is_set():
            return
        if words is not None:
            log.debug("a WebSocket's peer is gone: %s", words)
        self.closed = True
        for event in (self._over, self._work, self._room):
            event.set()
        shut(self._sock)


def _message(message: str | bytes, binary: bool | None = None) -> bytes:
    payload = message.encode() if isinstance(message, str) else bytes(message)
    return _frame(BINARY if binary or (binary is None and not isinstance(message, str)) else TEXT, payload)


def _frame(opcode: int, payload: bytes) -> bytes:
    return bytes(Header.encode_header(True, opcode, b"", len(payload), 0)) + payload


def shut(sock: sockets.socket) -> None:
    """Whoever waits on it, on either side, sees its end."""
    try:
        sock.shutdown(sockets.SHUT_RDWR)
    except OSError:
        return  # it was over already


def json_text(**value: Any) -> str:
    """A text message that is a JSON object."""
    return json.dumps(value, separators=(",", ":"))
