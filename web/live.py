"""One WebSocket for all that is live: what a client asks for on it, and a greenlet for each of its subscriptions. What the
topics are is said by ``web/api/live.py``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import gevent
import msgspec
from geventwebsocket.exceptions import WebSocketError

from ndactors.core.websocket import REFUSED
from ndactors.errors import Invalid, NextDeployError

from .sockets import Socket, json_text

if TYPE_CHECKING:
    from .auth import Identity

log = logging.getLogger("ndactors.web")

NAMES = ("logs", "requests", "metrics", "events", "alerts", "actors", "operations")
"""Topics that there are, or will be."""
MOST_NONSENSE = 100
"""After so many messages that are not understood the connection is ended."""
MAX_TAIL = 10_000
SHOWN_CHARACTERS = 100

Run = Callable[[Socket], None]
"""Sends what there is until it is killed; its own end is the subscription's."""


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client sends: to begin with a topic, or to end it. ``tail``: so many from before come first. ``batch``: several
    come in one message, in the topic's own form."""

    subscribe: str | None = None
    unsubscribe: str | None = None
    filter: dict[str, str | int | float | None] | None = None
    batch: bool = False
    tail: Annotated[int, msgspec.Meta(ge=0, le=MAX_TAIL)] = 0

    def words(self, known: Mapping[str, Any]) -> dict[str, str]:
        """The filter as words, as in a URL. ``Invalid`` for names that are not ``known``: a filter with a slip of the pen
        would let everything through."""
        given = self.filter or {}
        for name in given:
            if name not in known:
                raise Invalid(f"There is no filter {name[:SHOWN_CHARACTERS]}; there are {', '.join(known)}.")
        return {name: str(value) for name, value in given.items() if value is not None}


Topic = Callable[[Asked, "Identity"], Run]
"""Judges what is asked for (any ``NextDeployError`` refuses it) and says who sends it."""


class Live:
    """One client. It has at most one subscription to a topic: a further one takes its place."""

    def __init__(self, socket: Socket, topics: Mapping[str, Topic], identity: Identity) -> None:
        self._socket, self._topics, self._identity = socket, topics, identity
        self._running: dict[str, gevent.Greenlet[..., None]] = {}
        self._nonsense = 0

    def serve(self) -> None:
        """Until the client is gone, or has sent too much that is not understood."""
        try:
            while (message := self._socket.receive()) is not None:
                self._hear(message)
                if self._nonsense > MOST_NONSENSE:
                    self._end(*self._running)
                    self._socket.close(REFUSED, "too many messages that are not understood")
        except WebSocketError:
            log.debug("whoever watched is gone")
        finally:
            self._end(*self._running)

    def _hear(self, message: str | bytes) -> None:
        try:
            asked = _read(message)
        except Invalid as error:
            self._nonsense += 1
            self._socket.send(json_text(error=str(error)))
            return
        name = asked.subscribe if asked.subscribe is not None else asked.unsubscribe
        assert name is not None
        if name not in NAMES:
            self._nonsense += 1
            self._tell(name[:SHOWN_CHARACTERS], NOT_THERE.format(", ".join(self._topics)), 404)
            return
        self._end(name)
        if asked.subscribe is not None:
            self._begin(name, asked)

    def _begin(self, name: str, asked: Asked) -> None:
        topic = self._topics.get(name)
        if topic is None:
            self._tell(name, NOT_THERE.format(", ".join(self._topics)), 404)
            return
        try:
            run = topic(asked, self._identity)
        except NextDeployError as error:
            self._tell(name, str(error), error.status)
            return
        self._running[name] = gevent.spawn(self._run, name, run)

    def _run(self, name: str, run: Run) -> None:
        """One subscription, in its greenlet. Its errors are its own."""
        try:
            try:
                run(self._socket)
            except NextDeployError as error:
                self._tell(name, str(error), error.status)
        except WebSocketError:
            log.debug("whoever watched %s is gone", name)
        except Exception:
            log.exception("a subscription to %s failed", name)
            if not self._socket.closed:
                self._tell(name, "This is a fault of the daemon; its log says more.", 500)

    def _tell(self, topic: str, words: str, status: int) -> None:
        """Nothing of this topic comes, or comes any more; ``status`` as HTTP has it."""
        self._socket.send(json_text(topic=topic, error=words, status=status))

    def _end(self, *names: str) -> None:
        """Nothing of these is sent after this."""
        gevent.killall([self._running.pop(name) for name in names if name in self._running])


NOT_THERE = "There is no such topic here; there is {}."
SHAPE = 'Send {{"subscribe": TOPIC, "filter": {{}}, "batch": false, "tail": 0}} or {{"unsubscribe": TOPIC}}: {}.'


def _read(message: str | bytes) -> Asked:
    if isinstance(message, bytes):
        raise Invalid(SHAPE.format("this is no text"))
    try:
        asked = msgspec.json.decode(message, type=Asked)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid(SHAPE.format(error)) from error
    if (asked.subscribe is None) == (asked.unsubscribe is None):
        raise Invalid(SHAPE.format("this is neither, or both"))
    return asked
