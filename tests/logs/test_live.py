"""Who listens gets every record that matches, in order, or is told how many were left out at that place."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndactors.core.levels import LEVELS
from ndactors.core.logquery import LogFilter, Matcher
from ndactors.core.logrecords import STREAMS, Columns, Gap, LogSource, format_ns, records
from ndactors.logs.expressions import compile_re2
from ndactors.logs.live import Live
from ndactors.logs.query import Store, page
from ndactors.logs.segments import Segments
from ndactors.messages.logs import CHUNK_BYTES, GetLogs, LogChunk

SOURCES = (
    LogSource(container="aa11", app="shop", process="web", replica=1),
    LogSource(container="bb11", app="blog", process="web", replica=2),
)


def columns(*messages: str, begin: int = 0, levels: bytes = b"", streams: bytes = b"") -> Columns:
    counts = [message.count("\n") + 1 for message in messages]
    return Columns(
        text="".join(f"{message}\n" for message in messages),
        times="".join(format_ns(begin + i) for i in range(len(messages))),
        levels=levels or b"\1" * len(messages),
        streams=streams or bytes(len(messages)),
        lines=counts if max(counts) > 1 else [],
    )


def texts_of(chunk: LogChunk) -> list[dict[str, Any]]:
    """The records of a chunk, as whoever gets them sees them."""
    found = []
    for text in chunk.body.split(b"\n") if chunk.body else []:
        message = json.loads(text)
        assert message["topic"] == "logs"
        data = message["data"]
        if isinstance(data, dict):
            found.append(data)
            continue
        for block in data:
            rows = zip(block["times"], block["levels"], block["streams"], block["messages"], strict=True)
            for time, level, stream, text_of in rows:
                found.append(
                    {key: block[key] for key in ("app", "process", "container", "replica")}
                    | {"ts": time, "level": LEVELS[int(level)], "stream": STREAMS[int(stream)], "message": text_of}
                    | ({"gap": True} if block["gap"] else {})
                )
    assert len(found) == chunk.count
    return found


@dataclass
class Listener:
    """What it got, and where something was missing. ``expected`` is all that matched since it began."""

    id: int
    wanted: LogFilter
    expected: list[str] = field(default_factory=list)
    at: int = 0
    received: int = 0
    missed: int = 0

    def take(self, chunk: LogChunk) -> None:
        assert chunk.count or chunk.missed
        self.at += chunk.missed
        self.missed += chunk.missed
        for record in texts_of(chunk):
            assert record["message"] == self.expected[self.at], "in order, and what is missing is missing before it"
            self.at += 1
            self.received += 1


class Room:
    """Listeners to one ring, and what is said in it."""

    def __init__(self, limit: int) -> None:
        self.live = Live(limit)
        self.listeners: dict[int, Listener] = {}
        self.said = 0

    def join(self, wanted: LogFilter, *, batch: bool, window: int) -> Listener:
        listener = Listener(len(self.listeners), wanted)
        self.live.subscribe(listener.id, Matcher(wanted, compile_re2), batch=batch, window=window)
        self.listeners[listener.id] = listener
        return listener

    def say(self, source: LogSource, *texts: str, level: int = 1, stream: int = 0) -> None:
        messages = [f"{text} #{self.said + i}" for i, text in enumerate(texts)]
        count = len(messages)
        self.live.publish(
            source, columns(*messages, begin=self.said, levels=bytes([level] * count), streams=bytes([stream] * count))
        )
        self.said += count
        for listener in self.listeners.values():
            wanted = listener.wanted
            if wanted.wants(source) and (not wanted.levels or wanted.levels >> level & 1):
                listener.expected += [message for message in messages if wanted.q is None or wanted.q in message]

    def turn(self) -> list[LogChunk]:
        chunks = list(self.live.chunks())
        for chunk in chunks:
            self.listeners[chunk.id].take(chunk)
        return chunks


_SAY = st.tuples(
    st.just("say"),
    st.sampled_from(SOURCES),
    st.lists(st.sampled_from(["a", "b", "a\nb", "é" * 30, "x" * 300]), min_size=1, max_size=8),
    st.integers(0, 4),
)
_JOIN = st.tuples(
    st.just("join"),
    st.builds(
        LogFilter,
        app=st.sampled_from([None, None, "shop"]),
        levels=st.sampled_from([0, 0, 24]),
        q=st.sampled_from([None, None, "a", "#1"]),
    ),
    st.booleans(),
    st.integers(0, 3),
)


@settings(max_examples=250, deadline=None)
@given(
    st.lists(
        st.one_of(_SAY, _SAY, _JOIN, st.tuples(st.just("taken"), st.integers(0, 4)), st.just(("turn",))), max_size=40
    ),
    st.sampled_from([1, 600, 3000, 1 << 20]),
)
def test_what_is_received_and_what_is_missed_is_all_that_matches(ops, limit):
    room = Room(limit)
    for op in ops:
        match op:
            case ("say", source, texts, level):
                room.say(source, *texts, level=level)
            case ("join", wanted, batch, window):
                room.join(wanted, batch=batch, window=window)
            case ("taken", id):
                room.live.taken(id)
            case ("turn",):
                room.turn()
    for _ in range(200):
        for id in room.listeners:
            room.live.taken(id)
        room.turn()
    for listener in room.listeners.values():
        assert listener.received + listener.missed == listener.at == len(listener.expected)
        if limit == 1 << 20:
            assert not listener.missed
    assert not room.live._ring and not room.live._bytes


# -- how it travels --------------------------------------------------------------------------------


def listening(limit: int = 1 << 20, *, batch: bool = False, window: int = 1000, **wanted: object) -> tuple[Live, int]:
    live = Live(limit)
    live.subscribe(7, Matcher(LogFilter(**wanted), compile_re2), batch=batch, window=window)
    return live, 7


def test_a_record_travels_as_the_api_shows_it():
    live, _ = listening()
    live.publish(SOURCES[1], columns("one", "two\nlines", begin=5, levels=b"\3\0", streams=b"\1\0"))
    (chunk,) = live.chunks()
    common = {"app": "blog", "process": "web", "container": "bb11", "replica": 2}
    assert texts_of(chunk) == [
        {"ts": format_ns(5), **common, "stream": "stderr", "level": "error", "message": "one"},
        {"ts": format_ns(6), **common, "stream": "stdout", "level": "debug", "message": "two\nlines"},
    ]
    assert (chunk.id, chunk.missed) == (7, 0)


def test_a_batch_has_the_same_in_columns():
    live, _ = listening(batch=True, q="x")
    live.publish(SOURCES[0], columns("x1", "no", "x2", levels=b"\3\1\4", streams=b"\1\0\0"))
    live.publish(SOURCES[1], columns("x3"))
    (chunk,) = live.chunks()
    assert json.loads(chunk.body)["data"] == [
        {
            **{"app": "shop", "process": "web", "container": "aa11", "replica": 1},
            **{
                "times": [format_ns(0), format_ns(2)],
                "levels": "34",
                "streams": "10",
                "messages": ["x1", "x2"],
                "gap": False,
            },
        },
        {
            **{"app": "blog", "process": "web", "container": "bb11", "replica": 2},
            **{"times": [format_ns(0)], "levels": "1", "streams": "0", "messages": ["x3"], "gap": False},
        },
    ]


@pytest.mark.parametrize("batch", [True, False])
def test_a_gap_says_that_it_is_one(batch):
    live, _ = listening(batch=batch)
    gap = Gap(bytes=5, reason="why")
    live.publish(SOURCES[0], columns(gap.words()), gap)
    (record,) = texts_of(next(live.chunks()))
    assert record["message"] == gap.words()
    assert record["gap"]


def test_chunks_have_about_the_size_that_was_agreed():
    live, _ = listening(limit=1 << 30)
    for number in range(300):
        live.publish(SOURCES[0], columns(*["x" * (10 * (number % 50))] * 40))
    sizes = [len(chunk.body) for chunk in live.chunks()]
    assert len(sizes) > 10
    assert all(CHUNK_BYTES / 2 < size < 2 * CHUNK_BYTES for size in sizes[:-1])


def test_a_record_that_is_larger_than_a_chunk_is_one():
    live, _ = listening(limit=1 << 30)
    live.publish(SOURCES[0], columns("a", "x" * 10 * CHUNK_BYTES, "b"))
    assert [record["message"][:1] for chunk in live.chunks() for record in texts_of(chunk)] == ["a", "x", "b"]


def test_no_more_chunks_are_on_their_way_than_the_window_has_room_for():
    live, id = listening(limit=1 << 30, window=2)
    live.publish(SOURCES[0], columns(*["x" * 1000] * 1000))
    assert len(list(live.chunks())) == 2
    assert not list(live.chunks())
    live.taken(id)
    assert len(list(live.chunks())) == 1
    live.taken(99)
    assert not list(live.chunks())


def test_whoever_takes_nothing_holds_up_nobody_and_costs_no_more_than_the_ring():
    room = Room(limit=50_000)
    stuck = room.join(LogFilter(), batch=False, window=1)
    quick = room.join(LogFilter(), batch=True, window=1 << 30)
    for _ in range(2000):
        room.say(SOURCES[0], "x" * 100, "y" * 100)
        room.turn()
        assert room.live._bytes <= 50_000 + 1000
    assert (quick.received, quick.missed) == (4000, 0)
    room.live.taken(stuck.id)
    (chunk,) = room.turn()
    assert chunk.missed == stuck.missed
    assert stuck.missed > 3000
    room.live.unsubscribe(stuck.id)
    room.turn()
    assert not room.live._ring


def test_a_part_that_is_larger_than_the_ring_is_still_sent():
    room = Room(limit=100)
    listener = room.join(LogFilter(), batch=False, window=100)
    room.say(SOURCES[0], *["x" * 500] * 10)
    room.turn()
    assert (listener.received, listener.missed) == (10, 0)


def test_what_is_sent_of_a_part_is_not_missed_when_the_rest_is():
    room = Room(limit=1)
    listener = room.join(LogFilter(), batch=False, window=1)
    room.say(SOURCES[0], *["x" * 1000] * 500)
    room.turn()
    sent = listener.received
    assert 0 < sent < 500
    room.say(SOURCES[0], "after")
    room.live.taken(listener.id)
    room.turn()
    assert (listener.received, listener.missed) == (sent + 1, 500 - sent)


def test_nothing_is_kept_for_nobody():
    live = Live()
    live.publish(SOURCES[0], columns("a"))
    assert not live._ring
    live.subscribe(1, Matcher(LogFilter(), compile_re2), batch=False, window=9)
    live.publish(SOURCES[0], columns("b"))
    assert [record["message"] for chunk in live.chunks() for record in texts_of(chunk)] == ["b"]


def test_times_out_of_order_are_compared_one_by_one():
    live, _ = listening(since=format_ns(5), until=format_ns(8))
    text = columns("a", "b", "c", "d", "e")
    text.times = "".join(format_ns(at) for at in (6, 2, 9, 5, 7))
    live.publish(SOURCES[0], text)
    assert [record["message"] for chunk in live.chunks() for record in texts_of(chunk)] == ["a", "d", "e"]


def test_a_subscription_that_fails_ends_alone():
    live, _ = listening()
    live.subscribe(8, Matcher(LogFilter(q="/a/"), lambda pattern: lambda *_: 1 / 0), batch=False, window=9)
    live.publish(SOURCES[0], columns("a"))
    assert [chunk.id for chunk in live.chunks()] == [7]
    ((id, words),) = live.take_failed()
    assert (id, "ZeroDivisionError" in words) == (8, True)
    assert list(live.subscriptions) == [7]
    assert not live.take_failed()


def test_a_subscription_that_fails_while_nobody_reads_it_ends_alone():
    live = Live(limit=1)
    live.subscribe(8, Matcher(LogFilter(q="/a/"), lambda pattern: lambda *_: 1 / 0), batch=False, window=0)
    for _ in range(3):
        live.publish(SOURCES[0], columns("a"))
    assert [id for id, _ in live.take_failed()] == [8]
    assert not live.subscriptions


# -- the past, then what comes ---------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 30), max_size=6),
    st.lists(st.integers(1, 30), max_size=4),
    st.integers(1, 60),
    st.booleans(),
    st.integers(1, 4),
)
def test_the_last_ones_and_then_what_comes_nothing_missing_nothing_twice(before, during, tail, batch, window):
    with tempfile.TemporaryDirectory() as folder:
        store = Segments(Path(folder), lambda kind, words: None)
        store.open()
        live, printed = Live(), []

        def say(count: int) -> None:
            messages = [f"{'x' * 3000} #{len(printed) + i}" for i in range(count)]
            text = columns(*messages, begin=len(printed))
            printed.extend(messages)
            live.publish(SOURCES[0], text)
            store.append(SOURCES[0], text, None)

        for count in before:
            say(count)
        # what is said until now is stored; what is said from now on is in the ring
        wanted = LogFilter(q="#")
        subscription = live.subscribe(1, Matcher(wanted, compile_re2), batch=batch, window=window)
        subscription.paused = True
        upto, known = (store.number, store.length), len(printed)
        for count in during:
            say(count)
        assert not list(live.chunks())
        found = page(Store(Path(folder)), GetLogs(filter=wanted, limit=tail), upto, lambda: 0.0)
        subscription.past.extend(found.items)
        subscription.paused = False
        got: list[str] = []
        for round in range(100):
            for chunk in live.chunks():
                assert not chunk.missed
                got += [record["message"] for record in texts_of(chunk)]
            live.taken(1)
            if round < 3:
                say(1)
        assert got == printed[max(0, known - tail) :]
        store.close()


def test_what_is_missed_while_the_past_is_looked_for_is_told_after_it():
    live = Live(limit=1)
    subscription = live.subscribe(1, Matcher(LogFilter(), compile_re2), batch=False, window=9)
    subscription.paused = True
    for number in range(4):
        live.publish(SOURCES[0], columns(f"live {number}"))
    subscription.past.extend(records(SOURCES[0], columns("past")))
    subscription.paused = False
    chunks = list(live.chunks())
    assert [(chunk.missed, [record["message"] for record in texts_of(chunk)]) for chunk in chunks] == [
        (0, ["past"]),
        (3, ["live 3"]),
    ]


@pytest.mark.parametrize("batch", [True, False])
def test_a_long_past_comes_in_chunks_too(batch):
    live = Live()
    subscription = live.subscribe(1, Matcher(LogFilter(), compile_re2), batch=batch, window=99)
    gap = Gap(bytes=1, reason="why")
    subscription.past.extend(records(SOURCES[0], columns(*[f"{'x' * 1000} {n}" for n in range(200)])))
    subscription.past.extend(records(SOURCES[0], columns(gap.words()), gap=gap))
    subscription.past.extend(records(SOURCES[1], columns("end")))
    chunks = list(live.chunks())
    assert all(len(chunk.body) < 2 * CHUNK_BYTES for chunk in chunks)
    found = [record for chunk in chunks for record in texts_of(chunk)]
    assert [record["message"].split()[-1] for record in found] == [*map(str, range(200)), "why]", "end"]
    assert [record["app"] for record in found[-2:]] == ["shop", "blog"]
    assert [bool(record.get("gap")) for record in found[-3:]] == [False, True, False]
