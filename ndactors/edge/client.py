"""One client's connection: reads requests and sends them to containers, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.balancing import choose
from ..core.routing import normal_host
from . import http1
from .answering import Answering
from .answers import answer
from .connection import (
    ANSWERING,
    HEAD,
    HOLDING,
    LINGER,
    LINGER_SECONDS,
    PIPELINE_BYTES,
    RETRY_SECONDS,
    STALL_SECONDS,
    TUNNEL,
    WAITING,
)
from .exchange import LAST_CHUNK, Exchange, chunk
from .stream import HIGH_WATER
from .upstream import Upstream


class Client(Answering):
    __slots__ = ()

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
        if self._step == HOLDING:
            self._dispatch()

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
