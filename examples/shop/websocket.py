"""As much of RFC 6455 as an echo needs: the handshake, masked frames, fragments, ping, close, a size limit."""

from __future__ import annotations

import base64
import hashlib
import struct
from http.server import BaseHTTPRequestHandler

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MAX_MESSAGE = 32 * 1024 * 1024


class Bad(Exception):
    """What the peer sent is against the protocol; ``code`` is the close code to say so with."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def accept(handler: BaseHTTPRequestHandler) -> bool:
    """The handshake; answers 400 and returns False if it is none."""
    key = handler.headers.get("Sec-WebSocket-Key", "")
    if (
        handler.headers.get("Upgrade", "").lower() != "websocket"
        or handler.headers.get("Sec-WebSocket-Version") != "13"
    ):
        handler.send_error(400, "this is for WebSockets")
        return False
    digest = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
    handler.wfile.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + digest.encode() + b"\r\n\r\n"
    )
    return True


def send(handler: BaseHTTPRequestHandler, opcode: int, payload: bytes) -> None:
    length = len(payload)
    if length < 126:
        head = struct.pack("!BB", 0x80 | opcode, length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, 126, length)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, 127, length)
    handler.wfile.write(head + payload)


def _frame(handler: BaseHTTPRequestHandler) -> tuple[bool, int, bytes]:
    head = _read(handler, 2)
    final, opcode = bool(head[0] & 0x80), head[0] & 0x0F
    masked, length = bool(head[1] & 0x80), head[1] & 0x7F
    if head[0] & 0x70 or not masked or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        raise Bad(1002)
    if opcode >= CLOSE and (not final or length > 125):
        raise Bad(1002)
    if length == 126:
        (length,) = struct.unpack("!H", _read(handler, 2))
    elif length == 127:
        (length,) = struct.unpack("!Q", _read(handler, 8))
    if length > MAX_MESSAGE:
        raise Bad(1009)
    mask, payload = _read(handler, 4), _read(handler, length)
    key = int.from_bytes(mask * (length // 4 + 1), "big") >> (8 * (4 - length % 4))
    return final, opcode, (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big") if length else b""


def _read(handler: BaseHTTPRequestHandler, count: int) -> bytes:
    data = handler.rfile.read(count)
    if len(data) < count:
        raise ConnectionError("the peer is gone")
    return data


def echo(handler: BaseHTTPRequestHandler, greeting: str) -> None:
    """Until the peer closes."""
    send(handler, TEXT, greeting.encode())
    kind, parts, size = 0, [], 0
    try:
        while True:
            final, opcode, payload = _frame(handler)
            if opcode == CLOSE:
                send(handler, CLOSE, payload[:2] or struct.pack("!H", 1000))
                return
            if opcode == PING:
                send(handler, PONG, payload)
                continue
            if opcode == PONG:
                continue
            if (opcode == CONTINUATION) != bool(kind):
                raise Bad(1002)
            kind = kind or opcode
            parts.append(payload)
            size += len(payload)
            if size > MAX_MESSAGE:
                raise Bad(1009)
            if final:
                message = b"".join(parts)
                if kind == TEXT:
                    try:
                        message.decode()
                    except UnicodeDecodeError:
                        raise Bad(1007) from None
                send(handler, kind, message)
                kind, parts, size = 0, [], 0
    except Bad as bad:
        send(handler, CLOSE, struct.pack("!H", bad.code))
    except OSError:
        return
