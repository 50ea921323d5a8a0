"""One client's connection: reads requests and sends them to containers, one after the other."""

from __future__ import annotations

import math

from ..core.balancing import choose
from . import http1
from .answering import BULK_FROM, HEAD_ALONE_SECONDS, Answering
from .asking import Asking
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
from .plan import Plan
from .services import ServiceState
from .stream import HIGH_WATER, Data
from .suspicion import CONNECT_PATIENCE_SECONDS
from .upstream import BackendState, Upstream

DESCRIPTOR_SECONDS = 10.0
"""How long a request waits for a descriptor."""


class Client(Asking, Answering):
    __slots__ = ()

    # -- from the client ---------------------------------------------------------------------------

    def on_data(self, data: Data) -> None:
        step = self._step
        if step == HEAD:
            if not self._buffer:
                plan = self.worker.knowledge.plans.get(data)  # type: ignore[arg-type]
                if plan is not None:
                    self._begin(plan)
                    return
                self._buffer = bytes(data)
                self._since = self.worker.now()
            else:
                self._buffer += data
            self._read_head()
        elif step == TUNNEL:
            if self._upstream is not None:
                self.touched()
                if self._exchange is not None:
                    self._exchange.bytes_in += len(data)
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
        step = self._step
        if step == TUNNEL and not error and self._upstream is not None:
            self._upstream.half_close()
            if self._upstream.eof:
                self.abort()
            return
        exchange = self._exchange
        if exchange is not None and not error and exchange.request_done and step not in (LINGER, TUNNEL):
            # a client that half-closes may still want the answer
            exchange.close_client = True
            return
        self.abort()

    def _read_head(self) -> None:
        try:
            while self._buffer.startswith(b"\r\n"):
                self._buffer = self._buffer[2:]  # RFC 9112 2.2
            end = http1.find_head(self._buffer, self.worker.knowledge.limits.header_bytes)
            if end < 0:
                return
            head = self._buffer[:end]
            knowledge = self.worker.knowledge
            plan = knowledge.plans.get(head) or knowledge.plan(head)
        except http1.Refused as refused:
            self._refuse(refused)
            return
        self._buffer = self._buffer[end:]
        self._begin(plan)

    # -- a request begins --------------------------------------------------------------------------

    def _begin(self, plan: Plan) -> None:
        worker = self.worker
        now = worker.now()
        service = plan.service
        if plan.direct and service is not None:
            exchange = Exchange(plan, service, worker.new_id(), self._address, self._country, now)
            exchange.bytes_in = plan.size
            exchange.head = b"".join((plan.head, self._forwarded, exchange.id, plan.tail))
            self._exchange = exchange
            if service.limits is None or self._admitted(exchange, service.limits, now):
                self._dispatch()
            return
        self._begin_with_care(plan, now)

    def _begin_with_care(self, plan: Plan, now: float) -> None:
        """Everything that most requests do not have: hops before us, a body, rules to pass."""
        worker, request, service = self.worker, plan.request, plan.service
        believed = self._trusted
        id = request.request_id if believed and worker.good_id(request.request_id) else worker.new_id()
        address, country, forwarded, tail = self._address, self._country, self._forwarded, plan.tail
        if believed and request.forwarded:
            address, country, forwarded, tail = self._from_hops(request)
        exchange = Exchange(plan, service or worker.knowledge.nobody, id, address, country, now)
        exchange.bytes_in = plan.size
        exchange.head = b"".join((plan.head, forwarded, id, tail))
        self._exchange = exchange
        if request.body != http1.NONE:
            exchange.expect_body(request)
        limit = worker.knowledge.limits.body_bytes
        if service is None:
            self._fail("no_route")
        elif limit and request.length > limit:
            self._fail("too_large")
        elif self._passes(exchange, now):
            self._go_on()

    def _go_on(self) -> None:
        """It may pass."""
        exchange = self._exchange
        if exchange is None:
            return
        if not exchange.request_done and self._buffer:
            rest, self._buffer = self._buffer, b""
            self._take_body(rest)
            if self._exchange is not exchange:
                return
        self._dispatch()

    def _take_body(self, data: Data) -> None:
        """Some of the request's body came: pass it on as it comes."""
        exchange = self._exchange
        assert exchange is not None
        worker = self.worker
        exchange.bytes_in += len(data)
        out: Data
        try:
            if exchange.reader is None:
                out = data[: exchange.left] if len(data) > exchange.left else data
                exchange.left -= len(out)
                if exchange.left == 0:
                    exchange.request_done = True
                    self.bulk = False
                    self._buffer = bytes(data[len(out) :])
            else:
                pieces = exchange.reader.feed(bytes(data))
                out = b"".join(map(chunk, pieces))
                if exchange.reader.done:
                    exchange.request_done = True
                    self._buffer = exchange.reader.rest
                    out += LAST_CHUNK
            limit = worker.knowledge.limits.body_bytes
            if limit and exchange.bytes_in - exchange.plan.size > limit + PIPELINE_BYTES:
                raise http1.Refused(413, f"the body is longer than {limit} bytes")
        except http1.Refused as refused:
            self._drop_upstream()
            self._leave_queue(exchange.service)
            if exchange.answer_begun:
                exchange.error = "bad_request"
                self.abort()
            else:
                self._refuse(refused)
            return
        kept = worker.knowledge.snapshot.capture.body_bytes
        if kept:
            exchange.keep_for_record(out if exchange.reader is None else b"".join(pieces), kept)
        exchange.keep(out)
        upstream = self._upstream
        if upstream is None:
            # held: what is kept for another try is all that is read
            if exchange.replay is None or exchange.replay_size > PIPELINE_BYTES // 2:
                self.pause()
            return
        now = worker.now()
        exchange.deadline = now + exchange.service.settings.response_timeout
        exchange.sent = now
        if exchange.request_done and exchange.backend is not None and not exchange.first_byte:
            # the container's time to answer begins with the end of what it is asked
            exchange.backend.waiting[self] = now
        if not upstream.send(out):
            self.pause()
        elif not self.bulk and exchange.left > BULK_FROM and not exchange.replay:
            self.bulk = True

    # -- to a container ----------------------------------------------------------------------------

    def _dispatch(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        worker = self.worker
        service = exchange.service
        backends = service.backends
        now = worker.now()
        backend: BackendState | None
        if service.steering is not None:
            backend = service.steer(exchange, now)
        elif len(backends) == 1 and not exchange.tried:
            backend = backends[0]
        else:
            service.turn += 1
            backend = choose(backends, service.turn, now, exchange.tried)
        if backend is None:
            self._hold(now)
            return
        backend.in_flight += 1
        if exchange.request_done:
            backend.waiting[self] = now
        exchange.backend = backend
        exchange.container = backend.id
        exchange.attempts += 1
        exchange.sent = now
        exchange.first_byte = 0.0
        settings = service.settings
        upstream = backend.take_idle(now, fresh=not exchange.plan.idempotent) if backend.idle else None
        if upstream is not None:
            upstream.user = self
            upstream.reused = True
            exchange.deadline = now + settings.response_timeout
        else:
            try:
                upstream = Upstream(worker, backend, self)
            except OSError as error:
                self._wait_for_descriptors(error, now)
                return
            exchange.deadline = now + settings.connect_timeout
        self._upstream = upstream
        upstream.sent_bytes = 0
        self._step = WAITING
        data = exchange.head
        if exchange.replay:
            data = b"".join((data, *exchange.replay))
        upstream.send(data)
        if not exchange.request_done:
            self.resume()
            if exchange.left > BULK_FROM and not exchange.whole:
                self.bulk = True

    def _hold(self, now: float) -> None:
        """No container can take it now: let it wait, if one is expected and not too many wait already."""
        exchange = self._exchange
        assert exchange is not None
        service = exchange.service
        settings = service.settings
        if not exchange.hold_until:
            exchange.hold_until = now + settings.hold_seconds
        full = len(service.held) >= settings.hold_limit
        if now >= exchange.hold_until or full or not exchange.whole or not settings.hold_seconds:
            self._fail(exchange.last_error or "no_backend")
            return
        exchange.tried = frozenset()
        exchange.retry_at = now + RETRY_SECONDS if service.backends else exchange.hold_until
        self._wait_in(service, now)

    def _wait_for_descriptors(self, error: OSError, now: float) -> None:
        """None is left for a connection to the container: some come free as others end."""
        exchange = self._exchange
        assert exchange is not None
        self._release_backend()
        exchange.attempts -= 1
        self.worker.short_of_descriptors(error)
        if not exchange.hold_until:
            exchange.hold_until = now + DESCRIPTOR_SECONDS
        exchange.retry_at = now + RETRY_SECONDS
        self._wait_in(exchange.service, now)

    def _wait_in(self, service: ServiceState, now: float) -> None:
        if self._step != HOLDING:
            self._go(HOLDING)
        if self._exchange is not None:
            self._exchange.hold(now)
        service.held.append(self)

    def release(self) -> None:
        if self._step == HOLDING and self._exchange is not None:
            self._exchange.hold_no_longer(self.worker.now())
            self._dispatch()

    def upstream_connected(self, upstream: Upstream) -> None:
        exchange = self._exchange
        if exchange is not None:
            now = self.worker.now()
            exchange.deadline = now + exchange.service.settings.response_timeout
            if exchange.backend is not None and self in exchange.backend.waiting:
                del exchange.backend.waiting[self]
                exchange.backend.waiting[self] = now
                exchange.sent = now

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
        whole = exchange.answer_body == http1.CLOSE and not error
        if step == ANSWERING and not whole:
            self._blame_backend()
        self._release_backend()
        if step == ANSWERING:
            if whole:
                self._finish_answer()
            else:
                exchange.error = "upstream_reset"
                self.abort()  # the client must see that it is not whole
        elif step == WAITING:
            self._try_elsewhere(upstream, error or "upstream_reset")
        elif step == TUNNEL:
            self.abort()

    def _try_elsewhere(self, upstream: Upstream, error: str) -> None:
        exchange = self._exchange
        assert exchange is not None
        refused = error == "connect_failed"
        sent = not refused and upstream.sent_bytes > 0
        exchange.last_error = error
        if not refused and not upstream.reused:
            # on a connection that was just made: the container, not the connection, is at fault
            exchange.resets += 1
            upstream.backend.failed(self.worker.now())
        exchange.answer_buffer = b""
        repeat = not exchange.answer_begun and exchange.may_repeat(sent=sent)
        if not repeat or (sent and not exchange.service.budget.take()):
            self._fail(error)
            return
        if not upstream.reused:
            exchange.tried |= {upstream.backend}
        exchange.service.count_retry(error)
        self._dispatch()

    # -- a container that leaves or hangs -----------------------------------------------------------

    def leave_suspect(self, backend: BackendState) -> None:
        """The container seems to hang: go elsewhere, if that is safe and there is somewhere."""
        exchange, upstream = self._exchange, self._upstream
        if exchange is None or upstream is None or self._step != WAITING or exchange.answer_begun:
            return
        now = self.worker.now()
        if not exchange.request_done or not exchange.may_repeat(sent=upstream.sent_bytes > 0):
            return
        if all(other.avoid_until == math.inf for other in exchange.service.others(exchange, backend)):
            return
        if not exchange.service.budget.take():
            return
        exchange.tried |= {upstream.backend}
        exchange.last_error = "upstream_timeout"
        exchange.answer_buffer = b""
        self._drop_upstream()
        exchange.service.count_retry("suspect")
        exchange.deadline = now
        self._dispatch()

    def backend_left(self) -> None:
        """Its container is no longer in the snapshot: a connection that is still to be made will not be."""
        upstream = self._upstream
        if self._step == WAITING and upstream is not None and upstream.connecting:
            self._drop_upstream()
            self._try_elsewhere(upstream, "connect_failed")

    def wait_no_longer(self, now: float) -> None:
        """Called some ten times a second while the container owes the first byte."""
        exchange, upstream = self._exchange, self._upstream
        if self._step != WAITING or exchange is None or upstream is None:
            return
        if exchange.answer_buffer and now - exchange.first_byte > HEAD_ALONE_SECONDS and self._pass_head_on():
            return
        if now >= exchange.deadline:
            self._drop_upstream()
            if upstream.connecting:
                upstream.backend.failed(now)
                self._try_elsewhere(upstream, "connect_failed")
            else:
                self._fail("upstream_timeout")
        elif (
            upstream.connecting
            and now - exchange.sent > CONNECT_PATIENCE_SECONDS
            and any(other.avoid_until <= now for other in exchange.service.others(exchange, upstream.backend))
        ):
            self._drop_upstream()
            upstream.backend.failed(now)
            self._try_elsewhere(upstream, "connect_failed")

    # -- time --------------------------------------------------------------------------------------

    def rests(self, now: float) -> float:
        """For how long nothing was asked; 0 if something is."""
        return now - self._since if self._step == HEAD and not self._buffer else 0.0

    def close(self) -> None:
        self.worker.clients.discard(self)
        super().close()

    def stop(self, *, handover: bool) -> None:
        """The worker stops. A kept connection ends now; with a successor it may still bring one request."""
        if self._step == HEAD and not self._buffer and not handover:
            self._linger()

    def check(self, now: float) -> None:
        """Called about once a second: whatever took too long."""
        step, exchange = self._step, self._exchange
        limits = self.worker.knowledge.limits
        if step == HEAD:
            if self._buffer and now - self._since > limits.header_timeout:
                self._refuse(http1.Refused(408, "the request's head did not come in time"))
            elif not self._buffer and now - self._since > limits.idle_timeout:
                self._linger()
        elif step == LINGER:
            stalled = LINGER_SECONDS if not self.pending_bytes else STALL_SECONDS
            if (self.eof and not self.pending_bytes) or now - self._since > stalled:
                self.abort()
        elif step == WAITING and exchange is not None and exchange.request_done:
            self.wait_no_longer(now)
        elif step == ANSWERING and self.pending_bytes > HIGH_WATER and now - self._since > STALL_SECONDS:
            self.abort()
        elif step == TUNNEL:
            if now - self._since > limits.tunnel_timeout:
                self.abort()
        elif exchange is not None and not exchange.request_done and not self.paused:
            self._body_is_late(exchange, now)

    def _body_is_late(self, exchange: Exchange, now: float) -> None:
        """The client owes the rest of its request."""
        since = max(exchange.sent, exchange.started)
        if now - since > exchange.service.settings.response_timeout and self._step != ANSWERING:
            self._drop_upstream()
            self._leave_queue(exchange.service)
            self._refuse(http1.Refused(408, "the request's body did not come in time"))

    def hold_no_longer(self, now: float) -> None:
        """Called some five times a second while it is held."""
        exchange = self._exchange
        if self._step != HOLDING or exchange is None:
            return
        if now >= exchange.hold_until:
            self._leave_queue(exchange.service)
            self._fail(exchange.last_error or "no_backend")
        elif now >= exchange.retry_at:
            self._leave_queue(exchange.service)
            exchange.hold_no_longer(now)
            self._dispatch()
