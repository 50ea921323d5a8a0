"""The API as it is, over a log process that is a fake: two chunks of records, and nothing more."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import msgspec
from gevent import socket
from gevent.event import Event
from gevent.pywsgi import WSGIServer

import web
from ndactors.adapters.http_server import Handler
from ndactors.core.logquery import LogFilter
from ndactors.core.logrecords import LogRecord
from ndactors.errors import ActorStopped
from ndactors.messages.control import WebSettings
from ndactors.messages.logs import LiveColumns, LogChunk


class Nobody:
    def ask(self, message: Any, timeout: float = 5.0) -> Any:
        raise ActorStopped("nobody is there")


def live(*messages: str) -> LiveColumns:
    count = len(messages)
    return LiveColumns(
        app="shop", process="web", container="c1", replica=1, levels="1" * count, streams="0" * count,
        times=[f"2026-01-31T12:00:00.00000000{n}Z" for n in range(count)], messages=list(messages),
    )  # fmt: skip


def text(data: Any) -> bytes:
    return msgspec.json.encode({"topic": "logs", "data": data})


class Stream:
    def __init__(self, wanted: LogFilter, batch: bool) -> None:
        record = LogRecord(
            ts="2026-01-31T12:00:00.000000000Z", app="shop", process="web", container="c1", replica=1, stream="stdout",
            level="error", message="of error" if wanted.levels else "of any level",
        )  # fmt: skip
        bodies = [text([live("one", "two")]), text([live("three")])] if batch else [text(record)]
        self._chunks = [LogChunk(id=1, count=1, body=body) for body in bodies]

    def receive(self) -> LogChunk | None:
        if self._chunks:
            return self._chunks.pop(0)
        Event().wait()
        return None

    def close(self) -> None: ...


class Streams:
    def open(self, wanted: LogFilter, *, batch: bool, tail: int) -> Stream:
        return Stream(wanted, batch)


@contextlib.contextmanager
def serving(path: Path) -> Iterator[None]:
    ready = threading.Event()
    ending: list[Any] = []

    def serve() -> None:
        settings = WebSettings(users=(), key=b"k" * 32, metrics_open=True, project="test", environment="dev")
        app = web.create_app(web.Refs(*[Nobody()] * len(web.Refs._fields)), settings, logs=Streams())
        listener = socket.socket(socket.AF_UNIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        listener.bind(str(path))
        listener.listen()
        server = WSGIServer(listener, app, handler_class=Handler, log=None)
        server.start()
        end = Event()
        ending.append(gevent.get_hub().loop.async_())
        ending[0].start(end.set)
        ready.set()
        end.wait()
        server.stop(timeout=0.1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield
    finally:
        ending[0].send()
        thread.join(10)
