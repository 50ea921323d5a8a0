"""One client's connection: reads requests, sends them to containers, passes the answers back, one after the other."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..core.balancing import choose
from ..core.routing import normal_host
from . import http1
from .answers import answer
from .exchange import LAST_CHUNK, Exchange, chunk
from .services import ServiceState
from .stream import CLOSED as STREAM_CLOSED
from .stream import HIGH_WATER, Stream
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


class Client(Stream):
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

    # -- from the client ---------------------------------------------------------------------------

    def on_data(self, data: bytes) -> None:
        step = self._step
        if step == HEAD:
            if self._buffer:
                self._buffer += data
            else:
                self._buffer = data
                self._since = self.worker.now()
            self._read_head()
        elif step == TUNNEL:
            if self._upstream is not None:
                if self._exchange is not None:
                    self._exchange.body_in += len(data)
                if not self._upstream.send(data):
                    self.pause()
        elif step == LINGER:
            return
        elif self._exchange is not None and not self._exchange.request_done:
            self._take_body(data)
        else:
            # a pipelined request: it waits for its turn
            self._buffer += data
            if len(self._buffer) > PIPELINE_BYTES:
                self.pause()

    def on_end(self, error: str) -> None:
        if self._step == TUNNEL and not error and self._upstream is not None:
            self._upstream.half_close()
            if self._upstream.eof:
                self.abort()
            return
        waiting = self._step in (HOLDING, WAITING, ANSWERING)
        if waiting and not error and self._exchange is not None and self._exchange.request_done:
            # a client that half-closes may still want the answer
            self._exchange.close_client = True
            return
        self.abort()

    def _read_head(self) -> None:
        try:
            while self._buffer.startswith(b"\r\n"):
                self._buffer = self._buffer[2:]  # RFC 9112 2.2
            end = http1.find_head(self._buffer, self.worker.knowledge.snapshot.limits.header_bytes)
            if end < 0:
                return
            head, self._buffer = self._buffer[:end], self._buffer[end:]
            self._begin(http1.parse_request(head), end)
        except http1.Refused as refused:
            self._refuse(refused)

    def _refuse(self, refused: http1.Refused) -> None:
        code = "too_large" if refused.status in (413, 431) else "bad_request"
        _, data = answer(code, status=refused.status, words=refused.words, close=True)
        self.worker.count_error(code)
        self.send(data)
        self._linger()

    # -- a request begins --------------------------------------------------------------------------

    def _begin(self, request: http1.Request, size: int) -> None:
        worker = self.worker
        knowledge = worker.knowledge
        id = request.request_id if self._trusted and worker.good_id(request.request_id) else worker.new_id()
        match = knowledge.table.find(normal_host(request.host), request.path)
        if match is None:
            self._answer_alone("no_route", request, id)
            return
        limit = knowledge.snapshot.limits.body_bytes
        if limit and request.length > limit:
            self._answer_alone("too_large", request, id)
            return
        target = request.target
        if match.prefix:
            target = target[len(match.prefix) :]
            if not target.startswith(b"/"):
                target = b"/" + target
        now = worker.now()
        head = self._upstream_head(request, target, id)
        exchange = self._exchange = Exchange(request, match.target, head, id, now)
        exchange.body_in = size
        if not exchange.request_done and self._buffer:
            rest, self._buffer = self._buffer, b""
            self._take_body(rest)
            if self._exchange is not exchange:
                return
        self._dispatch()

    def _upstream_head(self, request: http1.Request, target: bytes, id: bytes) -> bytes:
        """The request anew, from what was understood of it."""
        parts = [request.method, b" ", target, b" HTTP/1.1\r\nHost: ", request.host or b"localhost", b"\r\n"]
        parts += request.fields
        if request.body == http1.LENGTH:
            parts.append(b"Content-Length: %d\r\n" % request.length)
        elif request.body == http1.CHUNKED:
            parts.append(b"Transfer-Encoding: chunked\r\n")
        elif request.method in (b"POST", b"PUT", b"PATCH"):
            parts.append(b"Content-Length: 0\r\n")
        if request.expect:
            parts.append(b"Expect: 100-continue\r\n")
        if request.upgrade:
            parts += (b"Connection: Upgrade\r\nUpgrade: ", request.upgrade, b"\r\n")
        if request.forwarded and self._trusted:
            parts += self._trusted_forwarded(request.forwarded, request.host)
        else:
            parts += (self._forwarded, b"X-Forwarded-Host: ", request.host, b"\r\n")
        parts += (b"X-Request-Id: ", id, b"\r\n\r\n")
        return b"".join(parts)

    def _trusted_forwarded(self, fields: list[tuple[bytes, bytes]], host: bytes) -> Iterator[bytes]:
        told = dict(fields)
        hops = [value for name, value in fields if name == b"x-forwarded-for"]
        yield b"X-Forwarded-For: %b\r\n" % b", ".join([*hops, self._address.encode()])
        yield b"X-Forwarded-Proto: %b\r\n" % told.get(b"x-forwarded-proto", b"http")
        yield b"X-Forwarded-Host: %b\r\n" % told.get(b"x-forwarded-host", host)

    def _answer_alone(self, code: str, request: http1.Request, id: bytes) -> None:
        """Answer a request that goes to no container."""
        close = not request.keep_alive or request.body != http1.NONE or self.worker.stopping
        _, data = answer(
            code,
            accept=request.accept,
            request_id=id,
            close=close,
            body=request.method != b"HEAD",
            http11=request.http11,
        )
        self.worker.count_error(code)
        self.send(data)
        if close:
            self._linger()
        else:
            self._next()

    def _take_body(self, data: bytes) -> None:
        """Some of the request's body came: pass it on as it comes."""
        exchange = self._exchange
        assert exchange is not None
        exchange.body_in += len(data)
        try:
            if exchange.reader is None:
                part = data[: exchange.left] if len(data) > exchange.left else data
                exchange.left -= len(part)
                if exchange.left == 0:
                    exchange.request_done = True
                    self._buffer = data[len(part) :]
                out = part
            else:
                out = b"".join(map(chunk, exchange.reader.feed(data)))
                if exchange.reader.done:
                    exchange.request_done = True
                    self._buffer = exchange.reader.rest
                    out += LAST_CHUNK
            limit = self.worker.knowledge.snapshot.limits.body_bytes
            if limit and exchange.body_in - len(exchange.head) > limit + PIPELINE_BYTES:
                raise http1.Refused(413, f"the body is longer than {limit} bytes")
        except http1.Refused as refused:
            self._drop_upstream()
            if exchange.answer_begun:
                self.abort()
            else:
                self._exchange = None
                self._refuse(refused)
            return
        exchange.keep(out)
        upstream = self._upstream
        if upstream is None:
            # held: what is kept for another try is all that is read
            if exchange.replay is None or exchange.replay_size > PIPELINE_BYTES // 2:
                self.pause()
            return
        exchange.deadline = self.worker.now() + exchange.service.settings.response_timeout
        if not upstream.send(out):
            self.pause()

    # -- to a container ----------------------------------------------------------------------------

    def _dispatch(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        service = exchange.service
        now = self.worker.now()
        service.turn += 1
        backend = choose(service.backends, service.turn, now, exchange.tried)
        if backend is None:
            self._hold(now)
            return
        backend.in_flight += 1
        exchange.backend = backend
        exchange.attempts += 1
        settings = service.settings
        upstream = backend.take_idle(now, fresh=not exchange.idempotent)
        if upstream is not None:
            upstream.use(self)
            exchange.deadline = now + settings.response_timeout
        else:
            upstream = Upstream(self.worker, backend, self)
            exchange.deadline = now + settings.connect_timeout
        self._upstream = upstream
        upstream.sent_bytes = 0
        self._go(WAITING)
        data = exchange.head
        if exchange.replay:
            data = b"".join((data, *exchange.replay))
        upstream.send(data)
        if not exchange.request_done:
            self.resume()

    def _hold(self, now: float) -> None:
        """No container can take it now: let it wait, if one is expected and not too many wait already."""
        exchange = self._exchange
        assert exchange is not None
        service = exchange.service
        settings = service.settings
        if not exchange.hold_until:
            exchange.hold_until = now + settings.hold_seconds
        full = len(service.held) >= settings.hold_limit
        if now >= exchange.hold_until or full or exchange.replay is None or not settings.hold_seconds:
            self._fail(exchange.last_error or "no_backend")
            return
        exchange.tried.clear()
        exchange.retry_at = now + RETRY_SECONDS if service.backends else exchange.hold_until
        self._go(HOLDING)
        service.held.append(self)

    def release(self) -> None:
        """Called when it left its service's queue because a container is there."""
        if self._step == HOLDING:
            self._dispatch()

    def _leave_queue(self, service: ServiceState) -> None:
        if self in service.held:
            service.held.remove(self)

    def upstream_connected(self, upstream: Upstream) -> None:
        if self._exchange is not None:
            self._exchange.deadline = self.worker.now() + self._exchange.service.settings.response_timeout

    def upstream_drained(self, upstream: Upstream) -> None:
        self.resume()

    def upstream_ended(self, upstream: Upstream, error: str) -> None:
        exchange, step = self._exchange, self._step
        if step == TUNNEL and not error and not self.eof:
            self.half_close()
            return
        self._upstream = None
        if exchange is None:
            return
        if step == ANSWERING:
            self._release_backend()
            if exchange.answer_body == http1.CLOSE and not error:
                self._finish_answer()
            else:
                self.abort()  # the client must see that it is not whole
        elif step == WAITING:
            self._release_backend()
            self._try_elsewhere(upstream, error or "upstream_reset")
        elif step == TUNNEL:
            self.abort()

    def _try_elsewhere(self, upstream: Upstream, error: str) -> None:
        exchange = self._exchange
        assert exchange is not None
        sent = error != "connect_failed" and upstream.sent_bytes > 0
        exchange.last_error = error
        if exchange.answer_begun or not exchange.may_repeat(sent=sent):
            self._fail(error)
            return
        if error != "connect_failed" and not upstream.reused:
            exchange.resets += 1
        if not upstream.reused:
            exchange.tried.add(upstream.backend)
        exchange.answer_buffer = b""
        exchange.service.count_retry(error)
        self._dispatch()

    # -- the answer --------------------------------------------------------------------------------

    def upstream_data(self, upstream: Upstream, data: bytes) -> None:
        step = self._step
        if step == WAITING:
            self._read_answer(data)
        elif step == ANSWERING:
            self._pass_on(data)
        elif step == TUNNEL:
            if self._exchange is not None:
                self._exchange.bytes_out += len(data)
            if not self.send(data):
                upstream.pause()

    def _read_answer(self, data: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        if exchange.answer_buffer:
            data = exchange.answer_buffer + data
        try:
            while True:
                end = http1.find_head(data, MAX_ANSWER_HEAD)
                if end < 0:
                    exchange.answer_buffer = data
                    return
                response = http1.parse_response(data[:end], exchange.request.method)
                data = data[end:]
                if response.status >= 200:
                    break
                if response.status == 101:
                    if not exchange.request.upgrade:
                        raise http1.Refused(502, "the app switched protocols unasked")
                    self._begin_tunnel(response, data)
                    return
                if exchange.request.http11:
                    exchange.answer_begun = True
                    line = b"HTTP/1.1 %d %b\r\n" % (response.status, response.reason)
                    self.send(b"".join((line, *response.fields, b"\r\n")))
        except http1.Refused as refused:
            self._drop_upstream()
            self._fail("upstream_reset", refused.words)
            return
        self._begin_answer(response, data)

    def _begin_answer(self, response: http1.Response, rest: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        exchange.answer = response
        request = exchange.request
        body = response.body
        parts = [b"HTTP/1.1 %d %b\r\n" % (response.status, response.reason), *response.fields]
        parts += (b"X-Request-Id: ", exchange.id, b"\r\n")
        if body >= http1.CHUNKED:
            if request.http11:
                parts.append(b"Transfer-Encoding: chunked\r\n")
            else:
                exchange.close_client = True
        if not exchange.request_done or self.worker.stopping:
            exchange.close_client = True
        if exchange.close_client:
            parts.append(b"Connection: close\r\n")
        elif not request.http11:
            parts.append(b"Connection: keep-alive\r\n")
        parts.append(b"\r\n")
        exchange.answer_body = body
        exchange.answer_left = response.length
        exchange.answer_begun = True
        self._go(ANSWERING)
        if body == http1.LENGTH and len(rest) == response.length:
            # nearly all answers come in one piece: they go on in one piece
            parts.append(rest)
            data = b"".join(parts)
            exchange.bytes_out += len(data)
            self.send(data)
            self._finish_answer()
            return
        head = b"".join(parts)
        exchange.bytes_out += len(head)
        if body == http1.NONE:
            self.send(head)
            self._finish_answer(clean=not rest)
            return
        if body == http1.CHUNKED:
            exchange.answer_chunked = http1.ChunkedReader()
        self._pass_on(rest, head)

    def _pass_on(self, data: bytes, head: bytes = b"") -> None:
        exchange = self._exchange
        assert exchange is not None
        body, done, clean = exchange.answer_body, False, True
        if body == http1.LENGTH:
            if len(data) > exchange.answer_left:
                data, clean = data[: exchange.answer_left], False
            exchange.answer_left -= len(data)
            done = exchange.answer_left == 0
        elif body == http1.CHUNKED:
            reader = exchange.answer_chunked
            assert reader is not None
            try:
                pieces = reader.feed(data)
            except http1.Refused:
                self.abort()  # the client must see that it is not whole
                return
            done = reader.done
            clean = not reader.rest
            if exchange.request.http11:
                data = b"".join(map(chunk, pieces)) + (LAST_CHUNK if done else b"")
            else:
                data = b"".join(pieces)
        elif exchange.request.http11 and data:
            data = chunk(data)
        if head:
            data = head + data
        exchange.bytes_out += len(data)
        room = self.send(data) if data else True
        if done:
            self._finish_answer(clean=clean)
        elif not room and self._upstream is not None:
            self._since = self.worker.now()
            self._upstream.pause()

    def on_drained(self) -> None:
        if self._upstream is not None and self._step in (ANSWERING, TUNNEL):
            self._upstream.resume()

    def _finish_answer(self, *, clean: bool = True) -> None:
        exchange, upstream = self._exchange, self._upstream
        assert exchange is not None
        answer_ = exchange.answer
        assert answer_ is not None
        now = self.worker.now()
        if exchange.answer_body == http1.CLOSE and exchange.request.http11:
            self.send(LAST_CHUNK)
        self._upstream = None
        if upstream is not None:
            self._release_backend()
            if clean and answer_.keep_alive and exchange.request_done and exchange.answer_body != http1.CLOSE:
                upstream.park(now)
            else:
                upstream.user = None
                upstream.close()
        exchange.service.count(
            exchange.request.method, answer_.status, now - exchange.started, exchange.body_in, exchange.bytes_out
        )
        self._exchange = None
        if exchange.close_client or self.worker.stopping:
            self._linger()
        else:
            self._next()

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

    # -- tunnels -----------------------------------------------------------------------------------

    def _begin_tunnel(self, response: http1.Response, rest: bytes) -> None:
        exchange, upstream = self._exchange, self._upstream
        assert exchange is not None
        assert upstream is not None
        exchange.answer = response
        self._go(TUNNEL)
        upgrade = response.upgrade or exchange.request.upgrade
        parts = [b"HTTP/1.1 101 %b\r\n" % response.reason, *response.fields, b"X-Request-Id: ", exchange.id]
        parts += (b"\r\nConnection: Upgrade\r\nUpgrade: ", upgrade, b"\r\n\r\n", rest)
        data = b"".join(parts)
        exchange.bytes_out += len(data)
        self.send(data)
        early, self._buffer = self._buffer, b""
        if early:
            upstream.send(early)

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

    def stop(self) -> None:
        """The worker stops: a connection without a request ends now."""
        if self._step == HEAD and not self._buffer:
            self.abort()

    def check(self, now: float) -> None:
        """Called a few times a second: whatever took too long."""
        step, exchange = self._step, self._exchange
        limits = self.worker.knowledge.snapshot.limits
        if step == HEAD:
            if self._buffer and now - self._since > limits.header_timeout:
                self._refuse(http1.Refused(408, "the request's head did not come in time"))
            elif not self._buffer and now - self._since > limits.idle_timeout:
                self.abort()
        elif step == LINGER:
            stalled = LINGER_SECONDS if not self.pending_bytes else STALL_SECONDS
            if (self.eof and not self.pending_bytes) or now - self._since > stalled:
                self.abort()
        elif step == HOLDING and exchange is not None:
            if now >= exchange.hold_until:
                self._leave_queue(exchange.service)
                self._fail(exchange.last_error or "no_backend")
            elif now >= exchange.retry_at:
                self._leave_queue(exchange.service)
                self._dispatch()
        elif step == WAITING and exchange is not None and now >= exchange.deadline:
            self._too_slow()
        elif step == ANSWERING and self.pending_bytes > HIGH_WATER and now - self._since > STALL_SECONDS:
            self.abort()

    def _too_slow(self) -> None:
        upstream = self._upstream
        if upstream is None:
            return
        connecting = upstream.connecting
        self._drop_upstream()
        if connecting:
            upstream.backend.avoid_until = self.worker.now() + 1.0
            self._try_elsewhere(upstream, "connect_failed")
        else:
            self._fail("upstream_timeout")
