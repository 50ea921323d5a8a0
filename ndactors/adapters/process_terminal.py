"""A terminal beside a host process: the keeper starts it in the app's place, and hands its streams over. When we end, or
let go of the keeper's connection, it ends it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import socket
import struct
import termios
from typing import Any

from ..errors import EngineUnreachable

PIECE_BYTES = 64 * 1024
MAX_LINE = 64 * 1024


class ProcessTerminal:
    """``ndactors.ports.Terminal``. ``sock`` is the keeper's connection, on which nothing but the end comes any more;
    ``streams`` are the terminal, or stdin, stdout and stderr; ``heard`` is what has come already."""

    def __init__(self, sock: socket.socket, streams: list[int], heard: bytes, *, tty: bool) -> None:
        self._sock, self._tty = sock, tty
        self._sock.settimeout(None)
        for descriptor in streams:
            os.set_blocking(descriptor, False)
        self._input: int | None = streams[0]
        self._outputs = {streams[0]: False} if tty else {streams[1]: False, streams[2]: True}
        self._open = set(streams)
        self._line = heard
        self._ended = False
        self._code: int | None = None
        self._understand()

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and self._input is not None:
            try:
                rest = rest[os.write(self._input, rest) :]
            except BlockingIOError:
                select.select([], [self._input], [])
            except OSError:
                return  # it reads no more

    def end_input(self) -> None:
        if self._tty:
            self.send(b"\x04")
        elif self._input is not None:
            self._shut(self._input)
            self._input = None

    def receive(self) -> tuple[bytes, bool]:
        while True:
            waited_for: list[Any] = [*self._outputs, *([] if self._ended else [self._sock])]
            ready = select.select(waited_for, [], [], 0 if self._ended else None)[0] if waited_for else []
            for descriptor in [each for each in self._outputs if each in ready]:
                is_error = self._outputs[descriptor]
                data = self._read(descriptor)
                if data:
                    return data, is_error
            if self._ended and not set(ready) & set(self._outputs):
                return b"", False  # what a process it left behind may print is nobody's
            if self._sock in ready:
                self._hear()

    def resize(self, rows: int, columns: int) -> None:
        if self._tty:
            for terminal in self._outputs:
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def exit_code(self) -> int | None:
        return self._code

    def close(self) -> None:
        self._sock.close()
        for descriptor in list(self._open):
            self._shut(descriptor)

    def _read(self, descriptor: int) -> bytes:
        try:
            data = os.read(descriptor, PIECE_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.EIO:  # how a terminal without a process ends
                raise EngineUnreachable(f"its output cannot be read: {error.strerror}") from error
            data = b""
        if not data:
            del self._outputs[descriptor]
        return data

    def _hear(self) -> None:
        """Its end, from the keeper."""
        try:
            data = self._sock.recv(MAX_LINE)
        except OSError as error:
            raise EngineUnreachable(f"the keeper does not answer: {error}") from error
        self._line += data
        if not data or len(self._line) > MAX_LINE:
            raise EngineUnreachable("the keeper has gone")
        self._understand()

    def _understand(self) -> None:
        if b"\n" in self._line:
            self._ended = True
            self._code = int(json.loads(self._line)["exit_code"])

    def _shut(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.discard(descriptor)
            self._outputs.pop(descriptor, None)
            with contextlib.suppress(OSError):
                os.close(descriptor)


class FailedTerminal:
    """Of a program that could not be started: it says so, and that is all."""

    def __init__(self, words: str, code: int) -> None:
        self._words, self._code = words.encode(), code

    def send(self, data: bytes) -> None: ...

    def end_input(self) -> None: ...

    def receive(self) -> tuple[bytes, bool]:
        said, self._words = self._words, b""
        return said, True

    def resize(self, rows: int, columns: int) -> None: ...

    def exit_code(self) -> int | None:
        return self._code

    def close(self) -> None: ...
