"""A bug of ours, made to happen in every state of a connection: it closes both sides, is counted, and nothing else."""

from __future__ import annotations

import resource

import gevent
import pytest

from ndactors.core.model import Rate
from ndactors.edge import connection as client_module
from ndactors.edge.client import Client
from ndactors.edge.connection import STATES, TRANSITIONS
from ndactors.edge.upstream import Upstream

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SLOW = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"
UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


def silent(sock, head, rest):
    gevent.sleep(60)


def half(sock, head, rest):
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    gevent.sleep(60)


def echo(sock, head, rest):
    sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
    while True:
        data = sock.recv(1000)
        if not data:
            raise OSError
        sock.sendall(data)


def steps(ground) -> set[int]:
    return {stream._step for stream in ground.worker.streams if isinstance(stream, Client)}


def bring_to(ground, wait, state: str):
    """A client connection in the given state."""
    client = ground.client()
    if state == "head":
        ground.route(ground.upstream().port)
        client.send(b"GET / HTT")
    elif state == "asking":
        ground.route(ground.upstream().port, per_ip=Rate(count=1, seconds=0.9), burst=1)
        ground.ask(GET)
        client.send(SLOW)
    elif state == "holding":
        ground.route(hold_seconds=30)
        client.send(SLOW)
    elif state == "waiting":
        ground.route(ground.upstream(silent).port)
        client.send(SLOW)
    elif state == "answering":
        ground.route(ground.upstream(half).port)
        client.send(SLOW)
    elif state == "tunnel":
        ground.route(ground.upstream(echo).port)
        client.send(UPGRADE).head()
    elif state == "linger":
        ground.route(ground.upstream().port)
        client.send(b"broken\r\n\r\n").head()
    wait(lambda: STATES.index(state) in steps(ground))
    return client


@pytest.mark.parametrize("state", [state for state in STATES if state != "gone"])
@pytest.mark.parametrize("where", ["data", "end", "check"])
def test_a_fault_in_every_state_closes_both_sides(ground, wait, count_descriptors, monkeypatch, state, where):
    ground.faults_expected = True
    ground.route(ground.upstream().port)
    ground.ask(GET)
    wait(lambda: not any(isinstance(s, Client) for s in ground.worker.streams))
    client = bring_to(ground, wait, state)
    index = STATES.index(state)
    method = {"data": "on_data", "end": "on_end", "check": "check"}[where]
    original = getattr(Client, method)

    def broken(self, *args):
        if self._step == index:
            raise RuntimeError(f"made to fail in {state}")
        return original(self, *args)

    monkeypatch.setattr(Client, method, broken)
    if where == "data":
        client.send(b"x")
    elif where == "end":
        client.sock.shutdown(1)
    wait(lambda: ground.worker._faults == 1)
    wait(lambda: not any(isinstance(s, Client) for s in ground.worker.streams))
    busy = [s for s in ground.worker.streams if isinstance(s, Upstream) and s.user is not None]
    assert busy == []
    assert all(backend.in_flight == 0 for backend in ground.app.backends)
    assert not ground.app.held
    monkeypatch.undo()
    client.close()
    for upstream in ground.upstreams:
        upstream.stop()
    ground.route(ground.upstream().port)
    assert ground.ask(GET)[0] == 200, "others go on"


@pytest.mark.parametrize("method", ["upstream_connected", "upstream_data", "upstream_ended", "upstream_drained"])
def test_a_fault_in_what_the_upstream_tells(ground, wait, monkeypatch, method):
    ground.faults_expected = True

    def answer(sock, head, rest):
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nuntil closed")
        raise OSError

    def broken(self, *args):
        raise RuntimeError("made to fail")

    ground.route(ground.upstream(answer).port)
    monkeypatch.setattr(Client, method, broken)
    client = ground.client().send(
        GET if method != "upstream_drained" else b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    )
    client.rest()
    wait(lambda: ground.worker._faults >= 1)
    wait(lambda: not ground.worker.streams)
    assert all(backend.in_flight == 0 for backend in ground.app.backends)
    monkeypatch.undo()
    ground.route(ground.upstream().port)
    assert ground.ask(GET)[0] == 200


def test_descriptors_return_to_where_they_were(ground, wait, count_descriptors, monkeypatch):
    ground.faults_expected = True
    ground.route(ground.upstream().port)
    ground.ask(GET)
    wait(lambda: not any(isinstance(s, Client) for s in ground.worker.streams))
    for upstream in ground.upstreams:
        upstream.stop()
    ground.route()
    wait(lambda: not ground.worker.streams)
    baseline = count_descriptors()

    def broken(self, data):
        raise RuntimeError("made to fail")

    monkeypatch.setattr(Client, "_begin_answer", broken)
    for _ in range(20):
        upstream = ground.upstream()
        ground.route(upstream.port)
        client = ground.client().send(GET)
        client.rest()
        client.close()
        upstream.stop()
    ground.route()
    wait(lambda: not ground.worker.streams)
    wait(lambda: count_descriptors() <= baseline)
    assert ground.worker._faults == 20


def test_the_table_allows_no_way_out_of_the_end():
    assert TRANSITIONS[STATES.index("gone")] == set()
    assert all(STATES.index("gone") in after for state, after in TRANSITIONS.items() if state != STATES.index("gone"))
    assert set(TRANSITIONS) == set(range(len(STATES)))


def test_a_step_that_the_table_does_not_know_is_a_fault(ground, wait):
    ground.faults_expected = True
    ground.route(ground.upstream(silent).port)
    client = ground.client().send(b"GET ")
    wait(lambda: steps(ground) == {client_module.HEAD})
    (stream,) = [s for s in ground.worker.streams if isinstance(s, Client)]
    with pytest.raises(AssertionError, match="cannot go from head to tunnel"):
        stream._go(client_module.TUNNEL)
    client.close()


def test_requests_wait_while_no_descriptor_is_left(ground, wait):
    """As when `prlimit --pid` takes them away and gives them back."""
    ground.route(ground.upstream().port)
    clients = [ground.client() for _ in range(5)]
    wait(lambda: len(ground.worker.clients) == 5)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for client in clients:
            client.send(GET)
        wait(lambda: len(ground.app.held) == 5)
        gevent.sleep(0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert [client.answer()[0] for client in clients] == [200] * 5
    assert ground.ask(GET)[0] == 200
    assert all(backend.in_flight == 0 for backend in ground.app.backends)
