"""The way back: what a container answers, judged and passed on to the client."""

from __future__ import annotations

from ..core.suspecting import TRUSTED
from . import http1
from .connection import ANSWERING, END_OF_HEAD, HEAD, MAX_ANSWER_HEAD, TUNNEL, WAITING, Connection
from .exchange import LAST_CHUNK, Exchange, chunk
from .plan import Reply
from .stream import OPEN, READ_BYTES, Data
from .upstream import IDLE_PER_BACKEND, Upstream

SETTLE_AT = 32
HEAD_ALONE_SECONDS = 1.5
"""So long the head of a small answer may wait for the first byte of its body: if the container hangs or dies between the
two, the client has seen nothing yet, and the request can still go elsewhere."""
HEAD_ALONE_BYTES = 64 * 1024
BULK_FROM = 4 * READ_BYTES
"""Bodies with more than this to come are read in bulk."""


class Answering(Connection):
    __slots__ = ()

    def upstream_data(self, upstream: Upstream, data: Data) -> None:
        step = self._step
        if step == WAITING:
            exchange = self._exchange
            assert exchange is not None
            if exchange.backend is not None and exchange.backend.standing != TRUSTED:
                self.worker.suspicion.answered(exchange.backend)
            if not exchange.first_byte:
                exchange.first_byte = self.worker.now()
            if exchange.backend is not None:
                exchange.backend.waiting.pop(self, None)
            if isinstance(data, memoryview):
                data = bytes(data)
            # nearly all answers come in one piece, with a head like one before
            if not exchange.answer_buffer:
                end = data.find(END_OF_HEAD) + 4
                reply = exchange.service.replies.get(data[:end]) if end > 4 else None
                if reply is not None and reply.whole == len(data) - end and exchange.plan.method != "HEAD":
                    self._answer_whole(exchange, reply, data[end:], upstream)
                    return
            self._read_answer(data)
        elif step == ANSWERING:
            self._pass_on(data)
        elif step == TUNNEL:
            self.touched()
            if self._exchange is not None:
                self._exchange.bytes_out += len(data)
            if not self.send(data):
                upstream.pause()

    def touched(self) -> None:
        """Something moved in the tunnel."""
        self._since = self.worker.now()

    def _answer_whole(self, exchange: Exchange, reply: Reply, body: bytes, upstream: Upstream) -> None:
        """The hot path: everything is here, both connections go on. It does in one go what ``_begin_answer``,
        ``_finish_answer``, ``park`` and ``_next`` do with more ifs."""
        backend = exchange.backend
        worker = self.worker
        if (
            exchange.close_client
            or not exchange.request_done
            or worker.stopping
            or backend is None
            or self.eof
            or not exchange.plan.request.http11
            or reply.status >= 500
            or self._buffer
        ):
            self._begin_answer(reply, body)
            return
        backend.bad = 0
        data = b"".join((reply.head, exchange.id, exchange.cookie, END_OF_HEAD, body))
        self._step = HEAD
        self._exchange = self._upstream = upstream.user = None
        now = exchange.first_byte
        backend.in_flight -= 1
        exchange.backend = None
        if backend.removed or len(backend.idle) >= IDLE_PER_BACKEND or upstream.state != OPEN or upstream.paused:
            upstream.close()
        else:
            upstream.idle_since = now
            backend.idle.append(upstream)
        exchange.reply = reply
        exchange.status = reply.status
        exchange.bytes_out += len(data)
        exchange.ended = now
        done = worker.done
        done.append(exchange)
        if len(done) >= SETTLE_AT:
            worker.settle()  # while it is still at hand for the processor
        self._since = now
        if self.paused:
            self.resume()
        self.send(data)

    def _read_answer(self, data: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        if exchange.answer_buffer:
            data = exchange.answer_buffer + data
            exchange.answer_buffer = b""
        try:
            while True:
                end = http1.find_head(data, MAX_ANSWER_HEAD)
                if end < 0:
                    exchange.answer_buffer = data
                    return
                head, data = data[:end], data[end:]
                reply = self._judge(exchange, head)
                response = reply.response
                if response.status >= 200:
                    break
                if response.status == 101:
                    if not exchange.plan.request.upgrade:
                        raise http1.Refused(502, "the app switched protocols unasked")
                    self._begin_tunnel(reply, data)
                    return
                if exchange.plan.request.http11:
                    exchange.answer_begun = True
                    line = b"HTTP/1.1 %d %b\r\n" % (response.status, response.reason)
                    self.send(b"".join((line, *response.fields, b"\r\n")))
                exchange.first_byte = 0.0
        except http1.Refused as refused:
            self._blame_backend()
            self._drop_upstream()
            self._fail("upstream_reset", refused.words)
            return
        if not data and response.body == http1.LENGTH and self._may_wait(exchange, response):
            exchange.answer_buffer = head
            if exchange.backend is not None:
                exchange.backend.waiting[self] = self.worker.now()
            return
        self._begin_answer(reply, data)

    @staticmethod
    def _may_wait(exchange: Exchange, response: http1.Response) -> bool:
        small = response.length <= HEAD_ALONE_BYTES
        return small and exchange.plan.idempotent and exchange.request_done and not exchange.answer_begun

    def _pass_head_on(self) -> bool:
        """It waited for its body long enough. False if it is not even whole."""
        exchange = self._exchange
        assert exchange is not None
        head, exchange.answer_buffer = exchange.answer_buffer, b""
        if not head.endswith(END_OF_HEAD):
            exchange.answer_buffer = head
            return False
        if exchange.backend is not None:
            exchange.backend.waiting.pop(self, None)
        self._begin_answer(self._judge(exchange, head), b"")
        return True

    @staticmethod
    def _judge(exchange: Exchange, head: bytes) -> Reply:
        service = exchange.service
        if exchange.plan.method == "HEAD":
            return Reply(http1.parse_response(head, b"HEAD"), service.response_fields)
        known = service.replies.get(head)
        if known is not None:
            return known
        reply = Reply(http1.parse_response(head, exchange.plan.request.method), service.response_fields)
        if reply.status >= 200:
            service.replies.keep(head, reply)
        return reply

    def _begin_answer(self, reply: Reply, rest: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        exchange.reply = reply
        response = reply.response
        request = exchange.plan.request
        body = response.body
        backend = exchange.backend
        if backend is not None:
            if reply.status >= 500:
                backend.answered_badly(exchange.first_byte)
            else:
                backend.bad = 0
        parts = [reply.head, exchange.id, exchange.cookie, b"\r\n"]
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
        self._since = self.worker.now()
        head = b"".join(parts)
        if body == http1.NONE:
            exchange.bytes_out += len(head)
            self.send(head)
            self._finish_answer(clean=not rest)
            return
        if body == http1.CHUNKED:
            exchange.answer_chunked = http1.ChunkedReader()
        elif body == http1.LENGTH and response.length > BULK_FROM and self._upstream is not None:
            self._upstream.bulk = True
        self._pass_on(rest, head)

    def _pass_on(self, data: Data, head: bytes = b"") -> None:
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
                pieces = reader.feed(bytes(data))
            except http1.Refused:
                self._blame_backend()
                exchange.error = "upstream_reset"
                self.abort()  # the client must see that it is not whole
                return
            done = reader.done
            clean = not reader.rest
            if exchange.plan.request.http11:
                data = b"".join(map(chunk, pieces)) + (LAST_CHUNK if done else b"")
            else:
                data = b"".join(pieces)
        elif exchange.plan.request.http11 and data:
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
        reply = exchange.reply
        assert reply is not None
        if exchange.answer_body == http1.CLOSE and exchange.plan.request.http11:
            self.send(LAST_CHUNK)
        self._upstream = None
        self._release_backend()
        if upstream is not None:
            kept = reply.response.keep_alive and exchange.answer_body != http1.CLOSE
            if clean and kept and exchange.request_done:
                upstream.park(self.worker.now())
            else:
                upstream.user = None
                upstream.close()
        self._settle(exchange, reply.status)
        self._exchange = None
        if exchange.close_client or self.worker.stopping:
            self._linger()
        else:
            self._next()

    # -- tunnels -----------------------------------------------------------------------------------

    def _begin_tunnel(self, reply: Reply, rest: bytes) -> None:
        exchange, upstream = self._exchange, self._upstream
        assert exchange is not None
        assert upstream is not None
        exchange.reply = reply
        self._go(TUNNEL)
        if exchange.backend is not None:
            exchange.backend.tunnels += 1
        self.touched()
        self.bulk = upstream.bulk = True
        upgrade = reply.response.upgrade or exchange.plan.request.upgrade
        switch = b"\r\nConnection: Upgrade\r\nUpgrade: "
        parts = (reply.head, exchange.id, exchange.cookie, switch, upgrade, END_OF_HEAD, rest)
        data = b"".join(parts)
        exchange.bytes_out += len(data)
        self.send(data)
        early, self._buffer = self._buffer, b""
        if early:
            upstream.send(early)
