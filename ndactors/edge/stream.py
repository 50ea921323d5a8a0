"""One non-blocking socket on the event loop: reads when there is something, writes what it can, keeps the rest. Every
callback of the loop runs under one guard: whatever goes wrong closes what it concerns, is counted, and nothing else."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .worker import Worker

READ, WRITE = 1, 2
"""gevent's loop: io watcher events."""
READ_BYTES = 16 * 1024
"""Enough for a head and a small body; what is larger is read in bulk."""
BULK_BYTES = 256 * 1024
HIGH_WATER = 256 * 1024
"""With so much waiting to be sent, the other side is not read any further."""

CONNECTING, OPEN, CLOSED = range(3)
_GONE = frozenset((errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNABORTED))


Data = bytes | memoryview


class Stream:
    """Subclasses say what to do with what comes: ``on_connected``, ``on_data``, ``on_drained``, ``on_end``,
    ``on_fault``. With ``bulk`` set, ``on_data`` gets a view of the worker's one buffer, good until it returns."""

    __slots__ = (
        "_finishing",
        "_pending",
        "_reader",
        "_recv",
        "_send",
        "_writer",
        "bulk",
        "eof",
        "paused",
        "pending_bytes",
        "sent_bytes",
        "sock",
        "state",
        "worker",
    )

    def __init__(self, worker: Worker, sock: socket.socket) -> None:
        self.worker = worker
        self.sock = sock
        self._recv = sock.recv
        self._send = sock.send
        self.bulk = False
        self.state = OPEN
        self.paused = False
        self.eof = False
        self.pending_bytes = 0
        self.sent_bytes = 0
        self._finishing = False
        self._pending: list[bytes] = []
        self._reader: Any = None
        self._writer: Any = None
        worker.streams.add(self)

    # -- to be told --------------------------------------------------------------------------------

    def on_connected(self) -> None: ...

    def on_data(self, data: Data) -> None: ...

    def on_drained(self) -> None:
        """What was pending is sent; called only if something was."""

    def on_end(self, error: str) -> None:
        """No more will come: empty for an orderly end, else why."""

    def on_fault(self) -> None:
        """A bug of ours struck while this was handled: let go of everything that hangs on it."""

    # -- reading -----------------------------------------------------------------------------------

    def start_reading(self) -> None:
        if self._reader is None:
            self._reader = self.worker.loop.io(self.sock.fileno(), READ)
        self._reader.start(self._readable)
        self.paused = False

    def pause(self) -> None:
        """Stop reading: the kernel's buffers fill, and the sender waits."""
        if not self.paused and self._reader is not None:
            self._reader.stop()
        self.paused = True

    def resume(self) -> None:
        if self.paused and self.state == OPEN and not self.eof:
            self.start_reading()

    def _readable(self) -> None:
        try:
            try:
                data: Data
                if self.bulk:
                    view = self.worker.buffer
                    data = view[: self.sock.recv_into(view)]
                else:
                    data = self._recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in _GONE:
                    self.worker.note(f"recv: {error}")
                self.on_end("upstream_reset")
                return
            if data:
                self.on_data(data)
            else:
                self.eof = True
                self._reader.stop()
                self.on_end("")
        except Exception as error:  # noqa: BLE001 - the guard: an exception here would stop the watcher for ever
            self.worker.fault(error, self)

    # -- connecting and writing --------------------------------------------------------------------

    def start_connecting(self) -> None:
        self.state = CONNECTING
        self._wait_writable()

    def send(self, data: Data) -> bool:
        """Send now what goes, the rest when it can. False when so much waits that the source should pause."""
        if self.pending_bytes or self.state == CONNECTING:
            self._pending.append(bytes(data))
            self.pending_bytes += len(data)
            return self.pending_bytes < HIGH_WATER
        if self.state == CLOSED:
            return True
        try:
            sent = self._send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.resume()  # the reader hears of the same end, and of what the peer said before it
            return True
        self.sent_bytes += sent
        if sent == len(data):
            return True
        self._pending.append(bytes(data[sent:]))
        self.pending_bytes += len(data) - sent
        self._wait_writable()
        return self.pending_bytes < HIGH_WATER

    def _wait_writable(self) -> None:
        if self._writer is None:
            self._writer = self.worker.loop.io(self.sock.fileno(), WRITE)
        if not self._writer.active:
            self._writer.start(self._writable)

    def _writable(self) -> None:
        try:
            if self.state == CONNECTING:
                if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self.on_end("connect_failed")
                    return
                self.state = OPEN
                self.start_reading()
                self.on_connected()
                if self.state == CLOSED:
                    return
            self._flush()
        except Exception as error:  # noqa: BLE001 - the guard
            self.worker.fault(error, self)

    def _flush(self) -> None:
        had = bool(self._pending)
        while self._pending:
            try:
                sent = self.sock.sendmsg(self._pending[:64])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._pending.clear()
                self.pending_bytes = 0
                break
            self.sent_bytes += sent
            self.pending_bytes -= sent
            while sent and sent >= len(self._pending[0]):
                sent -= len(self._pending.pop(0))
            if sent:
                self._pending[0] = self._pending[0][sent:]
        if self._writer is not None:
            self._writer.stop()
        if self._finishing:
            self._finishing = False
            self.half_close()
        if had:
            self.on_drained()

    def half_close(self) -> None:
        """Say that nothing more will be sent, once everything is."""
        if self.pending_bytes:
            self._finishing = True
        elif self.state == OPEN:
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self.resume()  # the peer is gone already

    # -- the end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of watchers and descriptor. Twice is once."""
        if self.state == CLOSED:
            return
        self.state = CLOSED
        for watcher in (self._reader, self._writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._reader = self._writer = None
        self._pending.clear()
        self.pending_bytes = 0
        self.worker.streams.discard(self)
        self.sock.close()
