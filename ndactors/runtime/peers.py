"""Sockets with frames in both directions, on one selector. A peer that is slow, gone or speaks nonsense is let go of, and
nothing else happens."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable

from msgspec import Struct

from ..errors import LinkError
from .link import FrameReader, SendBuffer, encode

READ_BYTES = 1 << 18


class Peer:
    """``heard`` gets each message, ``ended`` is called once when the peer is gone."""

    def __init__(
        self,
        sock: socket.socket,
        types: object,
        heard: Callable[[Peer, object], None],
        ended: Callable[[Peer], None],
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.reader: FrameReader[object] = FrameReader(types)
        self.out = SendBuffer()
        self.heard = heard
        self.ended = ended
        self.gone = False


class Peers:
    def __init__(self, note: Callable[[str], None]) -> None:
        self.selector = selectors.DefaultSelector()
        self._note = note

    def add(self, peer: Peer) -> Peer:
        self.selector.register(peer.sock, selectors.EVENT_READ, lambda events: self._ready(peer, events))
        return peer

    def watch(self, sock: socket.socket | int, call: Callable[[], None]) -> None:
        """What is no peer: a listening socket, a bell, a descriptor."""
        self.selector.register(sock, selectors.EVENT_READ, lambda events: call())

    def unwatch(self, sock: socket.socket) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(sock)

    def turn(self, seconds: float) -> None:
        """Wait for something, up to so long, and see to it."""
        for key, events in self.selector.select(seconds):
            try:
                key.data(events)
            except OSError as error:
                self._note(f"{error}")

    def send(self, peer: Peer, message: Struct | bytes) -> None:
        """A message, or one that is encoded already."""
        if peer.gone:
            return
        if not peer.out.push(message if isinstance(message, bytes) else encode(message)):
            self._note("a peer is so slow that a message to it was dropped")
        self._flush(peer)

    def read(self, peer: Peer) -> None:
        """Everything that has come from it."""
        while not peer.gone:
            try:
                data = peer.sock.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self.forget(peer)
                return
            try:
                messages = peer.reader.feed(data)
            except LinkError as error:
                self._note(f"a peer is closed: {error}")
                self.forget(peer)
                return
            for message in messages:
                peer.heard(peer, message)

    def forget(self, peer: Peer | None) -> None:
        if peer is None or peer.gone:
            return
        peer.gone = True
        self.unwatch(peer.sock)
        peer.sock.close()
        peer.ended(peer)

    def _ready(self, peer: Peer, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(peer)
        if events & selectors.EVENT_READ:
            self.read(peer)

    def _flush(self, peer: Peer) -> None:
        try:
            done = peer.out.flush(peer.sock)
        except OSError:
            return  # its reader hears of it
        wanted = selectors.EVENT_READ if done else selectors.EVENT_READ | selectors.EVENT_WRITE
        key = self.selector.get_key(peer.sock)
        if key.events != wanted:
            self.selector.modify(peer.sock, wanted, key.data)
