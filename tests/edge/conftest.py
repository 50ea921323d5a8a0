"""A worker inside the test's own event loop, between raw sockets of the test and upstreams that do as they are told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import gevent
import gevent.socket
import pytest
from gevent.server import StreamServer

from ndactors.edge.worker import Worker
from ndactors.messages.edge import Backend, Route, RoutingSnapshot, Service

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        gevent.sleep(0.002)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Upstream:
    """``answer(sock, head)`` is called with each request's head; what it sent is in ``heads`` and ``bodies``."""

    def __init__(self, answer: Callable | bytes = OK) -> None:
        self.answer = answer
        self.received: list[bytes] = []
        self.connections = 0
        self.server = StreamServer(("127.0.0.1", 0), self._serve)
        self.server.start()

    @property
    def port(self) -> int:
        return int(self.server.server_port)

    def _serve(self, sock, address) -> None:
        self.connections += 1
        pending = b""
        try:
            while True:
                data = sock.recv(65536)
                if not data:
                    return
                pending += data
                while b"\r\n\r\n" in pending:
                    head, _, pending = pending.partition(b"\r\n\r\n")
                    self.received.append(head + b"\r\n\r\n")
                    if callable(self.answer):
                        pending = self.answer(sock, head, pending) or b""
                    else:
                        sock.sendall(self.answer)
        except OSError:
            return

    def stop(self) -> None:
        self.server.stop(timeout=0.1)


class Client:
    def __init__(self, port: int) -> None:
        self.sock = gevent.socket.create_connection(("127.0.0.1", port))
        self.sock.settimeout(5)
        self.pending = b""

    def send(self, data: bytes) -> Client:
        self.sock.sendall(data)
        return self

    def head(self) -> bytes:
        while b"\r\n\r\n" not in self.pending:
            data = self.sock.recv(65536)
            assert data, f"ended after {self.pending!r}"
            self.pending += data
        head, _, self.pending = self.pending.partition(b"\r\n\r\n")
        return head

    def body(self, length: int) -> bytes:
        while len(self.pending) < length:
            data = self.sock.recv(65536)
            assert data, f"ended after {len(self.pending)} of {length} bytes"
            self.pending += data
        body, self.pending = self.pending[:length], self.pending[length:]
        return body

    def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body, by Content-Length."""
        head = self.head()
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        return int(head.split(b" ")[1]), head, self.body(length)

    def rest(self) -> bytes:
        """All there is until the end."""
        data = self.pending
        try:
            while True:
                more = self.sock.recv(65536)
                if not more:
                    return data
                data += more
        except ConnectionResetError:
            return data

    def close(self) -> None:
        self.sock.close()


def at(port: int, revision: int = 0, role: str = "") -> Backend:
    return Backend(id=f"b{port}", address="127.0.0.1", port=port, revision=revision, role=role)


class Ground:
    def __init__(self) -> None:
        self.listener = gevent.socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(128)
        self.port = self.listener.getsockname()[1]
        self.worker = Worker([self.listener], None)
        self.version = 0
        self.upstreams: list[Upstream] = []
        self.clients: list[Client] = []

    def upstream(self, answer=OK) -> Upstream:
        made = Upstream(answer)
        self.upstreams.append(made)
        return made

    def route(self, *ports: int | Backend, host: str = "*", path: str = "/", **options) -> None:
        """From now on one service at these ports of loopback."""
        self.version += 1
        service = {name: options.pop(name) for name in list(options) if name in Service.__struct_fields__}
        strip = options.pop("strip_path", False)
        backends = tuple(port if isinstance(port, Backend) else at(port) for port in ports)
        self.worker.apply(
            RoutingSnapshot(
                epoch=1,
                version=self.version,
                routes=(Route(host=host, path=path, strip_path=strip, service="app"),),
                services={"app": Service(app="app", backends=backends, **service)},
                **options,
            )
        )

    def client(self) -> Client:
        made = Client(self.port)
        self.clients.append(made)
        return made

    def ask(self, raw: bytes) -> tuple[int, bytes, bytes]:
        client = self.client().send(raw)
        try:
            return client.answer()
        finally:
            client.close()

    @property
    def app(self):
        self.worker.settle()
        return self.worker.knowledge.services["app"]

    def close(self) -> None:
        for client in self.clients:
            client.close()
        for upstream in self.upstreams:
            upstream.stop()
        self.worker.close()
        self.listener.close()


@pytest.fixture
def ground() -> Iterator[Ground]:
    made = Ground()
    yield made
    faults, last = made.worker._faults, made.worker._last_fault
    made.close()
    if not getattr(made, "faults_expected", False):
        assert faults == 0, last


@pytest.fixture
def backend() -> Callable[..., Backend]:
    return at


@pytest.fixture
def wait() -> Callable[..., None]:
    return until


@pytest.fixture
def count_descriptors() -> Callable[[], int]:
    return descriptors
