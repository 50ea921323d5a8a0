"""What every stage of a client's connection shares: its state, and the ways it goes on or ends."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from . import http1
from .answers import answer
from .exchange import Exchange
from .services import ServiceState
from .stream import CLOSED as STREAM_CLOSED
from .stream import Stream
from .upstream import Upstream

if TYPE_CHECKING:
    from .worker import Worker

HEAD, HOLDING, WAITING, ANSWERING, TUNNEL, LINGER, GONE = range(7)
STATES = ("head", "holding", "waiting", "answering", "tunnel", "linger", "gone")
TRANSITIONS = {
    HEAD: {HOLDING, WAITING, LINGER, GONE},
    HOLDING: {WAITING, HEAD, LINGER, GONE},
    WAITING: {ANSWERING, HOLDING, WAITING, TUNNEL, HEAD, LINGER, GONE},
    ANSWERING: {HEAD, LINGER, GONE},
    TUNNEL: {GONE},
    LINGER: {GONE},
    GONE: set(),
}
"""head → (holding ⇄ waiting) → answering → head; an upgrade makes it a tunnel; linger reads what still comes before
the end, so that the answer is not lost to a reset (RFC 9112 9.6)."""

LINGER_SECONDS = 2.0
RETRY_SECONDS = 0.2
PIPELINE_BYTES = 64 * 1024
STALL_SECONDS = 60.0
"""A client that takes nothing for so long, while an answer waits, is given up."""
MAX_ANSWER_HEAD = 64 * 1024
CLIENT_LEFT = 499
"""Counted, never sent: the client went before it had an answer (the number is nginx's)."""


class Connection(Stream):
    __slots__ = ("_address", "_buffer", "_exchange", "_forwarded", "_since", "_step", "_trusted", "_upstream")

    def __init__(self, worker: Worker, sock: socket.socket, address: str) -> None:
        super().__init__(worker, sock)
        self._address = address
        self._buffer = b""
        self._exchange: Exchange | None = None
        self._upstream: Upstream | None = None
        self._step = HEAD
        self._since = worker.now()
        self._trusted = worker.knowledge.trusts(address)
        self._forwarded = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: http\r\n" % address.encode()
        self.start_reading()

    def _go(self, step: int) -> None:
        if step not in TRANSITIONS[self._step]:
            raise AssertionError(f"a connection cannot go from {STATES[self._step]} to {STATES[step]}")
        self._step = step

    def _read_head(self) -> None:
        """Take the next request out of what has come."""

    def release(self) -> None:
        """Called when it left its service's queue because a container is there."""

    def _next(self) -> None:
        """Ready for the next request of this client."""
        if self._step != HEAD:
            self._go(HEAD)
        self._since = self.worker.now()
        if self.eof and not self._buffer:
            self._linger()
            return
        self.resume()
        if self._buffer:
            # in the next turn of the loop: a client that pipelines must not starve the others
            self.worker.soon(self._pipelined)

    def _pipelined(self) -> None:
        if self._step == HEAD and self.state != STREAM_CLOSED and self._buffer:
            self._read_head()

    def _refuse(self, refused: http1.Refused) -> None:
        code = "too_large" if refused.status in (413, 431) else "bad_request"
        _, data = answer(code, status=refused.status, words=refused.words, close=True)
        self.worker.count_error(code)
        self.send(data)
        self._linger()

    def _leave_queue(self, service: ServiceState) -> None:
        if self in service.held:
            service.held.remove(self)

    # -- the end -----------------------------------------------------------------------------------

    def _fail(self, code: str, words: str = "") -> None:
        """The request gets no answer from a container: answer it here."""
        exchange = self._exchange
        assert exchange is not None
        if exchange.answer_begun:
            self.abort()
            return
        request = exchange.request
        close = exchange.close_client or not exchange.request_done or self.worker.stopping
        status, data = answer(
            code,
            accept=request.accept,
            request_id=exchange.id,
            words=words,
            close=close,
            body=request.method != b"HEAD",
            http11=request.http11,
        )
        seconds = self.worker.now() - exchange.started
        exchange.service.count(request.method, status, seconds, exchange.body_in, len(data))
        self.worker.count_error(code)
        self._exchange = None
        self.send(data)
        if close:
            self._linger()
        else:
            self._next()

    def _release_backend(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.backend is not None:
            exchange.backend.in_flight -= 1
            exchange.backend = None

    def _drop_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        self._release_backend()
        if upstream is not None:
            upstream.user = None
            upstream.close()

    def _linger(self) -> None:
        if self.state == STREAM_CLOSED:
            return
        self._go(LINGER)
        self._since = self.worker.now()
        self._buffer = b""
        if self.eof and not self.pending_bytes:
            self.abort()
            return
        self.half_close()
        self.resume()

    def abort(self) -> None:
        """Close this side and the other, at once."""
        if self._step == GONE:
            return
        exchange = self._exchange
        if exchange is not None:
            self._leave_queue(exchange.service)
            status = exchange.answer.status if exchange.answer is not None else CLIENT_LEFT
            seconds = self.worker.now() - exchange.started
            exchange.service.count(exchange.request.method, status, seconds, exchange.body_in, exchange.bytes_out)
        self._drop_upstream()
        self._exchange = None
        self._step = GONE
        self.close()

    on_fault = abort
