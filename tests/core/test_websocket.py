"""Every rule of RFC 6455 for what a client sends, and the code with which breaking it ends."""

from __future__ import annotations

import os
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndactors.core.websocket import (
    Close,
    Fragment,
    Message,
    Ping,
    Pong,
    Reader,
    Violation,
    client_frame,
    close_payload,
)

LIMIT = 1 << 20
KEY = b"\x12\x00\xff\x80"


def masked(payload: bytes, key: bytes = KEY) -> bytes:
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def frame(opcode: int, payload: bytes = b"", *, fin: int = 0x80, rsv: int = 0, key: bytes = KEY) -> bytes:
    length = len(payload)
    if length < 126:
        head = bytes([fin | rsv | opcode, 0x80 | length])
    elif length < 1 << 16:
        head = bytes([fin | rsv | opcode, 0x80 | 126]) + struct.pack(">H", length)
    else:
        head = bytes([fin | rsv | opcode, 0x80 | 127]) + struct.pack(">Q", length)
    return head + key + masked(payload, key)


def part(opcode: int, payload: bytes) -> bytes:
    return frame(opcode, payload, fin=0)


def read(data: bytes, step: int | None = None, limit: int = LIMIT) -> list:
    """All events, then the code of the violation if there is one."""
    reader, events = Reader(limit), []
    try:
        for start in range(0, len(data), step or max(1, len(data))):
            reader.feed(data[start : start + (step or len(data))])
            while (event := reader.take()) is not None:
                if not isinstance(event, Fragment):
                    events.append(event)
    except Violation as violation:
        events.append(violation.code)
    return events


GOOD = {
    "empty text": (frame(1), [Message("")]),
    "empty binary": (frame(2), [Message(b"")]),
    "text": (frame(1, "ä€😀".encode()), [Message("ä€😀")]),
    "125 bytes": (frame(2, b"x" * 125), [Message(b"x" * 125)]),
    "126 bytes": (frame(2, b"x" * 126), [Message(b"x" * 126)]),
    "127 bytes": (frame(2, b"x" * 127), [Message(b"x" * 127)]),
    "65535 bytes": (frame(2, b"x" * 65535), [Message(b"x" * 65535)]),
    "65536 bytes": (frame(2, b"x" * 65536), [Message(b"x" * 65536)]),
    "as much as may be": (frame(2, b"x" * LIMIT), [Message(b"x" * LIMIT)]),
    "ping": (frame(9, b"p" * 125), [Ping(b"p" * 125)]),
    "pong": (frame(10), [Pong(b"")]),
    "fragments": (part(1, b"a") + part(0, b"") + frame(0, b"b"), [Message("ab")]),
    "binary fragments": (part(2, b"\xff") + frame(0, b"\x00"), [Message(b"\xff\x00")]),
    "a character over fragments": (part(1, b"\xf0\x9f") + part(0, b"\x98") + frame(0, b"\x80"), [Message("😀")]),
    "control between fragments": (
        part(1, b"a") + frame(9, b"p") + frame(10, b"q") + frame(0, b"b"),
        [Ping(b"p"), Pong(b"q"), Message("ab")],
    ),
    "close without a code": (frame(8), [Close(1005, "")]),
    "close": (frame(8, b"\x03\xe8" + "tschüß".encode()), [Close(1000, "tschüß")]),
    "close within a message": (part(1, b"a") + frame(8, b"\x03\xe8"), [Close(1000, "")]),
    "nothing counts after close": (frame(8) + frame(1, b"x") + b"\xff\xff", [Close(1005, "")]),
    "a zero key": (frame(1, b"abc", key=b"\0\0\0\0"), [Message("abc")]),
    "two at once": (frame(1, b"a") + frame(2, b"b"), [Message("a"), Message(b"b")]),
    "NUL and the last code point": (frame(1, b"\0\xf4\x8f\xbf\xbf"), [Message("\0\U0010ffff")]),
    "the replacement character": (frame(1, b"\xef\xbf\xbd"), [Message("�")]),
}

