"""Live subscribers. All of them read from one ring of the newest records; who is too slow for it is told how many it
missed, and holds up nobody."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import msgspec

from ..core.levels import LEVELS
from ..core.logquery import Matcher
from ..core.logrecords import STREAMS, Columns, Gap, LogRecord, LogSource, record
from ..messages.logs import CHUNK_BYTES, LiveColumns, LogChunk
from ..runtime.notes import exception_text

RING_BYTES = 48 * 1024 * 1024
OVERHEAD_BYTES = 120
"""About what a record costs besides its text."""

_encoder = msgspec.json.Encoder()


class Part:
    __slots__ = ("columns", "gap", "size", "source")

    def __init__(self, source: LogSource, columns: Columns, gap: Gap | None) -> None:
        self.source = source
        self.columns = columns
        self.gap = gap
        self.size = len(columns.text) + OVERHEAD_BYTES * len(columns)


class Subscription:
    """``next`` is the number of the part that it reads, ``row`` how many of the wanted rows of it are sent."""

    def __init__(self, id: int, matcher: Matcher, *, batch: bool, window: int, next: int) -> None:
        self.id = id
        self.matcher = matcher
        self.batch = batch
        self.window = window
        self.next = next
        self.missed = 0
        self.paused = False
        """Its past is still looked for."""
        self.past: deque[LogRecord] = deque()
        self._row = 0
        self._known: tuple[int, Sequence[int], list[str]] | None = None

    def skip(self, part: Part) -> None:
        """The ring lets go of it."""
        if self.matcher.filter.wants(part.source):
            self.missed += len(self._rows(self.next, part)[0]) - self._row
        self._forget()

    def _forget(self) -> None:
        self.next += 1
        self._row, self._known = 0, None

    def _rows(self, number: int, part: Part) -> tuple[Sequence[int], list[str]]:
        if self._known is None or self._known[0] != number:
            # whatever its times are, they are compared
            rows = self.matcher.rows(part.columns, "", "~")
            self._known = (number, rows, part.columns.messages() if rows else [])
        return self._known[1], self._known[2]

    def fill(self, part_at: Callable[[int], Part | None]) -> LogChunk | None:
        """The next chunk; None if there is nothing for it now."""
        if self.past:
            return self._from_past()
        rows: list[tuple[Part, Sequence[int], list[str]]] = []
        size = count = 0
        while size < CHUNK_BYTES and (part := part_at(self.next)) is not None:
            if not self.matcher.filter.wants(part.source):
                self._forget()
                continue
            wanted, messages = self._rows(self.next, part)
            each = part.size / len(part.columns)
            room = max(1, int((CHUNK_BYTES - size) / each))
            own = wanted[self._row : self._row + room]
            if own:
                rows.append((part, own, messages))
                count += len(own)
                size += int(each * len(own))
            self._row += len(own)
            if self._row >= len(wanted):
                self._forget()
        if not count and not self.missed:
            return None
        missed, self.missed = self.missed, 0
        return LogChunk(id=self.id, count=count, body=self._body(rows), missed=missed)

    def _body(self, rows: list[tuple[Part, Sequence[int], list[str]]]) -> bytes:
        if not rows:
            return b""
        if self.batch:
            data = [_live(part, own, messages) for part, own, messages in rows]
            return b'{"topic":"logs","data":%b}' % _encoder.encode(data)
        return b"\n".join(
            b'{"topic":"logs","data":%b}' % _encoder.encode(record(part.source, part.columns, i, messages[i], part.gap))
            for part, own, messages in rows
            for i in own
        )

    def _from_past(self) -> LogChunk:
        taken: list[LogRecord] = []
        size = 0
        while self.past and size < CHUNK_BYTES:
            record = self.past.popleft()
            taken.append(record)
            size += len(record.message) + OVERHEAD_BYTES
        if self.batch:
            data = list(_as_columns(taken))
            body = b'{"topic":"logs","data":%b}' % _encoder.encode(data)
        else:
            body = b"\n".join(b'{"topic":"logs","data":%b}' % _encoder.encode(record) for record in taken)
        return LogChunk(id=self.id, count=len(taken), body=body)


class Live:
    """``limit``: bytes of records that are kept for those who lag behind."""

    def __init__(self, limit: int = RING_BYTES) -> None:
        self._limit = limit
        self._ring: deque[Part] = deque()
        self._first = 0
        self._bytes = 0
        self.subscriptions: dict[int, Subscription] = {}
        self._failed: list[tuple[int, str]] = []

    @property
    def next(self) -> int:
        return self._first + len(self._ring)

    def publish(self, source: LogSource, columns: Columns, gap: Gap | None = None) -> None:
        if not self.subscriptions:
            self._first = self.next + 1
            self._ring.clear()
            self._bytes = 0
            return
        part = Part(source, columns, gap)
        self._ring.append(part)
        self._bytes += part.size
        while self._bytes > self._limit and len(self._ring) > 1:
            for subscription in list(self.subscriptions.values()):
                if subscription.next == self._first:
                    try:
                        subscription.skip(self._ring[0])
                    except Exception:  # noqa: BLE001 - the guard: whoever publishes has no part in it
                        self._end(subscription)
            self._let_go()

    def _let_go(self) -> None:
        self._bytes -= self._ring.popleft().size
        self._first += 1

    def subscribe(self, id: int, matcher: Matcher, *, batch: bool, window: int) -> Subscription:
        subscription = Subscription(id, matcher, batch=batch, window=window, next=self.next)
        self.subscriptions[id] = subscription
        return subscription

    def unsubscribe(self, id: int) -> None:
        self.subscriptions.pop(id, None)

    def take_failed(self) -> list[tuple[int, str]]:
        """Subscriptions that could not go on, and why; they are gone."""
        failed, self._failed = self._failed, []
        return failed

    def _end(self, subscription: Subscription) -> None:
        """It just failed."""
        self._failed.append((subscription.id, f"a subscription failed: {exception_text()}"))
        self.unsubscribe(subscription.id)

    def taken(self, id: int) -> None:
        if (subscription := self.subscriptions.get(id)) is not None:
            subscription.window += 1

    def chunks(self) -> Iterator[LogChunk]:
        """What may be sent now."""
        for subscription in list(self.subscriptions.values()):
            while subscription.window > 0 and not subscription.paused:
                try:
                    chunk = subscription.fill(self._part)
                except Exception:  # noqa: BLE001 - the guard: the same filter would end us again and again
                    self._end(subscription)
                    break
                if chunk is None:
                    break
                subscription.window -= 1
                yield chunk
        slowest = min((each.next for each in self.subscriptions.values()), default=self.next)
        while self._ring and self._first < slowest:
            self._let_go()

    def _part(self, number: int) -> Part | None:
        place = number - self._first
        return self._ring[place] if 0 <= place < len(self._ring) else None


def _live(part: Part, rows: Sequence[int], messages: list[str]) -> LiveColumns:
    source, columns = part.source, part.columns
    whole = len(rows) == len(columns)
    levels, streams = columns.levels, columns.streams
    if not whole:
        levels, streams = bytes([levels[i] for i in rows]), bytes([streams[i] for i in rows])
    times = columns.times
    return LiveColumns(
        app=source.app,
        process=source.process,
        container=source.container,
        replica=source.replica,
        times=[times[i * 30 : i * 30 + 30] for i in rows],
        levels=levels.translate(_TO_DIGITS).decode("ascii"),
        streams=streams.translate(_TO_DIGITS).decode("ascii"),
        messages=messages if whole else [messages[i] for i in rows],
        gap=part.gap is not None,
    )


def _as_columns(taken: list[LogRecord]) -> Iterator[LiveColumns]:
    """Records of a page, each run of one container together."""
    at = 0
    while at < len(taken):
        first, end = taken[at], at + 1
        while end < len(taken) and (taken[end].container, taken[end].gap) == (first.container, first.gap):
            end += 1
        run = taken[at:end]
        yield LiveColumns(
            app=first.app,
            process=first.process,
            container=first.container,
            replica=first.replica,
            times=[record.ts for record in run],
            levels="".join(str(LEVELS.index(record.level)) for record in run),
            streams="".join(str(STREAMS.index(record.stream)) for record in run),
            messages=[record.message for record in run],
            gap=first.gap is not None,
        )
        at = end


_TO_DIGITS = bytes(48 + n if n < 10 else n for n in range(256))
