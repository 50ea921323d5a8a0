"""A query that follows its cursors finds what a look at every record would: nothing missing, nothing twice, in order."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ndactors.core.logquery import LogFilter
from ndactors.core.logrecords import Columns, Gap, LogSource, format_ns, parse_ns
from ndactors.errors import Invalid
from ndactors.logs import query as queries
from ndactors.logs import segments
from ndactors.logs.query import MAX_LIMIT, Cursor, Store, cursor_text, page
from ndactors.logs.segments import Segments, index_path, segment_numbers, segment_path
from ndactors.messages.logs import GetLogs, LogPage

SOURCES = (
    LogSource(container="aa11", app="shop", process="web", replica=1),
    LogSource(container="aa22", app="shop", process="worker", replica=1),
    LogSource(container="bb11", app="blog", process="web", replica=2),
)
Row = tuple[int, int, int, str]
"""Time, level, stream, message."""


class Shelf:
    """A store, and beside it a list of what was put there: (segment, block) → source and rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.segments = Segments(folder, lambda kind, words: None)
        self.segments.open()
        self.blocks: dict[tuple[int, int], tuple[LogSource, list[Row]]] = {}
        self._marks = itertools.count()

    def add(self, source: LogSource, rows: list[Row]) -> None:
        # each record tells which it is, so that nothing can be taken for another
        rows = [(at, level, stream, marked(message, next(self._marks))) for at, level, stream, message in rows]
        counts = [row[3].count("\n") + 1 for row in rows]
        columns = Columns(
            text="".join(f"{row[3]}\n" for row in rows),
            times="".join(format_ns(row[0]) for row in rows),
            levels=bytes(row[1] for row in rows),
            streams=bytes(row[2] for row in rows),
            lines=counts if max(counts) > 1 else [],
        )
        self.segments.append(source, columns, None)
        self.blocks[self.segments.number, len(self.blocks)] = (source, rows)

    def roll(self) -> None:
        self.segments.segment_bytes = 1
        self.segments.checkpoint()
        self.segments.segment_bytes = segments.SEGMENT_BYTES

    def close(self) -> None:
        self.segments._syncer.stop()
        if self.segments._file >= 0:
            os.close(self.segments._file)

    def upto(self) -> tuple[int, int]:
        return self.segments.number, self.segments.length

    def wanted(self, wanted: LogFilter) -> list[str]:
        """Of everything, sorted by time; a clock that steps back moves no line before the one it followed."""
        found = []
        for key, (source, rows) in self.blocks.items():
            if not wanted.wants(source):
                continue
            latest = 0
            for i, row in enumerate(rows):
                if matches(wanted, row):
                    latest = max(latest, row[0])
                    found.append(((latest, *key, i), row[3]))
        return [message for _, message in sorted(found)]


def marked(message: str, mark: int) -> str:
    return f'{{"k":1,"m":"#{mark}"}}' if message.startswith("{") else f"{message} #{mark}"


def matches(wanted: LogFilter, row: Row) -> bool:
    at, level, stream, message = row
    texts: dict[str | None, Callable[[], bool]] = {
        None: lambda: True,
        "a": lambda: "a" in message,
        "/^b/": lambda: any(line.startswith("b") for line in message.split("\n")),
        "/#[0-9]*[02468]$/": lambda: message[-1] in "02468",
        "k:1": lambda: message.startswith("{"),
    }
    return (
        texts[wanted.q]()
        and (not wanted.levels or bool(wanted.levels >> level & 1))
        and (wanted.stream is None or (wanted.stream == "stderr") == bool(stream))
        and (wanted.since is None or at >= (parse_ns(wanted.since) or 0))
        and (wanted.until is None or at < (parse_ns(wanted.until) or 0))
        and (wanted.request_id is None or wanted.request_id in message)
    )


def every_page(
    shelf: Shelf,
    wanted: LogFilter,
    limit: int,
    oldest_first: bool,
    *,
    seconds: float = 0.0,
    between: Callable[[], None] = lambda: None,
    stores: Callable[[], Store] | None = None,
) -> list[str]:
    """What all pages have, in the order of time. No time at all for a page, unless ``seconds`` says more."""
    found: list[str] = []
    cursor: str | None = None
    clock = itertools.count()
    for _ in range(10 + 4 * sum(len(rows) + 2 for _, rows in shelf.blocks.values())):
        store = stores() if stores is not None else Store(shelf.folder)
        query = GetLogs(filter=wanted, limit=limit, cursor=cursor, oldest_first=oldest_first)
        got = page(store, query, shelf.upto(), lambda: float(next(clock)), seconds)
        assert not got.damaged
        assert len(got.items) <= limit
        messages = [item.message for item in got.items]
        found = found + messages if oldest_first else messages + found
        if got.next is None:
            return found
        assert got.next != cursor, "no progress"
        cursor = got.next
        between()
    raise AssertionError("it does not end")


