"""A small server that answers like the API: blobs for real, operations and WebSockets by script. It can break
connections."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from ndactors.core.websocket import CLOSE, TEXT, Close, Message, Reader, close_payload

TOKEN = "ndt_secret"


class Double:
    """What it was asked is in ``asked``; ``answers`` are functions by "METHOD /path" for everything but blobs."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.partial: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, Callable[..., Any]] = {}
        self.break_after: list[int | None] = []
        """For the uploads to come: after so many bytes the connection breaks; None: it does not."""
        self.break_before_answer = 0
        """So many requests are carried out and never answered."""
        self.token: str | None = None
        self.received = 0
        """Bytes of upload bodies."""
        self.connections = 0
        self.live: list[Callable[[Wire], None]] = []
        """Who serves each of the WebSockets to come; the connection ends with it. The last one serves further ones too."""
        self.lock = threading.Lock()

    def on(self, what: str, answer: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """``answer``: a value, or a function of the request's body and the parts of the path that ``*`` stands for."""
        made = answer if callable(answer) else lambda body, *parts: answer
        self.answers[what] = lambda body, *parts: (status, made(body, *parts), headers or {})

    def calls(self, pattern: str) -> list[Any]:
        """The bodies of requests whose "METHOD /path" matches."""
        return [body for method, path, body in self.asked if re.fullmatch(pattern, f"{method} {path}")]

    def operation(self, id: str, *states: dict[str, Any]) -> None:
        """Each question gets the next state, then always the last. ``log`` is the whole log so far."""
        rows = list(states)

        def answer(body: Any, query: str) -> dict[str, Any]:
            row = rows.pop(0) if len(rows) > 1 else rows[0]
            start = int((re.search(r"log_from=(\d+)", query) or ["", "0"])[1])
            whole = row.get("log", "")
            base = {"id": id, "kind": "deploy", "apps": ["shop"], "state": "running", "steps": [], "reason": ""}
            return {**base, **row, "log": whole[start:], "log_length": len(whole)}

        self.answers[f"GET /api/v1/operations/{id}?"] = lambda body, query: (200, answer(body, query), {})


class Wire:
    """A WebSocket's server side."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.settimeout(20)
        self._reader = Reader(1 << 20)

    def receive(self) -> Any:
        """The next message, as JSON; None at the end."""
        try:
            while not isinstance(event := self._reader.take(), Message | Close):
                if event is None:
                    data = self._sock.recv(65536)
                    if not data:
                        return None
                    self._reader.feed(data)
        except OSError:
            return None
        return json.loads(event.data) if isinstance(event, Message) else None

    def send(self, **message: Any) -> None:
        self.send_text(json.dumps(message).encode())

    def send_text(self, payload: bytes, opcode: int = TEXT) -> None:
        size = len(payload)
        head = bytes([0x80 | opcode, size]) if size < 126 else bytes([0x80 | opcode, 126]) + size.to_bytes(2, "big")
        head = head if size < 65536 else bytes([0x80 | opcode, 127]) + size.to_bytes(8, "big")
        self._sock.sendall(head + payload)

    def close(self, code: int, reason: str) -> None:
        self.send_text(close_payload(code, reason), CLOSE)


def problem(status: int, detail: str, **more: Any) -> dict[str, Any]:
    return {"type": "about:blank", "title": "Problem", "status": status, "detail": detail, **more}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    double: Double

    def setup(self) -> None:
        super().setup()
        self.double.connections += 1

    def log_message(self, *words: Any) -> None: ...

    def address_string(self) -> str:
        return "local"

    def _answer(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        if self.double.break_before_answer > 0:
            self.double.break_before_answer -= 1
            self._hang_up()
            return
        body = b"" if self.command == "HEAD" else json.dumps(value).encode()
        self.send_response(status)
        kind = "application/problem+json" if status >= 400 else "application/json"
        for name, text in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        double = self.double
        double.headers.append(dict(self.headers.items()))
        if double.token is not None and self.headers.get("Authorization") != f"Bearer {double.token}":
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            self._answer(401, problem(401, "Sign in with a user and password, or send a token."))
            return
        path, _, query = self.path.partition("?")
        if double.live and self.headers.get("Upgrade") == "websocket":
            self._upgrade(path)
            return
        with double.lock:
            if path == "/api/v1/blobs" or re.fullmatch(r"/api/v1/blobs/[0-9a-f]{64}", path):
                self._blob(path)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            value = json.loads(body) if body else None
            double.asked.append((self.command, self.path, value))
            if path == "/api/v1/blobs/missing" and "POST /api/v1/blobs/missing" not in double.answers:
                self._answer(200, {"missing": [d for d in value["sha256"] if d not in double.blobs]})
                return
            for what, answer in double.answers.items():
                pattern = re.escape(what.removesuffix("?")).replace(r"\*", "([^/]+)")
                match = re.fullmatch(pattern, f"{self.command} {path}")
                if match is not None:
                    extra = (query,) if what.endswith("?") else match.groups()
                    status, found, headers = answer(value, *extra)
                    self._answer(status, found, headers)
                    return
        self._answer(404, problem(404, f"There is nothing at {path}."))

    def _upgrade(self, path: str) -> None:
        double = self.double
        with double.lock:
            double.asked.append((self.command, path, None))
            serve = double.live.pop(0) if len(double.live) > 1 else double.live[0]
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        self.send_response(101)
        for name, text in {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}.items():
            self.send_header(name, text)
        self.end_headers()
        with contextlib.suppress(OSError):
            serve(Wire(self.connection))
        self._hang_up()

    # -- blobs -------------------------------------------------------------------------------------

    def _blob(self, path: str) -> None:
        double, digest = self.double, path.rpartition("/")[2]
        if self.command == "HEAD":
            there = digest in double.blobs
            offset = {} if there else {"Upload-Offset": str(len(double.partial.get(digest, b"")))}
            double.asked.append((self.command, path, None))
            self._answer(200 if there else 404, None, offset)
            return
        total = int(self.headers["Content-Length"])
        limit = double.break_after.pop(0) if double.break_after else None
        body = self.rfile.read(total if limit is None else min(limit, total))
        double.received += len(body)
        double.asked.append((self.command, path, len(body)))
        whole = len(body) == total
        if path == "/api/v1/blobs":
            stored = self._many(body)
            if whole:
                self._answer(200, {"stored": stored})
        elif digest in double.blobs:
            self._answer(200, {"sha256": digest})
        else:
            self._put(digest, body, whole)
        if not whole:
            self._hang_up()

    def _many(self, body: bytes) -> int:
        stored = 0
        while len(body) >= 40:
            digest, size = body[:32].hex(), int.from_bytes(body[32:40], "big")
            content, body = body[40 : 40 + size], body[40 + size :]
            if len(content) < size:
                break
            assert hashlib.sha256(content).hexdigest() == digest
            self.double.blobs[digest] = content
            stored += 1
        return stored

    def _put(self, digest: str, body: bytes, whole: bool) -> None:
        double = self.double
        offset = int(self.headers.get("Upload-Offset") or 0)
        there = double.partial.get(digest, b"")
        if offset != len(there):
            self._answer(409, problem(409, "wrong offset"), {"Upload-Offset": str(len(there))})
            return
        double.partial[digest] = there + body
        size = int(self.headers.get("Upload-Length") or self.headers["Content-Length"])
        if not whole:
            return
        if len(double.partial[digest]) < size:
            self._answer(202, {"sha256": digest}, {"Upload-Offset": str(len(double.partial[digest]))})
            return
        content = double.partial.pop(digest)
        if hashlib.sha256(content).hexdigest() != digest:
            self._answer(422, problem(422, "another sha256"))
            return
        double.blobs[digest] = content
        self._answer(201, {"sha256": digest})

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve


class _Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class _Tcp(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextlib.contextmanager
def serving(double: Double, path: Path | None = None, wrap: Any = None) -> Iterator[str]:
    """The address to give to ``--server``. With ``path`` a unix socket; ``wrap`` makes a listening socket TLS."""
    handler = type("Bound", (Handler,), {"double": double})
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        server: Any = _Unix(str(path), handler)
        address = f"unix://{path}"
    else:
        server = _Tcp(("127.0.0.1", 0), handler)
        address = f"{'https' if wrap else 'http'}://localhost:{server.server_address[1]}"
    if wrap is not None:
        server.socket = wrap(server.socket)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
