"""``/api/v1/ws``: what happens, as it happens. Topics that are added here need nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import gevent
from flask import Blueprint, current_app, g

from ndactors.core.logquery import LogFilter
from ndactors.errors import LogsAway
from ndactors.messages.logs import LogChunk

from .. import upgrades
from ..auth import Guard, Identity
from ..live import Asked, Live, Run, Topic
from ..openapi import Described
from ..problems import TooManyRequests
from ..sockets import Socket, json_text
from ..upgrades import Serve
from .logs import FILTERS, LogStreams, ids, log_filter

if TYPE_CHECKING:
    from .. import Refs

MOST = 80
"""So many live connections at once: each holds a connection of the server, which has 200, and terminals may hold 100."""
LIMITS = {"message_bytes": 64 * 1024, "silence": 120.0, "stall": 60.0}
"""A ping waits behind what a slow reader has not read yet, so its answer may take long."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds between attempts to reach a log process that is away."""

DESCRIBED: list[Described] = [
    (
        "get",
        "/api/v1/ws",
        'What happens, as it happens (WebSocket): send {"subscribe": "logs", "filter": {}, "batch": false, "tail": 0}, '
        'get {"topic": "logs", "data": …}',
        [],
        {},
        [403, 426, 429],
        False,
    ),
]


def routes(api: Blueprint, refs: Refs, guard: Guard) -> None:
    count = _Count()

    @upgrades.route(api, guard, "/api/v1/ws", "viewer", limited=True, **LIMITS)
    def ws() -> Serve:
        if count.open >= MOST:
            raise TooManyRequests(f"There are {MOST} live connections already.", 10.0)
        topics = _topics(refs, current_app.extensions["nextdeploy.logs"])
        identity = g.identity

        def serve(socket: Socket) -> None:
            with count:
                Live(socket, topics, identity).serve()

        return serve


class _Count:
    """How many live connections there are."""

    def __init__(self) -> None:
        self.open = 0

    def __enter__(self) -> None:
        self.open += 1

    def __exit__(self, *_: object) -> None:
        self.open -= 1


def _topics(refs: Refs, logs: LogStreams | None) -> Mapping[str, Topic]:
    return {"logs": partial(_logs, refs, logs)}


# -- logs ------------------------------------------------------------------------------------------


def _logs(refs: Refs, streams: LogStreams | None, asked: Asked, identity: Identity) -> Run:
    if streams is None:
        raise LogsAway("Log records cannot be had from here.")
    wanted = log_filter(asked.words(FILTERS), identity.apps, ids(refs, identity.apps))
    return partial(_follow, streams, wanted, asked.batch, asked.tail)


def _follow(streams: LogStreams, wanted: LogFilter, batch: bool, tail: int, socket: Socket) -> None:
    """For ever: while the log process is away that is told once, and what is printed meanwhile is stored, not sent."""
    pause, told = FIRST_PAUSE, False
    while True:
        try:
            stream = streams.open(wanted, batch=batch, tail=tail)
        except LogsAway:
            stream = None
        if stream is not None:
            told = False
            try:
                while (chunk := stream.receive()) is not None:
                    _pass_on(chunk, socket)
                    tail, pause = 0, FIRST_PAUSE
            finally:
                stream.close()
        if not told:
            socket.send(json_text(topic="logs", error="reconnecting"))
            told = True
        gevent.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _pass_on(chunk: LogChunk, socket: Socket) -> None:
    if chunk.missed > 0:
        socket.send(json_text(topic="logs", gap=chunk.missed))
    for text in chunk.body.split(b"\n"):
        if text:
            socket.send(text, binary=False)
