"""The way to a daemon: its control socket, `nextdeploy stdio` over ssh, or HTTP(S). One kept connection for requests;
``connect`` gives fresh sockets, for whoever speaks something else on them."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import select
import shlex
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

import click

from .. import __version__
from .failures import WRONG, Failure, Refused, Unreachable, printable

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
SSH_SECONDS = 120.0
"""Somebody may have to type a passphrase first."""
MAX_ANSWER = 64 * 1024 * 1024
MAX_COMPLAINT = 4096


@dataclass(frozen=True)
class Answer:
    """``headers`` are looked up whatever their case."""

    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        """``Refused`` for an error's status; ``Unreachable`` for what is no JSON."""
        try:
            value = json.loads(self.body) if self.body else None
        except (ValueError, RecursionError) as error:
            if self.status < 400:
                raise Unreachable("the answer is no JSON; is this a NextDeploy server?") from error
            value = None
        if self.status >= 400:
            raise Refused(self.status, value if isinstance(value, dict) else {}, self.reason)
        return value


class Server:
    """One daemon, wherever it is. ``host`` is for the Host field, ``headers`` hold the credentials."""

    host = "local"
    seconds = ANSWER_SECONDS
    """How long an answer may take to begin."""

    def __init__(self, name: str, token: str | None = None) -> None:
        self.name = name
        self.headers: dict[str, str] = {"Authorization": f"Bearer {_clean(token)}"} if token else {}
        self.reached = False
        """It has answered, whatever it was: so it exists, and may come back when it goes away."""
        self._kept: http.client.HTTPConnection | None = None

    def connect(self) -> socket.socket:
        """A fresh connection, wrapped in TLS if that is needed. ``Unreachable``. It has a time-out; set your own."""
        raise NotImplementedError

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Whatever the answer is. A GET or HEAD on a connection that broke is asked once more."""
        try:
            return self._request(method, path, body, headers or {})
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if method not in ("GET", "HEAD") or isinstance(error, TimeoutError):
                raise Unreachable(self.why(error)) from error
        try:
            return self._request(method, path, body, headers or {})
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(self.why(error)) from error

    def ask(self, method: str, path: str, value: Any = None) -> Any:
        """JSON there and back. ``Refused`` if the daemon says no."""
        if value is None:
            return self.request(method, path).json()
        return self.request(method, path, json.dumps(value).encode(), {"Content-Type": "application/json"}).json()

    def close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    def _request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        connection = self._connection()
        sent = {"Host": self.host, "User-Agent": f"nextdeploy/{__version__}", "Accept": "application/json"}
        try:
            connection.request(method, path, body, {**sent, **self.headers, **headers})
            response = connection.getresponse()
        except (BrokenPipeError, ConnectionResetError):
            if body is None or connection.sock is None:
                raise
            # it may have answered, and closed, before it had read everything
            response = http.client.HTTPResponse(connection.sock, method=method)
            response.begin()
            response.will_close = True
        content = response.read(MAX_ANSWER + 1)
        if len(content) > MAX_ANSWER:
            self.close()
            raise Unreachable(f"{self.name}: the answer is longer than {MAX_ANSWER >> 20} MiB")
        if response.will_close:
            self.close()
        self.reached = True
        return Answer(response.status, response.reason, response.headers, content)

    def _connection(self) -> http.client.HTTPConnection:
        """The kept one, unless the other side has closed it since."""
        if self._kept is not None and self._kept.sock is not None:
            readable, _, _ = select.select([self._kept.sock], [], [], 0)
            if not readable:
                return self._kept
        self.close()
        connection = http.client.HTTPConnection(self.host)
        connection.sock = self.connect()
        connection.sock.settimeout(self.seconds)
        connection.auto_open = 0
        self._kept = connection
        return connection

    def why(self, error: Exception) -> str:
        """What to say of a connection that broke like this."""
        if isinstance(error, TimeoutError):
            return f"{self.name} did not answer within {self.seconds:g} s"
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"the connection to {self.name} broke: {words or type(error).__name__}"


class LocalServer(Server):
    """Whoever may open the control socket is an administrator; no token is needed."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"the daemon at {path}")
        self.path = path

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(CONNECT_SECONDS)
        try:
            sock.connect(str(self.path))
        except OSError as error:
            sock.close()
            words = {
                "FileNotFoundError": f"no daemon runs here: there is no {self.path}",
                "ConnectionRefusedError": f"no daemon runs here: nobody listens on {self.path}",
                "PermissionError": f"you may not open {self.path}; join the group `nextdeploy`, or use sudo",
            }.get(type(error).__name__, f"{self.path}: {error.strerror or error}")
            raise Unreachable(words) from error
        sock.settimeout(self.seconds)
        return sock


