"""What was acknowledged is in the store, whole, whatever is torn, flipped, full or gone; positions never say more than that."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndactors.core.logrecords import LATEST_NS, Columns, Gap, LogSource, Position, format_ns
from ndactors.logs import blocks, segments
from ndactors.logs.query import Store, page
from ndactors.logs.segments import (
    SEGMENT_SECONDS,
    Segments,
    index_path,
    read_index,
    read_newest,
    segment_numbers,
    segment_path,
)
from ndactors.messages.logs import GetLogs, LogPage

A = LogSource(container="a", app="shop", process="web")
B = LogSource(container="b", app="shop", process="worker")


class Ground:
    """A store and what is damaged in it. ``written`` counts the lines of the source: a position is so many of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports: list[tuple[str, str]] = []
        self.wall = time.time()
        self.open()

    def open(self) -> None:
        self.segments = Segments(self.folder, lambda kind, words: self.reports.append((kind, words)), lambda: self.wall)
        self.segments.open()

    def crash(self) -> None:
        """As if killed: nothing is told, nothing written."""
        self.segments._syncer.stop()
        if self.segments._file >= 0:
            with contextlib.suppress(OSError):
                os.close(self.segments._file)

    def reopen(self) -> None:
        self.crash()
        self.open()

    def add(self, *messages: str, source: LogSource = A, at: int | None = None, gap: Gap | None = None) -> None:
        """Records, each a nanosecond later; ``at``: the position behind them."""
        begin = at if at is not None else self.position(source) + len(messages)
        position = Position(inode=1, head=b"h", offset=begin)
        self.segments.append(source, columns(*messages, begin=begin - len(messages)), position, gap)

    def position(self, source: LogSource = A) -> int:
        return self.segments.positions.get(source.container, (source, Position()))[1].offset

    def roll(self) -> None:
        """The next block begins a new segment."""
        self.segments.segment_bytes = 1
        self.segments.checkpoint()
        self.segments.segment_bytes = segments.SEGMENT_BYTES

    @property
    def newest(self) -> Path:
        return segment_path(self.folder, segment_numbers(self.folder)[-1])


def columns(*messages: str, begin: int = 0) -> Columns:
    return Columns(
        text="".join(f"{message}\n" for message in messages),
        times="".join(format_ns(begin + i) for i in range(len(messages))),
        levels=b"\1" * len(messages),
        streams=bytes(len(messages)),
    )


def all_of(folder: Path) -> LogPage:
    found = page(Store(folder), GetLogs(limit=10_000, oldest_first=True), None, time.monotonic)
    assert found.next is None
    return found


def messages(folder: Path) -> list[str]:
    found = all_of(folder)
    assert not found.damaged
    return [item.message for item in found.items]


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    ground = Ground(tmp_path / "store")
    yield ground
    ground.crash()


def test_what_was_appended_is_there_with_all_that_belongs_to_it(ground):
    text = Columns(text="a\nb\nc\n", times=format_ns(5) + format_ns(7), levels=b"\3\0", streams=b"\1\0", lines=[2, 1])
    gap = Gap(bytes=7, lines=1, since=format_ns(1), reason="why")
    ground.segments.append(A, text, Position(inode=3, head=b"x", offset=9, partial={"stdout": ("t", "p")}))
    ground.segments.append(B, columns(gap.words()), None, gap)
    found = all_of(ground.folder).items
    assert [(item.message, item.ts, item.level, item.stream) for item in found[1:]] == [
        ("a\nb", format_ns(5), "error", "stderr"),
        ("c", format_ns(7), "debug", "stdout"),
    ]
    assert (found[0].gap, found[0].process) == (gap, "worker")
    ground.reopen()
    assert ground.segments.positions == {
        "a": (A, Position(inode=3, head=b"x", offset=9, partial={"stdout": ("t", "p")}))
    }


def test_the_latest_time_that_a_line_can_have_fits_in(ground):
    late = format_ns(LATEST_NS - 1)
    ground.segments.append(A, Columns(text="a\n", times=late, levels=b"\1", streams=b"\0"), None)
    ground.roll()
    ground.add("b", at=1)
    assert [item.ts for item in all_of(ground.folder).items] == [format_ns(0), late]
    assert read_newest(ground.folder, 1) == LATEST_NS - 1


# -- torn writes -----------------------------------------------------------------------------------


def read_on(ground: Ground, lines: list[str]) -> None:
    """As a reader does it: from where the store says that it is."""
    if rest := lines[ground.position() :]:
        ground.add(*rest)


LINES = ["one", "two", "three", "four", "five"]


