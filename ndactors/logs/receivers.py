"""Those who get records: a syslog server by TCP, TLS or UDP, or a URL. Each takes batches of encoded records, whole, or
fails."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import socket
import ssl
import struct
import sys
import termios
import time
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

import msgspec
import requests
import urllib3

from .. import __version__
from ..core import syslog
from ..core.forwarding import PORTS
from ..core.logrecords import LogRecord
from ..core.model import Forward
from .failing import Failed, words_of

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
RESOLVE_SECONDS = 60.0
"""A datagram's receiver may have moved: its name is looked up again after so long."""
HTTP_BYTES = 1024 * 1024
HTTP_SECONDS = 5.0
STREAM_BYTES = 256 * 1024
DATAGRAMS_BYTES = 64 * 1024


class TooLarge(Failed):
    """So much at once is refused."""


class Receiver(Protocol):
    batch_bytes: int
    batch_seconds: float
    """How long a batch may wait until there is more of it."""

    def encode(self, record: LogRecord) -> bytes: ...

    def deliver(self, rows: Sequence[bytes]) -> None:
        """They are taken when it returns; ``Failed``: perhaps some are. Waits."""
        ...

    def close(self) -> None: ...


def receiver_of(forward: Forward, host: str) -> Receiver:
    """``host``: our own name."""
    if forward.http:
        return HttpReceiver(forward.http, forward.headers)
    url = urlsplit(forward.syslog or "")
    address = (url.hostname or "", url.port or PORTS[url.scheme])
    if url.scheme == "udp":
        return DatagramReceiver(address, host)
    return StreamReceiver(address, host, tls=url.scheme == "tls")


# -- syslog ----------------------------------------------------------------------------------------


class StreamReceiver:
    """Syslog does not answer, so what its system has acknowledged counts as taken."""

    batch_bytes = STREAM_BYTES
    batch_seconds = 0.0

    def __init__(self, address: tuple[str, int], host: str, *, tls: bool) -> None:
        self._address = address
        self._host = host
        self._tls = tls
        self._sock: socket.socket | None = None

    def encode(self, record: LogRecord) -> bytes:
        return syslog.framed(syslog.message(record, self._host))

    def deliver(self, rows: Sequence[bytes]) -> None:
        try:
            if self._sock is not None and _closed(self._sock):
                self.close()
            if self._sock is None:
                self._sock = self._connect()
            self._sock.sendall(b"".join(rows))
            _wait_until_taken(self._sock, time.monotonic() + ANSWER_SECONDS)
        except (OSError, UnicodeError) as error:
            self.close()
            raise Failed(words_of(error, "the connection broke")) from error

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(self._address, CONNECT_SECONDS)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._tls:
                context = ssl.create_default_context()
                sock = context.wrap_socket(sock, server_hostname=self._address[0])
            sock.settimeout(ANSWER_SECONDS)
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.close()
        self._sock = None


def _closed(sock: socket.socket) -> bool:
    """Whether the other side has ended. What it says is thrown away."""
    if not isinstance(sock, ssl.SSLSocket) and not select.select([sock], [], [], 0)[0]:
        return False
    before = sock.gettimeout()
    sock.settimeout(0)
    try:
        return not sock.recv(4096)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return False
    finally:
        sock.settimeout(before)


def _wait_until_taken(sock: socket.socket, deadline: float) -> None:
    """The other side's system has acknowledged every byte, and did not close. ``OSError``."""
    while True:
        if _closed(sock):
            raise ConnectionResetError(0, "it closed the connection")
        if not sys.platform.startswith("linux"):
            return
        (unacknowledged,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))
        if not unacknowledged:
            return
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.002)


class DatagramReceiver:
    """Sent is all that can be known, unless the receiver's system says that nobody listens."""

    batch_bytes = DATAGRAMS_BYTES
    batch_seconds = 0.0

    def __init__(self, address: tuple[str, int], host: str) -> None:
        self._address = address
        self._host = host
        self._sock: socket.socket | None = None
        self._until = 0.0

    def encode(self, record: LogRecord) -> bytes:
        return syslog.datagram(syslog.message(record, self._host))

    def deliver(self, rows: Sequence[bytes]) -> None:
        try:
            if self._sock is None or time.monotonic() > self._until:
                self.close()
                self._sock = self._connect()
            for row in rows:
                self._sock.send(row)
        except (OSError, UnicodeError) as error:
            self.close()
            raise Failed(words_of(error, "nothing can be sent")) from error

    def _connect(self) -> socket.socket:
        family, kind, protocol, _, address = socket.getaddrinfo(*self._address, type=socket.SOCK_DGRAM)[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(ANSWER_SECONDS)
            sock.connect(address)
        except BaseException:
            sock.close()
            raise
        self._until = time.monotonic() + RESOLVE_SECONDS
        return sock

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
        self._sock = None


# -- HTTP ------------------------------------------------------------------------------------------


class HttpReceiver:
    batch_bytes = HTTP_BYTES
    batch_seconds = HTTP_SECONDS

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._url = url
        self._headers = {
            "User-Agent": f"nextdeploy/{__version__}",
            **headers,
            "Content-Type": "application/x-ndjson",
            "Connection": "close",
        }
        self._encoder = msgspec.json.Encoder()

    def encode(self, record: LogRecord) -> bytes:
        return self._encoder.encode(record) + b"\n"

    def deliver(self, rows: Sequence[bytes]) -> None:
        try:
            status, after = self._post(b"".join(rows))
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            late = isinstance(error, requests.exceptions.Timeout)
            default = "it does not answer in time" if late else "the connection broke before it answered"
            raise Failed(words_of(error, default)) from error
        _judge(status, after)

    def _post(self, body: bytes) -> tuple[int, str]:
        # a session each: a connection that was answered on may be closed by now
        with requests.Session() as session:
            session.trust_env = False  # no passwords from ~/.netrc
            with session.post(
                self._url,
                # a file is sent in pieces, each with a time limit of its own
                data=io.BytesIO(body),
                headers=self._headers,
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                allow_redirects=False,
                stream=True,
                proxies=requests.utils.get_environ_proxies(self._url),
                verify=os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or True,
            ) as response:
                return response.status_code, response.headers.get("Retry-After", "")

    def close(self) -> None:
        pass


def _judge(status: int, after: str) -> None:
    """``Failed`` unless it took them."""
    if 200 <= status < 300:
        return
    seconds = float(after) if after.isascii() and after.isdigit() else 0.0
    if status == 413:
        raise TooLarge("it refuses so much at once (413)", slow=True)
    if status in (408, 425, 429) or status >= 500:
        raise Failed(f"it answers {status}", after=seconds)
    if status in (401, 403):
        raise Failed(f"it refuses us ({status}): see its `headers` in the configuration", slow=True)
    if 300 <= status < 400:
        raise Failed(f"it sends us elsewhere ({status}), where we do not go: give the right URL", slow=True)
    raise Failed(f"it refuses the records ({status})", slow=True)