BAD = {
    "RSV1": (frame(1, b"x", rsv=0x40), 1002),
    "RSV2": (frame(1, b"x", rsv=0x20), 1002),
    "RSV3": (frame(2, b"x", rsv=0x10), 1002),
    "RSV on a ping": (frame(9, b"x", rsv=0x70), 1002),
    **{f"opcode {n}": (frame(n, b"x"), 1002) for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "no mask": (b"\x81\x01x", 1002),
    "no mask on a close": (b"\x88\x00", 1002),
    "no mask, long": (b"\x82\x7e\xff\xff", 1002),
    "fragmented ping": (frame(9, b"x", fin=0), 1002),
    "fragmented pong": (frame(10, b"x", fin=0), 1002),
    "fragmented close": (frame(8, fin=0), 1002),
    "long ping": (frame(9, b"x" * 126), 1002),
    "long pong": (frame(10, b"x" * 126), 1002),
    "long close": (frame(8, b"\x03\xe8" + b"x" * 124), 1002),
    "very long ping": (b"\x89\xff" + struct.pack(">Q", 1 << 40), 1002),
    "a continuation of nothing": (frame(0, b"x"), 1002),
    "a fragment of nothing": (part(0, b"x"), 1002),
    "a continuation after the end": (part(1, b"a") + frame(0, b"b") + frame(0, b"c"), 1002),
    "text within text": (part(1, b"a") + frame(1, b"b"), 1002),
    "binary within text": (part(1, b"a") + part(2, b"b"), 1002),
    "16 bits for 125": (b"\x82\xfe\x00\x7d" + KEY + masked(b"x" * 125), 1002),
    "64 bits for 65535": (b"\x82\xff" + struct.pack(">Q", 65535), 1002),
    "64 bits for 1": (b"\x82\xff" + struct.pack(">Q", 1), 1002),
    "the highest bit of a length": (b"\x82\xff\x80" + bytes(7), 1002),
    "half a close code": (frame(8, b"\x03"), 1002),
    **{
        f"close code {code}": (frame(8, struct.pack(">H", code)), 1002)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "close reason": (frame(8, b"\x03\xe8\xff"), 1007),
    "close reason cut off": (frame(8, b"\x03\xe8\xe2\x82"), 1007),
    "not UTF-8": (frame(1, b"\xff"), 1007),
    "overlong": (frame(1, b"\xc0\xaf"), 1007),
    "a surrogate": (frame(1, b"\xed\xa0\x80"), 1007),
    "past the last code point": (frame(1, b"\xf4\x90\x80\x80"), 1007),
    "a character cut off": (frame(1, b"\xe2\x82"), 1007),
    "a character cut off over fragments": (part(1, b"\xe2") + frame(0, b"\x82"), 1007),
    "wrong in a later fragment": (part(1, b"\xe2") + part(0, b"\x28"), 1007),
    "too long": (b"\x82\xff" + struct.pack(">Q", LIMIT + 1), 1009),
    "far too long": (b"\x82\xff\x7f" + b"\xff" * 7, 1009),
    "too long together": (part(2, b"x" * LIMIT) + b"\x80\x81", 1009),
}


@pytest.mark.parametrize("step", [None, 1, 3])
@pytest.mark.parametrize("name", GOOD)
def test_what_is_right(name, step):
    data, events = GOOD[name]
    if step is not None and len(data) > 70_000:
        step = 4097 * step
    assert read(data, step) == events


@pytest.mark.parametrize("step", [None, 1, 3])
@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong(name, step):
    data, code = BAD[name]
    if step is not None and len(data) > 70_000:
        step = 4097 * step
    assert read(data, step)[-1] == code


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999])
def test_close_codes_that_may_be_sent(code):
    assert read(frame(8, struct.pack(">H", code))) == [Close(code, "")]


def test_wrong_things_are_seen_before_they_are_complete():
    for data in (b"\x81\x05", b"\xc1\x80", b"\x83\x80", b"\x80\x80", b"\x89\xfe"):
        assert read(data) == [1002]
    assert read(part(1, b"\xff")) == [1007], "the first fragment is enough to see it"


def test_after_a_violation_nothing_comes():
    reader = Reader(LIMIT)
    reader.feed(b"\x81\x01x")
    with pytest.raises(Violation):
        reader.take()
    reader.feed(frame(1, b"x"))
    assert reader.take() is None


