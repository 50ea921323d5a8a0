"""Every request becomes a record, without secrets; none is lost or counted twice on the way to the store."""

from __future__ import annotations

import socket
import struct

import gevent
import msgspec
import pytest

from ndactors.core.model import Capture
from ndactors.edge.answers import STATUS
from ndactors.edge.capture import Recorder
from ndactors.messages.edge import RecordsStored, RequestRecords
from ndactors.messages.records import CUT_OFF, DELIBERATE, Batch
from ndactors.runtime.link import FrameReader

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Wire:
    """What a worker's recorder sends."""

    def __init__(self) -> None:
        self.open = True
        self.reader: FrameReader[RequestRecords] = FrameReader(RequestRecords)
        self.sent: list[RequestRecords] = []

    def send(self, frame: bytes) -> bool:
        if self.open:
            self.sent += self.reader.feed(frame)
        return self.open

    def rows(self):
        found = []
        for records in self.sent:
            batch = msgspec.msgpack.decode(records.batch, type=Batch)
            assert len(batch.rows) == records.count
            for row in batch.rows:
                answer = batch.answers[row.answer] if row.answer >= 0 else None
                found.append((batch.heads[row.head], answer, row))
        return found


@pytest.fixture
def wire(ground):
    wire = Wire()
    ground.worker._recorder = Recorder("w", wire.send)
    return wire


def settle(ground, wire):
    ground.worker._send_what_is_settled(ground.worker.now())
    return wire.rows()


def test_a_record_says_what_happened(ground, wire):
    def answer(sock, head, rest):
        sock.sendall(b"HTTP/1.1 201 Created\r\nX-App: yes\r\nSet-Cookie: id=secret\r\nContent-Length: 5\r\n\r\nhello")
        return rest[2:]

    upstream = ground.upstream(answer)
    ground.route(upstream.port, host="shop.test")
    raw = (
        b"POST /a/b?x=1&token=abc&y=2 HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: me/1\r\nContent-Length: 2\r\n"
        b"Referer: https://me:pw@other.test/p?code=5&z=1#f\r\nCookie: a=b\r\nAuthorization: Bearer xyz\r\n\r\nhi"
    )
    _, head, _ = ground.ask(raw)
    ((request, answered, row),) = settle(ground, wire)
    assert (request.app, request.process, request.method, request.host) == ("app", "web", b"POST", b"shop.test")
    assert request.target == b"/a/b?x=1&token=[redacted]&y=2"
    assert request.http11
    lines = dict(line.split(b": ", 1) for line in request.fields.split(b"\r\n")[:-1])
    assert lines == {
        b"User-Agent": b"me/1",
        b"Referer": b"https://other.test/p?code=[redacted]&z=1",
        b"Cookie": b"[redacted]",
        b"Authorization": b"[redacted]",
    }
    assert answered.fields == b"X-App: yes\r\nSet-Cookie: [redacted]\r\nContent-Length: 5\r\n"
    assert (row.status, row.retries, row.error, row.country, row.body) == (201, 0, "", "", b"")
    assert row.address == "127.0.0.1"
    assert row.container == f"b{upstream.port}"
    assert b"X-Request-Id: " + row.id in head
    assert row.bytes_in == len(raw)
    assert row.bytes_out == len(head) + 4 + 5
    assert 0 <= row.upstream <= row.duration < 1.0
    for secret in (b"abc", b"xyz", b"a=b", b"pw@", b"secret"):
        assert all(secret not in records.batch for records in wire.sent)