_ROW = st.tuples(
    st.integers(0, 12),
    st.integers(0, 4),
    st.integers(0, 1),
    st.sampled_from(["a", "b", "b\na", "x", "", '{"k":1}', "\x1b[31ma", "id-7 a"]),
)
_BLOCK = st.tuples(st.sampled_from(SOURCES), st.lists(_ROW, min_size=1, max_size=6), st.booleans())
_TIME = st.none() | st.integers(0, 13).map(format_ns)
_FILTER = st.builds(
    LogFilter,
    app=st.sampled_from([None, None, "shop", "blog", "no"]),
    apps=st.sampled_from([None, None, ("shop",), ()]),
    process=st.sampled_from([None, None, "web"]),
    container=st.sampled_from([None, None, "aa", "bb11"]),
    replica=st.sampled_from([None, None, 2]),
    levels=st.sampled_from([0, 0, 24, 2]),
    stream=st.sampled_from([None, None, "stdout", "stderr"]),
    q=st.sampled_from([None, None, "a", "/^b/", "/#[0-9]*[02468]$/", "k:1"]),
    since=_TIME,
    until=_TIME,
    request_id=st.sampled_from([None, None, None, "id-7"]),
)


@contextlib.contextmanager
def shelved(blocks: list[tuple[LogSource, list[Row], bool]]):
    with tempfile.TemporaryDirectory() as folder:
        shelf = Shelf(Path(folder))
        for source, rows, roll in blocks:
            shelf.add(source, rows)
            if roll:
                shelf.roll()
        yield shelf
        shelf.close()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(_BLOCK, max_size=8),
    _FILTER,
    st.integers(1, 12),
    st.booleans(),
    st.sampled_from([0.0, 3.0, 1e9]),
    st.booleans(),
    st.sets(st.integers(1, 8)),
)
def test_all_pages_together_are_what_a_look_at_everything_finds(
    blocks, wanted, limit, oldest_first, seconds, same, lost
):
    with shelved(blocks) as shelf:
        for number in lost:  # an index that is not there changes nothing
            index_path(shelf.folder, number).unlink(missing_ok=True)
        store = Store(shelf.folder)
        stores = (lambda: store) if same else None
        found = every_page(shelf, wanted, limit, oldest_first, seconds=seconds, stores=stores)
        assert found == shelf.wanted(wanted)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(_BLOCK, min_size=1, max_size=6),
    st.lists(_BLOCK, min_size=1, max_size=6),
    _FILTER,
    st.integers(1, 5),
    st.booleans(),
    st.booleans(),
)
def test_what_is_written_meanwhile_moves_nothing(blocks, later, wanted, limit, oldest_first, same):
    with shelved(blocks) as shelf:
        before, coming = shelf.wanted(wanted), iter(later)

        def write() -> None:
            for source, rows, roll in itertools.islice(coming, 1):
                shelf.add(source, rows)
                if roll:
                    shelf.roll()

        store = Store(shelf.folder)
        stores = (lambda: store) if same else None
        found = every_page(shelf, wanted, limit, oldest_first, between=write, stores=stores)
        assert [message for message in found if message in set(before)] == before
        assert len(set(found)) == len(found)
        after = shelf.wanted(wanted)
        assert found == [message for message in after if message in set(found)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(_BLOCK, min_size=2, max_size=8),
    _FILTER,
    st.integers(1, 4),
    st.booleans(),
    st.lists(st.integers(1, 8), max_size=3, unique=True),
    st.booleans(),
)
def test_what_expires_meanwhile_takes_nothing_else_with_it(blocks, wanted, limit, oldest_first, numbers, same):
    with shelved(blocks) as shelf:
        going, everything = iter(numbers), shelf.wanted(wanted)

        def expire() -> None:
            for number in itertools.islice(going, 1):
                if number != shelf.segments.number:
                    segment_path(shelf.folder, number).unlink(missing_ok=True)
                    index_path(shelf.folder, number).unlink(missing_ok=True)
                    shelf.blocks = {key: block for key, block in shelf.blocks.items() if key[0] != number}

        store = Store(shelf.folder)
        stores = (lambda: store) if same else None
        found = every_page(shelf, wanted, limit, oldest_first, between=expire, stores=stores)
        left = shelf.wanted(wanted)
        assert [message for message in found if message in set(left)] == left
        assert found == [message for message in everything if message in set(found)]


# -- pages -----------------------------------------------------------------------------------------


