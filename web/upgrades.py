"""WebSocket routes and the handshake. A view opens what is needed, so that its errors are still HTTP answers, and returns
who serves the socket. Under gunicorn the connection is passed on to the daemon (``web/relay.py``)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import socket as sockets
from collections.abc import Callable, Iterable
from functools import partial, wraps
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import gevent
from flask import Blueprint, Response, current_app, request
from geventwebsocket.exceptions import WebSocketError

from ndactors.core.websocket import FAULT, GOING_AWAY, REFUSED
from ndactors.errors import Forbidden

from .problems import problem
from .sockets import STALL_SECONDS, Socket, shut

if TYPE_CHECKING:
    from .auth import Guard

log = logging.getLogger("ndactors.web")

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SUBPROTOCOL = "nextdeploy"
BEARER = "bearer."
STANDING_SECONDS = 5.0
"""Between two looks whether whoever opened a connection may still have it."""
LETS_GO = ("nextdeploy.hand_over", "gunicorn.socket")
"""What servers that let a connection go put into the environment."""

Serve = Callable[[Socket], None]


def route(
    api: Blueprint, guard: Guard, path: str, role: str, *, limited: bool = False, **limits: Any
) -> Callable[[Any], Any]:
    """A WebSocket route for those with ``role`` or more. The view opens what is needed and returns who serves the socket:
    its errors are still HTTP answers. ``limits`` are of ``Socket``. An app in the path is checked against who asks;
    ``limited``: the view looks after the limits of tokens itself."""

    def decorate(view: Callable[..., Serve]) -> Any:
        @wraps(view)
        def upgraded(**parts: str) -> Response:
            identity = guard.require(role, limited=limited)
            if "app" in parts:
                guard.app(parts["app"])
            refusal = _refusal()
            if refusal is not None:
                return refusal
            still = guard.standing()
            relay = current_app.extensions.get("nextdeploy.relay")
            if relay is not None:
                answer = relay(identity)
                return answer if isinstance(answer, Response) else Upgrade(partial(_pass_on, answer, still))
            return Upgrade(partial(_serve, view(**parts), limits, still))

        @wraps(view)
        def plain(**parts: str) -> Response:
            guard.require(role, limited=limited)
            return _required("This is a WebSocket.")

        upgraded.needs_role = role  # type: ignore[attr-defined]
        api.add_url_rule(path, f"{view.__name__}_ws", upgraded, methods=["GET"], websocket=True)
        api.add_url_rule(path, view.__name__, plain, methods=["GET"])
        return view

    return decorate


class Upgrade(Response):
    """Takes the connection out of the server's hands, answers the handshake, and lets ``serve`` have it. A client that
    sends before it has the answer breaks the protocol; what it sent is lost."""

    def __init__(self, serve: Callable[[sockets.socket], None]) -> None:
        super().__init__(status=101)
        self._serve = serve
        self._head = _head(request.headers["Sec-WebSocket-Key"], _chosen(_offered()))

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        sock = _connection(environ)
        try:
            sock.settimeout(STALL_SECONDS)
            _prepare(sock)
            sock.sendall(self._head)
        except OSError as error:
            log.debug("a WebSocket's peer is gone: %s", error)
            shut(sock)  # whoever serves it sees its end, and ends what was opened for it
        try:
            self._serve(sock)
        finally:
            shut(sock)
        if "gunicorn.socket" in environ:
            raise StopIteration  # how gunicorn is told that the connection is over
        return []


def _serve(serve: Serve, limits: dict[str, Any], still: Callable[[], bool], sock: sockets.socket) -> None:
    socket = Socket(sock, **limits)
    words = "whoever opened this may not have it any more"
    watch = gevent.spawn(_watch, still, lambda: socket.close(REFUSED, words, within=1.0, flush=1.0))
    try:
        serve(socket)
    except gevent.GreenletExit:
        socket.close(GOING_AWAY, "the daemon stops", within=0.0, flush=0.3)
        raise
    except WebSocketError as error:
        log.debug("a WebSocket's peer is gone: %s", error)
    except Exception:
        log.exception("a WebSocket failed")
        socket.close(FAULT, "this is a fault of the daemon; its log says more")
    finally:
        watch.kill()
        socket.finish()


def _pass_on(serve: Callable[[sockets.socket], None], still: Callable[[], bool], sock: sockets.socket) -> None:
    watch = gevent.spawn(_watch, still, lambda: shut(sock))
    try:
        serve(sock)
    finally:
        watch.kill()


def _watch(still: Callable[[], bool], end: Callable[[], None]) -> None:
    """``end`` what is open once it is not to be any more."""
    while still():
        gevent.sleep(STANDING_SECONDS)
    end()


def _connection(environ: dict[str, Any]) -> sockets.socket:
    """The bare connection, out of the server's hands."""
    hand_over = environ.get("nextdeploy.hand_over")
    sock: sockets.socket = hand_over() if hand_over is not None else environ["gunicorn.socket"]
    return sock


