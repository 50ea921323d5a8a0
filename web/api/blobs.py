"""``/api/v1``: uploads by their SHA-256. Bodies are read as streams, a piece at a time: they may be large, and senders
slow, false, or gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import gevent
import msgspec
from flask import Blueprint, Response, current_app, g, request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from ndactors.core.manifests import SHA256
from ndactors.errors import ActorStopped, Conflict, Invalid, NextDeployError, TooLarge

from ..auth import Guard
from ..openapi import Described, named
from ..problems import problem
from .parts import body, json

if TYPE_CHECKING:
    from .. import Refs

MAX_BLOB = 4 * 1024**3
MAX_BATCH = 1024**3
MAX_SMALL = 8 * 1024**2
"""Bytes of one blob in a batch: it is held in memory until it is whole."""
MAX_ASKED = 10_000
GROUP_BYTES = 4 * 1024**2
GROUP_MANY = 256
"""So much of a batch is made durable at once."""
PIECE = 256 * 1024
PIECE_SECONDS = 60.0
"""A piece that takes longer is the last: a sender that stalls, or trickles, does not hold a connection for ever."""
HEAD = 32 + 8
KIND = "application/x-nextdeploy-blobs"


class Store(Protocol):
    """What is needed of ``ndactors.ports.BlobStore``."""

    def path(self, digest: str) -> Path | None: ...
    def offset(self, digest: str) -> int: ...
    def missing(self, digests: Sequence[str]) -> list[str]: ...
    def append(self, digest: str, offset: int, size: int | None, read: Callable[[int], bytes]) -> bool: ...
    def add(self, blobs: Sequence[tuple[str, bytes]]) -> int: ...
    def seen_by(self, apps: tuple[str, ...]) -> Store:
        """As somebody sees it who may touch only these apps."""
        ...


class TooSlow(NextDeployError):
    status = 408
    title = "Request timeout"


class Truncated(NextDeployError):
    status = 400
    title = "Truncated body"


BROKEN = (Invalid, TooLarge, Truncated, TooSlow)


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    sha256: list[str]


class Sender:
    """The current request's body. ``TooSlow``, ``Truncated``."""

    def __init__(self, limit: int) -> None:
        # one more, so that whoever judges by size gets to see that it is too much
        request.max_content_length = limit + 1
        self._stream = request.stream
        self._told = request.content_length
        self._received = 0

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes; nothing at the end."""
        timer = gevent.Timeout.start_new(PIECE_SECONDS)
        try:
            data = self._stream.read(min(count, PIECE)) or b""
        except gevent.Timeout as timeout:
            if timeout is not timer:
                raise
            raise TooSlow(f"Less than {PIECE} bytes came in {PIECE_SECONDS:g} s.") from None
        except ClientDisconnected as error:
            raise Truncated(f"The body ended after {self._received} bytes or a little more.") from error
        except RequestEntityTooLarge as error:
            raise TooLarge("The body is too long.") from error
        finally:
            timer.close()
        self._received += len(data)
        if not data and self._told is not None and self._received < self._told:
            raise Truncated(f"The body ended after {self._received} of {self._told} bytes.")
        return data

    def read_whole(self, count: int) -> bytes:
        """Exactly ``count`` bytes, or nothing at the end."""
        parts: list[bytes] = []
        left = count
        while left and (data := self.read(left)):
            parts.append(data)
            left -= len(data)
        if left and parts:
            raise Truncated("The body ended in the middle of a blob.")
        return b"".join(parts)


def routes(api: Blueprint, refs: Refs, guard: Guard) -> None:
    @api.post("/api/v1/blobs/missing")
    @guard.needs("operator", limited=True)
    def missing_blobs() -> Response:
        asked = body(Asked).sha256
        if len(asked) > MAX_ASKED:
            raise Invalid(f"Ask for at most {MAX_ASKED} at once.")
        return json({"missing": _store().missing(asked)})

    @api.post("/api/v1/blobs")
    @guard.needs("operator", limited=True)
    def many_blobs() -> Response:
        if request.mimetype != KIND:
            raise Invalid(f"Send {KIND}.")
        store, stored = _store(), 0
        try:
            for group in _groups(Sender(MAX_BATCH)):
                count = store.add(group)
                stored += count
                if count < len(group):
                    raise Invalid(f"What came for {group[count][0]} has another sha256.")
        except BROKEN as error:
            return problem(error.status, error.title, str(error), stored=stored)
        return json({"stored": stored})

    @api.route("/api/v1/blobs/<digest>", methods=["HEAD"])
    @guard.needs("operator", limited=True)
    def blob_is_there(digest: str) -> Response:
        _check(digest)
        store = _store()
        if store.path(digest) is not None:
            return Response(status=200)
        return _told(Response(status=404), store.offset(digest))

    @api.put("/api/v1/blobs/<digest>")
    @guard.needs("operator", limited=True)
    def put_blob(digest: str) -> Response:
        _check(digest)
        store = _store()
        if store.path(digest) is not None:
            return json({"sha256": digest})
        offset, size = _range()
        try:
            whole = store.append(digest, offset, size, Sender(MAX_BLOB).read)
        except (Conflict, TooSlow, Truncated) as error:
            return _told(problem(error.status, error.title, str(error)), store.offset(digest))
        response = json({"sha256": digest})
        response.status_code = 201 if whole else 202
        return response if whole else _told(response, store.offset(digest))


def _store() -> Store:
    """As much of it as there is for who asks: to somebody with limits, files of others are as if they were not there."""
    store: Store | None = current_app.extensions["nextdeploy.blobs"]
    if store is None:
        raise ActorStopped("This process takes no uploads; send them to the daemon's own address.")
    return store.seen_by(g.identity.apps) if g.identity.apps is not None else store


def _told(response: Response, offset: int) -> Response:
    response.headers["Upload-Offset"] = str(offset)
    return response


def _check(digest: str) -> None:
    if not SHA256.fullmatch(digest):
        raise Invalid("A blob's name is its sha256: 64 characters of 0-9 and a-f.")


def _range() -> tuple[int, int | None]:
    """Where the body begins in the blob, and how long the blob is; None: as long as the body."""
    offset, size, told = _header("Upload-Offset"), _header("Upload-Length"), request.content_length
    if offset is not None and size is None:
        raise Invalid("With Upload-Offset send Upload-Length too: the size of the whole.")
    if size is None:
        size = told
    if size is not None and size > MAX_BLOB:
        raise TooLarge(f"A blob has at most {MAX_BLOB} bytes.")
    if size is not None and (offset or 0) + (told or 0) > size:
        raise Invalid("Offset and body together are longer than Upload-Length.")
    return offset or 0, size


def _header(name: str) -> int | None:
    text = request.headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 15:
        raise Invalid(f"{name} must be a whole number.")
    return int(text)


def _groups(sender: Sender) -> Iterator[list[tuple[str, bytes]]]:
    """What a batch brings, some at a time. When it breaks off, what was whole by then comes first."""
    group: list[tuple[str, bytes]] = []
    size = 0
    failure: NextDeployError | None = None
    while True:
        try:
            blob = _next_blob(sender)
        except BROKEN as error:
            failure = error
            break
        if blob is None:
            break
        group.append(blob)
        size += len(blob[1])
        if size >= GROUP_BYTES or len(group) >= GROUP_MANY:
            yield group
            group, size = [], 0
    if group:
        yield group
    if failure is not None:
        raise failure


def _next_blob(sender: Sender) -> tuple[str, bytes] | None:
    head = sender.read_whole(HEAD)
    if not head:
        return None
    digest, size = head[:32].hex(), int.from_bytes(head[32:], "big")
    if size > MAX_SMALL:
        raise TooLarge(f"A blob in a batch has at most {MAX_SMALL} bytes; send {digest} by PUT.")
    content = sender.read_whole(size)
    if len(content) < size:
        raise Truncated("The body ended in the middle of a blob.")
    return digest, content


DESCRIBED: list[Described] = [
    (
        "post",
        "/api/v1/blobs/missing",
        'Which of these are not there: {"sha256": [at most 10,000]}',
        [],
        {"type": "object", "required": ["missing"]},
        [403, 422],
        False,
    ),
    (
        "post",
        "/api/v1/blobs",
        f"Many small blobs ({KIND}): of each 32 bytes SHA-256, 8 bytes size, big-endian, then the content",
        [],
        {"type": "object", "required": ["stored"]},
        [400, 403, 408, 413, 422],
        False,
    ),
    (
        "head",
        "/api/v1/blobs/{digest}",
        "200 if it is there, else 404 with Upload-Offset: how much of it is",
        named("digest"),
        {},
        [403, 404, 422],
        False,
    ),
    (
        "put",
        "/api/v1/blobs/{digest}",
        "A blob, or a part of it (Upload-Offset, Upload-Length): 201 it is there, 200 it was, 202 more is needed",
        named("digest"),
        {"type": "object"},
        [400, 403, 408, 409, 413, 422],
        False,
    ),
]
