"""Finished exchanges become counters and records, some hundred at a time. Records wait in a bounded ring until the
daemon says that they are stored; traffic never waits for them."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable

import msgspec

from ..core.model import Capture
from ..core.redacting import REDACTED, redact_query, redact_url, shorten_address
from ..core.suspecting import SLOW_SECONDS
from ..messages.edge import LATENCY_BUCKETS, RecordsStored, RequestRecords
from ..messages.records import AnswerHead, RequestHead, Row
from ..runtime.link import encode
from .exchange import Exchange
from .plan import Plan, Reply

BATCH_ROWS = 2000
BATCH_BYTES = 2 * 1024 * 1024
"""Heads and bodies in one batch, before what they have in common is said once."""
RING_BYTES = 8 * 1024 * 1024
"""What waits for the daemon; the oldest give way."""
WINDOW = 16
"""Batches on their way at once."""
RESEND_SECONDS = 5.0
"""Not acknowledged by then: sent again."""
CODES = len(LATENCY_BUCKETS) + 1

_encode = msgspec.msgpack.Encoder().encode


class Waiting:
    """One batch in the ring."""

    __slots__ = ("batch", "count", "sequence")

    def __init__(self, sequence: int, count: int, batch: bytes) -> None:
        self.sequence = sequence
        self.count = count
        self.batch = batch


class Recorder:
    """``send`` puts a frame on the link, or says that it has no room."""

    def __init__(self, worker: str, send: Callable[[bytes], bool]) -> None:
        self._worker = worker
        self._send = send
        self._ring: deque[Waiting] = deque()
        self._size = 0
        self._sequence = 0
        self._sent = 0
        self._sent_at = 0.0
        self.dropped = 0

    # -- making them -------------------------------------------------------------------------------

    def settle(self, done: list[Exchange], capture: Capture, now: float) -> None:
        """Count them all, and queue their records."""
        start = size = 0
        for place, x in enumerate(done):
            size += x.plan.size + x.body_size
            if size > BATCH_BYTES or place - start >= BATCH_ROWS:
                self._batch(done[start:place], capture, now)
                start, size = place, x.plan.size + x.body_size
        if start < len(done):
            self._batch(done[start:], capture, now)
        self.push(now)

    def _batch(self, done: list[Exchange], capture: Capture, now: float) -> None:
        if not done:
            return
        count(done)
        wall = time.time() - now
        base = wall + min(exchange.started for exchange in done)
        heads: dict[Plan, int] = {}
        answers: dict[Reply, int] = {}
        how = capture.client_ip
        rows: list[Row] = []
        for x in done:
            plan, reply = x.plan, x.reply
            head = heads.get(plan)
            if head is None:
                head = heads[plan] = len(heads)
                if plan.trace is None:
                    plan.trace = _encode(request_trace(plan, capture))
            answer = -1
            if reply is not None:
                found = answers.get(reply)
                if found is None:
                    found = answers[reply] = len(answers)
                    if reply.trace is None:
                        reply.trace = _encode(answer_trace(reply, capture))
                answer = found
            started = x.started
            rows.append(
                Row(
                    int((wall + started - base) * 1e6),
                    int((x.ended - started) * 1e6),
                    int((x.first_byte - x.sent) * 1e6) if x.first_byte else 0,
                    head,
                    answer,
                    x.status,
                    x.bytes_in,
                    x.bytes_out,
                    x.id.decode("latin-1"),
                    x.address if how == "full" else shorten_address(x.address, how),
                    x.country,
                    x.container,
                    x.attempts - 1 if x.attempts > 1 else 0,
                    x.error,
                    b"".join(x.body) if x.body else b"",
                )
            )
        batch = _encode(
            {
                "base": base,
                "heads": [msgspec.Raw(plan.trace) for plan in heads if plan.trace is not None],
                "answers": [msgspec.Raw(reply.trace) for reply in answers if reply.trace is not None],
                "rows": rows,
            }
        )
        self._sequence += 1
        self._ring.append(Waiting(self._sequence, len(rows), batch))
        self._size += len(batch)
        while self._size > RING_BYTES:
            oldest = self._ring.popleft()
            self._size -= len(oldest.batch)
            self.dropped += oldest.count

    # -- getting them there ------------------------------------------------------------------------

    def push(self, now: float) -> None:
        """Send what may go now."""
        if not self._ring:
            return
        first = self._ring[0].sequence
        if self._sent >= first and now - self._sent_at > RESEND_SECONDS:
            self._sent = first - 1
        self._sent = max(self._sent, first - 1)
        for index in range(self._sent + 1 - first, min(len(self._ring), WINDOW)):
            waiting = self._ring[index]
            records = RequestRecords(
                worker=self._worker,
                sequence=waiting.sequence,
                previous=self._ring[index - 1].sequence if index else 0,
                count=waiting.count,
                batch=waiting.batch,
            )
            if not self._send(encode(records)):
                return
            self._sent = waiting.sequence
            self._sent_at = now

    def again(self, now: float) -> None:
        """Whoever had them before may not: send all that is here anew."""
        self._sent = 0
        self.push(now)

    def stored(self, message: RecordsStored, now: float) -> None:
        if message.worker != self._worker:
            return
        while self._ring and self._ring[0].sequence <= message.sequence:
            self._size -= len(self._ring.popleft().batch)
        self.push(now)

    @property
    def waiting(self) -> int:
        return len(self._ring)


def count(done: list[Exchange]) -> None:
    """Into the counters of their services."""
    for x in done:
        service = x.service
        seconds = x.ended - x.started
        status = x.status
        key = (x.plan.method, status)
        codes = service.codes
        codes[key] = codes.get(key, 0) + 1
        row = service.durations.get(status // 100)
        if row is None:
            row = service.durations[status // 100] = [0.0] * (CODES + 1)
        row[bisect_left(LATENCY_BUCKETS, seconds)] += 1
        row[-1] += seconds
        service.bytes_in += x.bytes_in
        service.bytes_out += x.bytes_out
        if x.first_byte:
            service.answers += 1
            wait = x.first_byte - x.sent
            if wait > SLOW_SECONDS:
                service.slow.append(wait)


# -- what is remembered of a head ------------------------------------------------------------------


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")


def _fields(lines: list[bytes], capture: Capture) -> list[tuple[str, str]]:
    found = []
    secret = {name.lower() for name in capture.redact}
    for line in lines:
        name, _, value = line[:-2].partition(b": ")
        plain = name.decode("latin-1").lower()
        hidden = plain in secret
        text = REDACTED if hidden else _text(value)
        if plain in ("referer", "location", "content-location", "origin") and not hidden:
            text = redact_url(text, capture.redact_query)
        found.append((plain, text))
    return found


def request_trace(plan: Plan, capture: Capture) -> RequestHead:
    request = plan.request
    service = plan.service
    path, _, query = _text(request.target).partition("?")
    fields = _fields(request.fields, capture)
    known = dict(fields)
    return RequestHead(
        app=service.settings.app if service is not None else "",
        process=service.settings.process if service is not None else "",
        method=_text(request.method),
        host=_text(request.host),
        path=path,
        query=redact_query(query, capture.redact_query),
        protocol="HTTP/1.1" if request.http11 else "HTTP/1.0",
        user_agent=known.get("user-agent", ""),
        referer=known.get("referer", ""),
        headers=[("host", _text(request.host)), *fields] if capture.headers else [],
    )


def answer_trace(reply: Reply, capture: Capture) -> AnswerHead:
    fields = _fields(reply.response.fields, capture) if capture.headers else []
    return AnswerHead(status=reply.status, headers=fields)
