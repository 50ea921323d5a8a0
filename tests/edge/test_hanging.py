"""Containers that hang, refuse, fail or leave while requests are with them."""

from __future__ import annotations

import socket
import time

import gevent
import pytest
from gevent.event import Event

from ndactors.core.suspecting import SUSPECT, TRUSTED

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Hanging:
    """An app that accepts and reads, and answers only while ``well``."""

    def __init__(self) -> None:
        self.well = Event()
        self.well.set()
        self.probes = 0

    def __call__(self, sock, head, rest):
        if b"Edge-Probe" in head:
            self.probes += 1
        self.well.wait()
        sock.sendall(OK)
        return rest


@pytest.fixture
def hanging():
    app = Hanging()
    yield app
    app.well.set()


def backend(ground, upstream):
    return next(b for b in ground.app.backends if b.port == upstream.port)


def test_requests_leave_a_container_that_hangs(ground, wait, hanging):
    good, bad = ground.upstream(), ground.upstream(hanging)
    ground.route(good.port, bad.port)
    hanging.well.clear()
    began = time.monotonic()
    clients = [ground.client().send(GET) for _ in range(20)]
    assert [client.answer()[0] for client in clients] == [200] * 20
    assert 0.8 < time.monotonic() - began < 1.3
    assert backend(ground, bad).standing == SUSPECT
    totals = ground.app.totals()
    assert totals.retries["suspect"] >= 1
    assert totals.suspected == 1
    # nothing new goes there
    reached = len(bad.received) - hanging.probes
    began = time.monotonic()
    assert [ground.ask(GET)[0] for _ in range(10)] == [200] * 10
    assert time.monotonic() - began < 0.3
    assert len(bad.received) - hanging.probes == reached
    # until it answers again
    hanging.well.set()
    wait(lambda: backend(ground, bad).standing == TRUSTED)
    for client in [ground.client().send(GET) for _ in range(10)]:
        assert client.answer()[0] == 200
    assert len(bad.received) - hanging.probes > reached


def test_a_post_stays_where_it_is(ground, wait, hanging):
    good, bad = ground.upstream(), ground.upstream(hanging)
    ground.route(bad.port)
    hanging.well.clear()
    client = ground.client().send(POST)
    wait(lambda: len(bad.received) == 1)
    ground.route(good.port, bad.port)
    wait(lambda: backend(ground, bad).standing == SUSPECT)
    gevent.sleep(0.2)
    assert good.received == []
    hanging.well.set()
    assert client.answer()[0] == 200


def test_one_that_is_only_slow_keeps_its_requests(ground, wait):
    def slow(sock, head, rest):
        if b"Edge-Probe" not in head:
            gevent.sleep(1.2)
        sock.sendall(OK)
        return rest

    other, app = ground.upstream(), ground.upstream(slow)
    ground.route(app.port)
    client = ground.client().send(GET)
    wait(lambda: len(app.received) == 1)
    ground.route(app.port, other.port)
    assert client.answer()[0] == 200
    assert other.received == []
    assert ground.app.totals().suspected == 0
    assert sum(b"Edge-Probe" in head for head in app.received) <= 3, "a slow request is not asked about for ever"


def test_without_another_container_it_is_asked_anyway(ground, wait, hanging):
    bad = ground.upstream(hanging)
    ground.route(bad.port)
    hanging.well.clear()
    clients = [ground.client().send(GET) for _ in range(3)]
    wait(lambda: backend(ground, bad).standing == SUSPECT)
    clients.append(ground.client().send(GET))
    gevent.sleep(0.1)
    hanging.well.set()
    assert [client.answer()[0] for client in clients] == [200] * 4


