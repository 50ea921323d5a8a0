"""What a client gets and what an app gets, message by message."""

from __future__ import annotations

import json

import gevent
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ndactors.edge import http1

GET = b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n"


def fields(head: bytes) -> dict[bytes, bytes]:
    return {line.partition(b": ")[0].lower(): line.partition(b": ")[2] for line in head.strip().split(b"\r\n")[1:]}


def test_a_request_is_written_anew_with_what_the_app_should_know(ground):
    upstream = ground.upstream()
    ground.route(upstream.port)
    raw = (
        b"GET /a?b=1 HTTP/1.1\r\nHost: Shop.test:80\r\nX-Forwarded-For: 6.6.6.6\r\nX-Request-Id: mine\r\nX-Country: XX\r\n"
        b"Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nCookie: a=b\r\n\r\n"
    )
    status, head, body = ground.ask(raw)
    assert (status, body) == (200, b"ok")
    got = fields(upstream.received[0])
    assert upstream.received[0].startswith(b"GET /a?b=1 HTTP/1.1\r\nHost: Shop.test:80\r\n")
    assert got[b"x-forwarded-for"] == b"127.0.0.1"
    assert got[b"x-forwarded-proto"] == b"http"
    assert got[b"x-forwarded-host"] == b"Shop.test:80"
    assert got[b"cookie"] == b"a=b"
    assert len(got[b"x-request-id"]) == 32
    assert not {b"x-hop", b"keep-alive", b"connection", b"x-country"} & got.keys()
    assert fields(head)[b"x-request-id"] == got[b"x-request-id"]


def test_a_trusted_proxy_is_believed(ground):
    upstream = ground.upstream()
    ground.route(upstream.port, trusted_proxies=("127.0.0.0/8",))
    raw = b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Request-Id: mine\r\n\r\n"
    _, head, _ = ground.ask(raw)
    got = fields(upstream.received[0])
    assert got[b"x-forwarded-for"] == b"6.6.6.6, 127.0.0.1"
    assert got[b"x-forwarded-proto"] == b"https"
    assert got[b"x-request-id"] == b"mine"
    assert fields(head)[b"x-request-id"] == b"mine"


def test_connections_are_kept_on_both_sides(ground):
    upstream = ground.upstream()
    ground.route(upstream.port)
    client = ground.client()
    for _ in range(5):
        assert client.send(GET).answer()[0] == 200
    assert upstream.connections == 1


def test_pipelined_requests_are_answered_in_order(ground):
    def answer(sock, head, rest):
        body = head.split(b" ")[1]
        gevent.sleep(0.02 if body == b"/0" else 0)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        return rest

    ground.route(ground.upstream(answer).port)
    client = ground.client().send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(20)))
    assert [client.answer()[2] for _ in range(20)] == [b"/%d" % n for n in range(20)]


def test_a_chunked_request_arrives_chunked_and_whole(ground):
    bodies = []

    def answer(sock, head, rest):
        reader, data = http1.ChunkedReader(), []
        while True:
            data += reader.feed(rest)
            if reader.done:
                break
            rest = sock.recv(1000)
        bodies.append(b"".join(data))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return reader.rest

    ground.route(ground.upstream(answer).port)
    client = ground.client()
    for piece in (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"5;a=b\r\nhel",
        b"lo\r",
        b"\nA\r\n0123456789\r\n0\r",
        b"\nTrailer: x\r\n\r\n",
    ):
        client.send(piece)
        gevent.sleep(0.005)
    assert client.answer()[0] == 200
    assert bodies == [b"hello0123456789"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"),
    ],
)
def test_answers_without_a_length_come_chunked(ground, answer, expected):
    def send(sock, head, rest):
        sock.sendall(answer)
        if b"chunked" not in answer:
            raise OSError
        return rest

    ground.route(ground.upstream(send).port)
    client = ground.client().send(GET)
    assert fields(client.head())[b"transfer-encoding"] == b"chunked"
    reader, data = http1.ChunkedReader(), []
    while not reader.done:
        data += reader.feed(client.pending or client.sock.recv(1000))
        client.pending = b""
    assert b"".join(data) == expected
    assert client.send(GET).head(), "the connection is kept"


def test_an_answer_cut_short_is_never_passed_off_as_whole(ground):
    def cut(sock, head, rest):
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
        raise OSError

    ground.route(ground.upstream(cut).port)
    assert b"0\r\n\r\n" not in ground.client().send(GET).rest()


