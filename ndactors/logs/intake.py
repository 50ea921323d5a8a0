"""What one container writes, on its way into the store: pieces become records, records wait until they make a block. Each
bundle of records knows how far the file is read with it, so that a block is the whole truth about its part."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from ..core.jsonlines import Assembly, Piece, parse
from ..core.loglines import understand
from ..core.logrecords import TIME_LENGTH, Columns, Gap, LogSource, Position, joined, normal_time, normal_times
from .tail import Tail

BLOCK_BYTES = 512 * 1024
"""Of text: so much makes a block."""
BLOCK_SECONDS = 5.0
"""A block is written after so long, however small it is."""
ACTIVE_SECONDS = 0.02
IDLE_SECONDS = 0.1
REST_SECONDS = 0.15
"""After so long without anything new a container rests: it is looked at when its file is written to."""
LONG_SECONDS = 1.0
ARMED_SECONDS = 10.0
"""And in any case after so long."""
ABSENT_SECONDS = 1.0
QUIET_SECONDS = 0.15
"""A record that may go on is closed after so long without anything new, of another stream neither."""
OPEN_SECONDS = 1.0
"""It is closed after so long in any case."""
OPEN_BYTES = 128 * 1024
NEAR = 64
"""Lines."""
WARNING, STDERR = 2, 1

Sink = Callable[[LogSource, Columns, Gap | None], None]
Lines = tuple[list[str], list[str], bytes]
"""Lines with their ends, their times, their streams."""


class Bundle(Struct, frozen=True):
    """Some records and where the file is after them."""

    columns: Columns
    position: Position
    gap: Gap | None = None


class _Held:
    """What is not taken yet, as it may go on."""

    def __init__(self) -> None:
        self._state: int | None = None
        self._same_since = self._since = 0.0

    def over(self, state: int, now: float) -> bool:
        """``state`` changes with it. Whether there was time enough."""
        if self._state is None:
            self._since = now
        if state != self._state:
            self._state, self._same_since = state, now
        return now - self._same_since >= QUIET_SECONDS or now - self._since >= OPEN_SECONDS


class Intake:
    """``live`` gets records as they are understood. ``now`` is monotonic; ``stamp`` gives the time as RFC 3339."""

    def __init__(self, source: LogSource, position: Position | None, live: Sink, stamp: Callable[[], str]) -> None:
        self.source = source
        self.tail = Tail(Path(source.path), position) if source.path else None
        self._live = live
        self._stamp = stamp
        self._assembly = Assembly(position.partial if position is not None else None)
        self._last = position.last if position is not None else ""
        self._same = position.same if position is not None else 0
        self._reached = position or Position()
        """Where the newest bundle reaches to."""
        self._skip: tuple[str, int] | None = None
        """Lines up to this time are stored, and so many of this very time."""
        self._waiting: deque[Bundle] = deque()
        self._since = 0.0
        self.waiting_bytes = 0
        self.due = 0.0
        """When to look again."""
        self.woken = False
        """Somebody saw that there is something new."""
        self.armed = False
        """It will be told of the next thing that is written."""
        self.up_to_date = False
        """All that was there was read, and none of it waits for more."""
        self._moved_at = 0.0
        """When it was seen last whether its file still has its name."""
        self._busy_at = 0.0
        self._rested = False
        """It had not written for long before it did the last time: so it is likely to rest again at once."""
        self.rotated = True
        """There may be files that are not open."""
        self._held = _Held()
        self.finished = False
        """Its files are gone, and all of them is read."""

    # -- reading -----------------------------------------------------------------------------------

    def step(self, now: float) -> None:
        """Read some of what is there. ``OSError``."""
        tail = self.tail
        if tail is None:
            return
        self.woken = self.up_to_date = False
        if self.rotated or not tail.files:
            if not tail.look():
                self.due = now + ABSENT_SECONDS
                return
            self.rotated = False
        # asked before the last read: what is written until then is read
        gone = tail.gone()
        data = tail.read(final=gone)
        if tail.realign:
            self._skip, tail.realign = (self._last, self._same), False
            self._assembly = Assembly()
        self._tell_gaps(now)
        if not data:
            self._see_whether_it_moved(now)
            self.due = now + (ARMED_SECONDS if self.armed else IDLE_SECONDS)
            if gone:
                self._finish(now)
            return
        self._rested = now - self._busy_at >= LONG_SECONDS
        self._busy_at, self.armed = now, False
        taken = self._take(data, now, final=gone or tail.ended)
        if taken:
            tail.took(taken)
            self._stamp_position()
        if not taken:
            self.due = now + QUIET_SECONDS  # all of it is a record that may go on
        else:
            self.due = now if len(data) >= OPEN_BYTES else now + ACTIVE_SECONDS
            self.up_to_date = taken == len(data) < OPEN_BYTES and tail.files == 1
        if now - self._moved_at > ARMED_SECONDS:
            self._see_whether_it_moved(now)

    def _see_whether_it_moved(self, now: float) -> None:
        """Whoever tells of new files may have missed one."""
        if self.tail is not None:
            self.rotated, self._moved_at = self.tail.moved(), now

    def arm(self, armed: bool, now: float) -> None:
        """Whether it is told of the next thing that is written."""
        self.armed = armed
        if armed and self.up_to_date:
            self.due = now + ARMED_SECONDS

    def behind(self) -> tuple[int, int]:
        """Bytes that are not read; those of them that are deleted already."""
        if self.tail is None or (self.armed and self.up_to_date and not self.woken):
            return 0, 0
        return self.tail.behind()

    def rests(self, now: float) -> bool:
        return now - self._busy_at >= REST_SECONDS or self._rested

    def skip(self, now: float) -> None:
        """Leave out what comes next: it makes us fail."""
        self._assembly = Assembly()
        if self.tail is not None and (data := self.tail.read(final=True)):
            self.tail.took(len(data))
            self.lost(Gap(bytes=len(data), lines=data.count(b"\n"), reason="it could not be understood"), now)
        self.due = now + ACTIVE_SECONDS

    def _take(self, data: bytes, now: float, *, final: bool) -> int:
        """How much of it is done."""
        pieces = parse(data)
        fresh = not self._assembly.partial
        lines = self._unknown(self._assembly.take(pieces))
        columns, left = understand(*lines, self._last)
        cut = len(data)
        if left and fresh and not final and [piece.log for piece in pieces] == lines[0]:
            cut = self._open_from(data, left, pieces, now)
        if cut < len(data):
            columns, lines = columns.without_last(left), _split(lines, -left)[0]
        if cut:
            self._held = _Held()
        self._add(columns, lines[1], now)
        return cut

    def _open_from(self, data: bytes, left: int, pieces: Sequence[Piece], now: float) -> int:
        """Where the lines begin that are read again, as their record may go on; at the end if they are not."""
        begin = _line_start(data, left)
        size = len(data) - begin
        # as long as others can be stored before it, it may wait
        waits = size < OPEN_BYTES and (begin > 0 or not self._held.over(size, now))
        return begin if waits and parse(data[begin:]) == pieces[-left:] else len(data)

    def asked(self, rows: tuple[tuple[str, str, str], ...], now: float) -> None:
        """Pieces of lines that the engine told, from the time of our last line on. What may go on is left to be told again,
        if it is not the same as last time."""
        assembly = Assembly()
        lines = assembly.take([Piece(log=text, stream=stream, time=time) for time, stream, text in rows])
        over, held = self._held.over(hash(rows), now), False
        if assembly.partial:
            # the rest of a line is told with the time of its begin, so what is newer waits for it
            begun = min(normal_time(time) or "" for time, _ in assembly.partial.values())
            place = next((i for i, time in enumerate(lines[1]) if (normal_time(time) or "") >= begun), None)
            if place is not None:
                older, newer = _split(lines, place)
                held = not over
                lines = older if held else _chained(older, assembly.finish(), newer)
        self._skip = (self._last, self._same)
        lines = self._unknown(lines)
        self._skip = None
        columns, left = understand(*lines, self._last)
        if left and not over:
            held = True
            columns, lines = columns.without_last(left), _split(lines, -left)[0]
        if lines[0] or not held:
            self._held = _Held()
        self._add(columns, lines[1], now)
        self._stamp_position()

    def _finish(self, now: float) -> None:
        self._end_lines(now)
        self._stamp_position()
        self.finished = True

    def _end_lines(self, now: float) -> None:
        """What has no end gets none any more."""
        lines = self._assembly.finish()
        self._add(understand(*lines, self._last)[0], lines[1], now)

    def _add(self, columns: Columns, times: list[str], now: float) -> None:
        """``times`` are those of the lines."""
        if not len(columns):
            return
        normal = normal_times(times, self._last) if columns.lines else columns.times
        # two streams may be out of order, but not far
        last = max(normal[at - TIME_LENGTH : at] for at in range(len(normal), 0, -TIME_LENGTH)[:NEAR])
        if last >= self._last:
            self._same = normal.count(last) + (self._same if last == self._last else 0)
            self._last = last
        if not self._waiting:
            self._since = now
        position = replace(self._reached, partial={}, last=self._last, same=self._same)
        self._waiting.append(Bundle(columns, position))
        self.waiting_bytes += len(columns.text)
        self._live(self.source, columns, None)

    def _unknown(self, lines: Lines) -> Lines:
        """Less what is stored: everything before the last time, and as many of that time as there were."""
        if self._skip is None or not lines[0]:
            return lines
        last, same = self._skip
        normal = normal_times(lines[1], last)
        wanted = []
        for i in range(len(lines[0])):
            time = normal[i * TIME_LENGTH : (i + 1) * TIME_LENGTH]
            if time == last and same > 0:
                same -= 1
            elif time >= last:
                wanted.append(i)
        # times only grow, so behind the first newer one there is nothing to compare any more
        self._skip = (last, same) if normal[-TIME_LENGTH:] <= last else None
        return [lines[0][i] for i in wanted], [lines[1][i] for i in wanted], bytes(lines[2][i] for i in wanted)

    # -- what was lost -----------------------------------------------------------------------------

    def _tell_gaps(self, now: float) -> None:
        assert self.tail is not None
        gaps, self.tail.gaps = self.tail.gaps, []
        for gap in gaps:
            self.lost(gap, now)

    def lost(self, gap: Gap, now: float) -> None:
        self._end_lines(now)
        gap = replace(gap, since=gap.since or self._last)
        self._live(self.source, self._told(gap), gap)
        before = self._waiting[-1] if self._waiting else None
        if before is not None and before.gap is not None:
            # one gap, as nothing was stored in between
            self._waiting.pop()
            gap = replace(
                gap,
                bytes=gap.bytes + before.gap.bytes,
                lines=gap.lines + before.gap.lines if gap.lines is not None and before.gap.lines is not None else None,
                at_least=gap.at_least or before.gap.at_least,
                since=before.gap.since,
            )
        if not self._waiting:
            self._since = now
        self._waiting.append(Bundle(self._told(gap), Position(), gap))
        self._stamp_position()

    def _told(self, gap: Gap) -> Columns:
        time = self._last or self._stamp()
        return Columns(text=gap.words() + "\n", times=time, levels=bytes([WARNING]), streams=bytes([STDERR]))

    def _stamp_position(self) -> None:
        """The newest bundle reaches to where we are now."""
        self._reached = self.position()
        if self._waiting:
            last = self._waiting[-1]
            self._waiting[-1] = Bundle(last.columns, self._reached, last.gap)

    def position(self) -> Position:
        place = self.tail.position() if self.tail is not None else Position()
        return replace(place, partial=dict(self._assembly.partial), last=self._last, same=self._same)

    # -- blocks ------------------------------------------------------------------------------------

    def ready(self, now: float) -> bool:
        """Whether what waits should become a block."""
        return bool(self._waiting) and (
            self.waiting_bytes >= BLOCK_BYTES or self.finished or now - self._since >= BLOCK_SECONDS
        )

    @property
    def store_due(self) -> float:
        """When what waits becomes a block, however small it is."""
        return self._since + BLOCK_SECONDS if self._waiting else float("inf")

    @property
    def waits(self) -> bool:
        return bool(self._waiting)

    def next_block(self) -> tuple[Columns, Position, Gap | None, int] | None:
        """What the next block has, and how many bundles that are; ``stored`` when it is in the store."""
        if not self._waiting:
            return None
        first = self._waiting[0]
        if first.gap is not None:
            return first.columns, first.position, first.gap, 1
        parts, position, size = [], first.position, 0
        for bundle in self._waiting:
            if bundle.gap is not None or size >= BLOCK_BYTES:
                break
            parts.append(bundle.columns)
            position = bundle.position
            size += len(bundle.columns.text)
        return joined(parts), position, None, len(parts)

    def stored(self, bundles: int, now: float) -> None:
        for _ in range(bundles):
            bundle = self._waiting.popleft()
            self.waiting_bytes -= len(bundle.columns.text) if bundle.gap is None else 0
        self._since = now

    def close(self) -> None:
        if self.tail is not None:
            self.tail.close()


def _line_start(data: bytes, count: int) -> int:
    """Where the last ``count`` lines begin."""
    at = len(data)
    for _ in range(count):
        at = data.rfind(b"\n", 0, at - 1) + 1
        if not at:
            return 0
    return at


def _split(lines: Lines, at: int) -> tuple[Lines, Lines]:
    texts, times, streams = lines
    return (texts[:at], times[:at], streams[:at]), (texts[at:], times[at:], streams[at:])


def _chained(*parts: Lines) -> Lines:
    return (
        [each for part in parts for each in part[0]],
        [each for part in parts for each in part[1]],
        b"".join(part[2] for part in parts),
    )
