"""The way back: what a container answers, judged and passed on to the client."""

from __future__ import annotations

from . import http1
from .connection import ANSWERING, MAX_ANSWER_HEAD, TUNNEL, WAITING, Connection
from .exchange import LAST_CHUNK, chunk
from .upstream import Upstream


class Answering(Connection):
    __slots__ = ()

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
