"""Blobs as somebody sees them who may touch some apps only: those that they proved to have by sending them. What others
sent is not there for them, so that nobody finds out, or gets, another's files by knowing or guessing a digest."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import TooLarge
from . import trees
from .blob_store import BlobFiles, _checked, _place
from .off_loop import Apply
from .sqlite_file import SqliteFile

UNUSED_SECONDS = 30 * 86_400
TOUCH_SECONDS = 86_400
"""A claim that is used again is dated anew at most so often."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS claims (
  owner TEXT NOT NULL, digest TEXT NOT NULL, used INTEGER NOT NULL, PRIMARY KEY (owner, digest)) WITHOUT ROWID;
"""


class BlobClaims:
    """Who sent what. ``owner`` is any text. ``now`` gives seconds since 1970."""

    def __init__(
        self,
        path: Path,
        report: Callable[[str, str], None],
        apply: Callable[[Callable[[], Any]], Any],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self._file = SqliteFile(path, _SCHEMA, report, apply, durable=False)
        self.clean()

    def of(self, owner: str, digests: Sequence[str]) -> set[str]:
        """Those of ``digests`` that ``owner`` claimed; they count as used."""
        now = int(self._now())

        def find(database: sqlite3.Connection) -> set[str]:
            found, old = set(), []
            for digest in digests:
                row = database.execute(
                    "SELECT used FROM claims WHERE owner = ? AND digest = ?", (owner, digest)
                ).fetchone()
                if row is not None:
                    found.add(digest)
                    if now - row[0] > TOUCH_SECONDS:
                        old.append((now, owner, digest))
            if old:
                with database:
                    database.executemany("UPDATE claims SET used = ? WHERE owner = ? AND digest = ?", old)
            return found

        return self._file.call(find)

    def add(self, owner: str, digests: Iterable[str]) -> None:
        rows = [(owner, digest, int(self._now())) for digest in digests]

        def write(database: sqlite3.Connection) -> None:
            with database:
                database.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", rows)

        self._file.call(write)

    def clean(self) -> None:
        """Forget those that nobody used for a month."""
        before = int(self._now()) - UNUSED_SECONDS

        def remove(database: sqlite3.Connection) -> None:
            with database:
                database.execute("DELETE FROM claims WHERE used < ?", (before,))

        self._file.call(remove)

    def close(self) -> None:
        self._file.close()


class SharedBlobs(BlobFiles):
    """All blobs, for those without limits; ``seen_by`` is for the others. What these send comes to a folder of their
    own first, so that nobody goes on where somebody else left off."""

    def __init__(self, folder: Path, claims: BlobClaims, apply: Apply, **limits: int) -> None:
        super().__init__(folder, apply, **limits)
        self.claims = claims
        self._limits = limits
        self._limited = folder.with_name(f"{folder.name}-limited")
        self._incoming: dict[str, BlobFiles] = {}

    def seen_by(self, apps: Iterable[str] | None) -> BlobFiles | ClaimedBlobs:
        if apps is None:
            return self
        owner = ",".join(sorted(apps))
        return ClaimedBlobs(self, self._incoming_of(hashlib.sha256(owner.encode()).hexdigest()[:32]), owner)

    def adopt(self, digest: str, path: Path) -> None:
        """A complete one at ``path`` becomes one of all. ``TooLarge`` if these have no room for it; it is gone then."""
        self._run(self._make_folders)
        try:
            with self._room(path.stat().st_size) as take:
                take(self._run(lambda: self._moved(digest, path)))
        except TooLarge:
            self._run(lambda: path.unlink(missing_ok=True))
            raise

    def clean(self, in_use: Iterable[str], now: float) -> int:
        kept = frozenset(in_use)
        self.claims.clean()
        owners = self._run(lambda: [path.name for path in self._limited.iterdir()] if self._limited.is_dir() else [])
        return super().clean(kept, now) + sum(self._incoming_of(owner).clean((), now) for owner in owners)

    def _incoming_of(self, name: str) -> BlobFiles:
        if name not in self._incoming:
            self._incoming[name] = BlobFiles(self._limited / name, self._apply, **self._limits)
        return self._incoming[name]

    def _moved(self, digest: str, path: Path) -> int:
        if self._touch(digest):
            path.unlink(missing_ok=True)
            return 0
        size = path.stat().st_size
        os.rename(path, _place(self._folder, digest))
        trees.sync_folder(self._folder / digest[:2])
        return size


class ClaimedBlobs:
    """``ndactors.ports.BlobStore``, over the blobs that ``owner`` sent."""

    def __init__(self, blobs: SharedBlobs, incoming: BlobFiles, owner: str) -> None:
        self._blobs = blobs
        self._incoming = incoming
        self._owner = owner

    def path(self, digest: str) -> Path | None:
        path = self._blobs.path(digest)
        return path if path is not None and self._blobs.claims.of(self._owner, [digest]) else None

    def offset(self, digest: str) -> int:
        return self._incoming.offset(digest)

    def missing(self, digests: Iterable[str]) -> list[str]:
        asked = list(dict.fromkeys(map(_checked, digests)))
        own = self._blobs.claims.of(self._owner, asked)
        gone = set(self._blobs.missing(own))
        return [digest for digest in asked if digest not in own or digest in gone]

    def append(self, digest: str, offset: int, size: int | None, read: Callable[[int], bytes]) -> bool:
        """As of ``BlobFiles``; all of it has to be sent, whoever else has it."""
        whole = self._incoming.append(digest, offset, size, read)
        path = self._incoming.path(digest)
        if not whole or path is None:
            return whole
        length = path.stat().st_size
        try:
            self._blobs.adopt(digest, path)
        finally:
            self._incoming.left(length)
        self._blobs.claims.add(self._owner, [digest])
        return True

    def add(self, blobs: Sequence[tuple[str, bytes]]) -> int:
        count = self._blobs.add(blobs)
        self._blobs.claims.add(self._owner, [digest for digest, _ in blobs[:count]])
        return count

    def take(self, digest: str) -> None:
        self._blobs.take(digest)
