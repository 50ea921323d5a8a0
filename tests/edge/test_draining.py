"""Once every worker has a snapshot without a container, and reports nothing of it in flight, nothing reaches it any more:
no kept connection, no other try, no held request, no probe."""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import gevent
import pytest
from gevent.event import Event

from ndactors.core.model import Rate
from ndactors.core.suspecting import TRUSTED
from ndactors.edge.crew import Crew
from ndactors.edge.totals import Sum
from ndactors.messages.edge import Backend, Route, RoutingSnapshot, Service
from ndactors.runtime.peers import Peers

sys.path.insert(0, str(Path(__file__).parent))

from test_handover import Edge, Load, answer, until

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class App:
    """Waits with its answer until it ``may`` (then ends without one if it ``fails``); counts probes and connections."""

    def __init__(self) -> None:
        self.may = Event()
        self.fails = False
        self.answer = OK
        self.probes = self.open = 0

    def __call__(self, sock, head, rest):
        self.open += 1
        try:
            if b"Edge-Probe" in head:
                self.probes += 1
            self.may.wait()
            if self.fails:
                raise OSError
            sock.sendall(self.answer)
            return rest
        finally:
            self.open -= 1


@pytest.fixture
def app():
    made = App()
    yield made
    made.may.set()


def in_flight(ground) -> dict[str, int]:
    total = ground.worker.knowledge.totals().get("app")
    return total.in_flight if total is not None else {}


def test_kept_connections_are_closed_at_once(ground, wait):
    ended = []

    def serve(sock, head, rest):
        sock.sendall(OK)
        more = sock.recv(65536)
        if not more:
            ended.append(True)
        return more

    old, new = ground.upstream(serve), ground.upstream()
    ground.route(old.port)
    client = ground.client()
    client.send(GET).answer()
    ground.route(new.port)
    wait(lambda: ended)
    assert client.send(GET).answer()[0] == 200
    assert len(old.received) == 1