@pytest.fixture
def shelf(tmp_path: Path):
    shelf = Shelf(tmp_path / "store")
    yield shelf
    shelf.close()


def ask(
    shelf: Shelf, limit: int = 100, cursor: str | None = None, oldest_first: bool = False, **wanted: object
) -> LogPage:
    query = GetLogs(filter=LogFilter(**wanted), limit=limit, cursor=cursor, oldest_first=oldest_first)
    return page(Store(shelf.folder), query, shelf.upto(), lambda: 0.0, 1.0)


def rows(*times: int, message: str = "a", level: int = 1) -> list[Row]:
    return [(at, level, 0, message) for at in times]


def times(found: LogPage) -> list[int]:
    return [parse_ns(item.ts) or 0 for item in found.items]


def test_a_page_has_the_newest_the_newest_last_and_leads_to_older_ones(shelf):
    shelf.add(SOURCES[0], rows(1, 3, 5))
    shelf.add(SOURCES[1], rows(2, 4, 6))
    first = ask(shelf, limit=4)
    assert times(first) == [3, 4, 5, 6]
    second = ask(shelf, limit=4, cursor=first.next)
    assert times(second) == [1, 2]
    assert second.next is None


def test_a_page_may_begin_with_the_oldest_and_lead_to_newer_ones(shelf):
    shelf.add(SOURCES[0], rows(1, 3, 5))
    shelf.add(SOURCES[1], rows(2, 4, 6))
    first = ask(shelf, limit=4, oldest_first=True, since=format_ns(2))
    assert times(first) == [2, 3, 4, 5]
    assert times(ask(shelf, limit=4, cursor=first.next, oldest_first=True, since=format_ns(2))) == [6]


def test_a_page_that_is_just_full_leads_nowhere(shelf):
    shelf.add(SOURCES[0], rows(1, 2, 3))
    assert ask(shelf, limit=3).next is None
    assert ask(shelf, limit=3, oldest_first=True).next is None
    assert ask(shelf, limit=2).next is not None


def test_an_empty_store_has_an_empty_page(shelf, tmp_path):
    assert ask(shelf) == LogPage()
    assert page(Store(tmp_path / "never"), GetLogs(), None, lambda: 0.0) == LogPage()


@pytest.mark.parametrize(("limit", "count"), [(-5, 1), (0, 1), (1, 1), (10**9, MAX_LIMIT)])
def test_a_limit_is_within_bounds(shelf, limit, count):
    shelf.add(SOURCES[0], rows(*range(MAX_LIMIT + 5)))
    assert len(ask(shelf, limit=limit).items) == count


def test_lines_of_one_container_stay_in_order_though_its_clock_steps_back(shelf):
    shelf.add(SOURCES[0], [(at, 1, 0, f"line {at}") for at in (5, 9, 3, 4, 10)])
    shelf.add(SOURCES[1], rows(6))
    for oldest_first in (True, False):
        assert times(ask(shelf, oldest_first=oldest_first)) == [5, 6, 9, 3, 4, 10]


def test_records_from_a_clock_that_was_far_ahead_are_found_in_their_place(shelf):
    """What was stored by a wrong clock, before segments that are younger and have older times."""
    shelf.add(SOURCES[0], rows(10**15 + 1, 10**15 + 2))
    shelf.roll()
    shelf.add(SOURCES[0], rows(1, 2))
    shelf.roll()
    shelf.add(SOURCES[0], rows(3))
    for number in segment_numbers(shelf.folder):
        os.utime(segment_path(shelf.folder, number), (5, 5))
    assert times(ask(shelf, limit=2)) == [10**15 + 1, 10**15 + 2]
    assert times(ask(shelf, since=format_ns(10**15))) == [10**15 + 1, 10**15 + 2]
    everything = every_page(shelf, LogFilter(), 1, False)
    assert everything == shelf.wanted(LogFilter())


def test_only_what_was_written_when_it_was_asked_counts(shelf):
    shelf.add(SOURCES[0], rows(1))
    upto = shelf.upto()
    shelf.add(SOURCES[0], rows(2))
    store = Store(shelf.folder)
    assert times(page(store, GetLogs(), upto, lambda: 0.0)) == [1]
    assert times(page(store, GetLogs(), shelf.upto(), lambda: 0.0)) == [1, 2]
    assert times(page(store, GetLogs(), upto, lambda: 0.0)) == [1]
    shelf.roll()
    shelf.add(SOURCES[0], rows(3))
    assert times(page(store, GetLogs(), (1, upto[1]), lambda: 0.0)) == [1]
    assert times(page(store, GetLogs(), shelf.upto(), lambda: 0.0)) == [1, 2, 3]
    assert times(page(store, GetLogs(), None, lambda: 0.0)) == [1, 2, 3]


