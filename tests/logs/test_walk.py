"""A walk through the store finds every record once and in order, whatever the writer is doing and whatever is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outlets_ground import Shelf

from ndactors.logs.walk import Counts, Cursor, Walk, newest


@pytest.fixture
def shelf(tmp_path: Path):
    shelf = Shelf(tmp_path / "state")
    yield shelf
    shelf.close()


def all_of(walk: Walk) -> list[str]:
    found = []
    while (block := walk.next()) is not None:
        found += block.columns.messages()
    return found


def test_it_goes_on_with_what_is_written(shelf):
    walk = Walk(shelf.folder, Cursor())
    assert walk.next() is None
    shelf.add("a", "b")
    assert all_of(walk) == ["a", "b"]
    shelf.turn()
    shelf.add("c")
    shelf.turn()
    assert all_of(walk) == ["turned from 1", "c", "turned from 2"]
    assert walk.next() is None
    walk.close()


def test_each_block_tells_where_to_go_on(shelf):
    for name in "abc":
        shelf.add(name)
    shelf.turn()
    shelf.add("d")
    walk = Walk(shelf.folder, Cursor())
    blocks = []
    while (block := walk.next()) is not None:
        blocks.append(block)
    for i, block in enumerate(blocks):
        rest = [message for later in blocks[i + 1 :] for message in later.columns.messages()]
        assert all_of(Walk(shelf.folder, block.end)) == rest
        assert all_of(Walk(shelf.folder, block.at)) == [*block.columns.messages(), *rest]


def test_what_is_newest_is_behind_everything(shelf):
    assert newest(shelf.folder) == Cursor()
    shelf.add("a")
    shelf.turn()
    cursor = newest(shelf.folder)
    with shelf.path(2).open("ab") as file:
        file.write(b"nlg1 half a block")
    assert newest(shelf.folder) == cursor
    shelf.add("b")
    assert all_of(Walk(shelf.folder, cursor)) == ["b"]


@given(st.data())
def test_a_block_is_found_when_all_of_it_is_there(tmp_path_factory, data):
    shelf = Shelf(tmp_path_factory.mktemp("walk"))
    shelf.add("first")
    before = shelf.segments.length
    shelf.add("second", "third")
    whole = shelf.path(1).read_bytes()
    walk = Walk(shelf.folder, Cursor())
    for length in sorted(data.draw(st.lists(st.integers(before, len(whole) - 1), max_size=4))):
        shelf.path(1).write_bytes(whole[:length])
        assert all_of(walk) in (["first"], [])
    # the writer may have given up half a block, and written another in its place
    shelf.path(1).write_bytes(whole[:before])
    shelf.segments.length = before
    shelf.add("instead of them")
    assert all_of(walk)[-1:] == ["instead of them"]
    walk.close()
    shelf.close()


@pytest.mark.parametrize("more", [0, 3_000_000])
def test_damage_is_passed_over(shelf, more):
    """Also where the next whole block is far away."""
    shelf.add("a")
    start = shelf.segments.length
    shelf.add("b" * more + "damaged")
    shelf.add("c")
    content = bytearray(shelf.path(1).read_bytes())
    content[start + 20] ^= 1
    shelf.path(1).write_bytes(content)
    assert all_of(Walk(shelf.folder, Cursor())) == ["a", "c"]


def test_damage_at_the_end_waits_for_the_segment_to_close(shelf):
    shelf.add("a")
    walk = Walk(shelf.folder, Cursor())
    with shelf.path(1).open("ab") as file:
        file.write(b"x" * 100)
    assert all_of(walk) == ["a"]
    shelf.turn()
    assert all_of(walk) == ["turned from 1"]


def test_large_blocks_are_found_whole(shelf):
    shelf.add("x" * 100, "y" * 3_000_000)
    shelf.add("z")
    assert [len(message) for message in all_of(Walk(shelf.folder, Cursor()))] == [100, 3_000_000, 1]


def test_what_is_gone_is_known_by_its_number(shelf):
    shelf.add("a")
    walk = Walk(shelf.folder, Cursor())
    assert all_of(walk) == ["a"]
    for _ in range(4):
        shelf.turn()
        shelf.add("b", "c")
    counts = Counts(shelf.folder)
    shelf.path(3, "idx").unlink()
    for _ in range(3):
        counts.learn(1, most=1)
    for number in (1, 2, 3):
        shelf.path(number).unlink()
    assert all_of(walk) == ["turned from 3", "b", "c", "turned from 4", "b", "c"]
    assert walk.passed == [2, 3]
    assert counts.of(walk.passed) == 6


def test_a_file_that_is_open_is_read_to_its_end_though_it_is_removed(shelf):
    shelf.add("a")
    walk = Walk(shelf.folder, Cursor())
    assert walk.next() is not None
    shelf.add("b")
    shelf.turn()
    shelf.path(1).unlink()
    assert all_of(walk) == ["b", "turned from 1"]
    assert walk.passed == []


def test_a_new_store_is_read_from_its_beginning(shelf):
    shelf.add("a")
    assert all_of(Walk(shelf.folder, Cursor(70, 12345))) == ["a"]
    assert all_of(Walk(shelf.folder, Cursor(1, 10**9))) == ["a"], "rather twice than never"
