"""The edge's real processes: large bodies in little memory, adoption, epochs, ends. In a process that is not patched."""

from __future__ import annotations

import base64
import os
import signal
import socket
import threading
import time
from pathlib import Path

import argon2
import pytest

from ndactors.messages.edge import (
    PROTOCOL,
    Backend,
    EdgeReport,
    Hello,
    RecordsStored,
    Refused,
    RequestRecords,
    Route,
    RoutingSnapshot,
    Service,
    Stop,
)
from ndactors.runtime.link import FrameReader, connect_unix, encode

MEGABYTES = int(os.environ.get("NEXTDEPLOY_TEST_BODY_MB", "256"))
BLOCK = b"x" * 1_000_000


def until(condition, seconds: float = 15.0):
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.02)


class Link:
    """A daemon's side of the link, by hand."""

    def __init__(self, folder: Path, epoch: int = 1) -> None:
        self.sock = connect_unix(folder / "edge" / "edge.sock")
        self.sock.settimeout(10)
        self.reader: FrameReader = FrameReader(Hello | Refused | EdgeReport | RequestRecords)
        self.queue: list = []
        self.send(Hello(protocol=PROTOCOL, epoch=epoch, version="test", pid=os.getpid(), role="daemon"))
        self.first = self.next()

    def send(self, message) -> None:
        self.sock.sendall(encode(message))

    def next(self):
        while not self.queue:
            data = self.sock.recv(1 << 18)
            if not data:
                return None
            for message in self.reader.feed(data):
                if isinstance(message, RequestRecords):
                    self.send(RecordsStored(worker=message.worker, sequence=message.sequence))
                else:
                    self.queue.append(message)
        return self.queue.pop(0)

    def report(self, condition=lambda report: True) -> EdgeReport:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            message = self.next()
            if isinstance(message, EdgeReport) and condition(message):
                return message
        raise AssertionError("no such report came")

    def route(self, port: int, epoch: int = 1, version: int = 1, **service) -> EdgeReport:
        backend = Backend(id="one", address="127.0.0.1", port=port)
        self.send(
            RoutingSnapshot(
                epoch=epoch,
                version=version,
                routes=(Route(host="*", service="app"),),
                services={"app": Service(app="app", backends=(backend,), **service)},
            )
        )
        return self.report(lambda r: len(r.workers) >= 1 and all(w.snapshot_version == version for w in r.workers))


@pytest.fixture
def edge(tmp_path):
    """``(link, folder)`` of a running edge with one worker."""
    import subprocess
    import sys

    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "ndactors",
        "--role=edge",
        f"--state-dir={tmp_path}",
        "--http=127.0.0.1:0",
        "--workers=1",
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(root)})
    until(lambda: (tmp_path / "edge" / "edge.sock").exists())
    yield Link(tmp_path), tmp_path
    process.terminate()
    process.wait(20)


@pytest.fixture
def upstream():
    """``upstream(handler)``: a server on loopback; each connection goes to ``handler(sock, head, rest)`` in a thread."""
    listeners = []

    def start(handler) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve(sock):
            with sock:
                data = b""
                while b"\r\n\r\n" not in data:
                    more = sock.recv(65536)
                    if not more:
                        return
                    data += more
                head, _, rest = data.partition(b"\r\n\r\n")
                handler(sock, head, rest)

        def accept():
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listeners:
        listener.close()


def ok(sock, head, rest):
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")


def connect(report: EdgeReport) -> socket.socket:
    host, _, port = report.http[0].rpartition(":")
    sock = socket.create_connection((host, int(port)))
    sock.settimeout(60)
    return sock


def get(report: EdgeReport) -> bytes:
    with connect(report) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: sock.recv(65536), b""))


def most_memory(pid: int) -> int:
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("VmHWM:")) // 1024


@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow-reader"])
@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_a_large_upload_passes_through_little_memory(edge, upstream, kind, slow):
    link, _ = edge
    received = []

    def take(sock, head, rest):
        total = len(rest)
        expected = MEGABYTES * 1_000_000
        if slow:
            time.sleep(1)  # while it does not read, nothing may pile up between
        while total < expected:
            data = sock.recv(1 << 20)
            if not data:
                break
            total += len(data)
        received.append(total)
        ok(sock, head, rest)

    report = link.route(upstream(take))
    with connect(report) as sock:
        if kind == "length":
            sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (MEGABYTES * 1_000_000))
            for _ in range(MEGABYTES):
                sock.sendall(BLOCK)
        else:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(MEGABYTES):
                sock.sendall(b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK))
            sock.sendall(b"0\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert received[0] >= MEGABYTES * 1_000_000
    assert most_memory(report.workers[0].pid) < 64


@pytest.mark.parametrize("slow", [False, True], ids=["fast", "slow-reader"])
@pytest.mark.parametrize("kind", ["length", "close"])
def test_a_large_download_passes_through_little_memory(edge, upstream, kind, slow):
    link, _ = edge

    def give(sock, head, rest):
        length = b"Content-Length: %d\r\n" % (MEGABYTES * 1_000_000) if kind == "length" else b""
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + length + b"Connection: close\r\n\r\n")
        for _ in range(MEGABYTES):
            sock.sendall(BLOCK)

    report = link.route(upstream(give))
    with connect(report) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        if slow:
            time.sleep(1)  # while it does not read, nothing may pile up between
        total = sum(map(len, iter(lambda: sock.recv(1 << 20), b"")))
    assert total >= MEGABYTES * 1_000_000
    assert most_memory(report.workers[0].pid) < 64


