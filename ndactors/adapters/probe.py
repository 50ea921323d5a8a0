"""Health probes over sockets. Each reads an answer: a frozen container still accepts connections."""

from __future__ import annotations

import socket
import time
from urllib.parse import quote

import httptools

from ..core.model import Healthcheck

READ_BYTES = 64 * 1024
"""As much of an answer as is read, so that an app that logs broken pipes has nothing to log."""


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
            with socket.create_connection(target, timeout=check.timeout) as sock:
                sock.sendall(request.encode("ascii", "replace"))
                received = 0
                while not answer.complete and received < READ_BYTES:
                    sock.settimeout(max(0.001, deadline - time.monotonic()))
                    data = sock.recv(READ_BYTES)
                    if not data:
                        break
                    received += len(data)
                    parser.feed_data(data)
                    if time.monotonic() >= deadline:
                        raise TimeoutError
        except TimeoutError:
            if not answer.head:
                return f"no answer from {_place(target)}{check.path} within {check.timeout:g} s"
        except ConnectionRefusedError:
            return f"nothing listens on {_place(target)}"
        except OSError as error:
            return f"{_place(target)}{check.path}: {_words(error)}"
        except httptools.HttpParserError as error:
            return f"{_place(target)}{check.path} answered something that is not HTTP: {_words(error)}"
        if not answer.head:
            return f"{_place(target)}{check.path} closed without an answer"
        status = parser.get_status_code()
        low, high = check.status
        return None if low <= status <= high else f"{check.path} answered {status}"

    def tcp(self, target: tuple[str, int], check: Healthcheck) -> str | None:
        """Connect, say that nothing will come, and wait for data or the end: both take a living process."""
        deadline = time.monotonic() + check.timeout
        try:
            with socket.create_connection(target, timeout=check.timeout) as sock:
                sock.shutdown(socket.SHUT_WR)
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                sock.recv(1)
        except TimeoutError:
            return f"{_place(target)} neither answered nor closed within {check.timeout:g} s"
        except ConnectionRefusedError:
            return f"nothing listens on {_place(target)}"
        except ConnectionResetError:
            return None  # a process that resets is there
        except OSError as error:
            return f"{_place(target)}: {_words(error)}"
        return None


def _place(target: tuple[str, int]) -> str:
    address, port = target
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _words(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200]
