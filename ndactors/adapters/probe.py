"""Health probes over sockets. Each reads an answer: a frozen container still accepts connections. There may be hundreds a
second, so each waits as seldom as it can, on a bare socket: gevent's own would look its address up first."""

from __future__ import annotations

import errno
import os
import socket
import time
from urllib.parse import quote

import gevent.socket
import httptools
from gevent.monkey import get_original

from ..core.model import Healthcheck

READ_BYTES = 64 * 1024
"""As much of an answer as is read, so that an app that logs broken pipes has nothing to log."""


_BareSocket = get_original("socket", "socket")


class Answer:
    """Callbacks of the parser: what matters is that a whole head came, and whether the body ended."""

    def __init__(self) -> None:
        self.head = False
        self.complete = False

    def on_headers_complete(self) -> None:
        self.head = True

    def on_message_complete(self) -> None:
        self.complete = True


class SocketProber:
    """``ndactors.ports.Prober``. The whole probe, not each read, ends within ``check.timeout``."""

    def http(self, target: tuple[str, int], check: Healthcheck, host: str) -> str | None:
        deadline = time.monotonic() + check.timeout
        answer = Answer()
        parser = httptools.HttpResponseParser(answer)
        path = quote(check.path, safe="/?&=%:@!$'()*+,;~-._")
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Proto: https\r\n"
            "User-Agent: nextdeploy-health\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
        try:
            with _Connection(target, deadline) as connection:
                connection.send(request.encode("ascii", "replace"))
                received = 0
                while not answer.complete and received < READ_BYTES:
                    data = connection.receive()
                    if not data:
                        break
                    received += len(data)
                    parser.feed_data(data)
        except TimeoutError:
            if not answer.head:
                return f"no answer from {_place(target)}{check.path} within {check.timeout:g} s"
        except ConnectionRefusedError:
            return f"nothing listens on {_place(target)}"
        except OSError as error:
            return f"{_place(target)}{check.path}: {_words(error)}"
        except httptools.HttpParserUpgrade:
            answer.head = True  # it wants to speak something else: its status tells
        except httptools.HttpParserError as error:
            return f"{_place(target)}{check.path} answered something that is not HTTP: {_words(error)}"
        if not answer.head:
            return f"{_place(target)}{check.path} closed without an answer"
        status = parser.get_status_code()
        low, high = check.status
        return None if low <= status <= high else f"{check.path} answered {status}"

    def tcp(self, target: tuple[str, int], check: Healthcheck) -> str | None:
        """Connect, say that nothing will come, and wait for data or the end: both take a living process."""
        try:
            with _Connection(target, time.monotonic() + check.timeout) as connection:
                connection.end_sending()
                connection.receive()
        except TimeoutError:
            return f"{_place(target)} neither answered nor closed within {check.timeout:g} s"
        except ConnectionRefusedError:
            return f"nothing listens on {_place(target)}"
        except ConnectionResetError:
            return None  # a process that resets is there
        except OSError as error:
            return f"{_place(target)}: {_words(error)}"
        return None


class _Connection:
    """To a literal address. Everything raises ``TimeoutError`` past ``deadline``, on the monotonic clock."""

    def __init__(self, target: tuple[str, int], deadline: float) -> None:
        self._deadline = deadline
        family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        self._sock = _BareSocket(family, socket.SOCK_STREAM)
        self._sock.setblocking(False)
        self._check(self._sock.connect_ex(target))

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def send(self, data: bytes) -> None:
        while data:
            try:
                # most often it is connected already: on loopback, and to a container, that takes no time
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                self._wait_to_write()

    def end_sending(self) -> None:
        self._wait_to_write()
        self._sock.shutdown(socket.SHUT_WR)

    def receive(self) -> bytes:
        """What has come; empty at the end."""
        while True:
            late: TimeoutError | None = None
            try:
                gevent.socket.wait_read(self._sock.fileno(), self._left())
            except TimeoutError as error:
                late = error
            try:
                # what came in time counts, also if it is we who look too late
                data: bytes = self._sock.recv(READ_BYTES)
            except BlockingIOError:
                if late is not None:
                    raise late from None
                continue
            return data

    def _wait_to_write(self) -> None:
        gevent.socket.wait_write(self._sock.fileno(), self._left())
        self._check(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _check(self, error: int) -> None:
        if error not in (0, errno.EINPROGRESS):
            self._sock.close()
            raise OSError(error, os.strerror(error))

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def _place(target: tuple[str, int]) -> str:
    address, port = target
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _words(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