class SshServer(Server):
    """`nextdeploy stdio` on another machine: whoever may sign in there and open the socket is an administrator."""

    seconds = SSH_SECONDS

    def __init__(self, target: str, port: int | None, options: list[str]) -> None:
        super().__init__(f"ssh://{target}")
        self.command = ["ssh", "-T", *options, "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=15"]
        self.command += ["-p", str(port)] if port else []
        self.command += ["--", target, "nextdeploy", "stdio"]
        self._running: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        self._lock = threading.Lock()

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        complaints = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the process
        try:
            process = subprocess.Popen(self.command, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=complaints)
        except OSError as error:
            ours.close()
            raise Unreachable(f"ssh cannot be started: {error.strerror}") from error
        finally:
            theirs.close()
        with self._lock:
            self._running = [row for row in self._running if row[0].poll() is None]
            self._running.append((process, complaints))
        ours.settimeout(self.seconds)
        return ours

    def why(self, error: Exception) -> str:
        """What ssh, or the other side, said."""
        if isinstance(error, TimeoutError) or not self._running:
            return super().why(error)
        process, complaints = self._running[-1]
        try:
            code = process.wait(5)
        except subprocess.TimeoutExpired:
            return super().why(error)
        complaints.seek(max(0, complaints.seek(0, os.SEEK_END) - MAX_COMPLAINT))
        said = printable(complaints.read(MAX_COMPLAINT).decode("utf-8", "replace")).strip().splitlines()
        if code == 127:
            return f"{self.name}: there is no `nextdeploy` on its PATH; install it there first"
        return "\n".join([f"{self.name}: " + (said[0] if said else f"ssh ended with {code}"), *said[1:][-5:]])


class HttpServer(Server):
    """The admin API. Without TLS only on this machine and in private networks, and not without a word about it."""

    def __init__(self, url: str, host: str, port: int, token: str | None, *, tls: bool) -> None:
        super().__init__(url, token)
        self.host = url.partition("://")[2]
        self._address = (host, port)
        self._tls = tls
        self._warned = False

    def connect(self) -> socket.socket:
        try:
            sock = socket.create_connection(self._address, CONNECT_SECONDS)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if not self._tls:
                self._check(sock)
            else:
                import ssl

                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self._address[0])
        except OSError as error:
            words = getattr(error, "verify_message", None) or error.strerror or str(error) or type(error).__name__
            kind = (
                "its certificate is not to be trusted" if hasattr(error, "verify_message") else "it cannot be reached"
            )
            raise Unreachable(f"{self.name}: {kind}: {words}") from error
        sock.settimeout(self.seconds)
        return sock

    def _check(self, sock: socket.socket) -> None:
        """Before anything is sent: whoever is on the way could read the token."""
        there = ipaddress.ip_address(sock.getpeername()[0])
        if there.is_loopback:
            return
        if there.is_global:
            sock.close()
            raise Failure(f"{self.name}: without TLS nobody in the internet is asked; write https://", code=WRONG)
        if not self._warned:
            click.echo(f"warning: {self.name} has no TLS: your network can read what is sent, the token too", err=True)
            self._warned = True


def server_at(address: str, token: str | None, variables: Mapping[str, str]) -> Server:
    """``address`` is ``ssh://[user@]host[:port]``, ``https://host[:port]``, ``http://`` in private networks, or
    ``unix:///path/of/control.sock``. ``Failure`` (2) for anything else."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise _no_server(address, str(error)) from error
    if parts.scheme == "unix" and parts.path and not parts.netloc:
        return LocalServer(Path(parts.path))
    host = parts.hostname or ""
    if parts.scheme not in ("ssh", "http", "https") or not host:
        raise _no_server(address, "write ssh://user@host or https://host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _no_server(address, "there must be nothing behind the host")
    if parts.password is not None or (parts.username is not None and parts.scheme != "ssh"):
        raise _no_server(parts._replace(netloc=host).geturl(), "credentials do not belong into it")
    if any(not c.isprintable() or c.isspace() for c in address) or host.startswith("-"):
        raise _no_server(address, "this is no host")
    if parts.scheme == "ssh":
        if (parts.username or "").startswith("-"):
            raise _no_server(address, "this is no user")
        target = f"{parts.username}@{host}" if parts.username else host
        return SshServer(target, port, shlex.split(variables.get("NEXTDEPLOY_SSH_OPTIONS", "")))
    return HttpServer(
        f"{parts.scheme}://{parts.netloc}",
        host,
        port or (443 if parts.scheme == "https" else 80),
        token,
        tls=parts.scheme == "https",
    )


def server_from(ctx: click.Context) -> Server:
    """The daemon that this command is for; made once, closed when the command ends."""
    from .options import Choices
    from .target import chosen

    choices = ctx.ensure_object(Choices)
    if choices.opened is None:
        choices.opened = chosen(choices, os.environ)
        ctx.call_on_close(choices.opened.close)
    return choices.opened


def api(*parts: str | int, **query: str | int | None) -> str:
    """A path below ``/api/v1``, each part quoted."""
    path = "/api/v1/" + "/".join(quote(str(part), safe="") for part in parts)
    asked = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items() if value is not None)
    return f"{path}?{asked}" if asked else path


def _clean(token: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Failure("the token has characters that no token has", code=WRONG)
    return token


def _no_server(address: str, words: str) -> Failure:
    return Failure(f"`{printable(address)}` is no server: {words}", code=WRONG)
