"""Two processes for `test_settling.py`. `count FOLDER UPSTREAM`: the daemon's side of an edge with two workers, its record
actor and its store; each line on stdin is answered with what is counted at that moment. `load`: an app, and clients that
ask without a pause; each line on stdin is answered with how many answers had come at which times."""

from __future__ import annotations

if __name__ == "__main__":
    import sys

    if sys.argv[1] == "count":
        from gevent import monkey

        monkey.patch_all()

import json
import selectors
import socket
import sys
import threading
import time
from pathlib import Path

REQUESTS = (b"GET /old HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /new HTTP/1.1\r\nHost: x\r\n\r\n")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
AT_ONCE = 4
CONNECTIONS = 16
NOTE_SECONDS = 0.005


def say(value: object) -> None:
    print(json.dumps(value), flush=True)


def count(folder: Path, upstream: int) -> None:
    from gevent.fileobject import FileObject
    from gevent.hub import get_hub

    from ndactors.actors.record import RecordActor
    from ndactors.adapters.edge_pool import EdgePool
    from ndactors.adapters.sqlite_requests import SqliteRequests
    from ndactors.core.model import Retain
    from ndactors.messages.edge import Backend, EdgeReport, Route, RoutingSnapshot, Service
    from ndactors.messages.records import GetTraffic
    from ndactors.runtime.ref import Ref
    from ndactors.runtime.root import Root
    from ndactors.runtime.supervisor import Child

    def off_loop(call):
        return get_hub().threadpool.apply(call)

    store = SqliteRequests(folder / "requests.db", lambda *words: print(words, file=sys.stderr), off_loop, Retain)
    records = Ref("records")
    root = Root(Child(records, RecordActor, store))
    reports: list[EdgeReport] = []
    pool = EdgePool(
        folder,
        http="127.0.0.1:0",
        workers=2,
        epoch=1,
        version="test",
        on_report=reports.append,
        on_records=records.tell,
        on_change=lambda words: None,
    )
    pool.start()
    backend = Backend(id="one", address="127.0.0.1", port=upstream)
    pool.publish(
        RoutingSnapshot(
            epoch=1,
            version=1,
            routes=(Route(host="*", service="app"),),
            services={"app": Service(app="app", backends=(backend,), redirects={"/old": "/new"})},
        )
    )
    while not (reports and len(reports[-1].workers) == 2 and all(w.snapshot_version == 1 for w in reports[-1].workers)):
        time.sleep(0.01)
    say(int(reports[-1].http[0].rpartition(":")[2]))
    began = time.time() - 1
    for _ in FileObject(sys.stdin.fileno(), "r", closefd=False):
        asked = time.time()
        found = records.ask(GetTraffic(app="app", since=began, until=asked + 60))
        say([asked, found.all.requests, found.complete])
    pool.stop(2.0)
    root.stop(5)
    store.close()


def load() -> None:
    """The app listens first; then the edge's port comes on stdin, and a line each time the counts are wanted."""
    selector = selectors.DefaultSelector()
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    listener.setblocking(False)
    say(listener.getsockname()[1])
    answers, over = 0, threading.Event()
    notes: list[tuple[float, int]] = []

    def note() -> None:
        if not notes or time.time() - notes[-1][0] > NOTE_SECONDS:
            notes.append((time.time(), answers))

    def serve(sock: socket.socket) -> None:
        data = sock.recv(65536)
        if data:
            sock.sendall(OK * data.count(b"\r\n\r\n"))
        else:
            selector.unregister(sock)
            sock.close()

    def accept() -> None:
        sock, _ = listener.accept()
        selector.register(sock, selectors.EVENT_READ, lambda: serve(sock))

    selector.register(listener, selectors.EVENT_READ, accept)
    port = int(sys.stdin.readline())
    asking = 0

    def client(raw: bytes) -> None:
        nonlocal asking
        sock = socket.create_connection(("127.0.0.1", port))
        owed = AT_ONCE
        asking += 1

        def hear() -> None:
            nonlocal answers, owed, asking
            got = sock.recv(65536).count(b"HTTP/1.1 ")
            answers += got
            owed -= got
            if owed == 0 and not over.is_set():
                owed = AT_ONCE
                sock.sendall(raw * AT_ONCE)
            elif owed == 0:
                asking -= 1
                selector.unregister(sock)
                sock.close()

        selector.register(sock, selectors.EVENT_READ, hear)
        sock.sendall(raw * AT_ONCE)

    def wait_for_the_end() -> None:
        sys.stdin.readline()
        over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    for number in range(CONNECTIONS):
        client(REQUESTS[number % 2])
    while asking:
        for key, _ in selector.select(0.05):
            key.data()
            note()
    notes.append((time.time(), answers))
    say(notes)


if __name__ == "__main__":
    if sys.argv[1] == "count":
        count(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        load()
