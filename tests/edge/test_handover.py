"""One edge takes over from another while clients are busy: nothing is refused, reset or counted twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
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
    Upgrade,
)
from ndactors.messages.records import Batch
from ndactors.runtime.link import FrameReader, connect_unix, encode

ROOT = Path(__file__).parents[2]
UPGRADES = int(os.environ.get("NEXTDEPLOY_TEST_UPGRADES", "20"))
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def until(condition, seconds: float = 20.0):
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


class Daemon(threading.Thread):
    """The daemon's side of the link: it reconnects, publishes, acknowledges records and keeps the last report."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.report: EdgeReport | None = None
        self.lines: set[str] = set()
        self.falls: list[tuple[int, int]] = []
        """From one report to the next."""
        self.hellos: list[Hello] = []
        self.ids: list[bytes] = []
        self.seen: dict[str, int] = {}
        self.snapshot: RoutingSnapshot | None = None
        self.sock: socket.socket | None = None
        self.running = True
        self.start()

    def run(self) -> None:
        while self.running:
            try:
                self._talk()
            except OSError:
                time.sleep(0.01)

    def _talk(self) -> None:
        sock = connect_unix(self.folder / "edge" / "edge.sock")
        sock.settimeout(None)
        reader: FrameReader = FrameReader(Hello | Refused | EdgeReport | RequestRecords)
        sock.sendall(encode(Hello(protocol=PROTOCOL, epoch=1, version="test", pid=os.getpid(), role="daemon")))
        self.sock = sock
        while True:
            data = sock.recv(1 << 18)
            if not data:
                self.sock = None
                sock.close()
                return
            for message in reader.feed(data):
                if isinstance(message, EdgeReport):
                    before, self.report = self.counted(), message
                    self.lines.add(message.line)
                    if self.counted() < before:
                        self.falls.append((before, self.counted()))
                elif isinstance(message, Hello):
                    self.hellos.append(message)
                    if self.snapshot is not None:
                        sock.sendall(encode(self.snapshot))
                elif isinstance(message, RequestRecords):
                    self._store(sock, message)

    def _store(self, sock, message: RequestRecords) -> None:
        known = self.seen.get(message.worker, 0)
        if message.sequence <= known or message.previous > known:
            return
        self.seen[message.worker] = message.sequence
        self.ids += [row.id for row in msgspec.msgpack.decode(message.batch, type=Batch).rows]
        sock.sendall(encode(RecordsStored(worker=message.worker, sequence=message.sequence)))

    def send(self, message) -> None:
        until(lambda: self.sock)
        self.sock.sendall(encode(message))

    def publish(self, port: int, version: int = 1, **service) -> None:
        self.snapshot = RoutingSnapshot(
            epoch=1,
            version=version,
            routes=(Route(host="*", service="app"),),
            services={
                "app": Service(app="app", backends=(Backend(id="one", address="127.0.0.1", port=port),), **service)
            },
        )
        self.send(self.snapshot)
        until(
            lambda: (
                self.report and self.report.workers and all(w.snapshot_version >= version for w in self.report.workers)
            )
        )

    @property
    def master(self) -> int:
        return self.hellos[-1].pid

    def counted(self) -> int:
        services = self.report.services if self.report else {}
        return sum(services["app"].requests.values()) if "app" in services else 0

    def end(self) -> None:
        self.running = False
        if self.sock is not None:
            self.sock.close()


class Edge:
    def __init__(self, folder: Path, workers: int = 2, before: tuple[str, ...] = (), **more) -> None:
        command = [*before, sys.executable, "-m", "ndactors", "--role=edge", f"--state-dir={folder}"]
        command += ["--http=127.0.0.1:0", f"--workers={workers}"]
        self.folder = folder
        with (folder / "log").open("ab") as log:
            environment = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("environment", {})}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, **more)
        until(lambda: (folder / "edge" / "edge.sock").exists())
        self.daemon = Daemon(folder)
        until(lambda: self.daemon.report)

    @property
    def port(self) -> int:
        return int(self.daemon.report.http[0].rpartition(":")[2])

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def upgrade(self) -> None:
        before = self.daemon.master
        os.kill(before, signal.SIGUSR2)
        until(lambda: self.daemon.master != before and self.daemon.report.master_pid == self.daemon.master)

    def stop(self) -> None:
        if self.daemon.sock is not None:
            self.daemon.send(Stop(deadline_seconds=1.0))
        self.daemon.end()
        until(lambda: not processes(self.folder))
        self.process.wait(10)


