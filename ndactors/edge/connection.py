"""What every stage of a client's connection shares: its state, and the ways it goes on or ends."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from . import http1
from .answers import answer
from .exchange import Exchange
from .gate import Places
from .services import ServiceState
from .stream import CLOSED as STREAM_CLOSED
from .stream import Stream
from .upstream import BackendState, Upstream

if TYPE_CHECKING:
    from .worker import Worker

HEAD, ASKING, HOLDING, WAITING, ANSWERING, TUNNEL, LINGER, GONE = range(8)
STATES = ("head", "asking", "holding", "waiting", "answering", "tunnel", "linger", "gone")
TRANSITIONS = {
    HEAD: {ASKING, HOLDING, WAITING, LINGER, GONE},
    ASKING: {HOLDING, WAITING, HEAD, LINGER, GONE},
    HOLDING: {WAITING, HEAD, LINGER, GONE},
    WAITING: {ANSWERING, HOLDING, WAITING, TUNNEL, HEAD, LINGER, GONE},
    ANSWERING: {HEAD, LINGER, GONE},
    TUNNEL: {GONE},
    LINGER: {GONE},
    GONE: set(),
}
"""head → (asking) → (holding ⇄ waiting) → answering → head. Asking: a limit or a password keeps the request for a
moment; holding: no container can take it yet. An upgrade makes it a tunnel; linger reads what still comes before the
end, so that the answer is not lost to a reset (RFC 9112 9.6)."""

LINGER_SECONDS = 2.0
RETRY_SECONDS = 0.2
PIPELINE_BYTES = 64 * 1024
STALL_SECONDS = 60.0
"""A client that takes nothing for so long, while an answer waits, is given up."""
MAX_ANSWER_HEAD = 64 * 1024
CLIENT_LEFT = 499
"""Counted, never sent: the client went before it had an answer (the number is nginx's)."""
END_OF_HEAD = b"\r\n\r\n"


class Connection(Stream):
    __slots__ = (
        "_address",
        "_buffer",
        "_country",
        "_exchange",
        "_forwarded",
        "_places",
        "_since",
        "_step",
        "_trusted",
        "_upstream",
    )

    def __init__(self, worker: Worker, sock: socket.socket, address: str) -> None:
        super().__init__(worker, sock)
        self._address = address
        self._buffer = b""
        self._exchange: Exchange | None = None
        self._upstream: Upstream | None = None
        self._step = HEAD
        self._since = worker.now()
        self._trusted = worker.knowledge.trusts(address)
        self._country = worker.country(address)
        self._forwarded = forwarded_fields(address, self._country)
        self._places: Places = {}
        self.start_reading()

    def _go(self, step: int) -> None:
        if step not in TRANSITIONS[self._step]:
            raise AssertionError(f"a connection cannot go from {STATES[self._step]} to {STATES[step]}")
        self._step = step

    def _read_head(self) -> None:
        """Take the next request out of what has come."""

    def release(self) -> None:
        """Called when it left its service's queue because a container is there."""

    def leave_suspect(self, backend: BackendState) -> None:
        """Called when the container seems to hang."""

    def backend_left(self) -> None:
        """Called when the container is no longer in the snapshot."""

    def wait_no_longer(self, now: float) -> None:
        """Called some ten times a second while the container owes the first byte."""

    def hold_no_longer(self, now: float) -> None:
        """Called some five times a second while it is held."""

    def _next(self) -> None:
        """Ready for the next request of this client."""
        if self._step != HEAD:
            self._go(HEAD)
        self._since = self.worker.now()
        self.bulk = False
        if self.eof and not self._buffer:
            self._linger()
            return
        if self.paused:
            self.resume()
        if self._buffer:
            # in the next turn of the loop: a client that pipelines must not starve the others
            self.worker.soon(self._pipelined)

    def _pipelined(self) -> None:
        if self._step == HEAD and self.state != STREAM_CLOSED and self._buffer:
            self._read_head()

    def _refuse(self, refused: http1.Refused) -> None:
        """What came is no request that can be passed on."""
        code = "too_large" if refused.status in (413, 431) else "bad_request"
        id = self.worker.new_id()
        _, data = answer(code, status=refused.status, words=refused.words, close=True, request_id=id)
        self.worker.count_error(code)
        exchange = self._exchange
        if exchange is None:
            now = self.worker.now()
            exchange = Exchange(
                self.worker.unread, self.worker.knowledge.nobody, id, self._address, self._country, self._since
            )
            exchange.bytes_in = len(self._buffer)
            exchange.started = min(self._since, now)
        exchange.bytes_out += len(data)
        self._exchange = None
        self._settle(exchange, refused.status, code)
        self.send(data)
        self._linger()

    def _leave_queue(self, service: ServiceState) -> None:
        if self in service.held:
            service.held.remove(self)

    # -- the end of an exchange --------------------------------------------------------------------

    def _settle(self, exchange: Exchange, status: int, error: str = "") -> None:
        """It is over: it will be counted and remembered."""
        exchange.status = status
        exchange.error = error
        exchange.ended = self.worker.now()
        exchange.hold_no_longer(exchange.ended)
        self.worker.done.append(exchange)

    def _fail(self, code: str, words: str = "", fields: bytes = b"") -> None:
        """The request gets no answer from a container: answer it here, with these fields besides the usual ones."""
        exchange = self._exchange
        assert exchange is not None
        if exchange.answer_begun:
            exchange.error = code
            self.abort()
            return
        request = exchange.plan.request
        close = exchange.close_client or not exchange.request_done or self.worker.stopping
        status, data = answer(
            code,
            accept=request.accept,
            request_id=exchange.id,
            words=words,
            close=close,
            body=request.method != b"HEAD",
            http11=request.http11,
            fields=fields,
            pages=exchange.service.settings.error_pages,
        )
        exchange.bytes_out += len(data)
        if status >= 400:
            self.worker.count_error(code)
        self._exchange = None
        self._settle(exchange, status, code if status >= 400 else "")
        self.send(data)
        if close:
            self._linger()
        else:
            self._next()

    def _release_backend(self) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.backend is not None:
            exchange.backend.in_flight -= 1
            if self._step == TUNNEL:
                exchange.backend.tunnels -= 1
            exchange.backend.waiting.pop(self, None)
            exchange.backend = None

    def _blame_backend(self) -> None:
        """What its app sent was no answer, or half of one."""
        if self._exchange is not None and self._exchange.backend is not None:
            self._exchange.backend.failed(self.worker.now())

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
        self.bulk = False
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
            status = exchange.reply.status if exchange.reply is not None else CLIENT_LEFT
            error = exchange.error or ("" if self._step == TUNNEL else "client_left")
        self._drop_upstream()
        if exchange is not None:
            self._settle(exchange, status, error)
        self._exchange = None
        self._step = GONE
        self.close()

    def cut_off(self, error: str) -> None:
        """``abort``, and it is not the client that left. A tunnel has no end of its own that it could miss."""
        if self._exchange is not None and self._step != TUNNEL:
            self._exchange.error = self._exchange.error or error
        self.abort()

    def on_fault(self) -> None:
        self.cut_off("edge_fault")


def forwarded_fields(address: str, country: str) -> bytes:
    """What every request of this client tells the app about where it came from."""
    country_field = f"X-Country: {country}\r\n" if country else ""
    return f"X-Forwarded-For: {address}\r\nX-Forwarded-Proto: http\r\n{country_field}X-Request-Id: ".encode()
