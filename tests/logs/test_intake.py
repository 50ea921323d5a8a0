"""Whatever a container prints, however it is read, wherever everything ends: each line is in the store once, in order."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from json_file import BEGIN_NS, JsonFile, go_time

from ndactors.core.jsonlines import MAX_LINE
from ndactors.core.logrecords import STREAMS, Gap, LogRecord, LogSource, format_ns, normal_time, records
from ndactors.logs import blocks, segments
from ndactors.logs.intake import (
    ACTIVE_SECONDS,
    BLOCK_BYTES,
    BLOCK_SECONDS,
    IDLE_SECONDS,
    OPEN_SECONDS,
    QUIET_SECONDS,
    Intake,
)
from ndactors.logs.segments import Segments, segment_numbers, segment_path

TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "/app/shop.py", line 12, in pay',
    "    total / count",
    "ZeroDivisionError: division by zero",
    "",
    "During handling of the above exception, another exception occurred:",
    "",
    "Traceback (most recent call last):",
    '  File "/app/shop.py", line 14, in pay',
    "    raise Refused from None",
    "shop.Refused: no",
]


class World:
    """A container, its log files, and who stores them."""

    def __init__(self, folder: Path, max_size: int = 1 << 20, max_file: int = 50, path: str | None = None) -> None:
        self.store = folder / "store"
        self.file = JsonFile(folder / "c-json.log", max_size, max_file)
        self.source = LogSource(
            container="c" * 12, app="shop", process="web", path=str(self.file.path) if path is None else path
        )
        self.now = 100.0
        self.live: list[LogRecord] = []
        self.begin()

    def begin(self) -> None:
        self.segments = Segments(self.store, lambda kind, words: None)
        self.segments.segment_bytes = 20_000
        self.segments.open()
        _, position = self.segments.positions.get(self.source.container, (self.source, None))
        self.intake = Intake(self.source, position, self._publish, lambda: format_ns(BEGIN_NS))

    def _publish(self, source: LogSource, columns: object, gap: Gap | None) -> None:
        self.live += records(source, columns, gap=gap)

    def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.intake.step(self.now)

    def put(self, most: int = 1_000_000) -> None:
        while most and (block := self.intake.next_block()) is not None:
            columns, position, gap, bundles = block
            self.segments.append(self.source, columns, position, gap)
            self.intake.stored(bundles, self.now)
            most -= 1

    def crash(self, torn: int = 0) -> None:
        """Killed; ``torn`` bytes of what was written last did not reach the disk."""
        self.stop()
        if torn and (numbers := segment_numbers(self.store)):
            path = segment_path(self.store, numbers[-1])
            os.truncate(path, max(0, path.stat().st_size - torn))
        self.begin()

    def stop(self) -> None:
        self.intake.close()
        self.segments._syncer.stop()
        if self.segments._file >= 0:
            os.close(self.segments._file)

    def drain(self) -> None:
        """Until there is nothing more to read, and what could go on does not."""
        idle = 0
        while idle < 3:
            before = self.intake.tail.position(), self.intake.waits
            self.step(QUIET_SECONDS + 0.01)
            self.put()
            idle = idle + 1 if (self.intake.tail.position(), self.intake.waits) == before else 0

    def close(self) -> None:
        self.stop()
        self.file.close()

    def stored(self) -> list[LogRecord]:
        """In the order in which they were stored."""
        found = []
        for number in segment_numbers(self.store):
            with segments.mapped(segment_path(self.store, number)) as data:
                for place in blocks.scan(data):
                    assert not isinstance(place, int)
                    if not place.header.checkpoint:
                        columns = blocks.decode(bytes(data[place.end - place.payload_bytes : place.end]), place)
                        found += records(place.header.source, columns, gap=place.header.gap)
        return found

    def lines(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {stream: [] for stream in STREAMS}
        for record in self.stored():
            if record.gap is None:
                found[record.stream] += record.message.split("\n")
        return found

    def gaps(self) -> list[Gap]:
        return [record.gap for record in self.stored() if record.gap is not None]


@pytest.fixture
def world(tmp_path: Path):
    world = World(tmp_path)
    yield world
    world.close()


def messages(found: list[LogRecord]) -> list[str]:
    return [record.message for record in found]


# -- whatever happens ------------------------------------------------------------------------------

_TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=12),
    st.sampled_from(
        [
            *TRACEBACK,
            "",
            "\0",
            "a\0b",
            "x\r",
            "\r",
            "\r\r",
            "ERROR it failed",
            "\x1b[31mred\x1b[0m",
            "\u2028<&>",
            '{"level":"error"}',
        ]
    ),
    st.builds(
        lambda size, sign: sign * size,
        st.sampled_from([16_383, 16_384, 16_385, 32_768, 40_000]),
        st.sampled_from("xé\0"),
    ),
)
_STREAM = st.sampled_from(STREAMS)
_OP = st.one_of(
    st.tuples(st.just("print"), _STREAM, st.lists(_TEXT, min_size=1, max_size=6)),
    st.tuples(st.just("bit"), _STREAM, st.integers(1, 20_000)),
    st.tuples(st.just("step"), st.sampled_from([0.0, 0.01, QUIET_SECONDS, OPEN_SECONDS])),
    st.tuples(st.just("put"), st.integers(0, 3)),
    st.sampled_from([("rotate",), ("moved",), ("checkpoint",)]),
    st.tuples(st.just("crash"), st.sampled_from([0, 0, 1, 50, 2000])),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(_OP, max_size=30), st.sampled_from([300, 2_000, 40_000]), st.booleans())
def test_every_line_is_stored_once_and_in_order(ops, max_size, newline):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), max_size, max_file=900)
        rest = dict.fromkeys(STREAMS, b"")
        for op in ops:
            match op:
                case ("print", stream, lines):
                    world.file.write(rest[stream], stream)
                    rest[stream] = b""
                    world.file.print(*lines, stream=stream)
                case ("bit", stream, size):
                    # of what a program prints slowly, not only whole lines
                    rest[stream] = rest[stream] or b"slowly \xc3\xa9\n" * 3 + b"z" * 30_000 + b"\r\n\n"
                    world.file.write(rest[stream][:size], stream)
                    rest[stream] = rest[stream][size:]
                case ("step", seconds):
                    world.step(seconds)
                case ("put", most):
                    world.put(most)
                case ("rotate",):
                    world.file.rotate()
                case ("moved",):
                    world.intake.rotated = True
                case ("checkpoint",):
                    world.segments.checkpoint()
                case ("crash", torn):
                    world.crash(torn)
        world.file.end(newline)
        world.drain()
        world.file.remove()
        world.drain()
        assert world.intake.finished
        assert world.lines() == {stream: world.file.lines[stream] for stream in STREAMS}
        assert not world.gaps()
        world.close()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.binary(max_size=60)
        | st.sampled_from([b"\n", b'{"log":"', b'{"log":"a\\n"}\n', b'"}', b"\xff\n", b"\0" * 5]),
        max_size=20,
    ),
    st.lists(st.sampled_from(["write", "step", "put", "crash", "rotate", "empty"]), max_size=30),
)
@example([b'{"log":"', b" ", b'"}'], [])
def test_whatever_is_in_the_file_nothing_raises_and_it_goes_on(parts, ops):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        waiting = list(parts)
        for op in [*ops, *["write"] * len(parts)]:
            match op:
                case "write":
                    world.file.record(waiting.pop(0) if waiting else b"")
                case "step":
                    world.step(QUIET_SECONDS)
                case "put":
                    world.put()
                case "crash":
                    world.crash()
                case "rotate":
                    world.file.rotate()
                case "empty":
                    os.truncate(world.file.path, 0)
        world.file.record(b"\n")
        world.file.print("the end of what may have begun as a line")
        world.drain()
        world.file.print("it goes on")
        world.drain()
        assert world.lines()["stdout"][-1:] == ["it goes on"]
        world.close()


# -- what is known of a line -----------------------------------------------------------------------


def test_times_are_those_of_the_file_and_levels_those_of_the_lines(world):
    world.file.print("ERROR one")
    world.file.clock = BEGIN_NS + 1_500_000_000
    world.file.print("two", stream="stderr")
    world.drain()
    assert [(record.ts, record.level, record.stream, record.message) for record in world.stored()] == [
        ("2026-01-31T12:00:00.000000000Z", "error", "stdout", "ERROR one"),
        ("2026-01-31T12:00:01.500000000Z", "info", "stderr", "two"),
    ]
    assert world.live == world.stored()


def test_a_line_of_many_pieces_has_the_time_of_its_first(world):
    world.file.write(b"x" * 20_000)
    world.file.print("between", stream="stderr")
    world.step()
    world.put()
    world.crash()
    world.file.write(b"y\n")
    world.drain()
    assert messages(world.stored()) == ["between", "x" * 20_000 + "y"]
    assert world.stored()[1].ts == format_ns(BEGIN_NS)


def test_a_line_without_any_end_is_cut_and_nothing_of_it_is_lost(world):
    world.file.max_size = 1 << 30
    text = "".join(f"{n:07d} " for n in range((2 * MAX_LINE + 100_000) // 8))
    world.file.print(text, "after")
    world.drain()
    found = messages(world.stored())
    assert [len(line) for line in found] == [MAX_LINE, MAX_LINE, len(text) - 2 * MAX_LINE, 5]
    assert "".join(found) == f"{text}after"


def test_a_time_that_is_none_stops_nothing(world):
    world.file.record(b'{"log":"a\\n","time":"9999-12-31T23:59:59.999999999Z"}\n')
    world.file.record(b'{"log":"b\\n","time":"2026-01-31T12:00:05Z"}\n')
    world.file.record(b'{"log":"c\\n","time":"2026-02-31T12:00:00.000000000Z"}\n')
    world.file.record(b'{"log":"d\\n"}\n')
    world.drain()
    world.crash()
    assert [(record.message, record.ts[:19]) for record in world.stored()] == [
        ("a", "1970-01-01T00:00:00"),
        ("b", "2026-01-31T12:00:05"),
        ("c", "2026-01-31T12:00:05"),
        ("d", "2026-01-31T12:00:05"),
    ]


# -- tracebacks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, len(TRACEBACK)))
def test_a_traceback_that_comes_in_two_parts_is_one_record_if_the_pause_is_short(world, cut):
    world.file.print("before", *TRACEBACK[:cut])
    world.step()
    world.step(QUIET_SECONDS - 0.02)
    world.file.print(*TRACEBACK[cut:], "after")
    world.drain()
    assert messages(world.stored()) == ["before", "\n".join(TRACEBACK), "after"]
    assert messages(world.live) == messages(world.stored())


def test_a_traceback_that_comes_line_by_line_is_one_record_and_survives_a_crash(world):
    for line in TRACEBACK:
        world.file.print(line)
        world.step(0.05)
        world.put()
        world.crash()
    world.drain()
    assert messages(world.stored()) == ["\n".join(TRACEBACK)]


def test_a_traceback_is_closed_when_nothing_comes_any_more(world):
    world.file.print(*TRACEBACK[:4])
    world.step()
    assert not world.live
    world.step(QUIET_SECONDS - 0.02)
    assert not world.live
    world.step(0.03)
    assert messages(world.live) == ["\n".join(TRACEBACK[:4])]
    world.file.print("late")
    world.drain()
    assert messages(world.stored()) == ["\n".join(TRACEBACK[:4]), "late"]


def test_each_traceback_has_its_time(world):
    world.file.print(*TRACEBACK)
    world.drain()
    world.now += 10
    for line in TRACEBACK:
        world.file.print(line)
        world.step(0.02)
    world.drain()
    assert messages(world.stored()) == ["\n".join(TRACEBACK)] * 2


def test_other_output_does_not_keep_a_traceback_open_for_long(world):
    world.file.print(*TRACEBACK[:4], stream="stderr")
    begin = world.now
    while not world.live:
        world.file.print("GET / 200")
        world.step(0.1)
        assert world.now < begin + OPEN_SECONDS + 0.3
    assert "\n".join(TRACEBACK[:4]) in messages(world.live)


def test_a_traceback_behind_much_else_is_whole(world):
    world.file.max_size = 1 << 30
    lines = [f"INFO line {n} {'x' * 200}" for n in range(5000)]
    for at in (1, 1500, 3000, 4500):
        lines[at:at] = TRACEBACK
    world.file.print(*lines)
    world.drain()
    assert sum(message == "\n".join(TRACEBACK) for message in messages(world.stored())) == 4
    assert world.lines()["stdout"] == lines


def test_streams_that_mix_make_no_mess_of_a_traceback(world):
    for line in TRACEBACK:
        world.file.print(line, stream="stderr")
        world.file.print("other")
        world.step(0.01)
    world.drain()
    assert sorted(messages(world.stored())) == sorted(["\n".join(TRACEBACK), *["other"] * len(TRACEBACK)])


def test_the_end_of_a_rotated_file_waits_for_nothing(world):
    world.file.print("ERROR a")
    world.file.rotate()
    world.file.print("b")
    world.step()
    assert messages(world.live) == ["ERROR a"]


def test_blank_lines_of_a_file_do_not_move_where_it_is_cut(world):
    world.file.print("a")
    world.file.record(b"\n")
    world.file.print("ERROR b")
    world.file.record(b"\n\n\0\n")
    world.step()
    world.put()
    world.crash()
    world.drain()
    assert messages(world.stored()) == ["a", "ERROR b"]


def test_several_lines_in_one_record_of_the_file_are_not_cut(world):
    world.file.record(b'{"log":"ERROR a\\nERROR b\\n","stream":"stdout","time":"2026-01-31T12:00:00Z"}\n{"log":""}\n')
    world.step()
    world.put()
    world.crash()
    world.drain()
    assert world.lines()["stdout"] == ["ERROR a", "ERROR b"]


# -- blocks ----------------------------------------------------------------------------------------


def test_a_block_is_made_of_much_or_after_a_while(world):
    world.file.max_size = 1 << 30
    world.file.print("a")
    world.step()
    assert not world.intake.ready(world.now)
    assert world.intake.ready(world.now + BLOCK_SECONDS)
    world.file.print(*["x" * 1000] * 600)
    for _ in range(4):
        world.step(ACTIVE_SECONDS)
    assert world.intake.ready(world.now)
    assert world.intake.waiting_bytes == 2 + 600 * 1001
    world.put()
    assert (world.intake.waiting_bytes, world.intake.waits) == (0, False)


def test_blocks_stay_small_however_long_nothing_could_be_stored(world):
    world.file.max_size = 1 << 30
    world.file.print(*["x" * 1000] * 3000)
    for _ in range(10):
        world.step(ACTIVE_SECONDS)
    columns, position, _, bundles = world.intake.next_block()
    assert len(columns.text) < 2 * BLOCK_BYTES
    world.segments.append(world.source, columns, position)
    world.intake.stored(bundles, world.now)
    world.crash()
    world.drain()
    assert world.lines()["stdout"] == world.file.lines["stdout"]


def test_it_looks_again_at_once_soon_or_later(world, tmp_path):
    world.step()
    assert world.intake.due == world.now + IDLE_SECONDS
    world.file.print("a")
    world.step()
    assert world.intake.due == world.now + ACTIVE_SECONDS
    world.file.max_size = 1 << 30
    world.file.print(*["x" * 1000] * 1000)
    world.step()
    assert world.intake.due == world.now
    (tmp_path / "absent").mkdir()
    absent = World(tmp_path / "absent", path="/nowhere/at/all")
    absent.step()
    assert absent.intake.due > absent.now + IDLE_SECONDS
    absent.close()


def test_new_files_are_found_though_nobody_tells_of_them(world):
    world.file.max_size = 100
    for number in range(10):
        world.file.print(f"line {number}")
        world.step(IDLE_SECONDS)
        world.step(IDLE_SECONDS)
    world.drain()
    assert world.lines()["stdout"] == [f"line {number}" for number in range(10)]


def test_a_new_file_that_cannot_be_opened_is_opened_later(world, monkeypatch):
    world.file.print("a")
    world.step()
    world.file.rotate()
    world.file.print("b")
    world.intake.rotated = True
    real = os.open

    def refused(path: object, *more: object, **named: object) -> int:
        if str(path) == str(world.file.path):
            raise OSError(24, "Too many open files")
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(OSError, match="Too many"):
        world.step()
    monkeypatch.setattr(os, "open", real)
    world.drain()
    assert world.lines()["stdout"] == ["a", "b"]


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", [True, False])
def test_when_the_files_are_gone_all_is_read_and_it_is_over(world, newline):
    world.file.print("a", "ERROR b")
    world.file.write(b"x" * 20_000)
    world.file.write(b"half", "stderr")
    world.step()
    world.file.end(newline)
    world.file.remove()
    for _ in range(5):
        world.step(0.01)
    assert world.intake.finished and world.intake.ready(world.now)
    world.put()
    assert world.lines() == {"stdout": ["a", "ERROR b", "x" * 20_000], "stderr": ["half"]}


def test_a_container_that_printed_nothing_ends_too(world):
    world.step()
    world.file.remove()
    world.step()
    world.step()
    assert world.intake.finished and not world.intake.waits


# -- what was lost ---------------------------------------------------------------------------------


def test_what_goes_by_unseen_is_a_gap_between_what_was_seen(world):
    world.file.max_file = 2
    world.file.print("a", "b")
    world.step()
    world.intake.tail.expect()
    world.intake.tail.hand_over(os.open(world.file.path, os.O_RDONLY), 0)
    world.intake.tail.all_handed_over()
    world.file.print("c")
    for number in range(5):
        world.file.rotate()
        world.file.print(f"after {number}")
    world.intake.tail.hand_over(os.open(f"{world.file.path}.1", os.O_RDONLY), 3)
    world.intake.tail.hand_over(os.open(world.file.path, os.O_RDONLY), 0)
    world.drain()
    assert [record.gap.reason if record.gap else record.message for record in world.stored()] == [
        *["a", "b", "c"],
        "3 files were rotated away unread",
        *["after 3", "after 4"],
    ]
    gap = next(record for record in world.stored() if record.gap)
    assert (gap.level, gap.stream, gap.message) == ("warning", "stderr", gap.gap.words())
    assert gap.gap.since == gap.ts == world.stored()[2].ts
    world.crash()
    world.drain()
    assert len(world.stored()) == 6


def test_what_is_given_up_is_counted_once_and_told_once(world):
    world.file.print("a")
    world.step()
    sizes = []
    for name in "bcd":
        world.file.print(f"{name}1", f"{name}2")
        sizes.append(world.file.bytes)
        world.file.rotate()
    sizes[0] -= world.intake.tail.position().offset
    world.file.print("e")
    world.intake.tail.look()
    for _ in range(3):
        world.intake.lost(world.intake.tail.drop(), world.now)
    world.drain()
    (gap,) = world.gaps()
    assert (gap.bytes, gap.lines, gap.at_least) == (sum(sizes), 6, False)
    assert [record.gap.bytes for record in world.live if record.gap] == sizes
    assert [record.message for record in world.stored() if not record.gap] == ["a", "e"]
    world.crash()
    world.drain()
    assert len(world.stored()) == 3


def test_after_a_loss_at_the_begin_of_a_file_nothing_is_stored_twice(world):
    """The gap is stored before any line of the next file is there, and then everything ends."""
    world.file.print("a")
    world.step()
    world.put()
    world.file.print("b")
    world.file.rotate()
    world.intake.tail.look()
    world.file.rotated(1).unlink()
    world.intake.lost(world.intake.tail.drop(), world.now)
    world.put()
    world.crash()
    world.file.print("c")
    world.drain()
    assert [record.message for record in world.stored() if not record.gap] == ["a", "c"]
    assert len(world.gaps()) == 1


@pytest.mark.parametrize("blocks_stored", [1, 2])
def test_a_line_whose_end_is_lost_ends_at_the_gap(world, blocks_stored):
    world.file.write(b"x" * 16_384)
    world.step()
    world.file.write(b"rest\n")
    world.file.rotate()
    world.file.print("next")
    world.intake.tail.look()
    world.file.rotated(1).unlink()
    world.intake.lost(world.intake.tail.drop(), world.now)
    world.put(blocks_stored)
    world.crash()
    world.drain()
    found = [("gap" if record.gap else record.message) for record in world.stored()]
    assert found == ["x" * 16_384, "gap", "next"]


def test_a_file_that_lost_its_end_is_read_again_without_what_is_stored(world):
    world.file.tick = 0
    world.file.print("a", "b")
    world.file.clock += 10
    world.file.print("c")
    world.drain()
    os.truncate(world.file.path, world.file.bytes - 5)
    world.crash()
    world.file.record(b"\n")
    world.file.clock += 10
    world.file.print("d")
    world.drain()
    assert messages(world.stored()) == ["a", "b", "c", "d"]


def test_the_begin_of_a_line_that_the_file_has_lost_is_not_joined_to_another(world):
    world.file.print("a")
    world.step()
    size = world.file.bytes
    world.file.write(b"x" * 16_384)
    world.step()
    world.put()
    os.truncate(world.file.path, size)
    world.crash()
    world.file.record(b'{"log":"b\\n","stream":"stdout","time":"2026-01-31T12:00:05Z"}\n')
    world.drain()
    assert messages(world.stored()) == ["a", "b"]


# -- what the engine is asked ----------------------------------------------------------------------


class Engine:
    """What it answers: the pieces of its files from a time on."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder, path="")
        self.rows: list[tuple[str, str, str]] = []
        real = self.world.file.record

        def record(data: bytes) -> None:
            row = json.loads(data)
            self.rows.append((row["time"], row["stream"], row["log"]))
            real(data)

        self.world.file.record = record

    def poll(self, back: int = 0) -> None:
        """``back``: so many rows from before are told too."""
        since = self.world.intake.position().last
        self.world.now += 1.0
        begin = next((i for i, row in enumerate(self.rows) if since_or_later(row, since)), len(self.rows))
        before, after = self.rows[max(0, begin - back) : begin], self.rows[begin:]
        told = before + [row for row in after if since_or_later(row, since)]
        self.world.intake.asked(tuple(told), self.world.now)


