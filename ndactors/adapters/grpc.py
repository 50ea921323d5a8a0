"""gRPC over one HTTP/2 connection (h2), as caller or as called: what BuildKit wants to be spoken to with.

A thread reads; calls that come in are handled in a thread each (greenlets, in the daemon). Whoever sends waits for room.
"""

from __future__ import annotations

import queue
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from urllib.parse import quote, unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from ..errors import EngineError

OK, NOT_FOUND, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 5, 12, 13, 14
MAX_MESSAGE = 16 * 1024 * 1024
READ_BYTES = 256 * 1024
MAX_WAITING = 256
"""Messages of one call that may wait to be received; then the other side has to wait too."""
Headers = Iterable[tuple[str, str]]


class GrpcError(EngineError):
    """A call that did not end well: gRPC's status and its words."""

    def __init__(self, code: int, words: str) -> None:
        self.code = code
        super().__init__(words)


class Call:
    """One call, in either direction. ``metadata`` is what came with it."""

    def __init__(self, connection: GrpcConnection, stream: int, metadata: Headers) -> None:
        self._connection = connection
        self.stream = stream
        self.path = ""
        self.metadata: dict[str, list[str]] = {}
        self.note(metadata)
        self._arrived: queue.Queue[bytes | GrpcError | None] = queue.Queue()
        self._pending = bytearray()
        self.owed = 0
        """Bytes that came and that the other side does not yet know we took."""

    def receive(self, timeout: float | None = None) -> bytes | None:
        """The next message; None at its good end. ``GrpcError`` at a bad one, ``TimeoutError`` in seconds."""
        try:
            found = self._arrived.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        if self.owed and not self.is_full():
            self._connection.take(self)
        if not isinstance(found, bytes):
            self._arrived.put(found)  # whoever asks again hears the same
        if isinstance(found, GrpcError):
            raise found
        return found

    def messages(self) -> Iterator[bytes]:
        while (found := self.receive()) is not None:
            yield found

    def send(self, message: bytes, *, last: bool = False) -> None:
        self._connection.send(self.stream, struct.pack(">BI", 0, len(message)) + message, last=last)

    # -- what the connection tells it --------------------------------------------------------------

    def is_full(self) -> bool:
        return self._arrived.qsize() >= MAX_WAITING

    def note(self, headers: Headers) -> None:
        for name, value in headers:
            if name == ":path":
                self.path = value
            self.metadata.setdefault(name, []).append(value)

    def feed(self, data: bytes) -> None:
        self._pending += data
        while len(self._pending) >= 5:
            compressed, size = struct.unpack_from(">BI", self._pending)
            if compressed or size > MAX_MESSAGE:
                self.fail(INTERNAL, "the Engine sent a message that is compressed or too long")
                return
            if len(self._pending) < 5 + size:
                return
            self._arrived.put(bytes(self._pending[5 : 5 + size]))
            del self._pending[: 5 + size]

    def finish(self) -> None:
        status = self.metadata.get("grpc-status", ["0"])[-1]
        answer = self.metadata.get(":status", ["200"])[-1]
        if answer != "200":
            self.fail(UNAVAILABLE, f"the Engine answered {answer}")
        elif status == "0":
            self._arrived.put(None)
        else:
            words = unquote(self.metadata.get("grpc-message", [""])[-1])
            self.fail(int(status) if status.isdigit() else INTERNAL, words)

    def fail(self, code: int, words: str) -> None:
        self._arrived.put(GrpcError(code, words))


Handler = Callable[[Call], None]