@pytest.mark.parametrize(("how", "address"), [("full", "127.0.0.1"), ("truncated", "127.0.0.0"), ("none", "")])
def test_addresses_are_kept_as_asked(ground, wire, how, address):
    ground.route(ground.upstream().port, capture=Capture(client_ip=how, headers=False))
    ground.ask(b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: me\r\nX-Own: 1\r\n\r\n")
    ((request, answered, row),) = settle(ground, wire)
    assert row.address == address
    assert request.fields == b"User-Agent: me\r\n"
    assert answered.fields == b""


def test_bodies_are_kept_up_to_the_limit(ground, wire):
    ground.route(
        ground.upstream(lambda sock, head, rest: sock.sendall(b"HTTP/1.1 204 No\r\n\r\n")).port,
        capture=Capture(body_bytes=10),
    )
    for raw in (
        b"Content-Length: 26\r\n\r\nabcdefghijklmnopqrstuvwxyz",
        b"Transfer-Encoding: chunked\r\n\r\n4\r\nwxyz\r\n0\r\n\r\n",
    ):
        ground.ask(b"POST / HTTP/1.1\r\nHost: x\r\n" + raw)
    assert [row.body for _, _, row in settle(ground, wire)] == [b"abcdefghij", b"wxyz"]


def test_answers_of_the_edge_are_records_too(ground, wire, wait):
    ground.route(host="shop.test")
    ground.ask(GET)
    ground.ask(b"GET /x HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    ground.ask(b"NONSENSE\r\n\r\n")
    wait(lambda: not ground.worker.clients)
    seen = [
        (request.app, request.target, answer, row.status, row.error) for request, answer, row in settle(ground, wire)
    ]
    assert seen == [
        ("", b"/", None, 404, "no_route"),
        ("app", b"/x", None, 503, "no_backend"),
        ("", b"", None, 400, "bad_request"),
    ]


def test_every_request_is_recorded_once_whatever_the_store_does(ground, wire):
    ground.route(ground.upstream().port)
    recorder = ground.worker._recorder
    client = ground.client()

    def some(count):
        for _ in range(count):
            client.send(GET).answer()
        ground.worker._send_what_is_settled(ground.worker.now())

    some(3)
    assert [(r.sequence, r.previous) for r in wire.sent] == [(1, 0)]
    wire.open = False
    some(2)
    some(2)
    assert len(wire.sent) == 1
    wire.open = True
    some(1)
    assert [(r.sequence, r.previous) for r in wire.sent] == [(1, 0), (2, 1), (3, 2), (4, 3)]
    recorder.stored(RecordsStored(worker="somebody else", sequence=4), 0.0)
    assert recorder.waiting == 4
    recorder.stored(RecordsStored(worker="w", sequence=2), 0.0)
    assert recorder.waiting == 2
    # a new daemon listens: what is not known to be stored comes again, and says that nothing is missing before it
    wire.sent.clear()
    recorder.again(ground.worker.now())
    assert [(r.sequence, r.previous) for r in wire.sent] == [(3, 0), (4, 3)]
    # what is not acknowledged in time comes again by itself
    wire.sent.clear()
    recorder.push(ground.worker.now() + 60)
    assert [r.sequence for r in wire.sent] == [3, 4]


def test_who_counts_records_is_told_of_those_that_cannot_be_sent_yet(ground, wire, monkeypatch):
    monkeypatch.setattr("ndactors.edge.capture.WINDOW", 2)
    ground.route(ground.upstream().port)
    recorder = ground.worker._recorder
    client = ground.client()

    def some() -> None:
        client.send(GET).answer()
        ground.worker._send_what_is_settled(ground.worker.now())

    for _ in range(4):
        some()
    assert [(r.sequence, r.newest) for r in wire.sent] == [(1, 1), (2, 2), (0, 3), (0, 4)]
    wire.open = False
    some()
    wire.open = True
    recorder.push(ground.worker.now())
    recorder.push(ground.worker.now())
    assert [(r.sequence, r.newest) for r in wire.sent[4:]] == [(0, 5)], "once, as soon as there is room"
    recorder.stored(RecordsStored(worker="w", sequence=2), ground.worker.now())
    assert [(r.sequence, r.newest) for r in wire.sent[5:]] == [(3, 5), (4, 5)], "a batch tells it too"


def test_the_ring_keeps_the_newest_and_counts_the_rest(ground, wire, monkeypatch):
    monkeypatch.setattr("ndactors.edge.capture.RING_BYTES", 2000)
    ground.route(ground.upstream().port)
    wire.open = False
    client = ground.client()
    for _ in range(20):
        client.send(GET).answer()
        ground.worker._send_what_is_settled(ground.worker.now())
    dropped = ground.worker._recorder.dropped
    assert dropped > 0
    wire.open = True
    ground.worker._recorder.again(ground.worker.now())
    assert len(wire.rows()) == 20 - dropped
    assert wire.sent[0].previous == 0
    assert wire.sent[-1].sequence == 20


def test_large_heads_make_several_batches(ground, wire, monkeypatch):
    monkeypatch.setattr("ndactors.edge.capture.BATCH_BYTES", 20_000)
    ground.route(ground.upstream().port)
    client = ground.client()
    for n in range(30):
        client.send(b"GET /%d HTTP/1.1\r\nHost: x\r\nX-Long: %b\r\n\r\n" % (n, b"x" * 3000)).answer()
    rows = settle(ground, wire)
    assert [request.target for request, _, _ in rows] == [b"/%d" % n for n in range(30)]
    assert 4 < len(wire.sent) < 12
    starts = [msgspec.msgpack.decode(r.batch, type=Batch) for r in wire.sent]
    moments = [batch.base + row.at for batch in starts for row in batch.rows]
    assert moments == sorted(moments)


# -- how long they waited for a container ----------------------------------------------------------


def row_of(ground, wire):
    (found,) = settle(ground, wire)
    return found[2]


def test_a_record_says_how_long_it_waited_for_a_container(ground, wire, wait):
    ground.route(hold_seconds=5)
    client = ground.client().send(GET)
    wait(lambda: ground.app.held)
    gevent.sleep(0.3)
    ground.route(ground.upstream().port, hold_seconds=5)
    assert client.answer()[0] == 200
    row = row_of(ground, wire)
    assert 0.25 < row.held < row.duration < 0.45
    assert row.upstream < 0.1
    wire.sent.clear()
    client.send(GET).answer()
    assert row_of(ground, wire).held == 0.0


def test_several_waits_are_added_up(ground, wire, wait):
    """It refuses connections, and is asked again five times a second, until it does not."""
    reserved = socket.socket()
    reserved.bind(("127.0.0.1", 0))
    ground.route(reserved.getsockname()[1], hold_seconds=5)
    client = ground.client().send(GET)
    wait(lambda: ground.app.totals().retries.get("connect_failed", 0) >= 3)
    reserved.close()
    ground.route(ground.upstream().port, hold_seconds=5)
    assert client.answer()[0] == 200
    row = row_of(ground, wire)
    assert 0.35 < row.held <= row.duration
    assert row.retries >= 3


def test_one_that_waited_in_vain_waited_all_the_time(ground, wire, wait):
    ground.route(hold_seconds=0.3)
    assert ground.client().send(GET).answer()[0] == 503
    row = row_of(ground, wire)
    assert (row.status, row.error) == (503, "no_backend")
    assert 0.25 < row.held == pytest.approx(row.duration, abs=0.01)
    wire.sent.clear()
    ground.route(hold_seconds=5)
    client = ground.client().send(GET)
    wait(lambda: ground.app.held)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    wait(lambda: not ground.app.held)
    row = row_of(ground, wire)
    assert (row.status, row.error) == (499, "client_left")
    assert 0.0 < row.held <= row.duration


# -- whose fault it was ----------------------------------------------------------------------------


def half(sock, head, rest):
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    gevent.sleep(60)


def test_an_answer_that_we_cut_off_is_not_the_clients_doing(ground, wire, wait):
    ground.route(ground.upstream(half).port)
    client = ground.client().send(GET)
    client.head()
    ground.worker.stop(0.1)
    assert client.rest().endswith(b"half")
    assert (row_of(ground, wire).status, row_of(ground, wire).error) == (200, "shutting_down")


def test_a_fault_of_ours_is_not_the_clients_doing(ground, wire, wait, monkeypatch):
    ground.faults_expected = True
    ground.route(ground.upstream(half).port)
    client = ground.client().send(GET)
    client.head()

    def broken(*_):
        raise RuntimeError("made to fail")

    monkeypatch.setattr("ndactors.edge.client.Client.check", broken)
    wait(lambda: ground.worker._faults)
    monkeypatch.undo()
    assert row_of(ground, wire).error == "edge_fault"


def test_a_client_that_goes_is(ground, wire, wait):
    ground.route(ground.upstream(half).port)
    client = ground.client().send(GET)
    client.head()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    wait(lambda: not ground.worker.clients)
    assert (row_of(ground, wire).status, row_of(ground, wire).error) == (200, "client_left")


def test_every_error_is_somebodys(ground):
    """What counts as a failure of a deployment is decided for every word that there is."""
    harmless = {
        *("", DELIBERATE, "client_left"),
        *("no_route", "bad_request", "too_large", "rate_limited", "unauthorized", "forbidden", "redirect"),
    }
    assert {*STATUS, "", "client_left", "edge_fault"} == harmless | set(CUT_OFF)
    assert not harmless & set(CUT_OFF)