@pytest.mark.parametrize(
    ("method", "answer", "status"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", 200),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", 304),
    ],
)
def test_answers_without_a_body(ground, method, answer, status):
    ground.route(ground.upstream(answer).port)
    client = ground.client()
    for _ in range(2):
        client.send(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert int(client.head().split(b" ")[1]) == status
    assert client.pending == b""


def test_continue_is_passed_on_and_a_final_answer_before_it_too(ground):
    def willing(sock, head, rest):
        assert b"Expect: 100-continue" in head
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = sock.recv(100)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    raw = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    ground.route(ground.upstream(willing).port)
    client = ground.client().send(raw)
    assert client.head().startswith(b"HTTP/1.1 100")
    assert client.send(b"hello").answer()[2] == b"hello"
    ground.route(ground.upstream(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n").port)
    client = ground.client().send(raw)
    status, head, _ = client.answer()
    assert status == 413
    assert fields(head)[b"connection"] == b"close"


def test_http_1_0_clients(ground):
    ground.route(ground.upstream().port)
    assert ground.client().send(b"GET / HTTP/1.0\r\n\r\n").rest().endswith(b"\r\n\r\nok")
    client = ground.client()
    for _ in range(2):
        _, head, _ = client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").answer()
        assert fields(head)[b"connection"] == b"keep-alive"


def test_a_tunnel_carries_bytes_both_ways_until_one_side_ends(ground, wait):
    def echo(sock, head, rest):
        assert b"Upgrade: websocket" in head
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while True:
            data = sock.recv(70_000)
            if not data:
                raise OSError
            sock.sendall(data)

    ground.route(ground.upstream(echo).port)
    raw = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    client = ground.client().send(raw)
    assert client.head().startswith(b"HTTP/1.1 101")
    payload = bytes(range(256)) * 4000
    sender = gevent.spawn(client.send, payload)
    assert client.body(len(payload)) == payload
    sender.get(timeout=5)
    client.sock.shutdown(1)
    assert client.rest() == b""
    wait(lambda: not ground.app.totals().in_flight)
    assert ground.app.totals().requests == {"GET 101": 1}


def test_half_closing_clients_get_their_answer(ground):
    def slow(sock, head, rest):
        gevent.sleep(0.05)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    ground.route(ground.upstream(slow).port)
    client = ground.client().send(GET)
    client.sock.shutdown(1)
    assert client.rest().endswith(b"ok")


# -- when containers fail --------------------------------------------------------------------------


def dies(sock, head, rest):
    raise OSError


def test_a_get_is_sent_elsewhere_and_a_post_is_not(ground):
    good, bad = ground.upstream(), ground.upstream(dies)
    for _ in range(6):
        ground.route(bad.port, good.port)
        assert ground.ask(GET)[0] == 200
    got, ended = len(good.received), len(bad.received)
    assert ended < 6, "a container that ends connections is asked last"
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
    assert [ground.ask(post)[0] for _ in range(6)] == [200] * 6
    assert (len(good.received), len(bad.received)) == (got + 6, ended)
    ground.route(bad.port)
    assert ground.ask(post)[0] == 502
    assert len(bad.received) == ended + 1


def test_where_nobody_listens_even_a_post_is_sent_elsewhere(ground):
    gone = ground.upstream()
    port = gone.port
    gone.stop()
    good = ground.upstream()
    ground.route(port, good.port)
    for _ in range(4):
        assert ground.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")[0] == 200
    assert ground.app.totals().retries.get("connect_failed", 0) >= 1


def test_a_request_that_ends_every_container_is_not_sent_for_ever(ground):
    upstreams = [ground.upstream(dies) for _ in range(6)]
    ground.route(*(u.port for u in upstreams))
    status, head, _ = ground.ask(GET)
    assert status == 502
    assert fields(head)[b"x-nextdeploy-error"] == b"upstream_reset"
    assert sum(len(u.received) for u in upstreams) <= 3


def test_requests_wait_for_a_container_that_is_expected(ground, wait):
    ground.route(hold_seconds=5)
    client = ground.client().send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
    wait(lambda: ground.app.totals().held == 1)
    bodies = []

    def answer(sock, head, rest):
        bodies.append(rest or sock.recv(100))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    ground.route(ground.upstream(answer).port, hold_seconds=5)
    assert client.answer()[0] == 200
    assert bodies == [b"hello"]
    assert ground.app.totals().held == 0


def test_waiting_ends(ground):
    ground.route(hold_seconds=0.3)
    status, head, _ = ground.ask(GET)
    assert (status, fields(head)[b"x-nextdeploy-error"]) == (503, b"no_backend")
    ground.route(hold_seconds=5, hold_limit=0)
    assert ground.ask(GET)[0] == 503


def test_one_that_does_not_answer_in_time(ground):
    def silent(sock, head, rest):
        gevent.sleep(30)

    ground.route(ground.upstream(silent).port, response_timeout=0.3)
    status, head, _ = ground.ask(GET)
    assert (status, fields(head)[b"x-nextdeploy-error"]) == (504, b"upstream_timeout")


def test_a_client_that_leaves_frees_its_container(ground, wait):
    def silent(sock, head, rest):
        gevent.sleep(30)

    ground.route(ground.upstream(silent).port)
    client = ground.client().send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
    wait(lambda: ground.app.totals().in_flight)
    client.close()
    wait(lambda: not ground.app.totals().in_flight)


def test_a_container_that_leaves_finishes_what_it_has(ground, wait):
    going = gevent.event.Event()

    def slow(sock, head, rest):
        going.wait()
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")

    old, new = ground.upstream(slow), ground.upstream()
    ground.route(old.port)
    client = ground.client().send(GET)
    wait(lambda: ground.app.totals().in_flight)
    ground.route(new.port)
    assert ground.worker.knowledge.totals()["app"].in_flight == {f"b{old.port}": 1}
    assert ground.ask(GET)[2] == b"ok"
    going.set()
    assert client.answer()[2] == b"old"
    assert ground.worker.knowledge.totals()["app"].in_flight == {}


def test_own_errors_speak_the_clients_language(ground):
    ground.route(host="other.test")
    status, head, body = ground.ask(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n\r\n")
    assert (status, fields(head)[b"x-nextdeploy-error"]) == (404, b"no_route")
    assert json.loads(body)["error"] == "no_route"
    _, head, body = ground.ask(b"GET / HTTP/1.1\r\nHost: x\r\nAccept: text/html,application/json;q=0.9\r\n\r\n")
    assert fields(head)[b"content-type"] == b"text/html; charset=utf-8"
    assert b"<!doctype html>" in body


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: a\n\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
)
def test_an_apps_ambiguous_answer_is_a_502(ground, answer):
    ground.route(ground.upstream(answer).port)
    status, head, _ = ground.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert status == 502
    assert b"x-nextdeploy-error" in fields(head)


# -- strictness ------------------------------------------------------------------------------------

H = b"Host: x\r\n"
HOSTILE = [
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x, y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: u@x\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: x/p\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 1, 1\r\n\r\nx", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Content-Length: +1\r\n\r\nx", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 0x1\r\n\r\nx", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 1_0\r\n\r\nx", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Content-Length:\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Transfer-Encoding: identity\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"GET / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Content-Length : 1\r\n\r\nx", 400),
    (b"GET / HTTP/1.1\r\n" + H + b" folded\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"X: a\r\n b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"X: a\x00b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"X: a\x07b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"X: a\rb\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"X: a\nY: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\n" + b"Host: x\n\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b": empty\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"no colon\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"X(y): z\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"X\x80: z\r\n\r\n", 400),
    (b"GET  / HTTP/1.1\r\n" + H + b"\r\n", 400),
    (b"GET / HTTP/1.1 \r\n" + H + b"\r\n", 400),
    (b"GET /a b HTTP/1.1\r\n" + H + b"\r\n", 400),
    (b"GET /a#b HTTP/1.1\r\n" + H + b"\r\n", 400),
    (b"GET /\x80 HTTP/1.1\r\n" + H + b"\r\n", 400),
    (b"GET a HTTP/1.1\r\n" + H + b"\r\n", 400),
    (b"GET * HTTP/1.1\r\n" + H + b"\r\n", 400),
    (b"GET http://y/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    (b"GET ftp://x/ HTTP/1.1\r\n" + H + b"\r\n", 400),
    (b"CONNECT x:80 HTTP/1.1\r\n" + H + b"\r\n", 400),
    (b"G@T / HTTP/1.1\r\n" + H + b"\r\n", 400),
    (b" GET / HTTP/1.1\r\n" + H + b"\r\n", 400),
    (b"GET /\r\n\r\n", 400),
    (b"GET / HTTP/0.9\r\n" + H + b"\r\n", 505),
    (b"GET / HTTP/2.0\r\n" + H + b"\r\n", 505),
    (b"GET / HTTP/1.2\r\n" + H + b"\r\n", 505),
    (b"GET / HTTP/1.10\r\n" + H + b"\r\n", 400),
    (b"GET / http/1.1\r\n" + H + b"\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + H + b"Expect: the unexpected\r\n\r\n", 417),
    (b"GET / HTTP/1.1\r\n" + H + b"X: " + b"y" * 40_000 + b"\r\n\r\n", 431),
    (b"GET /" + b"y" * 40_000 + b" HTTP/1.1\r\n" + H + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\n" + H + b"X: y\r\n" * 200 + b"\r\n", 431),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    (b"\x00\x00\x00\x00", 400),
    (b"TRACE / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\n\r\nx", 400),
]
BAD_CHUNKS = [
    b"x\r\nhello\r\n0\r\n\r\n",
    b"5\nhello\r\n0\r\n\r\n",
    b"5\r\nhelloX0\r\n\r\n",
    b"5\r\nhello\n0\r\n\r\n",
    b"-5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b" 5\r\nhello\r\n0\r\n\r\n",
    b"5;\x00\r\nhello\r\n0\r\n\r\n",
    b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
    b"5;" + b"a" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
    b"0\r\nbad trailer\r\n\r\n",
    b"0\r\nX: a\rb\r\n\r\n",
]


@pytest.mark.parametrize(("raw", "status"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_heads_are_refused_closed_and_never_passed_on(ground, raw, status):
    upstream = ground.upstream()
    ground.route(upstream.port)
    answer = ground.client().send(raw).rest()
    assert int(answer.split(b" ")[1]) == status
    assert b"Connection: close" in answer
    assert upstream.received == []


@pytest.mark.parametrize("chunks", BAD_CHUNKS, ids=range(len(BAD_CHUNKS)))
def test_bad_chunks_end_the_request_on_both_sides(ground, wait, chunks):
    ended = []

    def watch(sock, head, rest):
        data = rest
        while True:
            more = sock.recv(1000)
            if not more:
                break
            data += more
        ended.append(data)
        raise OSError

    ground.route(ground.upstream(watch).port)
    answer = ground.client().send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks).rest()
    assert answer.startswith(b"HTTP/1.1 400")
    assert not any(data.endswith(b"0\r\n\r\n") for data in ended), "the app must not take it for whole"


LEGAL = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHOST: x:8080\r\nX: \t a \t\r\nX: b\r\n\r\n",
    b"GET http://x/a?b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    b"GET /%00%ff?a=b&c[]=d HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PURGE / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: \xfc\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
]


@pytest.mark.parametrize("raw", LEGAL, ids=range(len(LEGAL)))
def test_what_is_legal_is_not_refused(ground, raw):
    ground.route(ground.upstream().port)
    assert ground.ask(raw)[0] == 200


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_wherever_it_is_split_a_request_arrives_the_same(ground, data):
    raw = b"POST /a HTTP/1.1\r\nHost: x\r\nA: b\r\nContent-Length: 11\r\n\r\nhello worldGET /b HTTP/1.1\r\nHost: x\r\n\r\n"
    seen = []

    def answer(sock, head, rest):
        if head.startswith(b"POST"):
            while len(rest) < 11:
                rest += sock.recv(100)
            seen.append(rest[:11])
            rest = rest[11:]
        else:
            seen.append(head.split(b" ")[1])
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        return rest

    upstream = ground.upstream(answer)
    ground.route(upstream.port)
    client = ground.client()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=6)))
    for begin, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        client.send(raw[begin:end])
        gevent.sleep(0)
    assert [client.answer()[0] for _ in range(2)] == [200, 200]
    assert seen == [b"hello world", b"/b"]
    client.close()
    upstream.stop()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=300))
def test_garbage_is_no_fault(ground, garbage):
    ground.route(ground.upstream().port)
    client = ground.client().send(garbage + b"\r\n\r\n")
    client.sock.shutdown(1)
    answer = client.rest()
    assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    client.close()
