"""The store of request records: once each, found again, bounded, and whole after damage."""

from __future__ import annotations

import time

import msgspec
import pytest

from ndactors.adapters.sqlite_requests import SqliteRequests
from ndactors.core.model import Retain
from ndactors.messages.edge import RequestRecords
from ndactors.messages.records import AnswerHead, Batch, GetRequests, RequestHead, Row

NOW = time.time()


def batch(sequence: int, count: int = 3, worker: str = "w", **changes) -> RequestRecords:
    head = RequestHead(
        app=changes.pop("app", "shop"),
        process="web",
        http11=True,
        method=changes.pop("method", "GET").encode(),
        host=b"shop.test",
        target=changes.pop("target", f"/{sequence}?q=1").encode(),
        fields=b"User-Agent: me\r\nX-A: 1\r\nX-A: 2\r\nReferer: https://x/\r\n",
    )
    at = changes.pop("ago", 0.0)
    rows = [
        Row(
            n / 1e6,
            changes.get("duration", 0.0015),
            0.001,
            0,
            0 if changes.get("status", 200) == 200 else -1,
            changes.get("status", 200),
            10,
            20,
            f"{worker}-{sequence}-{n}".encode(),
            changes.get("ip", "127.0.0.1"),
            changes.get("country", ""),
            "c1",
            0,
            changes.get("error", ""),
        )
        for n in range(count)
    ]
    answers = [AnswerHead(status=200, fields=b"Content-Type: text/plain\r\n")]
    encoded = msgspec.msgpack.encode(Batch(base=NOW - at, heads=[head], answers=answers, rows=rows))
    return RequestRecords(worker=worker, sequence=sequence, count=count, batch=encoded)


@pytest.fixture
def reports():
    return []


@pytest.fixture
def make(tmp_path, reports):
    made = []

    def open_store(retain: Retain | None = None) -> SqliteRequests:
        store = SqliteRequests(
            tmp_path / "requests.db",
            lambda *report: reports.append(report),
            lambda call: call(),
            lambda: retain or Retain(),
        )
        made.append(store)
        return store

    yield open_store
    for store in made:
        store.close()


def test_what_comes_twice_is_there_once_also_after_a_restart(make):
    store = make()
    store.append([batch(1), batch(2), batch(1, worker="other")])
    store.append([batch(2), batch(3)])
    make().append([batch(3), batch(4)])
    ids = [record.id for record in store.page(GetRequests()).items]
    assert len(ids) == len(set(ids)) == 15
    assert ids[0] == "w-4-2", "newest first"


def test_a_record_comes_back_as_it_was(make):
    store = make()
    store.append([batch(1, 1, country="DE", error="", target="/a/b?x=1&y=[redacted]")])
    (record,) = store.page(GetRequests()).items
    assert (record.app, record.process, record.method, record.host) == ("shop", "web", "GET", "shop.test")
    assert (record.path, record.query, record.status) == ("/a/b", "x=1&y=[redacted]", 200)
    assert (record.duration_ms, record.upstream_ms, record.bytes_in, record.bytes_out) == (1.5, 1.0, 10, 20)
    assert (record.user_agent, record.referer, record.country, record.error) == ("me", "https://x/", "DE", None)
    assert record.request_headers == {"host": "shop.test", "user-agent": "me", "x-a": "1, 2", "referer": "https://x/"}
    assert record.response_headers == {"content-type": "text/plain"}
    assert record.ts.endswith("Z")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (GetRequests(app="blog"), {2}),
        (GetRequests(method="POST"), {3}),
        (GetRequests(path="/special"), {4}),
        (GetRequests(path="/sp*"), {4}),
        (GetRequests(status="404"), {5}),
        (GetRequests(status="4xx"), {5}),
        (GetRequests(ip="10.0.0.1"), {6}),
        (GetRequests(country="FR"), {7}),
        (GetRequests(min_ms=100.0), {8}),
        (GetRequests(since=NOW - 60), {1, 2, 3, 4, 5, 6, 7, 8}),
        (GetRequests(id="w-3-0"), {3}),
        (GetRequests(path="/100%"), set()),
    ],
)
def test_queries(make, query, found):
    store = make()
    store.append(
        [
            batch(1, 1),
            batch(2, 1, app="blog"),
            batch(3, 1, method="POST"),
            batch(4, 1, target="/special?x"),
            batch(5, 1, status=404, error="no_route"),
            batch(6, 1, ip="10.0.0.1"),
            batch(7, 1, country="FR"),
            batch(8, 1, duration=0.15),
            batch(9, 1, ago=3600.0),
        ]
    )
    assert {int(record.id.split("-")[1]) for record in store.page(query).items} == found


def test_pages(make):
    store = make()
    store.append([batch(1, 25)])
    seen, cursor = [], None
    while True:
        page = store.page(GetRequests(limit=10, before=cursor))
        seen += [record.id for record in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 25


def test_old_ones_go_by_age_and_by_size(make, monkeypatch):
    monkeypatch.setattr("ndactors.adapters.sqlite_requests.PRUNE_EVERY", 1)
    store = make(Retain(days=1, bytes=1 << 30))
    store.append([batch(1, 5, ago=3 * 86_400.0)])
    store.append([batch(2, 5)])
    assert len(store.page(GetRequests()).items) == 5
    small = make(Retain(days=1, bytes=200_000))
    for sequence in range(3, 40):
        small.append([batch(sequence, 200)])
    assert len(small.page(GetRequests(limit=10_000)).items) < 5000
    assert small.page(GetRequests(limit=1)).items[0].id.startswith("w-39-")


def test_a_batch_that_nobody_can_read_is_passed_over(make):
    store = make()
    store.append([batch(1), RequestRecords(worker="w", sequence=2, count=1, batch=b"\xc1 nonsense"), batch(3)])
    assert len(store.page(GetRequests()).items) == 6


def test_a_damaged_file_is_set_aside(make, tmp_path, reports):
    (tmp_path / "requests.db").write_bytes(b"no database at all" * 500)
    store = make()
    store.append([batch(1)])
    assert reports[0][0] == "state.corrupt"
    assert len(store.page(GetRequests()).items) == 3
    assert (tmp_path / "requests.db").stat().st_mode & 0o077 == 0