def test_many_tiny_fragments_stay_within_the_limit_of_memory():
    reader = Reader(LIMIT)
    reader.feed(part(1, b"x"))
    for _ in range(20_000):
        reader.feed(part(0, b"x"))
        while reader.take() is not None:
            pass
    assert len(reader._message) == 20_001
    assert len(reader._buffer) == 0


def test_unmasking_is_fast():
    """4 MiB take a few milliseconds, not the seconds of a loop over bytes."""
    data = frame(2, os.urandom(4 << 20), key=b"abcd")
    reader = Reader(8 << 20)
    reader.feed(data)
    began = time.process_time()
    message = reader.take()
    assert time.process_time() - began < 0.2
    assert isinstance(message, Message)
    assert masked(message.data[:1000], b"abcd") == data[14:1014]


@given(st.binary(max_size=300), st.integers(1, 17))
@settings(max_examples=300, deadline=None)
def test_garbage_never_does_more_than_violate(data, step):
    whole, cut = read(data), read(data, step)
    assert whole == cut, "how it is cut makes no difference"


frames = st.one_of(
    st.text(max_size=200).map(lambda text: (frame(1, text.encode()), [Message(text)])),
    st.binary(max_size=200).map(lambda data: (frame(2, data), [Message(data)])),
    st.binary(max_size=125).map(lambda data: (frame(9, data), [Ping(data)])),
    st.lists(st.binary(max_size=50), min_size=2, max_size=6).map(
        lambda rows: (
            part(2, rows[0]) + b"".join(part(0, row) for row in rows[1:-1]) + frame(0, rows[-1]),
            [Message(b"".join(rows))],
        )
    ),
    st.tuples(st.text(min_size=1, max_size=60), st.integers(0, 200)).map(
        lambda given: (
            part(1, given[0].encode()[: given[1]]) + frame(9) + frame(0, given[0].encode()[given[1] :]),
            [Ping(b""), Message(given[0])],
        )
    ),
)


@given(st.lists(frames, max_size=8), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_right_frames_cut_anywhere(rows, step):
    data = b"".join(row[0] for row in rows)
    assert read(data, step) == [event for row in rows for event in row[1]]


@given(st.lists(frames, min_size=1, max_size=4), st.data())
@settings(max_examples=200, deadline=None)
def test_one_wrong_byte_never_crashes_it(rows, data):
    wire = bytearray(b"".join(row[0] for row in rows))
    at = data.draw(st.integers(0, len(wire) - 1))
    wire[at] = data.draw(st.integers(0, 255))
    assert read(bytes(wire)) == read(bytes(wire), 1)


@given(st.text(max_size=200), st.sampled_from([1000, 1009, 4000]))
def test_what_we_say_at_the_end_is_valid(reason, code):
    payload = close_payload(code, reason)
    assert len(payload) <= 125
    (event,) = read(frame(8, payload))
    assert event.code == code
    assert reason.encode("utf-8", "replace").decode().startswith(event.reason)


def test_the_end_without_a_code():
    assert close_payload(1005, "x") == b""


# -- the other side --------------------------------------------------------------------------------


@given(
    st.binary(max_size=300) | st.sampled_from([bytes(125), bytes(126), bytes(65535), bytes(65536)]),
    st.binary(min_size=4, max_size=4),
)
def test_what_a_client_sends_is_read(payload, key):
    data = client_frame(2, payload, key)
    assert data == frame(2, payload, key=key)
    assert read(data) == [Message(payload)]


def test_a_servers_frames_are_not_masked():
    reader = Reader(LIMIT, masked=False)
    reader.feed(b"\x82\x02ok\x81\x7e\x00\x80" + b"x" * 128 + b"\x88\x02\x03\xe8")
    assert [reader.take() for _ in range(4)] == [Message(b"ok"), Message("x" * 128), Close(1000, ""), None]
    reader = Reader(LIMIT, masked=False)
    reader.feed(frame(2, b"ok"))
    with pytest.raises(Violation) as violation:
        reader.take()
    assert violation.value.code == 1002
