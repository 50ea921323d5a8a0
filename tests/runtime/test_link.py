"""Frames: whole or not at all, wherever they are split; unix sockets at paths of any length."""

from __future__ import annotations

import itertools
import socket
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ndactors.errors import LinkError
from ndactors.messages.edge import Hello, RoutingSnapshot, Stop
from ndactors.runtime.link import FrameReader, SendBuffer, connect_unix, encode, listen_unix

TYPES = Hello | RoutingSnapshot | Stop
MESSAGES = [
    Hello(protocol=1, epoch=2, version="ü", pid=3, role="daemon"),
    Stop(deadline_seconds=2.5),
    RoutingSnapshot(epoch=1, version=9),
]
STREAM = b"".join(map(encode, MESSAGES))


@given(st.sets(st.integers(1, len(STREAM) - 1), max_size=12))
def test_wherever_it_is_split_the_messages_are_the_same(cuts):
    reader: FrameReader = FrameReader(TYPES)
    edges = [0, *sorted(cuts), len(STREAM)]
    assert [m for a, b in itertools.pairwise(edges) for m in reader.feed(STREAM[a:b])] == MESSAGES


@given(st.binary(max_size=200))
def test_garbage_is_a_link_error_or_waits_for_more(data):
    reader: FrameReader = FrameReader(TYPES, limit=1000)
    try:
        assert reader.feed(data) == []
    except LinkError:
        return


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x01\xc1",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x00\x07\x81\xa4type\xc0",
        encode(Stop())[:4] + encode(Hello(protocol=1, epoch=1, version="", pid=1, role=""))[4 : len(encode(Stop()))],
    ],
)
def test_malformed_frames(data):
    with pytest.raises(LinkError):
        FrameReader(TYPES, limit=1000).feed(data)


def test_a_message_of_another_union_is_refused():
    with pytest.raises(LinkError):
        FrameReader(Hello).feed(encode(Stop()))


def test_a_slow_peer_loses_whole_frames_and_they_are_counted():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    buffer = SendBuffer(limit=300_000)
    frame = encode(Hello(protocol=1, epoch=1, version="x" * 1000, pid=1, role="r"))
    pushed = 0
    while buffer.push(frame):
        buffer.flush(ours)
        pushed += 1
    assert buffer.dropped == 1
    reader: FrameReader = FrameReader(TYPES)
    got: list = []
    theirs.setblocking(False)
    while len(got) < pushed:
        try:
            got += reader.feed(theirs.recv(65536))
        except BlockingIOError:
            buffer.flush(ours)
    assert len(got) == pushed
    assert not buffer
    ours.close()
    theirs.close()


@pytest.mark.parametrize("depth", [1, 12])
def test_unix_sockets_at_any_path(tmp_path, depth):
    folder = tmp_path.joinpath(*["a-rather-long-folder-name"] * depth)
    folder.mkdir(parents=True)
    path = folder / "x.sock"
    for _ in range(2):  # the second replaces what the first left behind
        listener = listen_unix(path, 0o640)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        client = connect_unix(path)
        accepted, _ = listener.accept()
        client.sendall(b"hi")
        assert accepted.recv(10) == b"hi"
        for sock in (client, accepted, listener):
            sock.close()
    with pytest.raises(OSError):
        connect_unix(path)
