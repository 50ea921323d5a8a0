"""What goes on over a WebSocket once it is open: a terminal, or a TCP connection. Each side is read only as fast as the
other one takes it."""

from __future__ import annotations

import logging
import socket as sockets
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

import gevent
import msgspec
from geventwebsocket.exceptions import WebSocketError

from ndactors.core.websocket import FAULT, REFUSED
from ndactors.errors import NextDeployError

from .sockets import READ_BYTES, TURNS, Socket, json_text

log = logging.getLogger("ndactors.web")

IDLE_SECONDS = 3600.0
"""A terminal or connection on which nothing moved for so long is ended."""


class Terminal(Protocol):
    """As ``ndactors.ports.Terminal``."""

    def send(self, data: bytes) -> None: ...
    def end_input(self) -> None: ...
    def receive(self) -> tuple[bytes, bool]: ...
    def resize(self, rows: int, columns: int) -> None: ...
    def exit_code(self) -> int | None: ...
    def close(self) -> None: ...


class Control(msgspec.Struct, frozen=True):
    """A text message: ``resize`` is rows and columns, ``eof`` the end of what that side sends."""

    resize: tuple[int, int] | None = None
    eof: bool = False


class Pumps:
    """Two greenlets that move bytes. They are ended together: when one of them returns True, when both have returned,
    when nothing moved for ``idle`` seconds, or when whoever runs them is killed."""

    def __init__(self, idle: float) -> None:
        self._idle = idle
        self._last = time.monotonic()
        self._count = 0
        self.moved = [0, 0]
        """Bytes towards the container, and from it."""

    def note(self, way: int, size: int) -> None:
        self.moved[way] += size
        self._last = time.monotonic()
        self._count += 1
        if self._count % TURNS == 0:
            gevent.sleep(0)

    def run(self, *pumps: Callable[[], bool]) -> bool:
        """False if it was idle for too long."""
        running = [gevent.spawn(pump) for pump in pumps]
        try:
            while running:
                left = self._last + self._idle - time.monotonic()
                if left <= 0:
                    return False
                for done in gevent.wait(running, left, 1):
                    running.remove(done)
                    if done.get():
                        return True
            return True
        finally:
            gevent.killall(running)


# -- a terminal ------------------------------------------------------------------------------------


def serve_terminal(socket: Socket, terminal: Terminal, idle: float = IDLE_SECONDS) -> int | None:
    """Until the process or the peer ends; either is the other's end. The process's exit code, None if it did not end by
    itself. The goodbye is the caller's."""
    pumps = Pumps(idle)
    ended: list[str] = []
    code, trouble = None, ""
    try:
        if not pumps.run(partial(_typed, socket, terminal, pumps), partial(_printed, socket, terminal, pumps, ended)):
            trouble = f"nothing happened for {idle:g} s"
        elif ended:
            trouble = ended[0]
            code = terminal.exit_code() if not trouble else None
    except NextDeployError as error:
        trouble = str(error)
    finally:
        terminal.close()
    try:
        socket.send(json_text(error=trouble) if trouble else json_text(exit=code))
    except WebSocketError:
        log.debug("nobody is left to hear that a terminal ended")
    return code


def _typed(socket: Socket, terminal: Terminal, pumps: Pumps) -> bool:
    while (message := socket.receive()) is not None:
        if isinstance(message, bytes):
            terminal.send(message)
            pumps.note(0, len(message))
            continue
        control = _control(socket, message)
        if control is None:
            return True
        if control.resize is not None:
            terminal.resize(*control.resize)
        if control.eof:
            terminal.end_input()
    return True


def _printed(socket: Socket, terminal: Terminal, pumps: Pumps, ended: list[str]) -> bool:
    """Says in ``ended`` that the output is over, and why if that is not its end."""
    was_error = False
    try:
        while True:
            data, is_error = terminal.receive()
            if not data:
                ended.append("")
                return True
            if is_error != was_error:
                socket.send(json_text(stream="stderr" if is_error else "stdout"))
                was_error = is_error
            socket.send(data)
            pumps.note(1, len(data))
    except NextDeployError as error:
        ended.append(str(error))
    except WebSocketError:
        log.debug("a terminal's reader is gone")
    return True


def _control(socket: Socket, message: str) -> Control | None:
    """None: it is not understood, and the socket is closed."""
    try:
        control = msgspec.json.decode(message, type=Control)
        if control.resize is None or all(1 <= size <= 10_000 for size in control.resize):
            return control
    except (msgspec.DecodeError, RecursionError) as error:
        log.debug("a WebSocket's text is not understood: %s", error)
    socket.close(REFUSED, 'a text message is {"resize": [rows, columns]} or {"eof": true}')
    return None


# -- a TCP connection ------------------------------------------------------------------------------


class Connection:
    """One TCP connection over one WebSocket. ``{"eof": true}`` is the end of one direction; the other one goes on."""

    def __init__(self, socket: Socket, tcp: sockets.socket, idle: float = IDLE_SECONDS) -> None:
        self._socket, self._tcp = socket, tcp
        self._pumps = Pumps(idle)
        self._ends = 0
        self._broken = ""

    @property
    def moved(self) -> list[int]:
        return self._pumps.moved

    def serve(self) -> None:
        """Until both directions have ended, or either side is gone. The goodbye is the caller's, unless it has a reason."""
        self._tcp.settimeout(None)
        try:
            if not self._pumps.run(self._there, self._back):
                self._broken = "nothing moved for long"
        finally:
            self._tcp.close()
        if self._broken:
            self._socket.close(FAULT, self._broken)

    def _there(self) -> bool:
        while (message := self._socket.receive()) is not None:
            try:
                if isinstance(message, bytes):
                    self._tcp.sendall(message)
                    self._pumps.note(0, len(message))
                    continue
                control = _control(self._socket, message)
                if control is None:
                    return True
                if control.eof:
                    self._tcp.shutdown(sockets.SHUT_WR)
            except OSError as error:
                return self._broke(error)
            if control.eof and self._ended():
                return True
        return True

    def _back(self) -> bool:
        try:
            while data := self._tcp.recv(READ_BYTES):
                self._socket.send(data)
                self._pumps.note(1, len(data))
            self._socket.send(json_text(eof=True))
        except WebSocketError:
            return True
        except OSError as error:
            return self._broke(error)
        return self._ended()

    def _ended(self) -> bool:
        self._ends += 1
        return self._ends == 2

    def _broke(self, error: OSError) -> bool:
        self._broken = f"the connection broke: {error.strerror or error}"
        return True