def test_a_killed_worker_is_replaced_and_what_it_counted_stays(edge, upstream):
    link, _ = edge
    report = link.route(upstream(ok))
    for _ in range(5):
        assert get(report).endswith(b"ok")
    link.report(lambda r: r.services["app"].requests == {"GET 200": 5})
    os.kill(report.workers[0].pid, signal.SIGKILL)
    after = link.report(lambda r: r.restarts == 1 and r.workers and r.workers[0].snapshot_version == 1)
    assert after.workers[0].pid != report.workers[0].pid
    assert get(after).endswith(b"ok")
    link.report(lambda r: r.services["app"].requests == {"GET 200": 6})


def test_an_older_daemon_is_refused_and_a_newer_one_takes_over(edge, upstream):
    link, folder = edge
    newer = Link(folder, epoch=5)
    assert isinstance(newer.first, Hello)
    assert link.sock.recv(1 << 20) is not None
    older = Link(folder, epoch=3)
    assert isinstance(older.first, Refused)
    assert "epoch 5" in older.first.reason
    report = newer.route(upstream(ok), epoch=5)
    assert get(report).endswith(b"ok")


def test_another_protocol_is_refused(edge):
    _, folder = edge
    sock = connect_unix(folder / "edge" / "edge.sock")
    sock.sendall(encode(Hello(protocol=99, epoch=9, version="x", pid=1, role="daemon")))
    (answer,) = FrameReader(Refused | Hello).feed(sock.recv(1000))
    assert isinstance(answer, Refused)


def test_a_malformed_frame_closes_that_peer_only(edge, upstream):
    link, folder = edge
    report = link.route(upstream(ok))
    for data in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x03abc", b"\x00\x00\x00\x00", encode(Stop())):
        peer = connect_unix(folder / "edge" / "edge.sock")
        peer.sendall(data)
        assert peer.recv(100) == b""
    assert get(report).endswith(b"ok")
    assert isinstance(link.report(), EdgeReport)


def test_without_a_master_workers_finish_what_they_have_and_end(edge, upstream):
    link, _ = edge
    going = threading.Event()

    def slow(sock, head, rest):
        going.wait(20)
        ok(sock, head, rest)

    report = link.route(upstream(slow))
    with connect(report) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        link.report(lambda r: r.services["app"].in_flight)
        os.kill(report.master_pid, signal.SIGKILL)
        time.sleep(0.3)
        going.set()
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    until(lambda: not Path(f"/proc/{report.workers[0].pid}").exists())


def test_a_stop_lets_requests_in_flight_finish_and_takes_no_more(edge, upstream):
    link, _ = edge
    going = threading.Event()

    def slow(sock, head, rest):
        going.wait(20)
        ok(sock, head, rest)

    report = link.route(upstream(slow))
    with connect(report) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        link.report(lambda r: r.services["app"].in_flight)
        link.send(Stop(deadline_seconds=10))

        def refused():
            try:
                connect(report).close()
            except ConnectionRefusedError:
                return True
            return False

        until(refused)
        going.set()
        answer = sock.recv(1000)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in answer
    until(lambda: not Path(f"/proc/{report.workers[0].pid}").exists())


def test_workers_are_nobody(edge, upstream):
    link, _ = edge
    report = link.route(upstream(ok))
    rows = Path(f"/proc/{report.workers[0].pid}/status").read_text().splitlines()
    uids = next(row.split()[1:] for row in rows if row.startswith("Uid:"))
    assert "0" not in uids or os.geteuid() != 0


def test_a_worker_without_privileges_still_checks_passwords(edge, upstream):
    """What that needs is imported long after the worker could read its files for the last time."""
    link, _ = edge
    report = link.route(upstream(ok), basic_auth={"joe": argon2.PasswordHasher().hash("secret")})
    for password, status in (("secret", b"200"), ("wrong", b"401"), ("secret", b"200")):
        with connect(report) as sock:
            word = base64.b64encode(f"joe:{password}".encode())
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " + word + b"\r\n\r\n")
            assert sock.recv(65536).split(b" ")[1] == status


def test_a_geoip_file_that_is_none_keeps_nobody_out(edge, upstream):
    link, folder = edge
    port = upstream(ok)
    folder.joinpath("geo.mmdb").write_bytes(b"nonsense")
    link.send(
        RoutingSnapshot(
            epoch=1,
            version=1,
            geoip=str(folder / "geo.mmdb"),
            routes=(Route(host="*", service="app"),),
            services={"app": Service(app="app", backends=(Backend(id="one", address="127.0.0.1", port=port),))},
        )
    )
    report = link.report(lambda r: r.workers and r.workers[0].snapshot_version == 1)
    assert b" 200 " in get(report)
    assert report.faults == 0