def since_or_later(row: tuple[str, str, str], since: str) -> bool:
    return (normal_time(row[0]) or "") >= since


@pytest.fixture
def engine(tmp_path: Path):
    engine = Engine(tmp_path)
    yield engine
    engine.world.close()


def test_answers_that_overlap_are_stored_once(engine):
    world = engine.world
    for number in range(20):
        world.file.tick = (number % 3) * 1000
        world.file.print(f"line {number}")
        engine.poll(back=number % 4)
        if number % 5 == 0:
            world.put()
            world.crash()
        engine.poll()
    world.put()
    assert world.lines()["stdout"] == [f"line {number}" for number in range(20)]
    assert world.intake.position() == world.segments.positions[world.source.container][1]


def test_lines_of_the_very_same_time_are_told_apart_by_their_number(engine):
    world = engine.world
    world.file.tick = 0
    for _ in range(6):
        world.file.print("the same")
        engine.poll()
        engine.poll()
    world.put()
    assert messages(world.stored()) == ["the same"] * 6


def test_two_streams_that_are_a_little_out_of_order_are_not_told_again_for_ever(engine):
    world = engine.world
    world.file.clock += 5000
    world.file.print("b")
    world.file.clock -= 5000
    world.file.print("a", stream="stderr")
    for _ in range(5):
        engine.poll()
    world.put()
    assert sorted(messages(world.stored())) == ["a", "b"]


