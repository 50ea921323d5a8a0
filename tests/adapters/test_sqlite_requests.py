"""The store of request records: once each, found again, bounded, and whole after damage."""

from __future__ import annotations

import math
import sqlite3
import time

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ndactors.adapters.sqlite_requests import SqliteRequests
from ndactors.core.model import Retain
from ndactors.messages.edge import RequestRecords
from ndactors.messages.records import (
    AnswerHead,
    Batch,
    GetRequests,
    GetTraffic,
    RequestHead,
    Row,
    Traffic,
    TrafficSummary,
)

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


# -- traffic ---------------------------------------------------------------------------------------


def rows_of(
    sequence: int, rows: list[Row], *, app: str = "shop", base: float = NOW, worker: str = "w"
) -> RequestRecords:
    head = RequestHead(app=app, process="web", http11=True, method=b"GET", host=b"x", target=b"/", fields=b"")
    encoded = msgspec.msgpack.encode(Batch(base=base, heads=[head], answers=[], rows=rows))
    return RequestRecords(worker=worker, sequence=sequence, count=len(rows), batch=encoded)


def row(
    at: float = 0.0, ms: float = 1.0, status: int = 200, container: str = "c1", error: str = "", held_ms=0.0
) -> Row:
    return Row(at, ms / 1000, 0.0, 0, -1, status, 0, 0, b"", "", "", container, 0, error, b"", held_ms / 1000)


def ask(store, since: float = NOW - 1, until: float = NOW + 5000, over_ms: float | None = None, app: str = "shop"):
    return store.traffic(GetTraffic(app=app, since=since, until=until, over_ms=over_ms))


def test_requests_are_counted_by_when_they_ended(make):
    store = make()
    store.append([rows_of(1, [row(at=n - 0.001) for n in range(10)]), rows_of(2, [row()] * 3, app="blog")])
    assert ask(store).all.requests == 10
    assert ask(store, NOW + 3, NOW + 7).all.requests == 4, "from since to before until"
    assert ask(store, app="blog").all.requests == 3
    assert ask(store, app="nobody") == TrafficSummary()
    assert ask(store, NOW + 500).all.p95_ms is None


def test_a_long_request_counts_in_the_window_of_its_end(make):
    store = make()
    store.append([rows_of(1, [row(at=0, ms=5000)])])
    assert ask(store, NOW, NOW + 5).all.requests == 0, "it goes on"
    assert ask(store, NOW + 5, NOW + 6).all.requests == 1


def test_sums_are_by_container_too(make):
    store = make()
    store.append(
        [
            rows_of(
                1,
                [
                    *(row(container="old", ms=10) for _ in range(18)),
                    row(container="old", ms=500, status=502, error="upstream_reset"),
                    row(container="old", ms=900, held_ms=850),
                    *(row(container="new", ms=20) for _ in range(3)),
                    row(container="new", ms=40, held_ms=15.5),
                    row(container="", status=503, error="no_backend", ms=15_000, held_ms=15_000),
                ],
            )
        ]
    )
    found = ask(store, over_ms=20.0)
    assert found.containers["old"] == Traffic(requests=20, failed=1, held=1, held_max_ms=850.0, p95_ms=500.0, over=2)
    assert found.containers["new"] == Traffic(requests=4, failed=0, held=1, held_max_ms=15.5, p95_ms=40.0, over=1)
    assert found.containers[""] == Traffic(requests=1, failed=1, held=1, held_max_ms=15_000, p95_ms=15_000, over=1)
    assert found.all == Traffic(requests=25, failed=2, held=3, held_max_ms=15_000, p95_ms=900.0, over=4)


