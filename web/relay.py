"""WebSockets of a process that cannot reach containers itself: who asks is judged here, then the connection is passed on,
byte by byte, to the same route on the daemon's control socket."""

from __future__ import annotations

import http.client
import json
import socket as sockets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import gevent
from flask import Response, request

from ndactors.errors import ActorStopped
from ndactors.runtime.link import connect_unix

from .sockets import CLOSE_SECONDS, READ_BYTES, shut

if TYPE_CHECKING:
    from .auth import Identity

ANSWER_SECONDS = 60.0
MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 1024 * 1024
IDENTITY = "X-NextDeploy-Identity"
"""Who asks, told on the control socket, where whoever can connect may do everything anyway."""


class Relay:
    """``path`` is the control socket's."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, identity: Identity) -> Response | Callable[[sockets.socket], None]:
        """The daemon's answer if it refuses, else who serves the connection. ``ActorStopped`` if it is away."""
        try:
            sock = connect_unix(self._path)
            sock.settimeout(ANSWER_SECONDS)
            sock.sendall(_head(identity))
            return _answer(sock)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ActorStopped(f"the daemon does not answer on {self._path}: {error}") from error


def _head(identity: Identity) -> bytes:
    """The current request, as it is asked on the control socket."""
    target = quote(request.path) + (
        "?" + quote(request.query_string, safe="=&%+;:@!$'()*,/?~") if request.query_string else ""
    )
    lines = [f"GET {target} HTTP/1.1", "Host: local", "Connection: Upgrade", "Upgrade: websocket"]
    lines += [f"{name}: {request.headers[name].strip()}" for name in ("Sec-WebSocket-Version", "Sec-WebSocket-Key")]
    lines.append(f"{IDENTITY}: {json.dumps(identity._asdict())}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _answer(sock: sockets.socket) -> Response | Callable[[sockets.socket], None]:
    received = b""
    while b"\r\n\r\n" not in received:
        data = sock.recv(READ_BYTES)
        received += data
        if not data or len(received) > MAX_HEAD_BYTES:
            raise ValueError("its answer has no end")
    head, _, rest = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split(" ")[1])
    if status == 101:
        return partial(_join, sock, rest)
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    length = int(fields.get("content-length", "0"))
    if not 0 <= length <= MAX_BODY_BYTES:
        raise ValueError("its answer is too long")
    while len(rest) < length and (data := sock.recv(READ_BYTES)):
        rest += data
    sock.close()
    return Response(rest[:length], status, content_type=fields.get("content-type", "application/problem+json"))


def _join(daemon: sockets.socket, first: bytes, client: sockets.socket) -> None:
    """Until one side has ended, and for a moment more, so that its last words arrive."""
    for sock in (daemon, client):
        sock.settimeout(None)
    copies = [gevent.spawn(_copy, daemon, client, first), gevent.spawn(_copy, client, daemon, b"")]
    try:
        gevent.wait(copies, count=1)
        gevent.wait(copies, CLOSE_SECONDS)
    finally:
        gevent.killall(copies)
        shut(daemon)
        daemon.close()


def _copy(source: sockets.socket, target: sockets.socket, first: bytes) -> None:
    data = first
    try:
        while True:
            if data:
                target.sendall(data)
            data = source.recv(READ_BYTES)
            if not data:
                target.shutdown(sockets.SHUT_WR)
                return
            gevent.sleep(0)
    except OSError:
        shut(source)  # a broken side is the end of both
        shut(target)
