"""Blobs to the server: only those that it lacks, small ones many at a time, large ones in pieces that go on where a broken
connection left them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from .bundling import Blob
from .connection import Answer, Server, api
from .failures import Failure, Refused, Unreachable

PAGE = 10_000
SMALL = 1024 * 1024
BATCH = 8 * 1024 * 1024
BATCH_MANY = 5000
PIECE = 4 * 1024 * 1024
TRIES = 6
"""So often in a row without any progress."""
TRANSIENT = (408, 429, 502, 503, 504)

Progress = Callable[[int, int], None]
"""Bytes that are there, of all bytes that have to be."""


@dataclass(frozen=True)
class Sent:
    """``digests`` were sent; ``size`` is their bytes."""

    digests: frozenset[str]
    size: int


def upload(server: Server, blobs: Mapping[str, Blob], progress: Progress, *, pause: Callable[[float], None]) -> Sent:
    """What the server lacks of ``blobs``. ``Unreachable`` when it stays away, ``Refused``, ``Failure``."""
    lacking = missing(server, list(blobs), pause)
    sender = _Sender(server, {digest: blobs[digest] for digest in lacking}, progress, pause)
    sender.send()
    return Sent(frozenset(lacking), sender.total)


def missing(server: Server, digests: list[str], pause: Callable[[float], None]) -> list[str]:
    found: list[str] = []
    for start in range(0, len(digests), PAGE):
        page = digests[start : start + PAGE]
        found += _missing(server, page, pause)
    return found


def _missing(server: Server, page: list[str], pause: Callable[[float], None]) -> list[str]:
    patience = _Patience(server, pause)
    while True:
        try:
            lacking = set(server.ask("POST", api("blobs", "missing"), {"sha256": page})["missing"])
            return [digest for digest in page if digest in lacking]
        except (Unreachable, Refused) as error:
            patience.failed(error)


class _Patience:
    """Calls again after what may pass by itself; ``progressed`` forgets the failures so far."""

    def __init__(self, server: Server, pause: Callable[[float], None]) -> None:
        self._server = server
        self._pause = pause
        self._failures = 0

    def progressed(self) -> None:
        self._failures = 0

    def failed(self, error: Unreachable | Refused) -> None:
        """Waits, or gives up with ``error``."""
        if not self._server.reached or (isinstance(error, Refused) and error.status not in TRANSIENT):
            raise error
        self._failures += 1
        if self._failures >= TRIES:
            raise error
        self._pause(min(5.0, 0.2 * 2**self._failures))


class _Sender:
    def __init__(
        self, server: Server, blobs: dict[str, Blob], progress: Progress, pause: Callable[[float], None]
    ) -> None:
        self._server = server
        self._blobs = blobs
        self._progress = progress
        self._pause = pause
        self._done = 0
        self.total = sum(blob.size for blob in blobs.values())

    def send(self) -> None:
        small = [digest for digest, blob in self._blobs.items() if blob.size <= SMALL]
        for batch in self._batches(small):
            self._send_batch(batch)
        for digest, blob in self._blobs.items():
            if blob.size > SMALL:
                self._send_large(digest, blob)

    # -- small ones --------------------------------------------------------------------------------

    def _batches(self, digests: list[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        size = 0
        for digest in digests:
            if batch and (size + self._blobs[digest].size > BATCH or len(batch) >= BATCH_MANY):
                yield batch
                batch, size = [], 0
            batch.append(digest)
            size += self._blobs[digest].size
        if batch:
            yield batch

    def _send_batch(self, batch: list[str]) -> None:
        patience = _Patience(self._server, self._pause)
        headers = {"Content-Type": "application/x-nextdeploy-blobs"}
        while batch:
            body = b"".join(part for digest in batch for part in _framed(digest, self._blobs[digest]))
            try:
                self._server.request("POST", api("blobs"), body, headers).json()
                left: list[str] = []
            except (Unreachable, Refused) as error:
                patience.failed(error)
                left = missing(self._server, batch, self._pause)
                if len(left) < len(batch):
                    patience.progressed()
            stored = set(batch) - set(left)
            self._moved(sum(self._blobs[digest].size for digest in stored))
            batch = left

    # -- large ones --------------------------------------------------------------------------------

    def _send_large(self, digest: str, blob: Blob) -> None:
        patience = _Patience(self._server, self._pause)
        base, best = self._done, 0
        offset: int | None = None
        while offset != blob.size:
            before = offset
            try:
                offset = self._offset(digest, blob) if offset is None else self._put(digest, blob, offset)
            except (Unreachable, Refused) as error:
                patience.failed(error)
                offset = None
                continue
            if offset > best:
                best = offset
                patience.progressed()
                self._done = base
                self._moved(offset)
            elif before is not None and offset <= before:
                patience.failed(Unreachable(f"{self._server.name} does not take what is sent to it"))

    def _offset(self, digest: str, blob: Blob) -> int:
        """How much of it is there."""
        answer = self._server.request("HEAD", api("blobs", digest))
        if answer.status == 200:
            return blob.size
        if answer.status == 404:
            return _told(answer, blob)
        raise Refused(answer.status, {}, answer.reason)

    def _put(self, digest: str, blob: Blob, offset: int) -> int:
        try:
            with blob.path.open("rb") as file:
                file.seek(offset)
                piece = file.read(min(PIECE, blob.size - offset))
        except OSError as error:
            raise Failure(f"{blob.path}: {error.strerror}") from error
        if not piece:
            raise _changed(blob)
        headers = {
            "Content-Type": "application/octet-stream",
            "Upload-Offset": str(offset),
            "Upload-Length": str(blob.size),
        }
        answer = self._server.request("PUT", api("blobs", digest), piece, headers)
        if answer.status in (200, 201):
            return blob.size
        if answer.status == 409 and answer.headers.get("Upload-Offset"):
            self._pause(0.5)  # somebody else may be sending the same
        if answer.status in (202, 409) and answer.headers.get("Upload-Offset"):
            return _told(answer, blob)
        if answer.status == 422:
            raise _changed(blob)
        answer.json()
        raise Unreachable(f"{self._server.name} answered {answer.status} to an upload")

    def _moved(self, count: int) -> None:
        self._done += count
        self._progress(self._done, self.total)


def _framed(digest: str, blob: Blob) -> Iterator[bytes]:
    """Digest, length, content. ``Failure`` if it is not what was hashed any more."""
    try:
        with blob.path.open("rb") as file:
            content = file.read(blob.size + 1)
    except OSError as error:
        raise Failure(f"{blob.path}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise _changed(blob)
    yield bytes.fromhex(digest)
    yield blob.size.to_bytes(8, "big")
    yield content


def _told(answer: Answer, blob: Blob) -> int:
    text = answer.headers.get("Upload-Offset") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) < blob.size):
        return 0
    return int(text)


def _changed(blob: Blob) -> Failure:
    return Failure(f"{blob.path} changed while it was being sent: deploy again")


def sleep(seconds: float) -> None:
    time.sleep(seconds)