def test_a_gap_is_a_record_that_says_so(shelf):
    gap = Gap(bytes=5, lines=1, since=format_ns(1), reason="why")
    text = Columns(text=gap.words() + "\n", times=format_ns(2), levels=b"\2", streams=b"\1")
    shelf.segments.append(SOURCES[0], text, None, gap)
    (item,) = ask(shelf, levels=4).items
    assert (item.gap, item.message, item.level) == (gap, gap.words(), "warning")


def test_few_blocks_are_opened_for_a_few_records(shelf, monkeypatch):
    for number in range(40):
        shelf.add(SOURCES[number % 2], rows(number))
        if number % 10 == 9:
            shelf.roll()
    opened = []
    real = queries.blocks.load
    monkeypatch.setattr(queries.blocks, "load", lambda file, place: opened.append(place) or real(file, place))
    assert times(ask(shelf, limit=2)) == [38, 39]
    assert len(opened) <= 4
    opened.clear()
    assert times(ask(shelf, since=format_ns(20), until=format_ns(22))) == [20, 21]
    assert len(opened) == 2
    opened.clear()
    assert not ask(shelf, app="no").items
    assert not ask(shelf, levels=16).items
    assert not opened


def test_old_indexes_are_let_go_of(shelf, monkeypatch):
    monkeypatch.setattr(queries, "KEPT_PLACES", 5)
    for number in range(6):
        shelf.add(SOURCES[0], rows(number))
        shelf.roll()
    store = Store(shelf.folder)
    for _ in range(2):
        assert times(page(store, GetLogs(), shelf.upto(), lambda: 0.0)) == list(range(6))
    assert len(store._indexes) == 2


# -- what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("oldest_first", [True, False])
@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "!!",
        "é",
        "AAAA",
        "\0",
        "a" * 5000,
        "kwA",
        cursor_text(Cursor(True, (1, 2, 3, 4)))[:-2],
        "lMKUAQIDBA",
        "\ud800",
    ],
)
def test_a_cursor_that_no_page_has_told_is_refused(shelf, cursor, oldest_first):
    with pytest.raises(Invalid, match="cursor is"):
        ask(shelf, cursor=cursor, oldest_first=oldest_first)


@given(st.binary(max_size=30) | st.text(max_size=30).map(lambda text: text.encode()), st.booleans())
def test_no_cursor_does_more_than_be_refused(data, oldest_first):
    with tempfile.TemporaryDirectory() as folder:
        query = GetLogs(cursor=data.decode("latin-1") or "x", oldest_first=oldest_first)
        with contextlib.suppress(Invalid):
            assert page(Store(Path(folder)), query, None, lambda: 0.0) == LogPage()


@given(st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 4), st.booleans())
def test_a_cursor_of_any_numbers_is_only_a_place(key, oldest_first):
    with shelved([(SOURCES[0], rows(1, 2, 3), True), (SOURCES[1], rows(2), False)]) as shelf:
        found = ask(shelf, cursor=cursor_text(Cursor(oldest_first, key)), oldest_first=oldest_first)
        assert times(found) == sorted(times(found))


def test_a_cursor_of_the_other_order_is_refused(shelf):
    shelf.add(SOURCES[0], rows(1, 2))
    with pytest.raises(Invalid, match="in the other order"):
        ask(shelf, cursor=ask(shelf, limit=1).next, oldest_first=True)


def test_an_expression_that_is_none_is_refused_before_anything_is_read(shelf):
    with pytest.raises(Invalid, match=r"no regular expression \(RE2\): missing"):
        ask(shelf, q="/(/")


def test_what_is_damaged_while_it_is_known_is_counted(shelf):
    for number in range(3):
        shelf.add(SOURCES[0], rows(number))
    store = Store(shelf.folder)
    assert times(page(store, GetLogs(), shelf.upto(), lambda: 0.0)) == [0, 1, 2]
    path = segment_path(shelf.folder, 1)
    content = bytearray(path.read_bytes())
    place = store.places(1, shelf.upto()[1])[1]
    content[place.end - 3] ^= 1
    path.write_bytes(content)
    for _ in range(2):
        found = page(store, GetLogs(), shelf.upto(), lambda: 0.0)
        assert (times(found), found.damaged) == ([0, 2], 1)
    found = page(Store(shelf.folder), GetLogs(), shelf.upto(), lambda: 0.0)
    assert (times(found), found.damaged) == ([0, 2], 1)
    path.unlink()
    assert page(store, GetLogs(), shelf.upto(), lambda: 0.0).items == ()
