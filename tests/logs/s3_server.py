"""S3-compatible storage for tests: moto's server in a thread, which knows users and checks every signature; and a way to it
that can be cut."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import boto3
from moto import settings
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from ndactors.core.model import Bucket

ANYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
_PARAMETERS = ("uploads", "uploadId", "partNumber")


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


class S3Server:
    """``asked`` are the requests that it answered so far: method, path, and of the query what says what it does."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.before: Callable[[str, str, str], str | None] = lambda *_: None
        """Called before each request; it may say a status line to refuse it with."""
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.access_key, self.secret_key = self.user("nextdeploy", ANYTHING)
        self.client = self._client("s3", self.access_key, self.secret_key)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        settings.INITIAL_NO_AUTH_ACTION_COUNT = float("inf")
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
        told = "&".join(f"{name}={query[name][0][:8]}" for name in _PARAMETERS if name in query)
        asked = (environ["REQUEST_METHOD"], environ["PATH_INFO"], told)
        spoiled = self.before(*asked)
        if spoiled:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(spoiled, [("Content-Length", "0")])
            return [b""]
        found: Iterable[bytes] = self._app(environ, start_response)
        self.asked.append(asked)
        return found

    def user(self, name: str, policy: dict[str, Any]) -> tuple[str, str]:
        """Somebody new, and the keys."""
        settings.INITIAL_NO_AUTH_ACTION_COUNT = float("inf")
        iam = self._client("iam", "any", "any")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
        return key["AccessKeyId"], key["SecretAccessKey"]

    def _client(self, service: str, access: str, secret: str) -> Any:
        keys = {"aws_access_key_id": access, "aws_secret_access_key": secret}
        return boto3.session.Session().client(service, endpoint_url=self.address, region_name="us-east-1", **keys)

    def bucket(self, name: str, **more: Any) -> Bucket:
        """A new one, as the configuration has it."""
        self.client.create_bucket(Bucket=name)
        own = {"endpoint": self.address, "access_key": self.access_key, "secret_key": self.secret_key}
        return Bucket(bucket=name, prefix="logs/", **{**own, **more})

    def sent(self, kind: str = "PUT") -> list[tuple[str, str]]:
        return [(path.rpartition("/")[2], told) for method, path, told in self.asked if method == kind]


class Way:
    """A port that leads to another one. ``cut_after`` so many bytes towards it, every connection breaks, and new ones are
    refused until ``mend``."""

    def __init__(self, port: int, cut_after: int = -1) -> None:
        self._there = ("127.0.0.1", port)
        self._left = cut_after
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.broken = threading.Event()
        self.bytes = 0
        threading.Thread(target=self._listen, args=(self._listener,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._there)
            self._pairs.append((near, far))
            threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if counted and not self._may(len(data)):
                    self.cut()
                    return
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _may(self, size: int) -> bool:
        with self._lock:
            self.bytes += size
            if self._left < 0:
                return True
            self._left -= size
            return self._left > 0

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # or whoever waits in accept keeps it open
        self._listener.close()
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._pairs.clear()
        self.broken.set()

    def mend(self) -> None:
        self._left = -1
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.broken.clear()
        threading.Thread(target=self._listen, args=(self._listener,), daemon=True).start()
