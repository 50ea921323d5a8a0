from __future__ import annotations

import pytest

from ndactors.adapters.sqlite_events import SqliteEvents
from ndactors.errors import StateError
from ndactors.messages.queries import Event, GetEvents


def event(n: int, **kwargs) -> Event:
    return Event(**{"ts": f"2026-01-01T00:00:{n:02}.000000Z", "kind": "container.died", "detail": {"n": n}, **kwargs})


@pytest.fixture
def reports():
    return []


@pytest.fixture
def store(tmp_path, reports):
    made = SqliteEvents(tmp_path / "events.db", lambda *report: reports.append(report), lambda call: call())
    yield made
    made.close()


def test_newest_first_and_paged_by_cursor(store):
    store.append([event(n) for n in range(10)])
    first = store.page(GetEvents(limit=4))
    assert [e.detail["n"] for e in first.items] == [9, 8, 7, 6]
    second = store.page(GetEvents(limit=4, before=first.next))
    third = store.page(GetEvents(limit=4, before=second.next))
    assert [e.detail["n"] for e in (*second.items, *third.items)] == [5, 4, 3, 2, 1, 0]
    assert third.next is None


def test_filters(store):
    store.append([event(1, app="shop"), event(2, app="blog"), event(3, app="shop", kind="container.oom")])
    assert [e.detail["n"] for e in store.page(GetEvents(app="shop")).items] == [3, 1]
    assert [e.detail["n"] for e in store.page(GetEvents(kind="container.oom")).items] == [3]
    assert [e.detail["n"] for e in store.page(GetEvents(since="2026-01-01T00:00:02")).items] == [3, 2]


def test_ids_grow_over_a_reopening(tmp_path, store):
    store.append([event(1)])
    again = SqliteEvents(tmp_path / "events.db", print, lambda call: call())
    again.append([event(2)])
    assert [e.id for e in again.page(GetEvents()).items] == [2, 1]
    again.close()


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 8000])
def test_a_damaged_file_is_set_aside_and_a_new_one_begins(tmp_path, reports, content):
    path = tmp_path / "events.db"
    path.write_bytes(content)
    store = SqliteEvents(path, lambda *report: reports.append(report), lambda call: call())
    store.append([event(1)])
    assert len(store.page(GetEvents()).items) == 1
    store.close()
    if content:
        assert reports[0][0] == "state.corrupt"
        assert next(tmp_path.glob("events.db.damaged-*")).read_bytes() == content


def test_damage_that_shows_later_loses_only_what_is_damaged(tmp_path, reports):
    path = tmp_path / "events.db"
    store = SqliteEvents(path, lambda *report: reports.append(report), lambda call: call())
    store.append([event(n % 60, reason="x" * 2000) for n in range(500)])
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xa5" * (size - 12288))
    store = SqliteEvents(path, lambda *report: reports.append(report), lambda call: call())
    store.append([event(1)])
    store.page(GetEvents(limit=1000))
    assert reports
    store.append([event(2)])
    assert store.page(GetEvents(limit=1)).items[0].detail == {"n": 2}
    store.close()


def test_a_full_disk_is_an_error_of_ours(tmp_path, store, monkeypatch):
    store._file._database.execute("PRAGMA max_page_count = 8")
    with pytest.raises(StateError, match="full"):
        store.append([event(1, reason="x" * 100_000)])
    store._file._database.execute("PRAGMA max_page_count = 100000")
    store.append([event(1)])


def test_nobody_else_may_read_it(store, tmp_path):
    assert (tmp_path / "events.db").stat().st_mode & 0o077 == 0