@pytest.mark.parametrize("answer", [OK, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"])
@pytest.mark.parametrize("known", [True, False])
def test_one_that_answers_its_last_request_is_not_kept(ground, wait, app, answer, known):
    """An answer like those before and one that is the first of its kind take different ways."""
    old, new = ground.upstream(app), ground.upstream(answer)
    ground.route(old.port)
    app.answer = answer
    backend = ground.app.backends[0]
    client = ground.client().send(GET)
    wait(lambda: old.received)
    ground.route(new.port)
    if known:
        for _ in range(3):
            ground.ask(GET)
    assert in_flight(ground) == {f"b{old.port}": 1}, "it counts until it ends"
    app.may.set()
    assert client.answer()[0] in (200, 404)
    assert in_flight(ground) == {}
    assert backend.idle == [], "the connection is closed"
    before = len(new.received)
    client.send(GET).answer()
    assert (len(old.received), len(new.received)) == (1, before + 1)


def test_another_try_goes_to_those_that_are_there_now(ground, wait, app):
    old, gone, new = ground.upstream(app), ground.upstream(), ground.upstream()
    ground.route(old.port)
    client = ground.client().send(GET)
    wait(lambda: old.received)
    ground.route(old.port, gone.port)
    ground.route(new.port)
    app.fails = True
    app.may.set()
    assert client.answer()[0] == 200
    assert (len(old.received), len(gone.received), len(new.received)) == (1, 0, 1)


def test_held_requests_go_to_those_that_are_there_now(ground, wait):
    old, new = ground.upstream(), ground.upstream()
    ground.route(old.port, hold_seconds=5)
    ground.route(hold_seconds=5)
    client = ground.client().send(GET)
    wait(lambda: ground.app.held)
    ground.route(new.port, hold_seconds=5)
    assert client.answer()[0] == 200
    assert old.received == []


def test_a_delayed_request_goes_to_those_that_are_there_now(ground, wait):
    old, new = ground.upstream(), ground.upstream()
    limit = {"per_app": Rate(count=5, seconds=1.0), "burst": 1}
    ground.route(old.port, **limit)
    assert ground.ask(GET)[0] == 200
    client = ground.client().send(GET)  # it may pass in a fifth of a second
    gevent.sleep(0.02)
    ground.route(new.port, **limit)
    assert client.answer()[0] == 200
    assert (len(old.received), len(new.received)) == (1, 1)


def test_one_is_not_probed_once_nobody_waits_for_it(ground, wait, app):
    old, new = ground.upstream(app), ground.upstream()
    ground.route(old.port)
    post = ground.client().send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
    wait(lambda: app.probes)
    backend = ground.app.backends[0]
    ground.route(new.port)
    wait(lambda: ground.worker.suspicion._probes)
    # whoever waited goes away while a probe is under way
    post.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    post.close()
    wait(lambda: not backend.in_flight)
    ground.worker._report()
    assert in_flight(ground) == {}
    assert backend not in ground.worker.suspicion._probes
    assert backend.standing == TRUSTED
    probes = app.probes
    gevent.sleep(0.5)
    assert app.probes == probes


def test_an_app_that_is_removed_ends_in_good_order(ground, wait, app):
    """Its containers count until they are idle; what waits for it is told so; nothing reaches it any more."""
    old = ground.upstream(app)
    ground.route(old.port, hold_seconds=30)
    first = ground.client().send(GET)
    wait(lambda: old.received)
    fails = ground.client().send(GET)
    wait(lambda: len(old.received) == 2)
    ground.worker.apply(RoutingSnapshot(epoch=1, version=99))
    assert in_flight(ground) == {f"b{old.port}": 2}
    app.may.set()
    assert first.answer()[0] == 200
    assert fails.answer()[0] == 200
    assert in_flight(ground) == {}
    assert ground.client().send(GET).answer()[0] == 404


def test_requests_held_for_an_app_that_is_removed_are_answered(ground, wait):
    ground.route(hold_seconds=30)
    held = ground.client().send(GET)
    wait(lambda: ground.app.held)
    ground.worker.apply(RoutingSnapshot(epoch=1, version=99))
    assert held.answer()[0] == 503


def test_another_try_for_an_app_that_is_removed_reaches_nobody(ground, wait, app):
    old, other = ground.upstream(app), ground.upstream()
    ground.route(old.port)
    client = ground.client().send(GET)
    wait(lambda: old.received)
    ground.route(old.port, other.port)
    ground.worker.apply(RoutingSnapshot(epoch=1, version=99))
    app.fails = True
    app.may.set()
    assert client.answer()[0] == 502
    assert other.received == []


def test_one_that_left_and_is_back_counts_once_for_each_request(ground, wait, app):
    old, new = ground.upstream(app), ground.upstream()
    ground.route(old.port)
    before = ground.client().send(GET)
    wait(lambda: len(old.received) == 1)
    ground.route(new.port)
    ground.route(old.port)
    after = ground.client().send(GET)
    wait(lambda: len(old.received) == 2)
    assert in_flight(ground) == {f"b{old.port}": 2}
    app.may.set()
    assert [before.answer()[0], after.answer()[0]] == [200, 200]


def test_a_worker_that_has_not_told_yet_may_serve_by_an_old_snapshot(tmp_path):
    crew = Crew(tmp_path, [], -1, range(2), Peers(print), print, lambda: None, print)
    crew._slots[1].process = SimpleNamespace(pid=77)
    total = Sum()
    crew.add_to(total)
    ((pid, index, version),) = [(w.pid, w.index, w.snapshot_version) for w in total.workers]
    assert (pid, index, version) == (77, 1, -1)


# -- real processes under load ---------------------------------------------------------------------


class Server:
    """Answers, and ends a connection without an answer now and then. What comes while it is ``forbidden`` is counted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.forbidden = False
        self.wrong = 0
        self.requests = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        data = b""
        with sock:
            try:
                while True:
                    while b"\r\n\r\n" not in data:
                        more = sock.recv(65536)
                        if not more:
                            return
                        data += more
                    data = data.partition(b"\r\n\r\n")[2]
                    self.wrong += self.forbidden
                    self.requests += 1
                    if self.requests % 50 == 0:
                        return
                    time.sleep(0.001 * (self.requests % 4))
                    sock.sendall(OK)
            except OSError:
                return


def asking(load: Load) -> None:
    sock = load.connect()
    while not load.stopping.is_set():
        sock.sendall(GET)
        head, _ = answer(sock)
        load.ok()
        if b"connection: close" in head.lower():
            sock.close()
            sock = load.connect()
    sock.close()


def test_nothing_reaches_a_container_after_its_drain(tmp_path):
    edge = Edge(tmp_path)
    servers = [Server(name) for name in ("a", "b", "c")]
    try:
        rounds(edge, servers)
    finally:
        edge.stop()
        for server in servers:
            server.listener.close()


def rounds(edge: Edge, servers: list[Server]) -> None:
    version = 0

    def publish(chosen: list[Server]) -> None:
        nonlocal version
        version += 1
        backends = tuple(Backend(id=s.name, address="127.0.0.1", port=s.port) for s in chosen)
        services = {"app": Service(app="app", backends=backends, hold_seconds=5.0)}
        edge.daemon.snapshot = RoutingSnapshot(
            epoch=1, version=version, routes=(Route(host="*", service="app"),), services=services
        )
        edge.daemon.send(edge.daemon.snapshot)

    def drained(server: Server) -> bool:
        """As the daemon decides it."""
        report = edge.daemon.report
        return all(worker.snapshot_version >= version for worker in report.workers) and not any(
            totals.in_flight.get(server.name) for totals in report.services.values()
        )

    publish(servers)
    until(lambda: edge.daemon.report.workers and all(w.snapshot_version >= 1 for w in edge.daemon.report.workers))
    load = Load(edge.port)
    load.add(asking, 8)
    killed: set[int] = set()
    for number in range(30):
        leaving = servers[number % 3]
        publish([server for server in servers if server is not leaving])
        if number % 10 == 5:
            killed.add(pid := edge.daemon.report.workers[0].pid)
            os.kill(pid, signal.SIGKILL)
        if number % 10 == 8:
            edge.upgrade()
        until(lambda leaving=leaving: drained(leaving))
        leaving.forbidden = True
        time.sleep(0.05)
        assert leaving.wrong == 0, f"round {number}: a request came after the drain"
        leaving.forbidden = False
        publish(servers)
    load.stopping.set()
    load.end()
    # a worker that is killed takes its clients with it, and nobody else fails
    assert len(load.failures) <= 8 * len(killed), load.failures
    assert all(server.requests > 100 for server in servers)
