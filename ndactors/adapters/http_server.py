"""gevent's WSGI server, made to answer quickly, to log quietly, and to let nobody hang on."""

from __future__ import annotations

import logging
import socket
from typing import Any

import gevent
from gevent.pywsgi import WSGIHandler, WSGIServer

from ..core.masking import mask_words

log = logging.getLogger("ndactors.admin")

REQUEST_SECONDS = 30.0
"""A request that has not come whole by then is given up."""
REST_SECONDS = 2.0
"""So long the rest of a body that was refused is read."""


class Handler(WSGIHandler):  # type: ignore[misc]
    """One connection. TCP_NODELAY: without it every small answer on a kept connection waits 40 ms."""

    def handle(self) -> None:
        if self.socket.family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().handle()

    def run_application(self) -> None:
        try:
            super().run_application()
        finally:
            self._drop_rest()

    def _drop_rest(self) -> None:
        """What nobody wanted of the body: read for a moment, so that the sender gets to see its answer, then the
        connection ends. Without a limit a refused sender could hold it for ever."""
        body = self.wsgi_input
        try:
            with gevent.Timeout(REST_SECONDS, False):
                body._discard()
                return
        except OSError as error:
            log.debug("%s: %s", mask_words(self.requestline or ""), error)
        body.content_length, body.chunked_input = body.position, False
        self.close_connection = True

    def read_requestline(self) -> Any:
        self.socket.settimeout(REQUEST_SECONDS)
        return super().read_requestline()

    def log_request(self) -> None:
        # the address of a hook has its token in it
        log.debug("%s %s", mask_words(self.requestline or ""), self.status)

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ["nextdeploy.local"] = self.socket.family == socket.AF_UNIX
        environ["nextdeploy.hand_over"] = self._hand_over
        return environ

    def _hand_over(self) -> socket.socket:
        """The bare connection, for a WebSocket: no further request is read from it."""
        self.close_connection = True
        sock: socket.socket = self.socket
        return sock


def http_server(address: Any, app: Any) -> WSGIServer:
    """Its ``handle`` serves a connection that was accepted at this address; it listens nowhere itself."""
    named = {"SERVER_NAME": address[0]} if isinstance(address, tuple) else {}  # else its name is looked up
    server = WSGIServer(("", 0), app, handler_class=Handler, log=None, error_log=log, environ=named)
    server.address = address
    server.update_environ()
    return server