class GrpcConnection:
    """``serves``: handlers by path, when we are the one who is called. A handler sends its answers and returns, or
    raises ``GrpcError``. ``early`` is what was read from the socket before."""

    def __init__(self, sock: socket.socket, early: bytes = b"", serves: Mapping[str, Handler] | None = None) -> None:
        self._socket = sock
        self._serves = serves
        self._http2 = H2Connection(H2Configuration(client_side=serves is None, header_encoding="utf-8"))
        self._changed = threading.Condition()
        self._calls: dict[int, Call] = {}
        self._closed = False
        with self._changed:
            self._http2.initiate_connection()
            self._flush()
        threading.Thread(target=self._read, args=(early,), daemon=True).start()

    def call(self, path: str, message: bytes, metadata: Headers = ()) -> Call:
        """Begin a call with its one message; the answers are to be received from what is returned."""
        with self._changed:
            self._check()
            stream = self._http2.get_next_available_stream_id()
            made = self._calls[stream] = Call(self, stream, ())
            head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
            head += [("content-type", "application/grpc"), ("te", "trailers"), *metadata]
            self._http2.send_headers(stream, head)
            self._flush()
        made.send(message, last=True)
        return made

    def send(self, stream: int, data: bytes, *, last: bool = False) -> None:
        """Waits until there is room. ``GrpcError`` when the call or the connection is over."""
        at = 0
        while at < len(data):
            with self._changed:
                try:
                    while not (room := self._room(stream)):
                        self._changed.wait()
                    piece = data[at : at + room]
                    at += len(piece)
                    self._http2.send_data(stream, piece, end_stream=last and at == len(data))
                    self._flush()
                except (ProtocolError, OSError) as error:
                    raise GrpcError(UNAVAILABLE, f"the Engine ended the call: {error}") from error

    def take(self, call: Call) -> None:
        """The other side may send as much again as it sent."""
        with self._changed:
            owed, call.owed = call.owed, 0
            if not self._closed and call.stream in self._calls:
                try:
                    self._http2.acknowledge_received_data(owed, call.stream)
                    self._flush()
                except (ProtocolError, OSError):
                    return  # the connection is over, and the reader says so

    def close(self) -> None:
        """Ends everything that runs over it, on the Engine's side too."""
        self._closed = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is down already
        self._socket.close()

    def _room(self, stream: int) -> int:
        self._check()
        return min(self._http2.local_flow_control_window(stream), self._http2.max_outbound_frame_size)

    def _check(self) -> None:
        if self._closed:
            raise GrpcError(UNAVAILABLE, "the connection to the Engine is over")

    def _flush(self) -> None:
        data = self._http2.data_to_send()
        if data:
            self._socket.sendall(data)

    def _read(self, early: bytes) -> None:
        words = "the Engine ended the connection"
        try:
            data = early or self._socket.recv(READ_BYTES)
            while data:
                with self._changed:
                    for event in self._http2.receive_data(data):
                        self._hear(event)
                    self._flush()
                    self._changed.notify_all()
                data = self._socket.recv(READ_BYTES)
        except (OSError, ProtocolError) as error:
            words = f"{words}: {error}"
        finally:
            with self._changed:
                self._closed = True
                for call in self._calls.values():
                    call.fail(UNAVAILABLE, words)
                self._changed.notify_all()

    def _hear(self, event: Event) -> None:
        stream = getattr(event, "stream_id", None) or 0
        if isinstance(event, RequestReceived):
            made = self._calls[stream] = Call(self, stream, event.headers or ())
            threading.Thread(target=self._handle, args=(made,), daemon=True).start()
            return
        call = self._calls.get(stream)
        if isinstance(event, DataReceived):
            if call is None:
                self._http2.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                return
            call.feed(event.data or b"")
            call.owed += event.flow_controlled_length or 0
            if not call.is_full():
                self.take(call)
        elif isinstance(event, ConnectionTerminated):
            for each in self._calls.values():
                each.fail(UNAVAILABLE, "the Engine ended the connection")
        elif call is None:
            return
        elif isinstance(event, (ResponseReceived, TrailersReceived)):
            call.note(event.headers or ())
        elif isinstance(event, StreamEnded):
            call.finish()
            if self._serves is None:
                del self._calls[stream]
        elif isinstance(event, StreamReset):
            call.fail(UNAVAILABLE, f"the Engine ended the call ({event.error_code})")
            self._calls.pop(stream, None)

    def _handle(self, call: Call) -> None:
        handler = (self._serves or {}).get(call.path)
        code, words = INTERNAL, "it failed here"
        try:
            if handler is None:
                code, words = UNIMPLEMENTED, "not offered"
                self._head(call, ())
                return
            self._head(call, ())
            handler(call)
            code, words = OK, ""
        except GrpcError as error:
            code, words = error.code, str(error)
        finally:
            self._end(call, code, words)

    def _head(self, call: Call, more: Headers) -> None:
        with self._changed:
            self._send_headers(
                call.stream, [(":status", "200"), ("content-type", "application/grpc"), *more], end=False
            )

    def _end(self, call: Call, code: int, words: str) -> None:
        with self._changed:
            if not self._closed and self._calls.pop(call.stream, None) is not None:
                trailers = [("grpc-status", str(code)), *([("grpc-message", quote(words))] if words else [])]
                try:
                    self._send_headers(call.stream, trailers, end=True)
                except GrpcError:
                    return  # the other side gave the call up first

    def _send_headers(self, stream: int, headers: list[tuple[str, str]], *, end: bool) -> None:
        try:
            self._http2.send_headers(stream, headers, end_stream=end)
            self._flush()
        except (ProtocolError, OSError) as error:
            raise GrpcError(UNAVAILABLE, f"the Engine ended the call: {error}") from error
