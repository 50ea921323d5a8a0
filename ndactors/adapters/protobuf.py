"""As much of protobuf's wire format as BuildKit's messages need: numbers, texts, bytes, messages, maps of texts."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import EngineError

Value = int | str | bytes | Mapping[str, str]
Fields = dict[int, list[int | bytes]]
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def message(fields: Mapping[int, Value]) -> bytes:
    """Fields by number. As in proto3, a zero or an empty text is not written; empty ``bytes`` are (an empty message)."""
    out = bytearray()
    for number, value in fields.items():
        if isinstance(value, Mapping):
            for key, text in value.items():
                out += _sized(number, message({1: key, 2: text}))
        elif isinstance(value, int):
            if value:
                out += _varint(number << 3 | _VARINT) + _varint(value)
        elif isinstance(value, str):
            if value:
                out += _sized(number, value.encode("utf-8", "surrogateescape"))
        else:
            out += _sized(number, value)
    return bytes(out)


def parse(data: bytes) -> Fields:
    """Every field by number, as often as it came. ``EngineError`` for what is no message."""
    found: Fields = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        value: int | bytes
        kind = key & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
        else:
            if kind == _BYTES:
                size, at = _read_varint(data, at)
            elif kind in (_FIXED64, _FIXED32):
                size = 8 if kind == _FIXED64 else 4
            else:
                raise EngineError("the Engine sent a message that cannot be read")
            value, at = data[at : at + size], at + size
        if at > len(data):
            raise EngineError("the Engine sent a message that ends too early")
        found.setdefault(key >> 3, []).append(value)
    return found


def text(fields: Fields, number: int) -> str:
    return blob(fields, number).decode("utf-8", "replace")


def blob(fields: Fields, number: int) -> bytes:
    found = fields.get(number, [b""])[-1]
    return found if isinstance(found, bytes) else b""


def number(fields: Fields, number: int) -> int:
    found = fields.get(number, [0])[-1]
    return found if isinstance(found, int) else 0


def messages(fields: Fields, number: int) -> list[Fields]:
    return [parse(each) for each in fields.get(number, []) if isinstance(each, bytes)]


def _sized(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise EngineError("the Engine sent a number that cannot be read")
