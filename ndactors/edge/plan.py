"""What a head means, worked out once. A request's head under one snapshot is a ``Plan``: whose it is and what goes
upstream; an answer's head is a ``Reply``. Clients and apps repeat themselves, so both are remembered by their bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from . import http1

if TYPE_CHECKING:
    from ..core.routing import Match
    from ..core.steering import Ties
    from .gate import Gate
    from .services import ServiceState

T = TypeVar("T")

METHODS = {m.encode(): m for m in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")}
"""Others are counted as one: a client must not be able to make counters without end."""
MEMO_HEADS = 1024
MEMO_ONCE = 4096
MEMO_HEAD_BYTES = 4096
"""Longer heads are worked out each time: the memo stays below ``MEMO_HEADS`` times a few of these."""


class Plan:
    """``head`` is what goes upstream, but for what depends on the connection and the exchange. ``service`` None: nothing
    is served there. ``direct``: nobody has to be asked whether it may pass."""

    __slots__ = (
        "batch",
        "direct",
        "gate",
        "head",
        "idempotent",
        "match",
        "method",
        "place",
        "request",
        "service",
        "size",
        "tail",
        "ties",
        "trace",
    )

    def __init__(self, request: http1.Request, size: int, match: Match[ServiceState] | None) -> None:
        service, prefix = (match.target, match.prefix) if match is not None else (None, b"")
        self.request = request
        self.size = size
        self.match = match
        self.service = service
        self.ties: Ties | None = None
        """What its cookie says; read by the first who must know."""
        self.method = METHODS.get(request.method, "OTHER")
        self.idempotent = request.method in http1.IDEMPOTENT
        self.head = upstream_head(request, prefix)
        """Behind it come the fields of the connection, the last of them open for the request's id, and ``tail``."""
        self.tail = b"\r\nX-Forwarded-Host: %b\r\n\r\n" % request.host
        self.gate: Gate | None = service.gate if service is not None else None
        self.direct = (
            service is not None
            and self.gate is None
            and request.body == http1.NONE
            and request.forwarded is None
            and not request.request_id
        )
        self.trace: bytes | None = None
        """Its part of the records, encoded; made when the first is written."""
        self.batch = self.place = 0
        """In which batch of records it is, and where."""


def upstream_head(request: http1.Request, prefix: bytes) -> bytes:
    """The request anew, from what was understood of it; ``prefix`` is what ``strip_path`` takes off."""
    target = request.target
    if prefix:
        target = target[len(prefix) :]
        if not target.startswith(b"/"):
            target = b"/" + target
    parts = [request.method, b" ", target, b" HTTP/1.1\r\nHost: ", request.host or b"localhost", b"\r\n"]
    parts += request.fields
    if request.body == http1.LENGTH:
        parts.append(b"Content-Length: %d\r\n" % request.length)
    elif request.body == http1.CHUNKED:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    elif request.method in (b"POST", b"PUT", b"PATCH"):
        parts.append(b"Content-Length: 0\r\n")
    if request.expect:
        parts.append(b"Expect: 100-continue\r\n")
    if request.upgrade:
        parts += (b"Connection: Upgrade\r\nUpgrade: ", request.upgrade, b"\r\n")
    return b"".join(parts)


class Reply:
    """``head`` is the answer's head up to its request id, which comes next, then what ends it."""

    __slots__ = ("batch", "head", "place", "response", "status", "trace", "whole")

    def __init__(self, response: http1.Response, own: dict[bytes, bytes]) -> None:
        if own:
            kept = [field for field in response.fields if field.partition(b":")[0].lower() not in own]
            response.fields = [*kept, *own.values()]
        self.response = response
        self.status = response.status
        line = b"HTTP/1.1 %d %b\r\n" % (response.status, response.reason)
        self.head = b"".join((line, *response.fields, b"X-Request-Id: "))
        self.whole = response.length if response.body in (http1.NONE, http1.LENGTH) and response.keep_alive else -1
        """How long its body is, if the connection can be used again behind it; else -1."""
        self.trace: bytes | None = None
        self.batch = self.place = 0


class Memo(Generic[T]):
    """Values by heads that came before. A head is remembered when it comes for the second time, so that those that
    come once cost no memory; when there are too many it begins anew, which is cheaper than knowing which was used last."""

    __slots__ = ("_once", "get", "known")

    def __init__(self) -> None:
        self.known: dict[bytes, T] = {}
        self.get = self.known.get
        self._once: set[int] = set()

    def keep(self, head: bytes, value: T) -> None:
        mark = hash(head)
        if mark not in self._once:
            if len(self._once) >= MEMO_ONCE:
                self._once.clear()
            self._once.add(mark)
        elif len(head) <= MEMO_HEAD_BYTES:
            if len(self.known) >= MEMO_HEADS:
                self.known.clear()
            self.known[head] = value
