"""Every byte of a container's log files is read once, whatever becomes of the files; what cannot be read is told as a gap."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from json_file import JsonFile

from ndactors.core.jsonlines import parse
from ndactors.core.logrecords import Gap, Position
from ndactors.logs import rotation
from ndactors.logs import tail as tails
from ndactors.logs.tail import EMPTIED, READ_BYTES, Tail


@pytest.fixture
def file(tmp_path: Path):
    file = JsonFile(tmp_path / "c-json.log")
    yield file
    file.close()


@pytest.fixture
def tail(file: JsonFile):
    tail = Tail(file.path)
    yield tail
    tail.close()


def read(tail: Tail, *, final: bool = False) -> list[str]:
    """Everything there is now, as lines."""
    found = []
    while data := tail.read(final=final):
        found += [piece.log.removesuffix("\n") for piece in parse(data)]
        tail.took(len(data))
    return found


def gaps(tail: Tail) -> list[Gap]:
    found, tail.gaps = tail.gaps, []
    return found


def resumed(tail: Tail, path: Path | None = None, **more: object) -> Tail:
    """The next process, with what the store knows."""
    place = tail.position()
    place = Position(**{"inode": place.inode, "head": place.head, "offset": place.offset, "last": "t", **more})
    tail.close()
    return Tail(path or tail.path, place)


# -- one file --------------------------------------------------------------------------------------


def test_whole_lines_are_read_as_they_come(file, tail):
    assert not Tail(file.path.with_name("never")).look()
    assert tail.look()
    assert tail.read() == b""
    file.print("a", "b")
    file.record(b'{"log":"half')
    assert read(tail) == ["a", "b"]
    assert tail.behind() == (len(b'{"log":"half'), 0)
    file.record(b'\\n"}\n')
    assert read(tail) == ["half"]
    assert tail.behind() == (0, 0)
    assert not gaps(tail)


def test_what_was_not_taken_is_read_again(file, tail):
    file.print("a", "b")
    tail.look()
    first = tail.read()
    tail.took(first.index(b"\n") + 1)
    assert read(tail) == ["b"]


def test_nothing_is_read_before_there_are_files(tail, tmp_path):
    nowhere = Tail(tmp_path / "no" / "file")
    assert not nowhere.look()
    assert (nowhere.read(), nowhere.position(), nowhere.behind(), nowhere.gone()) == (b"", Position(), (0, 0), False)
    before = Position(inode=1, offset=5)
    assert Tail(tmp_path / "none", before).position() == before


def test_a_file_that_appears_later_is_read_from_its_begin(tmp_path):
    tail = Tail(tmp_path / "late")
    assert not tail.look()
    file = JsonFile(tmp_path / "late")
    file.print("a")
    assert tail.look()
    assert read(tail) == ["a"]
    file.close()
    tail.close()


def test_much_is_read_in_parts_that_end_with_lines(file, tail):
    lines = [f"{n} {'x' * 900}" for n in range(1500)]
    file.max_size = 1 << 30
    file.print(*lines)
    tail.look()
    found = []
    while data := tail.read():
        assert len(data) <= READ_BYTES and data.endswith(b"\n")
        found += [piece.log[:-1] for piece in parse(data)]
        tail.took(len(data))
    assert found == lines


def test_a_line_that_is_longer_than_all_that_is_read_at_once_does_not_stop_it(file, tail):
    file.record(b"x" * (READ_BYTES + 10) + b"\n")
    file.print("a")
    tail.look()
    assert read(tail) == ["x" * READ_BYTES, "x" * 10, "a"]


# -- rotation --------------------------------------------------------------------------------------


def test_a_rotated_file_is_read_to_its_end_first(file, tail):
    file.print("a")
    tail.look()
    assert read(tail) == ["a"]
    file.print("b")
    file.rotate()
    file.print("c")
    assert tail.moved()
    tail.look()
    assert not tail.moved()
    assert tail.files == 2
    assert read(tail) == ["b", "c"]
    assert tail.files == 1
    assert not gaps(tail)


def test_what_is_written_just_before_a_rotation_is_not_passed_over(file, tail, monkeypatch):
    """The next file is opened between our look at the end of this one and the next step."""
    file.print("a")
    tail.look()
    assert read(tail) == ["a"]
    real = tails.Generation.read

    def read_and_rotate(generation: tails.Generation) -> bytes | None:
        data = real(generation)
        monkeypatch.setattr(tails.Generation, "read", real)
        file.print("b")
        file.rotate()
        file.print("c")
        tail.look()
        return data

    monkeypatch.setattr(tails.Generation, "read", read_and_rotate)
    assert tail.read() == b""
    assert read(tail) == ["b", "c"]


@pytest.mark.parametrize("rotations", [1, 2, 3, 6])
def test_several_rotations_between_two_looks(file, tail, rotations):
    file.print("first")
    tail.look()
    assert read(tail) == ["first"]
    file.print("kept")
    for number in range(rotations):
        file.rotate()
        file.print(f"after {number}")
    tail.look()
    # the one that we have open, and as many as there are
    there = [f"after {number}" for number in range(rotations)][-file.max_file :]
    first = tail.read()
    tail.took(len(first))
    assert [piece.log for piece in parse(first)] == ["kept\n"]
    assert not gaps(tail), "what is lost is lost behind what was there before it"
    assert read(tail) == there
    lost = gaps(tail)
    if rotations <= file.max_file - 1:
        assert not lost
    else:
        (gap,) = lost
        assert gap.at_least
        assert gap.bytes == 0
        assert "files may have been" in gap.reason
    assert not gaps(tail)


def descriptor(file) -> int:
    return os.open(file.path, os.O_RDONLY)


def test_files_are_handed_over_in_their_order_and_nobody_looks(file, tail):
    file.print("a")
    tail.expect()
    tail.hand_over(descriptor(file), 0)
    assert not tail.look(), "not before all that there are have come"
    file.rotate()
    file.print("b")
    tail.hand_over(descriptor(file), 0)
    tail.all_handed_over()
    for number in range(5):
        file.rotate()
        file.print(f"after {number}")
        tail.hand_over(descriptor(file), 0)
        assert tail.look()
    assert read(tail) == ["a", "b", *[f"after {number}" for number in range(5)]]
    assert not gaps(tail)


def test_what_was_lost_between_two_files_is_told_there(file, tail):
    tail.expect()
    file.print("a")
    tail.hand_over(descriptor(file), 0)
    tail.all_handed_over()
    file.rotate()
    file.print("b")
    tail.hand_over(descriptor(file), 3)
    data = tail.read()
    tail.took(len(data))
    assert not gaps(tail)
    assert read(tail) == ["b"]
    (gap,) = gaps(tail)
    assert "3 files were" in gap.reason
    assert gap.bytes == 3 * len(data)
    assert gap.at_least


def test_what_was_lost_before_the_first_file_and_after_the_last(file, tail):
    tail.expect()
    tail.all_handed_over()
    file.print("a")
    tail.hand_over(descriptor(file), 2)
    assert ["2 files were" in gap.reason for gap in gaps(tail)] == [True]
    tail.lost(1)
    assert ["1 file was" in gap.reason for gap in gaps(tail)] == [True]


def test_a_file_that_is_known_is_not_read_again(file, tail):
    """Somebody else opens the files from now on, and begins with those that there are."""
    file.print("a")
    tail.look()
    file.rotate()
    file.print("b")
    older, newer = os.open(f"{file.path}.1", os.O_RDONLY), descriptor(file)
    tail.look()
    assert read(tail) == ["a", "b"]
    tail.expect()
    for each in (older, newer):
        tail.hand_over(each, 0)
    tail.all_handed_over()
    file.rotate()
    file.print("c")
    tail.hand_over(descriptor(file), 0)
    assert read(tail) == ["c"]
    assert not gaps(tail)


def test_where_nothing_that_is_handed_over_is_known_a_gap_says_that_it_may_be_one(file, tail):
    file.print("a")
    tail.look()
    read(tail)
    for number in range(5):
        file.rotate()
        file.print(f"after {number}")
    tail.expect()
    tail.hand_over(descriptor(file), 0)
    tail.all_handed_over()
    assert read(tail) == ["after 4"]
    assert ["files may have been" in gap.reason for gap in gaps(tail)] == [True]


def test_it_is_gone_when_no_other_file_is_on_its_way(file, tail):
    tail.expect()
    file.print("a")
    tail.hand_over(descriptor(file), 0)
    tail.all_handed_over()
    file.rotate()
    file.print("b")
    on_its_way = descriptor(file)
    file.remove()
    assert not tail.gone()
    tail.hand_over(on_its_way, 0)
    tail.removed()
    assert tail.gone()
    assert read(tail) == ["a", "b"]


def test_a_closed_tail_takes_no_files(file, tail):
    tail.expect()
    file.print("a")
    tail.close()
    tail.hand_over(descriptor(file), 0)
    tail.all_handed_over()
    assert not tail.files


def test_a_look_in_the_midst_of_a_rotation_finds_what_is_there(file, tail):
    file.print("a")
    tail.look()
    assert read(tail) == ["a"]
    os.rename(file.path, file.rotated(1))
    tail.look()
    assert not tail.gone()
    assert not tail.moved()
    file.path.write_bytes(b"")
    tail.look()
    assert tail.files == 2
    assert not gaps(tail)


def test_a_first_look_in_the_midst_of_a_rotation_finds_the_rotated(file, tail):
    file.print("a")
    os.rename(file.path, file.rotated(1))
    assert tail.look()
    assert read(tail) == ["a"]
    assert not tail.gone()


@pytest.mark.parametrize("when", range(6))
def test_a_rotation_while_it_looks_is_noticed(file, tail, monkeypatch, when):
    file.print("a")
    tail.look()
    assert read(tail) == ["a"]
    file.print("b")
    file.rotate()
    file.print("c")
    real, calls = os.open, []

    def rotating(path: object, *more: object, **named: object) -> int:
        calls.append(path)
        if len(calls) == when:
            monkeypatch.setattr(os, "open", real)
            file.rotate()
            file.print("d")
        return real(path, *more, **named)

    monkeypatch.setattr(os, "open", rotating)
    tail.look()
    monkeypatch.setattr(os, "open", real)
    tail.look()
    assert read(tail) == ["b", "c", *["d"] * (1 <= when <= len(calls))]
    assert not gaps(tail)


def test_files_that_may_have_come_and_gone_between_two_that_are_found_are_a_gap(file, tail, monkeypatch):
    file.print("a")
    tail.look()
    assert read(tail) == ["a"]
    for text in ("b", "c"):
        file.rotate()
        file.print(text)
    real = rotation.newer
    monkeypatch.setattr(rotation, "newer", lambda *words: [(each, i == 0) for i, (each, _) in enumerate(real(*words))])
    tail.look()
    assert read(tail) == ["b", "c"]
    assert [gap.reason for gap in gaps(tail)] == ["files may have been rotated away unread"]


# -- what is no rotation ---------------------------------------------------------------------------


def test_one_file_that_is_emptied_in_place_goes_on(tmp_path):
    file = JsonFile(tmp_path / "one", max_file=1)
    tail = Tail(file.path)
    file.print("a", "b")
    tail.look()
    assert read(tail) == ["a", "b"]
    file.rotate()
    assert tail.read() == b""
    assert gaps(tail) == [Gap(bytes=0, at_least=True, reason=EMPTIED)]
    file.print("c")
    assert read(tail) == ["c"]
    assert not gaps(tail)
    file.close()
    tail.close()


@pytest.mark.parametrize("more", [0, 1, 50])
def test_one_file_that_is_emptied_and_grown_again_goes_on_from_its_begin(tmp_path, more):
    """To less than, to exactly, to more than what was read."""
    file = JsonFile(tmp_path / "one", max_file=1)
    tail = Tail(file.path)
    file.print("a", "b", "c")
    tail.look()
    assert read(tail) == ["a", "b", "c"]
    size = file.bytes
    file.rotate()
    file.print("d")
    if more == 1:
        file.record(b" " * (size - file.bytes - 1) + b"\n")
        assert file.bytes == size
        assert tail.read() == b"", "nothing new, as far as anybody can see"
    elif more:
        file.print(*["e"] * more)
    file.print("f")
    assert read(tail)[:1] == ["d"]
    assert len(gaps(tail)) == 1
    file.close()
    tail.close()


def test_what_was_seen_and_not_taken_when_a_file_was_emptied_is_counted(tmp_path):
    file = JsonFile(tmp_path / "one", max_file=1)
    tail = Tail(file.path)
    file.print("a")
    tail.look()
    read(tail)
    file.print("bcd")
    held = len(tail.read())
    file.rotate()
    file.print("e")
    assert read(tail) == ["e"]
    assert [gap.bytes for gap in gaps(tail)] == [held]
    file.rotate()
    file.print("first of the file, not taken")
    held = len(tail.read())
    gaps(tail)
    file.rotate()
    file.print("e")
    assert read(tail) == ["e"]
    assert [gap.bytes for gap in gaps(tail)] == [held]
    file.close()
    tail.close()


def test_a_file_that_is_replaced_under_its_name_is_read_after_the_old_one(file, tail):
    file.print("a", "b")
    tail.look()
    first = tail.read()
    tail.took(first.index(b"\n") + 1)
    other = JsonFile(file.path.with_name("other"))
    other.clock += 5_000_000_000
    other.print("c")
    os.replace(other.path, file.path)
    tail.look()
    assert read(tail) == ["b", "c"]
    assert not tail.gone()
    other.close()


# -- the next process ------------------------------------------------------------------------------


def test_the_next_one_goes_on_where_the_last_one_was(file, tail):
    file.print("a", "b")
    file.rotate()
    file.print("c")
    tail.look()
    first = tail.read()
    tail.took(first.index(b"\n") + 1)
    after = resumed(tail)
    after.look()
    assert read(after) == ["b", "c"]
    again = resumed(after)
    again.look()
    file.print("d")
    assert read(again) == ["d"]
    assert not gaps(after) + gaps(again)
    assert not again.realign
    again.close()


def test_a_position_in_a_file_without_a_line_is_told_by_times(file, tail):
    for name in "abc":
        file.print(name)
        tail.look()
        read(tail)
        if name != "c":
            file.rotate()
    file.rotate()
    tail.look()
    assert tail.read() == b""
    after = resumed(tail)
    after.look()
    file.print("d")
    assert after.realign
    assert read(after) == ["b", "c", "d"]
    after.close()


def test_a_position_at_the_begin_of_a_file_is_that_files(file, tail):
    file.print("a")
    tail.look()
    read(tail)
    file.rotate()
    file.print("b")
    tail.look()
    assert tail.read()
    after = resumed(tail)
    file.rotate()
    file.print("c")
    after.look()
    assert read(after) == ["b", "c"]
    assert not after.realign
    after.close()


@pytest.mark.parametrize("rotations", [1, 2, 3, 7])
def test_files_that_went_while_nobody_was_there_are_a_gap_after_what_was_known(file, tail, rotations):
    file.print("a")
    tail.look()
    read(tail)
    file.print("b")
    after = resumed(tail)
    for number in range(rotations):
        file.rotate()
        file.print(f"after {number}")
    after.look()
    lines = ["b"] + [f"after {number}" for number in range(rotations)]
    assert read(after) == lines[-file.max_file :]
    assert [(gap.bytes, gap.at_least, gap.since) for gap in gaps(after)] == [(0, True, "t")] * (
        rotations >= file.max_file
    )
    after.close()


def test_an_inode_that_is_used_again_is_another_file(file, tail):
    file.print("a", "b")
    tail.look()
    read(tail)
    place = tail.position()
    for _ in range(3):
        file.rotate()
    file.print("c", "d", "e")
    after = Tail(file.path, Position(inode=file.path.stat().st_ino, head=place.head, offset=place.offset))
    after.look()
    assert read(after) == ["c", "d", "e"]
    assert len(gaps(after)) == 1
    after.close()


def test_a_position_beyond_the_end_of_its_file_reads_it_again_by_times(file, tail):
    file.print("a", "b", "c")
    tail.look()
    read(tail)
    after = resumed(tail)
    os.truncate(file.path, file.bytes // 3)
    after.look()
    assert after.realign
    assert read(after) == ["a"]
    after.close()


@pytest.mark.parametrize("same", [True, False])
def test_a_file_that_was_copied_is_the_same_and_one_with_other_content_is_not(file, tail, same):
    file.print("a", "b")
    tail.look()
    first = tail.read()
    tail.took(first.index(b"\n") + 1)
    after = resumed(tail)
    copy = file.path.with_name("copy")
    shutil.copy(file.path, copy)
    if not same:
        copy.write_bytes(copy.read_bytes().replace(b":00", b":07"))
    os.replace(copy, file.path)
    after.look()
    assert read(after) == (["b"] if same else ["a", "b"])
    assert len(gaps(after)) == (0 if same else 1)
    after.close()


def test_a_file_that_was_emptied_while_nobody_was_there_is_read_from_its_begin(file, tail):
    file.print("a", "b")
    tail.look()
    read(tail)
    after = resumed(tail)
    file.max_file = 1
    file.rotate()
    file.print("c")
    after.look()
    assert read(after) == ["c"]
    assert len(gaps(after)) == 1
    after.close()


def test_a_file_that_is_emptied_just_after_somebody_went_on_with_it_is_noticed_at_once(file, tail):
    file.print("a", "b")
    tail.look()
    read(tail)
    after = resumed(tail)
    after.look()
    os.truncate(file.path, 0)
    assert after.read() == b""
    assert [gap.reason for gap in gaps(after)] == [EMPTIED]
    after.close()


def test_who_knows_no_more_than_times_compares_them(file):
    file.print("a")
    asked = Tail(file.path, Position(last="2026-01-31T12:00:00.000000000Z", same=1))
    asked.look()
    assert asked.realign
    fresh = Tail(file.path, Position())
    fresh.look()
    assert not fresh.realign
    asked.close()
    fresh.close()


# -- the end ---------------------------------------------------------------------------------------


def test_files_that_are_removed_while_open_are_read_to_their_end(file, tail):
    file.print("a")
    file.rotate()
    file.print("b")
    tail.look()
    file.remove()
    file.print("c")
    assert tail.gone()
    size = sum(tail.behind())
    assert tail.behind() == (size // 2, size // 2)
    assert read(tail, final=True) == ["a", "b", "c"]
    assert tail.gone()


def test_what_is_gone_in_the_midst_of_a_rotation_is_not_gone(file, tail):
    """We have a file that was just pushed out, and the next has no name of its own yet."""
    file.max_file = 2
    file.print("a")
    tail.look()
    file.rotate()
    file.print("b")
    os.rename(file.path, file.rotated(1))
    assert not tail.gone()
    file.path.write_bytes(b"")
    tail.look()
    assert read(tail) == ["a", "b"]


@pytest.mark.parametrize("how", ["rotated", "removed"])
def test_a_last_line_without_end_is_read_when_nobody_goes_on_with_it(file, tail, how):
    file.print("a")
    file.record(b'{"log":"b\\n"}')
    tail.look()
    first = tail.read()
    tail.took(len(first))
    assert tail.read() == b""
    if how == "rotated":
        file.rotate()
        file.print("c")
        tail.look()
        assert read(tail) == ["b", "c"]
    else:
        file.remove()
        assert tail.gone()
        assert read(tail, final=True) == ["b"]


def test_the_end_of_a_file_that_is_over_is_known(file, tail):
    file.print("a")
    tail.look()
    data = tail.read()
    assert not tail.ended
    file.rotate()
    tail.look()
    assert tail.read() == data and tail.ended
    tail.took(len(data))
    file.print("b")
    assert tail.read() and not tail.ended


# -- giving up -------------------------------------------------------------------------------------


def test_what_is_given_up_is_counted_exactly(file, tail):
    file.print("a", "b", "c")
    file.record(b"no end")
    tail.look()
    assert tail.drop() is None, "never the newest"
    size = file.bytes
    first = tail.read()
    taken = first.index(b"\n") + 1
    tail.took(taken)
    file.rotate()
    file.print("d")
    tail.look()
    gap = tail.drop()
    assert gap == Gap(bytes=size - taken, lines=2, reason="the log store could not take it")
    assert tail.drop() is None
    assert read(tail) == ["d"]


def test_what_was_lost_before_a_file_is_told_though_the_one_before_is_given_up(file, tail):
    file.print("a")
    tail.look()
    for _ in range(4):
        file.rotate()
        file.print("x")
    tail.look()
    assert tail.drop().lines == 1
    assert len(gaps(tail)) == 1
    assert read(tail) == ["x"] * 3


# -- what cannot be read ---------------------------------------------------------------------------


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_link_is_not_followed_and_nothing_stays_open(file, tmp_path):
    file.print("secret")
    link = tmp_path / "link"
    link.symlink_to(file.path)
    tail, before = Tail(link), open_files()
    for _ in range(3):
        with pytest.raises(OSError, match="symbolic"):
            tail.look()
    assert open_files() == before


def test_a_rotated_file_that_may_not_be_read_leaves_nothing_open_and_is_tried_again(file, monkeypatch):
    file.print("a")
    file.rotate()
    file.print("b")
    real = os.open

    def refused(path: object, *more: object, **named: object) -> int:
        if str(path).endswith(".1"):
            raise PermissionError(13, "Permission denied")
        return real(path, *more, **named)

    tail, before = Tail(file.path), open_files()
    monkeypatch.setattr(os, "open", refused)
    for _ in range(3):
        with pytest.raises(PermissionError):
            tail.look()
    assert open_files() == before
    monkeypatch.setattr(os, "open", real)
    tail.look()
    assert read(tail) == ["a", "b"]
    tail.close()
    assert open_files() == before


def test_a_pipe_under_the_name_holds_up_nobody(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    tail = Tail(tmp_path / "pipe")
    tail.look()
    with pytest.raises(OSError):
        tail.read()
    tail.close()


def test_nothing_is_opened_once_it_is_closed(file, tail):
    before = open_files()
    tail.look()
    tail.close()
    assert not tail.look()
    assert open_files() == before
