"""A WebSocket to the daemon. Once it is open nothing of it waits: whoever has it polls, and calls ``turn``."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import socket
import ssl
from typing import Any

import click

from .. import __version__
from ..core.websocket import (
    BINARY,
    CLOSE,
    NORMAL,
    PONG,
    TEXT,
    Close,
    Message,
    Ping,
    Reader,
    Violation,
    client_frame,
    close_payload,
)
from .connection import Answer, Server
from .failures import Unreachable
from .pumping import PIECE, READ, ROOM, WRITE

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MESSAGE_BYTES = 1024 * 1024
REFUSAL_BYTES = 64 * 1024
ALIVE_SECONDS, ALIVE_TRIES = 15, 3
"""How soon a silent TCP connection is asked whether it lives, and how often."""


class Channel:
    """``put`` takes everything; whoever asks ``has_room`` first keeps it bounded. Not for more than one thread."""

    def __init__(self, server: Server, sock: socket.socket, heard: bytes, message_bytes: int = MESSAGE_BYTES) -> None:
        self._server, self._sock = server, sock
        self._reader = Reader(message_bytes, masked=False)
        self._reader.feed(heard)
        self._out = bytearray()
        self._deaf = False
        """The other side takes nothing any more. What it said before may still come."""
        self._also = 0
        """TLS may have to read in order to write, and the other way round."""
        self.goodbye: Close | None = None
        """How the daemon ended it, if it did: nothing comes any more."""

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def has_room(self) -> bool:
        return len(self._out) < ROOM

    @property
    def is_flushed(self) -> bool:
        return not self._out

    def wants(self, *, reading: bool) -> int:
        """What to poll for."""
        return (READ if reading else 0) | (WRITE if self._out else 0) | self._also

    def put(self, message: bytes) -> None:
        self._frame(BINARY, message)

    def put_json(self, **value: Any) -> None:
        self._frame(TEXT, json.dumps(value).encode())

    def turn(self, *, reading: bool) -> list[bytes | dict[str, Any]]:
        """Send and receive what can be at once: messages, texts as the JSON objects that they are. ``Unreachable`` when
        the connection has ended without a goodbye."""
        self._also = 0
        found: list[bytes | dict[str, Any]] = []
        try:
            if reading and self.goodbye is None:
                broke = self._receive()
                self._take(found)
                if broke is not None and not found and self.goodbye is None:
                    raise broke  # only now: what had come before is not lost
            self._send()
        except (OSError, Violation, ValueError, RecursionError) as error:
            raise Unreachable(self._server.why(error)) from error
        return found

    def close(self) -> None:
        """With a goodbye, if that can be said at once."""
        try:
            if not self._out:
                self._frame(CLOSE, close_payload(NORMAL, ""))
                self._send()
        finally:
            self._sock.close()

    def _frame(self, opcode: int, payload: bytes) -> None:
        if not self._deaf:
            self._out += client_frame(opcode, payload, os.urandom(4))

    def _send(self) -> None:
        try:
            while self._out:
                del self._out[: self._sock.send(self._out[:PIECE])]
        except (BlockingIOError, ssl.SSLWantWriteError):
            return
        except ssl.SSLWantReadError:
            self._also |= READ
        except OSError:
            self._deaf = True
            self._out.clear()

    def _receive(self) -> OSError | None:
        """About ``PIECE`` bytes; of TLS whole records, so that none is left where poll does not see it. The error, if the
        connection has ended."""
        size = 0
        try:
            while size < PIECE:
                data = self._sock.recv(PIECE)
                if not data:
                    return ConnectionError("it was closed")
                size += len(data)
                self._reader.feed(data)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except ssl.SSLWantWriteError:
            self._also |= WRITE
        except OSError as error:
            return error
        return None

    def _take(self, found: list[bytes | dict[str, Any]]) -> None:
        while (event := self._reader.take()) is not None:
            match event:
                case Message(str(text)):
                    value = json.loads(text)
                    if isinstance(value, dict):
                        found.append(value)
                case Message(bytes(data)):
                    found.append(data)
                case Ping(payload):
                    self._frame(PONG, payload)
                case Close():
                    self.goodbye = event


def opened(server: Server, path: str, message_bytes: int = MESSAGE_BYTES) -> Channel:
    """``Refused`` if the daemon says no, ``Unreachable`` if nobody answers."""
    sock = server.connect()
    try:
        return _upgraded(server, sock, path, message_bytes)
    except (OSError, http.client.HTTPException) as error:
        sock.close()
        raise Unreachable(server.why(error)) from error
    except BaseException:
        sock.close()
        raise


def _upgraded(server: Server, sock: socket.socket, path: str, message_bytes: int) -> Channel:
    key = base64.b64encode(os.urandom(16))
    fields = {
        "Host": server.host,
        "User-Agent": f"nextdeploy/{__version__}",
        **server.headers,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key.decode(),
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items()), "", ""]
    sock.sendall("\r\n".join(lines).encode("latin-1"))
    response = http.client.HTTPResponse(sock, method="GET")
    response.begin()
    if response.status != 101:
        answer = Answer(response.status, response.reason, response.headers, response.read(REFUSAL_BYTES))
        answer.json()
        raise Unreachable(f"{server.name}: it opens no WebSocket, but answers {response.status}")
    expected = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest()).decode()
    if response.headers.get("Sec-WebSocket-Accept", "").strip() != expected:
        raise Unreachable(f"{server.name}: its WebSocket handshake is wrong; is something between us that spoils it?")
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, ALIVE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, ALIVE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, ALIVE_TRIES)
    sock.setblocking(False)
    try:
        heard = response.fp.peek(1)  # what came with the answer
    except ssl.SSLWantReadError:
        heard = b""
    return Channel(server, sock, heard, message_bytes)


def place(text: str) -> tuple[str, str | None]:
    """``APP`` or ``APP/PROCESS``."""
    app, slash, process = text.partition("/")
    if not app or "/" in process or (slash and not process):
        raise click.UsageError(f"write APP or APP/PROCESS, not `{text}`")
    return app, process or None
