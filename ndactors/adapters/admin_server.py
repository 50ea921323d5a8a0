"""The API on an address. It listens at once; what speaks HTTP is loaded with the first connection."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING, Any

from gevent.server import StreamServer

if TYPE_CHECKING:
    from gevent.pywsgi import WSGIServer

log = logging.getLogger("ndactors.admin")

CONNECTIONS = 200
"""At once; others wait."""


class HttpListener(StreamServer):  # type: ignore[misc]
    """``listener``: a socket, or host and port to listen on."""

    def __init__(self, listener: socket.socket | tuple[str, int], app: Any) -> None:
        super().__init__(listener, spawn=CONNECTIONS)
        self._app = app
        self._http: WSGIServer | None = None

    def handle(self, sock: socket.socket, address: Any) -> None:
        """One connection, in its greenlet."""
        if self._http is None:
            from .http_server import http_server

            self._http = http_server(self.address, self._app)
        self._http.handle(sock, address)


class AdminServer:
    """``listen`` is ``host:port`` or ``:port``; port 0 takes a free one, told by ``address``."""

    def __init__(self, listen: str, app: Any) -> None:
        host, _, port = listen.rpartition(":")
        self._server = HttpListener((host.strip("[]"), int(port)), app)

    @property
    def address(self) -> str:
        host = self._server.server_host
        return f"[{host}]:{self._server.server_port}" if ":" in host else f"{host}:{self._server.server_port}"

    def start(self) -> None:
        self._server.start()
        log.info("the API listens on %s", self.address)

    def stop(self) -> None:
        self._server.stop(timeout=1.0)
