"""What the opener says when it cannot open what is new."""

from __future__ import annotations

import os
import socket

import pytest

from ndactors.logs import rotation
from ndactors.logs.opener import Opener
from ndactors.logs.opening import FILE, FOLLOW, PACKET_BYTES, SETTLE, SETTLED, UNWATCHED, WATCHED


class World:
    def __init__(self, tmp_path) -> None:
        self.path = tmp_path / "c-json.log"
        self.path.touch()
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        self.theirs = theirs
        self.opener = Opener(theirs)

    def tell(self, kind: bytes) -> None:
        self.opener._told(kind, str(self.path))

    def heard(self) -> list[bytes]:
        """The kinds of what it says."""
        self.opener._send()
        found = []
        while True:
            try:
                data, files, _, _ = socket.recv_fds(self.sock, PACKET_BYTES, 8)
            except BlockingIOError:
                return found
            for file in files:
                os.close(file)
            found.append(data[:1])

    def rotate(self) -> None:
        self.path.replace(f"{self.path}.1")
        self.path.touch()


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.sock.close()
    made.theirs.close()


def full(*_: object) -> list[tuple[int, bool]]:
    raise OSError(24, "Too many open files")


def test_what_cannot_be_opened_when_it_is_followed(world, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(rotation, "newer", full)
        world.tell(FOLLOW)
        assert world.heard() == [UNWATCHED]
    world.tell(FOLLOW)
    assert world.heard() == [FILE, WATCHED]


def test_what_cannot_be_opened_when_it_is_new(world, monkeypatch):
    world.tell(FOLLOW)
    assert world.heard() == [FILE, WATCHED]
    with monkeypatch.context() as patch:
        patch.setattr(rotation, "newer", full)
        world.rotate()
        world.tell(SETTLE)
        assert world.heard() == [UNWATCHED, SETTLED]
        world.rotate()
        world.opener._changed()
        assert world.heard() == []  # it is nobody's by now
        world.tell(FOLLOW)
        assert world.heard() == [UNWATCHED]
    world.tell(FOLLOW)
    assert world.heard() == [FILE, FILE, WATCHED]
    world.rotate()
    world.opener._changed()
    assert world.heard() == [FILE]