def torn(ground: Ground) -> tuple[bytes, int]:
    """A store of two blocks: its bytes, and where the last block begins."""
    ground.add(*LINES[:3])
    begin = ground.newest.stat().st_size
    ground.add(*LINES[3:])
    ground.crash()
    return ground.newest.read_bytes(), begin


def test_a_block_cut_at_any_byte_is_written_again_and_nothing_twice(ground):
    whole, begin = torn(ground)
    path = ground.newest
    for length in range(begin, len(whole)):
        path.write_bytes(whole[:length])
        ground.open()
        assert ground.position() == 3
        assert messages(ground.folder) == LINES[:3]
        read_on(ground, LINES)
        assert messages(ground.folder) == LINES
        ground.reopen()
        assert ground.position() == 5
        ground.crash()
    assert {kind for kind, _ in ground.reports} == {"logs.repaired"}
    assert len(ground.reports) == len(whole) - begin - 1
    ground.open()


def test_a_block_with_any_byte_flipped_is_written_again_and_nothing_twice(ground):
    whole, begin = torn(ground)
    path = ground.newest
    for place in range(begin, len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 0xFF
        path.write_bytes(flipped)
        ground.open()
        assert ground.position() == 3
        read_on(ground, LINES)
        assert messages(ground.folder) == LINES
        ground.crash()
    ground.open()


def test_a_block_half_overwritten_with_zeros_is_written_again(ground):
    whole, begin = torn(ground)
    path = ground.newest
    for place in range(begin, len(whole), 7):
        path.write_bytes(whole[:place].ljust(len(whole) + 100, b"\0"))
        ground.open()
        read_on(ground, LINES)
        assert messages(ground.folder) == LINES
        ground.crash()
    ground.open()


@pytest.mark.parametrize("empty", [[b""], [b"", b""], [b"torn"], [b"torn", b"torn"], [b"", b"torn"], [b"torn", b""]])
def test_segments_without_a_block_at_the_end_change_nothing(ground, empty):
    ground.add(*LINES[:3])
    ground.roll()
    ground.crash()
    checkpoint = ground.newest.read_bytes()
    for content in empty:
        path = segment_path(ground.folder, segment_numbers(ground.folder)[-1] + 1)
        path.write_bytes(checkpoint[: len(checkpoint) // 2] if content else b"")
    ground.open()
    assert ground.position() == 3
    ground.add(*LINES[3:])
    assert [item.message for item in all_of(ground.folder).items] == LINES
    ground.reopen()
    assert ground.position() == 5


def test_a_checkpoint_that_is_damaged_is_replaced_by_what_was_before_it(ground):
    ground.add("a")
    ground.add("b", source=B)
    ground.roll()
    ground.add("c")
    ground.crash()
    content = bytearray(ground.newest.read_bytes())
    content[blocks.HEAD_BYTES + 2] ^= 1
    ground.newest.write_bytes(content)
    ground.open()
    assert (ground.position(A), ground.position(B)) == (2, 1)
    assert [item.message for item in all_of(ground.folder).items] == ["a", "b", "c"]


def test_damage_in_the_midst_costs_one_block_and_is_counted(ground):
    for number in range(30):
        ground.add(f"line {number}")
        if number % 10 == 9:
            ground.roll()
    ground.crash()
    path = segment_path(ground.folder, 2)
    whole = path.read_bytes()
    places = [place for place in blocks.scan(memoryview(whole)) if not place.header.checkpoint]
    for place in places[::3]:
        for byte in (
            place.offset,
            place.offset + 5,
            place.offset + blocks.HEAD_BYTES + 9,
            place.end - 9,
            place.end - 1,
        ):
            flipped = bytearray(whole)
            flipped[byte] ^= 0x10
            path.write_bytes(flipped)
            for index in (True, False):
                moved = index_path(ground.folder, 2).with_suffix(".aside")
                if not index:
                    index_path(ground.folder, 2).rename(moved)
                store = Store(ground.folder)
                lost = 10 + places.index(place)
                for _ in range(2):
                    found = page(store, GetLogs(limit=100, oldest_first=True), None, time.monotonic)
                    assert [item.message for item in found.items] == [f"line {n}" for n in range(30) if n != lost]
                    assert found.damaged == 1
                if not index:
                    moved.rename(index_path(ground.folder, 2))
    path.write_bytes(whole)
    ground.open()


def test_an_older_segment_that_was_cut_shows_what_is_left(ground):
    for number in range(5):
        ground.add(f"line {number}")
    ground.roll()
    ground.add("last")
    os.truncate(segment_path(ground.folder, 1), segment_path(ground.folder, 1).stat().st_size - 3)
    found = all_of(ground.folder)
    assert [item.message for item in found.items] == ["line 0", "line 1", "line 2", "line 3", "last"]
    assert found.damaged == 1


def test_a_magic_word_in_what_is_torn_is_no_block(ground):
    ground.add("a")
    ground.crash()
    with ground.newest.open("ab") as file:
        file.write(blocks.MAGIC * 3 + b"x" * 40 + blocks.MAGIC + bytes(12))
    ground.open()
    ground.add("b")
    assert messages(ground.folder) == ["a", "b"]


# -- indexes ---------------------------------------------------------------------------------------


@pytest.fixture
def three(ground: Ground) -> Ground:
    """Three segments, the first two closed and of the same length."""
    for name in "abc":
        ground.add(*[f"{name}{number}" for number in range(3)])
        if name != "c":
            ground.roll()
    return ground


ALL = [f"{name}{number}" for name in "abc" for number in range(3)]


def test_a_closed_segment_has_an_index_that_says_the_same(three):
    for number in (1, 2):
        with segments.mapped(segment_path(three.folder, number)) as data:
            found = [segments._lighter(place) for place in blocks.scan(data)]
        assert read_index(three.folder, number) == found
        assert read_newest(three.folder, number) == max(place.header.last for place in found) == 3 * number - 1
    assert read_index(three.folder, 3) is None
    assert read_newest(three.folder, 3) is None


def test_an_index_with_any_byte_flipped_or_cut_is_none(three):
    path = index_path(three.folder, 1)
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 0x40
        path.write_bytes(flipped)
        assert read_index(three.folder, 1) is None
        path.write_bytes(whole[:place])
        assert read_index(three.folder, 1) is None
        if place % 20 == 0:
            assert messages(three.folder) == ALL
    path.unlink()
    assert read_index(three.folder, 1) is None
    assert read_newest(three.folder, 1) is None
    assert messages(three.folder) == ALL


def test_an_index_of_another_segment_or_of_an_earlier_state_is_none(three):
    shutil.copy(index_path(three.folder, 2), index_path(three.folder, 1))
    assert read_index(three.folder, 1) is None
    assert messages(three.folder) == ALL
    shutil.copy(segment_path(three.folder, 1), segment_path(three.folder, 2))
    assert messages(three.folder) == ["a0", "a0", "a1", "a1", "a2", "a2", *ALL[6:]]


def test_an_index_of_another_segment_of_the_same_length_is_none_either(ground):
    for name in "abcd":
        ground.add(name)
        ground.roll()
    lengths = {segment_path(ground.folder, number).stat().st_size for number in (3, 4)}
    assert len(lengths) == 1
    shutil.copy(index_path(ground.folder, 4), index_path(ground.folder, 3))
    assert read_index(ground.folder, 3) is None
    assert read_newest(ground.folder, 3) is None
    assert messages(ground.folder) == list("abcd")


def test_a_segment_that_goes_on_after_a_restart_has_no_index_of_before(ground, monkeypatch):
    ground.add("a")
    ground.segments.close()
    assert read_index(ground.folder, 1) is not None
    ground.open()
    ground.add("b")
    assert messages(ground.folder) == ["a", "b"]
    monkeypatch.setattr(segments, "write_index", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    ground.roll()
    ground.add("c")
    assert messages(ground.folder) == ["a", "b", "c"]
    assert ground.segments.oldest() == 0


# -- a disk that is full ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_after_any_byte_leaves_nothing_of_itself(ground, monkeypatch, error):
    ground.add("a")
    size = ground.newest.stat().st_size
    real = os.pwrite
    for taken in range(0, 200, 3):
        left = [taken]

        def pwrite(file: int, data: bytes, at: int, left: list[int] = left) -> int:
            if not left[0]:
                raise OSError(error, os.strerror(error))
            written = real(file, bytes(data[: left[0]]), at)
            left[0] -= written
            return written

        monkeypatch.setattr(os, "pwrite", pwrite)
        with pytest.raises(OSError, match=os.strerror(error)):
            ground.add("b")
        monkeypatch.setattr(os, "pwrite", real)
        assert ground.newest.stat().st_size == ground.segments.length == size
        assert ground.position() == 1
    ground.add("b")
    ground.reopen()
    assert ground.position() == 2
    assert messages(ground.folder) == ["a", "b"]


def test_what_cannot_even_be_cut_is_overwritten(ground, monkeypatch):
    ground.add("a")
    real = os.pwrite

    def pwrite(file: int, data: bytes, at: int) -> int:
        real(file, bytes(data[:100]), at)
        raise OSError(errno.EIO, "broken")

    def ftruncate(file: int, length: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "ftruncate", ftruncate)
    with pytest.raises(OSError, match="broken"):
        ground.add("b" * 1000)
    monkeypatch.undo()
    assert [item.message for item in all_of(ground.folder).items] == ["a"]
    ground.add("b")
    assert [item.message for item in all_of(ground.folder).items] == ["a", "b"]
    ground.reopen()
    assert messages(ground.folder) == ["a", "b"]


def test_a_new_segment_that_cannot_be_made_is_made_later(ground, monkeypatch):
    ground.add("a")
    real_open, real_write = os.open, os.pwrite
    ground.segments.segment_bytes = 1
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(OSError(errno.EMFILE, "too many")))
    for _ in range(2):
        with pytest.raises(OSError, match="too many"):
            ground.add("b")
    assert messages(ground.folder) == ["a"]
    monkeypatch.setattr(os, "open", real_open)
    monkeypatch.setattr(os, "pwrite", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    for _ in range(2):
        with pytest.raises(OSError, match="full"):
            ground.add("b")
    monkeypatch.setattr(os, "pwrite", real_write)
    assert segment_numbers(ground.folder) == [1, 2]
    assert messages(ground.folder) == ["a"]
    ground.segments.segment_bytes = segments.SEGMENT_BYTES
    ground.add("b")
    ground.reopen()
    assert ground.position() == 2
    assert messages(ground.folder) == ["a", "b"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a disk can only be made as root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_on_a_disk_that_is_really_full_what_was_acknowledged_stays(tiny_disk):
    ground = Ground(tiny_disk / "store")
    stored, lines = [], [os.urandom(6000).hex() for _ in range(40)]
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(b"x" * 100_000)
    for line in lines:
        try:
            ground.add(line)
        except OSError as error:
            assert error.errno == errno.ENOSPC
            break
        stored.append(line)
    else:
        pytest.fail("the disk was not full")
    assert ground.newest.stat().st_size == ground.segments.length
    assert messages(ground.folder) == stored
    ballast.unlink()
    ground.add(lines[len(stored)])
    ground.reopen()
    assert messages(ground.folder) == lines[: len(stored) + 1]
    assert ground.position() == len(stored) + 1
    ground.crash()


# -- rolling, and letting go -----------------------------------------------------------------------


def test_segments_are_closed_by_size_and_by_age(ground):
    ground.segments.segment_bytes = 2000
    for number in range(40):
        ground.add(f"line {number}")
    numbers = segment_numbers(ground.folder)
    assert len(numbers) > 3
    assert all(segment_path(ground.folder, number).stat().st_size <= 2000 for number in numbers)
    ground.segments.segment_bytes = segments.SEGMENT_BYTES
    ground.wall += SEGMENT_SECONDS + 1
    ground.add("a")
    assert segment_numbers(ground.folder) == [*numbers, numbers[-1] + 1]
    ground.wall += SEGMENT_SECONDS - 1
    ground.add("b")
    assert segment_numbers(ground.folder)[-1] == numbers[-1] + 1
    assert messages(ground.folder) == [f"line {number}" for number in range(40)] + ["a", "b"]
    total = sum(segment_path(ground.folder, number).stat().st_size for number in segment_numbers(ground.folder))
    assert (ground.segments.stored_bytes, ground.segments.size) == (total, len(numbers) + 1)


def test_a_block_that_is_larger_than_a_segment_gets_one_of_its_own(ground):
    ground.segments.segment_bytes = 500
    long = os.urandom(2000).hex()
    for line in ("a", long, "b"):
        ground.add(line)
    assert messages(ground.folder) == ["a", long, "b"]


def test_positions_without_records_are_kept_by_the_next_checkpoint(ground):
    ground.add("a")
    ground.add("b", source=B)
    ground.segments.note(A, Position(offset=7))
    ground.segments.note(B, None)
    ground.reopen()
    assert (ground.position(A), ground.position(B)) == (1, 1)
    ground.segments.note(A, Position(offset=7))
    ground.segments.note(B, None)
    ground.segments.checkpoint()
    ground.reopen()
    assert ground.segments.positions == {"a": (A, Position(offset=7))}


def test_strays_of_an_index_that_was_never_finished_go_away(ground):
    (ground.folder / "000000000001.77.tmp").write_bytes(b"half")
    ground.reopen()
    assert not list(ground.folder.glob("*.tmp"))


def test_the_oldest_record_is_known(ground):
    assert ground.segments.oldest() == 0
    ground.add("a", at=100)
    ground.roll()
    ground.add("b", at=200)
    assert ground.segments.oldest() == 99
    index_path(ground.folder, 1).unlink()
    assert ground.segments.oldest() == 99
    ground.segments.expire(7, 1, lambda number: True)
    assert ground.segments.oldest() == 199


@pytest.fixture
def five(ground: Ground) -> Ground:
    for name in "abcde":
        ground.add(name)
        if name != "e":
            ground.roll()
    return ground


def aged(ground: Ground, number: int, days: float) -> None:
    moment = ground.wall - days * 86400
    os.utime(segment_path(ground.folder, number), (moment, moment))


def test_segments_go_when_they_are_old(five):
    for number, days in ((1, 9), (2, 7.1), (3, 6.9), (4, 1), (5, 30)):
        aged(five, number, days)
    assert five.segments.expire(7, 1 << 30, lambda number: True) == [1, 2]
    assert sorted(path.name for path in five.folder.iterdir()) == [
        f"{number:012d}.{kind}" for number in (3, 4, 5) for kind in ("idx", "seg") if (number, kind) != (5, "idx")
    ]
    assert messages(five.folder) == ["c", "d", "e"]


def test_segments_go_when_there_are_too_many_the_oldest_first(five):
    sizes = [segment_path(five.folder, number).stat().st_size for number in range(1, 6)]
    assert five.segments.expire(7, sum(sizes[2:]), lambda number: True) == [1, 2]
    assert five.segments.stored_bytes == sum(sizes[2:])
    assert five.segments.expire(7, sum(sizes[2:]), lambda number: True) == []


def test_the_one_that_is_written_never_goes(five):
    for number in range(1, 6):
        aged(five, number, 100)
    assert five.segments.expire(0, 0, lambda number: True) == [1, 2, 3, 4]
    five.add("f")
    five.reopen()
    assert messages(five.folder) == ["e", "f"]
    assert five.position() == 6


def test_what_is_not_archived_is_kept_up_to_twice_the_room(five):
    total = five.segments.stored_bytes
    assert five.segments.expire(7, total // 2 + 1, lambda number: False) == []
    assert five.segments.expire(7, total // 2 + 1, lambda number: number != 1) == [2, 3, 4]
    assert five.segments.expire(7, five.segments.stored_bytes // 3, lambda number: False) == [1]
    assert messages(five.folder) == ["e"]


def test_a_segment_that_went_by_another_hand_is_forgotten(five):
    segment_path(five.folder, 2).unlink()
    aged(five, 1, 100)
    assert five.segments.expire(7, 1 << 30, lambda number: True) == [1, 2]
    assert five.segments.size == 3


def test_a_segment_that_cannot_be_removed_stays_and_is_told(five, monkeypatch):
    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(Path, "unlink", unlink)
    assert five.segments.expire(7, 1, lambda number: True) == []
    monkeypatch.undo()
    assert five.segments.size == 5
    assert ("logs.kept", "segment 1 cannot be removed: read-only") in five.reports
    assert messages(five.folder) == list("abcde")


# -- whatever happens ------------------------------------------------------------------------------

_OPS = st.one_of(
    st.tuples(st.just("add"), st.sampled_from([A, B]), st.integers(1, 3)),
    st.tuples(st.just("note"), st.sampled_from([A, B])),
    st.sampled_from([("checkpoint",), ("roll",), ("crash",), ("close",)]),
    st.tuples(st.just("tear"), st.integers(1, 600)),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(_OPS, max_size=25))
def test_store_and_positions_agree_after_any_number_of_ends(ops):
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(Path(folder))
        printed: dict[str, list[str]] = {"a": [], "b": []}
        for op in ops:
            match op:
                case ("add", source, count):
                    own = printed[source.container]
                    own += [f"{source.container}{len(own) + n}" for n in range(count)]
                    ground.add(*own[ground.position(source) :], source=source, at=len(own))
                case ("note", source):
                    ground.segments.note(
                        source, ground.segments.positions.get(source.container, (source, Position()))[1]
                    )
                case ("checkpoint",):
                    ground.segments.checkpoint()
                case ("roll",):
                    ground.roll()
                case ("crash",):
                    ground.reopen()
                case ("close",):
                    ground.segments.close()
                    ground.open()
                case ("tear", count):
                    ground.crash()
                    if ground.folder.exists() and segment_numbers(ground.folder):
                        size = ground.newest.stat().st_size
                        os.truncate(ground.newest, max(0, size - count))
                    ground.open()
            for source in (A, B):
                own = [item.message for item in all_of(ground.folder).items if item.container == source.container]
                assert own == printed[source.container][: ground.position(source)]
        ground.crash()
