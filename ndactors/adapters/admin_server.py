"""The API on an address, by gevent's WSGI server: made to answer quickly, to log quietly, and to let nobody hang on."""

from __future__ import annotations

import logging
import socket
from typing import Any

from gevent.pywsgi import WSGIHandler, WSGIServer

log = logging.getLogger("ndactors.admin")

REQUEST_SECONDS = 30.0
"""A request that has not come whole by then is given up."""


class Handler(WSGIHandler):  # type: ignore[misc]
    """One connection. TCP_NODELAY: without it every small answer on a kept connection waits 40 ms."""

    def handle(self) -> None:
        if self.socket.family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle()

    def read_requestline(self) -> Any:
        self.socket.settimeout(REQUEST_SECONDS)
        return super().read_requestline()

    def log_request(self) -> None:
        log.debug("%s %s", self.requestline, self.status)

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ["nextdeploy.local"] = self.socket.family == socket.AF_UNIX
        return environ


class AdminServer:
    """``listen`` is ``host:port`` or ``:port``; port 0 takes a free one, told by ``address``."""

    def __init__(self, listen: str, app: Any) -> None:
        host, _, port = listen.rpartition(":")
        self._server = WSGIServer(
            (host.strip("[]"), int(port)), app, handler_class=Handler, log=None, error_log=log, spawn=200
        )

    @property
    def address(self) -> str:
        host = self._server.server_host
        return f"[{host}]:{self._server.server_port}" if ":" in host else f"{host}:{self._server.server_port}"

    def start(self) -> None:
        self._server.start()
        log.info("the API listens on %s", self.address)

    def stop(self) -> None:
        self._server.stop(timeout=1.0)