def processes(folder: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"--role=edge" in words and f"--state-dir={folder}".encode() in words:
                found.append(int(entry.name))
    return found


@pytest.fixture
def edge(tmp_path):
    made = Edge(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def app():
    """Answers everything, takes bodies, echoes tunnels."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)

    def serve(sock: socket.socket) -> None:
        with sock:
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = sock.recv(65536)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                if b"Upgrade: echo" in head:
                    sock.sendall(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n" + data)
                    while more := sock.recv(65536):
                        sock.sendall(more)
                    return
                length = next(
                    (int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")), 0
                )
                while len(data) < length:
                    more = sock.recv(65536)
                    if not more:
                        return
                    data += more
                body, data = data[:length], data[length:]
                sock.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(str(len(body))), str(len(body)).encode())
                )

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_quietly, args=(serve, sock), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield int(listener.getsockname()[1])
    listener.close()


def _quietly(call, *arguments) -> None:
    try:
        call(*arguments)
    except OSError:
        return  # the edge closed its side; what clients saw is what counts


class Load:
    """Clients that never try again: whatever goes wrong is in ``failures``."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.failures: list[str] = []
        self.done = 0
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.threads: list[threading.Thread] = []

    def add(self, what, count: int) -> None:
        for _ in range(count):
            thread = threading.Thread(target=self._run, args=(what,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _run(self, what) -> None:
        try:
            what(self)
        except Exception as error:
            self.failures.append(f"{what.__name__}: {error!r}")

    def ok(self) -> None:
        with self.lock:
            self.done += 1

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def end(self) -> None:
        self.stopping.set()
        for thread in self.threads:
            thread.join(15)
            assert not thread.is_alive()


def answer(sock: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            raise ConnectionError(f"ended after {data!r}")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    while len(body) < length:
        more = sock.recv(65536)
        if not more:
            raise ConnectionError("the body is cut")
        body += more
    if not head.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(head.decode())
    return head, body


def busy(load: Load) -> None:
    sock = load.connect()
    while not load.stopping.is_set():
        sock.sendall(GET)
        head, _ = answer(sock)
        load.ok()
        if b"connection: close" in head.lower():
            sock.close()
            sock = load.connect()
        load.stopping.wait(0.005)
    sock.close()


def seldom(load: Load) -> None:
    sock = load.connect()
    while not load.stopping.is_set():
        sock.sendall(GET)
        head, _ = answer(sock)
        load.ok()
        if b"connection: close" in head.lower():
            sock.close()
            sock = load.connect()
        load.stopping.wait(1.7)
    sock.close()


def upload(load: Load) -> None:
    while not load.stopping.is_set():
        with load.connect() as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n")
            for _ in range(10):
                sock.sendall(b"x" * 5000)
                time.sleep(0.07)
            assert answer(sock)[1] == b"50000"
            load.ok()


def tunnel(load: Load) -> None:
    with load.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        data = b""
        while b"\r\n\r\n" not in data:
            data += sock.recv(65536)
        assert data.startswith(b"HTTP/1.1 101")
        while not load.stopping.is_set():
            sock.sendall(b"ping")
            got = b""
            while len(got) < 4:
                more = sock.recv(4 - len(got))
                if not more:
                    raise ConnectionError("the tunnel ended")
                got += more
            time.sleep(0.05)
    load.ok()


def test_many_upgrades_under_load_lose_nothing(edge, app):
    edge.daemon.publish(app)
    load = Load(edge.port)
    for what, count in ((busy, 6), (seldom, 6), (upload, 3), (tunnel, 3)):
        load.add(what, count)
    port = edge.port
    for number in range(UPGRADES):
        edge.upgrade()
        if number % 5 == 2:
            # the daemon is gone in the middle of one
            os.kill(edge.daemon.master, signal.SIGUSR2)
            edge.daemon.sock.close()
    assert edge.port == port
    load.end()
    assert load.failures == []
    until(lambda: edge.daemon.counted() >= load.done)
    until(lambda: len(edge.daemon.ids) >= load.done)
    time.sleep(0.5)
    assert edge.daemon.counted() == load.done, "nothing is counted twice, and nothing is forgotten"
    assert edge.daemon.falls == []
    assert len(edge.daemon.lines) == 1 and "" not in edge.daemon.lines
    assert len(edge.daemon.ids) == len(set(edge.daemon.ids)) == load.done
    assert load.done > UPGRADES * 5


def test_the_old_workers_end_when_they_are_empty(edge, app):
    edge.daemon.publish(app)
    before = set(processes(edge.folder))
    edge.upgrade()
    until(lambda: not before & set(processes(edge.folder)))
    assert len(processes(edge.folder)) == 3
    assert edge.process.wait(5) == 0


def test_a_container_is_not_idle_while_an_old_worker_still_uses_it(edge, app):
    edge.daemon.publish(app)
    with socket.create_connection(("127.0.0.1", edge.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        sock.recv(1000)
        edge.upgrade()
        until(
            lambda: len(edge.daemon.report.workers) >= 3 and edge.daemon.report.services["app"].in_flight == {"one": 1}
        )
        sock.sendall(b"still here")
        assert sock.recv(100) == b"still here"
        # what the daemon says reaches the old ones too
        edge.daemon.publish(app, version=2)
        assert {w.snapshot_version for w in edge.daemon.report.workers} == {2}
        assert any(w.draining for w in edge.daemon.report.workers)
    until(lambda: edge.daemon.report.services["app"].in_flight == {})
    until(lambda: len(edge.daemon.report.workers) == 2)


def test_a_successor_that_cannot_start_changes_nothing(edge, app):
    edge.daemon.publish(app)
    before = edge.daemon.master
    for program in (("/does/not/exist",), (sys.executable, "-c", "raise SystemExit(3)")):
        edge.daemon.send(Upgrade(program=program))
        until(lambda: edge.log().count("upgrade: given up") + edge.log().count("no successor could be started") >= 1)
    until(lambda: "given up" in edge.log())
    with socket.create_connection(("127.0.0.1", edge.port)) as sock:
        sock.sendall(GET)
        assert answer(sock)[1] == b"0"
    assert edge.daemon.master == before
    edge.upgrade()


def test_address_and_workers_change_on_the_way(edge, app):
    edge.daemon.publish(app)
    before = edge.daemon.master
    edge.daemon.send(Upgrade(listen="127.0.0.2:0", workers=1))
    until(lambda: edge.daemon.master != before and edge.daemon.report.master_pid == edge.daemon.master)
    assert edge.daemon.report.http[0].startswith("127.0.0.2:")
    assert (edge.daemon.hellos[-1].listen, edge.daemon.hellos[-1].workers) == ("127.0.0.2:0", 1)
    with socket.create_connection(("127.0.0.2", edge.port)) as sock:
        sock.sendall(GET)
        assert answer(sock)[1] == b"0"
    # one that cannot be had is refused, and what there is goes on
    with socket.create_server(("127.0.0.1", 0)) as taken:
        edge.daemon.send(Upgrade(listen=f"127.0.0.1:{taken.getsockname()[1]}"))
        until(lambda: "cannot listen" in edge.log() and "given up" in edge.log())
    with socket.create_connection(("127.0.0.2", edge.port)) as sock:
        sock.sendall(GET)
        assert answer(sock)[1] == b"0"


def test_a_master_killed_in_mid_upgrade_leaves_its_successor(edge, app):
    edge.daemon.publish(app)
    master = edge.daemon.master
    os.kill(master, signal.SIGUSR2)
    until(lambda: "is to take over" in edge.log())
    os.kill(master, signal.SIGKILL)
    edge.process.wait(5)
    until(lambda: edge.daemon.master != master)
    edge.daemon.publish(app, version=2)
    with socket.create_connection(("127.0.0.1", edge.port)) as sock:
        sock.sendall(GET)
        assert answer(sock)[1] == b"0"


def test_sockets_of_systemd_are_used(tmp_path, app):
    """As systemd does it: descriptor 3, LISTEN_FDS and the process's own LISTEN_PID."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    # queued before anybody is there to accept
    early = socket.create_connection(("127.0.0.1", port))
    early.sendall(GET)
    starter = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
        "os.execvp(sys.argv[2], sys.argv[2:])"
    )
    before = (sys.executable, "-c", starter, str(listener.fileno()))
    edge = Edge(tmp_path, before=before, pass_fds=(listener.fileno(),))
    try:
        assert edge.daemon.report.http == (f"127.0.0.1:{port}",)
        edge.daemon.publish(app)
        assert answer(early)[1] == b"0"
        edge.upgrade()
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(GET)
            assert answer(sock)[1] == b"0"
        for pid in processes(tmp_path):
            assert b"LISTEN_FDS" not in Path(f"/proc/{pid}/environ").read_bytes() or pid == edge.process.pid
    finally:
        edge.stop()
        early.close()
        listener.close()
