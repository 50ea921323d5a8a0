"""Plain sockets to the Engine, for what the docker SDK cannot do: connections that change their protocol, and uploads
that end when we want it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from ..errors import EngineError, EngineUnreachable

MAX_HEAD = 64 * 1024
CONNECT_SECONDS = 10.0


def connect(base_url: str) -> socket.socket:
    """``unix://``, ``tcp://`` or ``http://``."""
    parts = urlsplit(base_url)
    try:
        if parts.scheme in ("unix", "http+unix"):
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                made.settimeout(CONNECT_SECONDS)
                made.connect(parts.path or parts.netloc)
            except BaseException:
                made.close()
                raise
            return made
        if parts.scheme in ("tcp", "http") and parts.hostname:
            return socket.create_connection((parts.hostname, parts.port or 2375), CONNECT_SECONDS)
    except OSError as error:
        raise EngineUnreachable(f"the Docker Engine does not answer: {error}") from error
    raise EngineError(f"images cannot be built on an Engine at {parts.scheme}://, only at unix:// or tcp://")


def upgrade(
    base_url: str, path: str, protocol: str, headers: Iterable[tuple[str, str]] = ()
) -> tuple[socket.socket, bytes] | None:
    """A connection that speaks ``protocol`` from now on, and what came of it already; None if this Engine does not
    offer that."""
    made = connect(base_url)
    try:
        lines = [f"POST {path} HTTP/1.1", "Host: docker", "Connection: Upgrade", f"Upgrade: {protocol}"]
        lines += [f"{name}: {value}" for name, value in headers]
        made.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = made.recv(4096)
            if not data or len(head) > MAX_HEAD:
                raise EngineUnreachable("the Docker Engine ended the connection")
            head += data
        head, _, early = head.partition(b"\r\n\r\n")
        if head.split(b" ", 2)[1:2] != [b"101"]:
            made.close()
            return None
        made.settimeout(None)
    except OSError as error:
        made.close()
        raise EngineUnreachable(f"the Docker Engine does not answer: {error}") from error
    except BaseException:
        made.close()
        raise
    return made, early


class EngineConnection(http.client.HTTPConnection):
    """One HTTP connection to the Engine. ``sock.settimeout`` bounds every wait; ``close`` ends what it does for us."""

    def __init__(self, base_url: str) -> None:
        super().__init__("docker")
        self._base_url = base_url

    def connect(self) -> None:
        self.sock = connect(self._base_url)