def _prepare(sock: sockets.socket) -> None:
    if sock.family in (sockets.AF_INET, sockets.AF_INET6):
        sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        sock.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)


# -- the handshake ---------------------------------------------------------------------------------


def is_asked_for() -> bool:
    """The current request wants to become a WebSocket."""
    words = [word.strip() for word in request.headers.get("Connection", "").lower().split(",")]
    return request.headers.get("Upgrade", "").lower() == "websocket" and "upgrade" in words


def check_origin(allowed: tuple[str, ...]) -> None:
    """``Forbidden`` if a page of somebody else opens it: a browser adds cookies and passwords by itself, and lets any page
    open a WebSocket to anywhere."""
    origin = request.headers.get("Origin")
    if origin is None or origin.lower() in {other.rstrip("/").lower() for other in allowed}:
        return
    if urlsplit(origin).netloc.lower() != request.host.lower():
        raise Forbidden(
            "This WebSocket is opened by a page of another site; `admin.allowed_origins` names those that may."
        )


def offered_token() -> str | None:
    """A browser cannot set ``Authorization`` on a WebSocket: it offers the subprotocol ``bearer.<token>``."""
    return next((word[len(BEARER) :] for word in _offered() if word.startswith(BEARER)), None)


def _offered() -> list[str]:
    text = request.headers.get("Sec-WebSocket-Protocol", "")
    return [word.strip() for word in text.split(",") if word.strip()]


def _chosen(offered: list[str]) -> str | None:
    """A browser takes no answer that chooses none of what it offered: ours if it is there, else the one with the token."""
    if SUBPROTOCOL in offered:
        return SUBPROTOCOL
    return next((word for word in offered if word.startswith(BEARER)), None)


def _refusal() -> Response | None:
    """Why the handshake is none, as an answer."""
    headers = request.headers
    if request.method != "GET" or request.environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
        return problem(400, "Bad request", "A WebSocket begins with GET and HTTP/1.1.")
    if headers.get("Sec-WebSocket-Version", "").strip() != "13":
        return _required("The WebSocket version must be 13.")
    try:
        key = base64.b64decode(headers.get("Sec-WebSocket-Key", ""), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        return problem(400, "Bad request", "Sec-WebSocket-Key must be 16 bytes in Base64.")
    if not any(name in request.environ for name in LETS_GO):
        return problem(501, "Not implemented", "This server lets no connection go.")
    return None


def _required(words: str) -> Response:
    response = problem(426, "Upgrade required", words)
    response.headers.update({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"})
    return response


def _head(key: str, subprotocol: str | None) -> bytes:
    accept = base64.b64encode(
        hashlib.sha1(key.strip().encode() + GUID.encode(), usedforsecurity=False).digest()
    ).decode()
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    lines.append(f"Sec-WebSocket-Accept: {accept}")
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
