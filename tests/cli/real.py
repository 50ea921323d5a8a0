"""A daemon as it is, with one app on the process engine that answers TCP: an echo, which counts when its peer has ended, and prints
what it is told to say."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "system"))

from daemon import Daemon

APP = """
import os, socket, socketserver

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        first = self.request.recv(65536)
        if first.startswith(b"GET "):
            self.request.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
            return
        if first.startswith(b"say "):
            print(first[4:].decode(), flush=True)
            return
        if first.startswith(b"reset"):
            import struct
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        count = 0
        while first:
            count += len(first)
            self.request.sendall(first)
            first = self.request.recv(65536)
        self.request.sendall(b"=%d" % count)

class Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True

Server(("127.0.0.1", int(os.environ["PORT"])), Echo).serve_forever()
"""


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Daemon]:
    """Its control socket is ``folder/state/control.sock``."""
    (folder / "app.py").write_text(APP)
    check = {"path": "/health", "interval": "200ms", "timeout": "1s", "retries": 3}
    app = {"command": [sys.executable, str(folder / "app.py")], "domains": ["*"], "healthcheck": check}
    daemon = Daemon(folder, {"engine": "process", "apps": {"shop": {**app, "stop_grace": "1s"}}})
    try:
        daemon.start()
        daemon.wait_ready()
        yield daemon
    finally:
        daemon.close()