def test_a_traceback_is_one_record_however_often_it_is_asked_for(engine):
    world = engine.world
    for line in TRACEBACK:
        world.file.print(line)
        world.now -= 0.95
        engine.poll()
    engine.poll()
    engine.poll()
    world.file.print("after")
    engine.poll()
    engine.poll()
    world.put()
    assert messages(world.stored()) == ["\n".join(TRACEBACK), "after"]


def test_a_traceback_that_grew_after_it_was_stored_loses_no_line(engine):
    world = engine.world
    world.file.print(*TRACEBACK[:2])
    for _ in range(3):
        engine.poll()
    world.file.print(*TRACEBACK[2:])
    for _ in range(3):
        engine.poll()
    world.put()
    assert world.lines()["stdout"] == TRACEBACK


def test_a_long_line_is_whole_though_the_other_stream_goes_on(engine):
    """All its pieces have the time of the first."""
    world = engine.world
    world.file.write(b"x" * 20_000)
    world.file.print("a", stream="stderr")
    engine.poll()
    world.file.write(b"y\n")
    engine.poll()
    engine.poll()
    world.put()
    assert world.lines() == {"stdout": ["x" * 20_000 + "y"], "stderr": ["a"]}


def test_a_line_that_does_not_end_holds_up_the_other_stream_for_a_moment_only(engine):
    world = engine.world
    world.file.write(b"x" * 20_000)
    world.file.print("a", "b", stream="stderr")
    for _ in range(3):
        engine.poll()
    world.put()
    assert world.lines()["stderr"] == ["a", "b"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.just("print"),
                _STREAM,
                st.sampled_from(["a", "b", "", "ERROR c", *TRACEBACK]),
                st.sampled_from([0, 1, 1000]),
            ),
            st.tuples(st.just("poll"), st.integers(0, 3)),
            st.sampled_from([("put",), ("crash",)]),
        ),
        max_size=40,
    )
)
def test_whatever_is_asked_when_every_line_is_stored_once(ops):
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        engine = Engine(Path(folder))
        world = engine.world
        stack.callback(world.close)
        for op in ops:
            match op:
                case ("print", stream, line, tick):
                    world.file.tick = tick
                    world.file.print(line, stream=stream)
                case ("poll", back):
                    engine.poll(back)
                case ("put",):
                    world.put()
                case ("crash",):
                    world.crash()
        for _ in range(3):
            engine.poll()
        world.put()
        assert world.lines() == {stream: world.file.lines[stream] for stream in STREAMS}


def test_when_files_can_be_read_at_last_nothing_is_stored_twice(engine):
    world = engine.world
    world.file.print("a", "b")
    engine.poll()
    engine.poll()
    world.put()
    world.source = LogSource(container=world.source.container, app="shop", process="web", path=str(world.file.path))
    world.crash()
    world.file.print("c")
    world.drain()
    assert messages(world.stored()) == ["a", "b", "c"]
    assert go_time(BEGIN_NS) == "2026-01-31T12:00:00Z"
