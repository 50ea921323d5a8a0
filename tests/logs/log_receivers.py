"""Receivers of log records for tests: syslog servers that take RFC 5424 by the letter, and an HTTP server that answers as a
test wants."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# the grammar of RFC 5424, section 6
_PRINTABLE = rb"[\x21-\x7e]"
_SD_NAME = rb"[\x21\x23-\x3c\x3e-\x5c\x5e-\x7e]{1,32}"
_PARAMETER = rb" (" + _SD_NAME + rb')="((?:[^"\\\]]|\\.)*)"'
_MESSAGE = re.compile(
    rb"<(0|[1-9]\d{0,2})>([1-9]\d{0,2}) "
    rb"(-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)) "
    rb"(" + _PRINTABLE + rb"{1,255}) (" + _PRINTABLE + rb"{1,48}) (" + _PRINTABLE + rb"{1,128}) "
    rb"(" + _PRINTABLE + rb"{1,32}) "
    rb"(-|(?:\[" + _SD_NAME + rb"(?:" + _PARAMETER.replace(b" (", b" (?:", 1).replace(b'"((?', b'"(?:(?') + rb")*\])+)"
    rb"(?: (.*))?",
    re.DOTALL,
)
_ELEMENT = re.compile(rb"\[(" + _SD_NAME + rb")((?:" + _PARAMETER + rb")*)\]")


@dataclass
class Syslog:
    facility: int
    severity: int
    time: datetime.datetime
    host: str
    app: str
    process: str
    message_id: str
    data: dict[str, dict[str, str]]
    text: str


def parsed(message: bytes) -> Syslog:
    """``AssertionError`` if it is not RFC 5424."""
    match = _MESSAGE.fullmatch(message)
    assert match is not None, message[:200]
    priority, version = int(match[1]), int(match[2])
    assert priority <= 191
    assert version == 1
    data: dict[str, dict[str, str]] = {}
    if match[8] != b"-":
        for element in _ELEMENT.finditer(match[8]):
            assert element[1].decode() not in data
            values = re.findall(_PARAMETER, element[2])
            data[element[1].decode()] = {
                name.decode(): re.sub(rb'\\(["\\\]])', rb"\1", value).decode() for name, value in values
            }
    text = match[9] or b""
    return Syslog(
        facility=priority // 8,
        severity=priority % 8,
        time=datetime.datetime.fromisoformat(match[3].decode()),
        host=match[4].decode(),
        app=match[5].decode(),
        process=match[6].decode(),
        message_id=match[7].decode(),
        data=data,
        text=text.decode(),
    )


class StreamServer:
    """Octet-counted syslog over TCP, or TLS with ``context``. ``hung``: it accepts, and reads nothing."""

    def __init__(self, context: ssl.SSLContext | None = None, *, hung: bool = False, port: int = 0) -> None:
        self.messages: list[Syslog] = []
        self.connections = 0
        self.breaks_after: int | None = None
        """Break the connection once so many bytes came, without reading the rest."""
        self._context = context
        self._hung = hung
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        # the system takes little more than was read: what it took and nobody read is lost when the connection breaks
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            if not self._hung:
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
                self._open.append(sock)
            data, total = b"", 0
            while more := sock.recv(16384):
                data, total = data + more, total + len(more)
                data = self._taken(data)
                if self.breaks_after is not None and total >= self.breaks_after:
                    self.breaks_after = None
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
        sock.close()

    def _taken(self, data: bytes) -> bytes:
        while (match := re.match(rb"([1-9]\d*) ", data)) and len(data) >= match.end() + int(match[1]):
            end = match.end() + int(match[1])
            self.messages.append(parsed(data[match.end() : end]))
            data = data[end:]
        assert re.fullmatch(rb"(?:[1-9]\d*(?: .*)?)?", data, re.DOTALL), data[:100]
        return data

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # or whoever waits in accept keeps it open
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


class DatagramServer:
    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        self._sock.bind(("127.0.0.1", 0))
        self.port: int = self._sock.getsockname()[1]
        self._over = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self._over.is_set():
            if select.select([self._sock], [], [], 0.05)[0]:
                self.messages.append(self._sock.recv(65536))
        self._sock.close()

    def close(self) -> None:
        self._over.set()


@dataclass
class Post:
    path: str
    headers: dict[str, str]
    body: bytes
    accepted: bool = False
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def messages(self) -> list[str]:
        return [record["message"] for record in self.records]


class HttpServer:
    """``answer`` says the status for each post, or None: the connection is closed without an answer. It may wait."""

    def __init__(
        self, answer: Callable[[Post], int | None] = lambda _: 204, context: ssl.SSLContext | None = None
    ) -> None:
        self.posts: list[Post] = []
        self.answer = answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._take(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        post = Post(handler.path, dict(handler.headers), body)
        assert body.endswith(b"\n")
        post.records = [json.loads(line) for line in body.splitlines()]
        status = self.answer(post)
        post.accepted = status is not None and 200 <= status < 300
        self.posts.append(post)
        if status is None:
            handler.close_connection = True
            return
        with contextlib.suppress(OSError):
            handler.send_response(status)
            if 300 <= status < 400:
                handler.send_header("Location", f"{self.address}/elsewhere")
            handler.send_header("Content-Length", "0")
            handler.end_headers()

    @property
    def taken(self) -> list[str]:
        """Messages that it answered for."""
        return [message for post in self.posts if post.accepted for message in post.messages]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for `localhost`, and the authority that clients must know."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    authority, both = folder / "authority.pem", folder / "server.pem"
    authority.write_bytes(pem)
    both.write_bytes(private + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context, authority