@pytest.mark.parametrize(
    ("status", "error", "failed"),
    [
        (200, "", False),
        (404, "no_route", False),
        (499, "client_left", False),
        (200, "client_left", False),
        (429, "rate_limited", False),
        (101, "", False),
        (500, "", True),
        (503, "no_backend", True),
        (504, "upstream_timeout", True),
        (200, "upstream_reset", True),
        (200, "shutting_down", True),
        (101, "edge_fault", True),
        (500, "client_left", True),
        (503, "maintenance", False),
    ],
)
def test_what_counts_as_failed(make, status, error, failed):
    store = make()
    store.append([rows_of(1, [row(status=status, error=error)])])
    assert ask(store).all.failed == failed


def test_tunnels_last_as_long_as_they_like(make):
    store = make()
    store.append(
        [rows_of(1, [row(ms=10), row(ms=3_600_000, status=101), row(ms=3_600_000, status=101, container="t")])]
    )
    found = ask(store, over_ms=100)
    assert (found.all.requests, found.all.p95_ms, found.all.over) == (3, 10.0, 0)
    assert found.containers["t"] == Traffic(requests=1)


@given(st.lists(st.tuples(st.integers(0, 5000), st.sampled_from(["a", "b", ""])), max_size=120))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_95th_percentile_is_the_nearest_rank(tmp_path_factory, drawn):
    store = SqliteRequests(
        tmp_path_factory.mktemp("p95") / "requests.db", lambda *_: None, lambda call: call(), lambda: Retain()
    )
    store.append([rows_of(1, [row(ms=ms, container=container) for ms, container in drawn])])
    found = ask(store, over_ms=2500)
    store.close()

    def expected(durations: list[int]) -> float | None:
        return float(sorted(durations)[math.ceil(0.95 * len(durations)) - 1]) if durations else None

    assert found.all.p95_ms == expected([ms for ms, _ in drawn])
    assert found.all.over == sum(ms > 2500 for ms, _ in drawn)
    for name in {container for _, container in drawn}:
        assert found.containers[name].p95_ms == expected([ms for ms, container in drawn if container == name])


