"""Health probes against real sockets."""

from __future__ import annotations

import socket
import threading
import time

import gevent
import pytest

from ndactors.adapters.probe import SocketProber
from ndactors.core.model import Healthcheck


@pytest.fixture
def serve():
    """``serve(handler)`` listens on loopback; each connection goes to ``handler(sock)`` in a thread."""
    listeners, over = [], threading.Event()

    def start(handler):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run(sock):
            with sock:
                handler(sock, over)

        def accept():
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=run, args=(sock,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()

    yield start
    over.set()
    for listener in listeners:
        listener.close()


def answer(text: str, seen: list | None = None):
    def handler(sock, over):
        request = sock.recv(65536)
        if seen is not None:
            seen.append(request.decode())
        sock.sendall(text.encode())

    return handler


def silent(sock, over):
    over.wait()


@pytest.mark.parametrize(
    ("response", "status", "failure"),
    [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", (200, 399), None),
        ("HTTP/1.1 204 No Content\r\n\r\n", (200, 399), None),
        ("HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", (200, 399), None),
        ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", (200, 399), "/up answered 500"),
        ("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", (100, 599), None),
        ("HTTP/1.0 200 OK\r\n\r\nuntil closed", (200, 399), None),
    ],
)
def test_http_status(serve, response, status, failure):
    target = serve(answer(response))
    assert SocketProber().http(target, Healthcheck(path="/up", status=status), "shop.example.com") == failure


def test_http_says_for_whom_and_that_it_came_by_https(serve):
    seen: list = []
    target = serve(answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", seen))
    SocketProber().http(target, Healthcheck(path="/up?x=1"), "shop.example.com")
    head = seen[0].split("\r\n")
    assert head[0] == "GET /up?x=1 HTTP/1.1"
    assert "Host: shop.example.com" in head
    assert "X-Forwarded-Proto: https" in head


@pytest.mark.parametrize(
    "text",
    [
        "",
        "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
        "garbage\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n" * 500,
    ],
)
def test_http_garbage_is_a_failure_never_an_exception(serve, text):
    target = serve(answer(text))
    result = SocketProber().http(target, Healthcheck(timeout=0.5), "x")
    assert result is None or isinstance(result, str)
    if not text.startswith("HTTP/1.1 200"):
        assert result


def test_one_that_accepts_and_never_answers_is_not_well(serve):
    target = serve(silent)
    failure = SocketProber().http(target, Healthcheck(timeout=0.2), "x")
    assert failure == f"no answer from 127.0.0.1:{target[1]}/ within 0.2 s"
    failure = SocketProber().tcp(target, Healthcheck(kind="tcp", timeout=0.2))
    assert failure == f"127.0.0.1:{target[1]} neither answered nor closed within 0.2 s"


def test_one_that_drips_ends_in_time(serve):
    def drip(sock, over):
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        while not over.wait(0.05):
            sock.sendall(b"X: y\r\n")

    began = time.monotonic()
    assert SocketProber().http(serve(drip), Healthcheck(timeout=0.3), "x") is not None
    assert time.monotonic() - began < 2.0


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = listener.getsockname()
    words = f"nothing listens on 127.0.0.1:{target[1]}"
    assert SocketProber().http(target, Healthcheck(), "x") == words
    assert SocketProber().tcp(target, Healthcheck(kind="tcp")) == words


def test_tcp_is_well_when_it_speaks_or_closes(serve):
    def banner(sock, over):
        sock.sendall(b"220 ready\r\n")
        over.wait()

    def closes(sock, over):
        sock.recv(100)

    for handler in (banner, closes):
        assert SocketProber().tcp(serve(handler), Healthcheck(kind="tcp", timeout=2.0)) is None


def test_an_answer_that_came_in_time_counts_though_we_look_too_late(serve):
    """The loop stands still while the answer comes, and past the deadline."""

    def soon(sock, over):
        sock.recv(65536)
        over.wait(0.15)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    gevent.spawn_later(0.05, time.sleep, 0.6)
    assert SocketProber().http(serve(soon), Healthcheck(timeout=0.3), "x") is None
