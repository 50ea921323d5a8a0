"""What a WebSocket's peer sends, read strictly (RFC 6455), and the frames of a client. No I/O: bytes go in, messages come
out, and whatever breaks the protocol is a ``Violation``. Memory is bounded by ``message_limit``; one ``take`` looks at one
frame."""

from __future__ import annotations

import codecs
import struct
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
"""Opcodes."""

NORMAL, GOING_AWAY, PROTOCOL_ERROR, NO_CODE, NOT_UTF8 = 1000, 1001, 1002, 1005, 1007
REFUSED, TOO_BIG, FAULT = 1008, 1009, 1011
"""Close codes that we use; ``NO_CODE`` is told, never sent."""

CONTROL_BYTES = 125
ASSIGNED = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})
"""Close codes below 3000 that may be sent (RFC 6455 and IANA's registry)."""
_XOR = [bytes(byte ^ key for byte in range(256)) for key in range(256)]


class Violation(Exception):
    """The peer broke the protocol, or a limit: the connection ends with ``code``."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


class Message(NamedTuple):
    data: str | bytes


class Fragment(NamedTuple):
    """Part of a message; more of it comes."""


class Ping(NamedTuple):
    payload: bytes


class Pong(NamedTuple):
    payload: bytes


class Close(NamedTuple):
    code: int
    reason: str


Event = Message | Fragment | Ping | Pong | Close


class Reader:
    """``feed`` it what was received, then ``take`` until there is None. After a ``Close`` nothing comes any more; after a
    ``Violation`` nothing can be taken. ``masked``: the peer is a client, whose frames must be; a server's must not."""

    def __init__(self, message_limit: int, *, masked: bool = True) -> None:
        self._limit = message_limit
        self._masked = masked
        self._buffer = bytearray()
        self._opcode = 0
        """Of the message whose fragments come; 0 between messages."""
        self._message = bytearray()
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._over = False

    def feed(self, data: bytes) -> None:
        if not self._over:
            self._buffer += data

    def take(self) -> Event | None:
        """The next event; None: that takes more bytes."""
        buffer = self._buffer
        if len(buffer) < 2 or self._over:
            return None
        try:
            return self._frame(buffer)
        except Violation:
            self._over = True
            buffer.clear()
            raise

    def _frame(self, buffer: bytearray) -> Event | None:
        first, second = buffer[0], buffer[1]
        fin, opcode = first & 0x80, first & 0x0F
        self._check_head(first, second)
        length, start = second & 0x7F, 2
        if length >= 126:
            start = 4 if length == 126 else 10
            if len(buffer) < start:
                return None
            length = _long_length(buffer, length)
        if opcode < CLOSE and len(self._message) + length > self._limit:
            raise Violation(TOO_BIG, f"a message may have at most {self._limit} bytes")
        body = start + 4 if self._masked else start
        end = body + length
        if len(buffer) < end:
            return None
        key, payload = bytes(buffer[start:body]), buffer[body:end]
        del buffer[:end]
        if key:
            _mask(payload, key)
        if opcode >= CLOSE:
            return self._control(opcode, bytes(payload))
        return self._data(opcode, payload, fin=bool(fin))

    def _check_head(self, first: int, second: int) -> None:
        """As soon as the first two bytes are there."""
        fin, opcode = first & 0x80, first & 0x0F
        if first & 0x70:
            raise Violation(PROTOCOL_ERROR, "a reserved bit is set, and no extension was agreed on")
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise Violation(PROTOCOL_ERROR, f"there is no opcode {opcode}")
        if bool(second & 0x80) != self._masked:
            raise Violation(
                PROTOCOL_ERROR, "a client's frames must be masked" if self._masked else "a server masks no frames"
            )
        if opcode >= CLOSE:
            if not fin:
                raise Violation(PROTOCOL_ERROR, "a control frame must not be fragmented")
            if second & 0x7F > CONTROL_BYTES:
                raise Violation(PROTOCOL_ERROR, f"a control frame may have at most {CONTROL_BYTES} bytes")
        elif opcode == CONTINUATION and not self._opcode:
            raise Violation(PROTOCOL_ERROR, "there is no message to continue")
        elif opcode != CONTINUATION and self._opcode:
            raise Violation(PROTOCOL_ERROR, "a message began within another one")

    def _data(self, opcode: int, payload: bytearray, *, fin: bool) -> Event:
        kind = self._opcode or opcode
        if kind == TEXT:
            text = self._decode(payload, final=fin)
            if fin and not self._opcode:
                return Message(text)
        elif fin and not self._opcode:
            return Message(bytes(payload))
        self._message += payload
        if not fin:
            self._opcode = kind
            return Fragment()
        whole, self._message, self._opcode = self._message, bytearray(), 0
        return Message(whole.decode() if kind == TEXT else bytes(whole))

    def _decode(self, payload: bytearray, *, final: bool) -> str:
        try:
            return self._utf8.decode(payload, final)
        except UnicodeDecodeError as error:
            raise Violation(NOT_UTF8, "a text is not UTF-8") from error

    def _control(self, opcode: int, payload: bytes) -> Event:
        if opcode == PING:
            return Ping(payload)
        if opcode == PONG:
            return Pong(payload)
        self._over = True
        self._buffer.clear()
        if not payload:
            return Close(NO_CODE, "")
        if len(payload) == 1:
            raise Violation(PROTOCOL_ERROR, "half a close code")
        (code,) = struct.unpack_from(">H", payload)
        if code not in ASSIGNED and not 3000 <= code <= 4999:
            raise Violation(PROTOCOL_ERROR, f"{code} is no close code that may be sent")
        try:
            return Close(code, payload[2:].decode())
        except UnicodeDecodeError as error:
            raise Violation(NOT_UTF8, "the reason is not UTF-8") from error


def _long_length(buffer: bytearray, kind: int) -> int:
    """The length of a frame of 126 bytes or more; it must be written as short as it can be."""
    length = int.from_bytes(buffer[2:4] if kind == 126 else buffer[2:10], "big")
    if length >> 63:
        raise Violation(PROTOCOL_ERROR, "a length's first bit must be 0")
    if length < (126 if kind == 126 else 1 << 16):
        raise Violation(PROTOCOL_ERROR, "a length must be written as short as possible")
    return length


def _mask(payload: bytearray, key: bytes) -> None:
    """In place; twice is as if never."""
    for lane in range(4) if payload else ():
        payload[lane::4] = payload[lane::4].translate(_XOR[key[lane]])


def client_frame(opcode: int, payload: bytes, key: bytes) -> bytes:
    """A whole message, or a control frame, as a client sends it; ``key`` are four random bytes."""
    length = len(payload)
    head = bytes([0x80 | opcode])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 1 << 16:
        head += struct.pack(">BH", 0x80 | 126, length)
    else:
        head += struct.pack(">BQ", 0x80 | 127, length)
    masked = bytearray(payload)
    _mask(masked, key)
    return head + key + masked


def close_payload(code: int, reason: str) -> bytes:
    """Of a Close frame; a reason that is too long is cut at a character."""
    if code == NO_CODE:
        return b""
    words = reason.encode("utf-8", "replace")[: CONTROL_BYTES - 2].decode("utf-8", "ignore")
    return struct.pack(">H", code) + words.encode()
