"""The control socket: one unix socket, two dialects told apart by the first byte. HTTP is the API, for people and their
tools; a frame's length begins with a zero byte and is the link, for processes of ours that ask actors."""

from __future__ import annotations

import grp
import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import gevent
import msgspec
from gevent.event import AsyncResult
from gevent.lock import RLock

from .. import errors
from ..errors import ActorStopped, AskTimeout, LinkError, NextDeployError
from ..messages.control import ANSWERS, Answer, Ask, AskFailed, failure, raised
from ..runtime.link import FrameReader, connect_unix, encode, listen_unix
from .admin_server import HttpListener

log = logging.getLogger("ndactors.control")

GROUP = "nextdeploy"
FIRST_BYTE_SECONDS = 10.0
ASK_SECONDS = 10.0
_encoder = msgspec.msgpack.Encoder()


class Askee(Protocol):
    def ask(self, message: Any, timeout: float = ...) -> Any: ...


class ControlServer(HttpListener):
    """``asks``: who can be asked over the link, by name. Whoever may open the socket is trusted (0660, and the group
    ``nextdeploy`` if there is one)."""

    def __init__(self, path: Path, asks: Mapping[str, Askee], app: Any) -> None:
        self._path = path
        self._asks = asks
        listener = listen_unix(path, 0o660)
        _open_to_group(path)
        super().__init__(listener, app)

    def stop(self, timeout: float = 1.0) -> None:
        super().stop(timeout=timeout)
        self._path.unlink(missing_ok=True)

    def handle(self, sock: socket.socket, address: Any) -> None:
        """One connection, in its greenlet."""
        try:
            sock.settimeout(FIRST_BYTE_SECONDS)
            first = sock.recv(1, socket.MSG_PEEK)
            sock.settimeout(None)
            if first == b"\0":
                self._serve_link(sock)
            elif first:
                super().handle(sock, ("local", 0))
        except (OSError, LinkError) as error:
            log.debug("control peer: %s", error)

    def _serve_link(self, sock: socket.socket) -> None:
        reader: FrameReader[Ask] = FrameReader(Ask)
        lock = RLock()
        while True:
            data = sock.recv(1 << 16)
            if not data:
                return
            for ask in reader.feed(data):
                gevent.spawn(self._answer, sock, lock, ask)

    def _answer(self, sock: socket.socket, lock: RLock, ask: Ask) -> None:
        try:
            askee = self._asks.get(ask.to)
            if askee is None:
                raise errors.NotFound(f"nobody here is called {ask.to}")
            value = askee.ask(ask.message, ASK_SECONDS)
            frame = encode(Answer(id=ask.id, body=msgspec.Raw(_encoder.encode(value))))
        except NextDeployError as error:
            frame = encode(failure(ask.id, error))
        with lock:
            try:
                sock.sendall(frame)
            except OSError as error:
                log.debug("control peer: %s", error)


def _open_to_group(path: Path) -> None:
    """The group may open the socket, and so must be able to pass through its folder; what else is there it cannot
    even list."""
    try:
        group = grp.getgrnam(GROUP).gr_gid
        os.chown(path, -1, group)
        os.chown(path.parent, -1, group)
        path.parent.chmod(0o710)
    except (KeyError, PermissionError):
        log.debug("the control socket belongs to this user's group")


class ControlClient:
    """Asks the daemon from another process; connects when needed, again when the daemon was started anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sock: socket.socket | None = None
        self._waiting: dict[int, AsyncResult] = {}
        self._count = 0
        self._lock = RLock()

    def ask(self, to: str, message: Any, timeout: float) -> Any:
        result: AsyncResult = AsyncResult()
        with self._lock:
            self._count += 1
            id = self._count
            frame = encode(Ask(id=id, to=to, message=message))
            self._waiting[id] = result
            try:
                self._connection().sendall(frame)
            except OSError as error:
                self._waiting.pop(id, None)
                self._drop()
                raise ActorStopped(f"the daemon does not answer on {self._path}: {error.strerror or error}") from error
        try:
            answer = result.get(timeout=timeout)
        except gevent.Timeout as error:
            raise AskTimeout(f"{to} did not answer {type(message).__name__} within {timeout:g} s") from error
        finally:
            self._waiting.pop(id, None)
        if isinstance(answer, AskFailed):
            raise raised(answer)
        expected = ANSWERS.get(type(message), Any)
        return msgspec.msgpack.decode(answer.body, type=expected)

    def _connection(self) -> socket.socket:
        if self._sock is None:
            self._sock = connect_unix(self._path)
            self._sock.settimeout(None)
            gevent.spawn(self._read, self._sock)
        return self._sock

    def _read(self, sock: socket.socket) -> None:
        reader: FrameReader[Answer | AskFailed] = FrameReader(Answer | AskFailed)
        try:
            while True:
                data = sock.recv(1 << 18)
                if not data:
                    break
                for message in reader.feed(data):
                    waiting = self._waiting.pop(message.id, None)
                    if waiting is not None:
                        waiting.set(message)
        except (OSError, LinkError) as error:
            log.warning("the daemon's link: %s", error)
        if self._sock is sock:
            self._drop()

    def _drop(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
        waiting, self._waiting = self._waiting, {}
        for result in waiting.values():
            result.set_exception(ActorStopped("the daemon ended the connection"))


class RemoteRef:
    """An actor of the daemon, from another process."""

    def __init__(self, client: ControlClient, name: str) -> None:
        self._client = client
        self.name = name

    def ask(self, message: Any, timeout: float = ASK_SECONDS) -> Any:
        return self._client.ask(self.name, message, timeout)