class Clock:
    """What the store takes for the time."""

    def __init__(self, monkeypatch) -> None:
        self.now = NOW
        monkeypatch.setattr("ndactors.adapters.sqlite_requests.time.time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def steps(store, query: GetTraffic) -> int:
    """How much work the database has with it, in thousands of its instructions."""
    counted = [0]

    def step() -> None:
        counted[0] += 1

    store._file.read(lambda database: database.set_progress_handler(step, 1000))
    store.traffic(query)
    store._file.read(lambda database: database.set_progress_handler(None, 0))
    return counted[0]


def test_what_was_long_ago_costs_nothing(make, clock):
    store = make(Retain(days=3650, bytes=1 << 40))
    per_hour, hours = 2000, 100
    for hour in range(hours):
        clock.now = NOW + 3600 * hour
        store.append([rows_of(hour + 1, [row(at=n / per_hour, ms=0.1) for n in range(per_hour)], base=clock.now - 1)])
    last = GetTraffic(app="shop", since=clock.now - 60, until=clock.now)
    assert store.traffic(last).all.requests == per_hour
    everything = GetTraffic(app="shop", since=0.0, until=clock.now)
    assert store.traffic(everything).all.requests == per_hour * hours
    assert steps(store, last) * 20 < steps(store, everything)


def test_nothing_is_missed_however_late_and_in_whatever_order_it_comes(make, clock):
    """A long request arrives after shorter ones that began later; a worker that was cut off, after everybody."""
    store = make()
    clock.now = NOW + 100
    store.append([rows_of(1, [row(at=n) for n in range(100)])])
    clock.now = NOW + 3600
    store.append([rows_of(2, [row(at=n) for n in range(3000, 3600)])])
    store.append([rows_of(1, [row(at=n) for n in range(50)], worker="cut off")])
    store.append([rows_of(3, [row(at=1, ms=3_598_500, container="long")])])
    found = ask(store, NOW, NOW + 100)
    assert found.all.requests == 100 + 50
    found = ask(store, NOW + 3000, NOW + 3600)
    assert found.all.requests == 600 + 1
    assert found.containers["long"].requests == 1


def test_a_clock_that_is_put_back_a_little_hides_nothing(make, clock):
    store = make()
    clock.now = NOW + 20
    store.append([rows_of(1, [row(at=n) for n in range(20)])])
    clock.now = NOW + 12
    store.append([rows_of(2, [row(at=n) for n in range(10, 12)])])
    clock.now = NOW + 30
    store.append([rows_of(3, [row(at=n) for n in range(20, 30)])])
    assert ask(store, NOW + 5, NOW + 30).all.requests == 15 + 2 + 10
    assert ask(store, NOW + 18, NOW + 30).all.requests == 2 + 10


def test_sums_survive_what_is_pruned(make, monkeypatch):
    monkeypatch.setattr("ndactors.adapters.sqlite_requests.PRUNE_EVERY", 1)
    store = make(Retain(days=1, bytes=1 << 30))
    store.append([rows_of(1, [row()] * 5, base=NOW - 3 * 86_400)])
    store.append([rows_of(2, [row()] * 7)])
    assert ask(store, 0.0).all.requests == 7
    # everything goes, and numbers begin anew
    store.append([rows_of(3, [row()], base=NOW - 3 * 86_400)])
    empty = make(Retain(days=0, bytes=1 << 30))
    empty.append([rows_of(4, [row()] * 3, base=NOW - 10)])
    assert ask(empty, 0.0).all.requests == 0
    store.append([rows_of(5, [row()] * 4)])
    assert ask(store).all.requests == 4


OLD_SCHEMA = """
CREATE TABLE heads (
  id INTEGER PRIMARY KEY, app TEXT NOT NULL, process TEXT NOT NULL, method TEXT NOT NULL, host TEXT NOT NULL,
  path TEXT NOT NULL, head BLOB NOT NULL);
CREATE TABLE answers (id INTEGER PRIMARY KEY, answer BLOB NOT NULL);
CREATE TABLE requests (
  seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, duration INTEGER NOT NULL, upstream INTEGER NOT NULL,
  head INTEGER NOT NULL, answer INTEGER, status INTEGER NOT NULL, bytes_in INTEGER NOT NULL,
  bytes_out INTEGER NOT NULL, id TEXT NOT NULL, address TEXT NOT NULL, country TEXT NOT NULL,
  container TEXT NOT NULL, retries INTEGER NOT NULL, error TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE writers (worker TEXT PRIMARY KEY, sequence INTEGER NOT NULL, seen INTEGER NOT NULL) WITHOUT ROWID;
"""


def test_a_file_of_an_earlier_version_goes_on(make, tmp_path):
    head = msgspec.msgpack.encode(RequestHead("shop", "web", True, b"GET", b"x", b"/", b""))
    database = sqlite3.connect(tmp_path / "requests.db")
    database.executescript(OLD_SCHEMA)
    database.execute("INSERT INTO heads VALUES (1, 'shop', 'web', 'GET', 'x', '/', ?)", (head,))
    database.executemany(
        "INSERT INTO requests VALUES (?, ?, 1000, 0, 1, NULL, 200, 0, 0, 'id', '', '', 'c', 0, '', x'')",
        [(n, round((NOW - 10_000 + n) * 1e6)) for n in range(1, 10_001)],
    )
    database.execute("INSERT INTO writers VALUES ('w', 3, 0)")
    database.commit()
    database.close()
    store = make()
    store.append([rows_of(3, [row()]), rows_of(4, [row(held_ms=2.5)])])
    newest, before = store.page(GetRequests(limit=2)).items
    assert (newest.held_ms, before.held_ms) == (2.5, None)
    assert ask(store, NOW - 4000.5, NOW + 10).all.requests == 4001 + 1
    assert ask(store, 0.0).all.requests == 10_001
    recent = GetTraffic(app="shop", since=NOW - 30, until=NOW + 10)
    assert steps(store, recent) * 20 < steps(store, GetTraffic(app="shop", since=0.0, until=NOW))
    # and once more
    assert ask(make(), 0.0).all.requests == 10_001