def test_an_app_that_is_always_slow_is_given_more_time(ground, wait):
    def slow(sock, head, rest):
        gevent.sleep(0.2)
        sock.sendall(OK)
        return rest

    app = ground.upstream(slow)
    ground.route(app.port)
    for client in [ground.client().send(GET) for _ in range(30)]:
        assert client.answer()[0] == 200
    probes = sum(b"Edge-Probe" in head for head in app.received)
    for client in [ground.client().send(GET) for _ in range(10)]:
        assert client.answer()[0] == 200
    assert ground.app.answers >= 30
    assert ground.worker.suspicion._patience(backend(ground, app)) > 0.7
    assert sum(b"Edge-Probe" in head for head in app.received) == probes


@pytest.fixture
def blackhole():
    """An address where connections are neither made nor refused: a full backlog."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    held = []
    for _ in range(3):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        held.append(sock)
    yield listener.getsockname()[1]
    for sock in held:
        sock.close()
    listener.close()


def test_a_connection_that_is_not_made_costs_a_quarter_second_if_there_is_another(ground, blackhole):
    good = ground.upstream()
    ground.route(blackhole, good.port)
    began = time.monotonic()
    clients = [ground.client().send(POST) for _ in range(4)]
    assert [client.answer()[0] for client in clients] == [200] * 4, "nothing was sent, so even a POST may go elsewhere"
    assert time.monotonic() - began < 0.6
    began = time.monotonic()
    assert [ground.ask(GET)[0] for _ in range(5)] == [200] * 5
    assert time.monotonic() - began < 0.2


def test_connections_to_a_container_that_left_are_given_up_at_once(ground, wait, blackhole):
    good = ground.upstream()
    ground.route(blackhole)
    client = ground.client().send(POST)
    wait(lambda: backend_waits(ground, blackhole))
    ground.route(good.port)
    began = time.monotonic()
    assert client.answer()[0] == 200
    assert time.monotonic() - began < 0.2


def backend_waits(ground, port):
    return any(b.port == port and b.waiting for b in ground.app.backends)


def test_one_that_answers_5xx_again_and_again_is_asked_last(ground):
    def broken(sock, head, rest):
        sock.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
        return rest

    good, bad = ground.upstream(), ground.upstream(broken)
    ground.route(good.port, bad.port)
    statuses = [ground.ask(GET)[0] for _ in range(40)]
    assert statuses.count(500) <= 6
    good.stop()
    ground.route(bad.port)
    assert ground.ask(GET)[0] == 500, "if all are ejected they are asked anyway"


def test_retries_have_a_budget(ground):
    def dies(sock, head, rest):
        raise OSError

    bad = [ground.upstream(dies) for _ in range(2)]
    good = ground.upstream()
    ground.route(*(u.port for u in bad), good.port)
    ground.app.budget.tokens = 0.5
    for b in ground.app.backends:
        b.avoid_until = 1e12 if b.port == good.port else 0.0
    status, head, _ = ground.ask(GET)
    assert status == 502
    assert b"upstream_reset" in head
    assert len(bad[0].received) + len(bad[1].received) == 1


def test_a_node_like_app_that_closes_idle_connections_loses_nothing(ground):
    """It closes what was idle for a while, just when the next request may be on its way."""

    def node(sock, head, rest):
        sock.sendall(OK)
        sock.settimeout(0.05)
        try:
            more = sock.recv(65536)
        except TimeoutError as error:
            raise OSError from error
        if not more:
            raise OSError
        sock.settimeout(None)
        return more

    app = ground.upstream(node)
    ground.route(app.port)
    client = ground.client()
    for n in range(60):
        assert client.send(GET).answer()[0] == 200
        gevent.sleep(0.045 + (n % 12) / 1000)
    assert ground.app.totals().requests == {"GET 200": 60}


def test_time_that_we_lost_ourselves_is_nobodys_fault(ground, wait, hanging):
    app = ground.upstream(hanging)
    other = ground.upstream()
    ground.route(app.port)
    hanging.well.clear()
    client = ground.client().send(GET)
    wait(lambda: hanging.probes >= 1)
    ground.route(app.port, other.port)
    time.sleep(1.5)  # the whole loop stands still, this side of the test too
    hanging.well.set()
    assert client.answer()[0] == 200
    assert ground.app.totals().suspected == 0
