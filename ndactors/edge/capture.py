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
from .plan import Memo, Plan, Reply

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
        self._redactor = Redactor(Capture())
        self._rows: list[Row] = []
        self._heads: list[bytes] = []
        self._answers: list[bytes] = []
        self._base = 0.0
        self._size_of_batch = 0
        self._ring: deque[Waiting] = deque()
        self._size = 0
        self._sequence = 0
        self._sent = 0
        self._sent_at = 0.0
        self._announced = 0
        self.dropped = 0

    # -- making them -------------------------------------------------------------------------------

    def settle(self, done: list[Exchange], capture: Capture, now: float) -> None:
        """Count them all, and make their records part of the next batch."""
        count(done)
        redactor = self._redactor
        if redactor.capture is not capture:
            redactor = self._redactor = Redactor(capture)
        wall = time.time() - now
        how = capture.client_ip
        rows, heads, answers, batch = self._rows, self._heads, self._answers, self._sequence + 1
        if not rows:
            self._base = wall + done[0].started
        offset = wall - self._base
        for x in done:
            plan, reply = x.plan, x.reply
            if plan.batch != batch:
                if plan.trace is None:
                    plan.trace = _encode(redactor.request(plan))
                plan.batch = batch
                plan.place = len(heads)
                heads.append(plan.trace)
                self._size_of_batch += len(plan.trace)
            answer = -1
            if reply is not None:
                if reply.batch != batch:
                    if reply.trace is None:
                        reply.trace = _encode(redactor.answer(reply))
                    reply.batch = batch
                    reply.place = len(answers)
                    answers.append(reply.trace)
                    self._size_of_batch += len(reply.trace)
                answer = reply.place
            started = x.started
            rows.append(
                Row(
                    offset + started,
                    x.ended - started,
                    x.first_byte - x.sent if x.first_byte else 0.0,
                    plan.place,
                    answer,
                    x.status,
                    x.bytes_in,
                    x.bytes_out,
                    x.id,
                    x.address if how == "full" else shorten_address(x.address, how),
                    x.country,
                    x.container,
                    x.attempts - 1 if x.attempts > 1 else 0,
                    x.error,
                    b"".join(x.body) if x.body else b"",
                    x.held,
                )
            )
            self._size_of_batch += x.body_size
            if len(rows) >= BATCH_ROWS or self._size_of_batch >= BATCH_BYTES:
                self.seal()
                rows, heads, answers, batch = self._rows, self._heads, self._answers, self._sequence + 1
                offset, self._base = 0.0 - started, wall + started

    def seal(self) -> None:
        """What was settled goes into the ring as one batch."""
        if not self._rows:
            return
        raw = msgspec.Raw
        batch = _encode(
            {
                "base": self._base,
                "heads": [raw(head) for head in self._heads],
                "answers": [raw(answer) for answer in self._answers],
                "rows": self._rows,
            }
        )
        self._sequence += 1
        self._ring.append(Waiting(self._sequence, len(self._rows), batch))
        self._rows, self._heads, self._answers, self._size_of_batch = [], [], [], 0
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
                newest=self._sequence,
                count=waiting.count,
                batch=waiting.batch,
            )
            if not self._send(encode(records)):
                return
            self._sent, self._announced = waiting.sequence, self._sequence
            self._sent_at = now
        if self._sequence > self._sent and self._sequence != self._announced:
            # there is more than may be on its way at once; who counts records must know of it
            told = RequestRecords(worker=self._worker, sequence=0, newest=self._sequence, count=0, batch=b"")
            if self._send(encode(told)):
                self._announced = self._sequence

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


_LINKS = (b"referer", b"location", b"content-location", b"origin")
"""Fields that hold a URL, whose query may hold secrets."""


class Redactor:
    """What of heads may be remembered, under one ``capture``. Lines repeat, so what becomes of each is remembered."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self._secret = frozenset(name.lower().encode("latin-1", "replace") for name in capture.redact)
        self._query = frozenset(name.lower() for name in capture.redact_query)
        self._lines: Memo[bytes] = Memo()

    def fields(self, lines: list[bytes]) -> bytes:
        if not self.capture.headers:
            lines = [line for line in lines if line[:11].lower() in (b"user-agent:", b"referer: ht")]
        known = self._lines.get
        return b"".join([known(line) or self._line(line) for line in lines])

    def _line(self, line: bytes) -> bytes:
        name, _, value = line.partition(b": ")
        plain, kept = name.lower(), line
        if plain in self._secret:
            kept = name + b": " + REDACTED.encode() + b"\r\n"
        elif plain in _LINKS:
            kept = b"%b: %b\r\n" % (name, redact_url(_text(value[:-2]), self._query).encode())
        self._lines.keep(line, kept)
        return kept

    def request(self, plan: Plan) -> RequestHead:
        request, service = plan.request, plan.service
        target = request.target
        if b"?" in target:
            path, _, query = target.partition(b"?")
            target = path + b"?" + redact_query(query.decode("latin-1"), self._query).encode("latin-1")
        app, process = (service.settings.app, service.settings.process) if service is not None else ("", "")
        fields = self.fields(request.fields)
        return RequestHead(app, process, request.http11, request.method, request.host, target, fields)

    def answer(self, reply: Reply) -> AnswerHead:
        return AnswerHead(reply.status, self.fields(reply.response.fields))
