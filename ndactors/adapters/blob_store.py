"""Files by their SHA-256, below one folder: ``ab/abcdef…`` are complete and never change, ``partial/`` is what is on
its way. A name in ``ab/`` appears only when all of its bytes are right and durable."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from ..core.manifests import SHA256
from ..errors import Conflict, Invalid, StateError, TooLarge
from . import trees
from .off_loop import Apply, failed, is_full, run

PIECE = 256 * 1024
"""Bytes that are asked of a sender at a time."""
MAX_BLOB = 4 * 1024**3
MAX_ALL = 20 * 1024**3
PARTIAL_SECONDS = 86_400.0
UNUSED_SECONDS = 7 * 86_400.0
RECENT_SECONDS = 3600.0
"""What was used within the last hour is never removed to make room: a deploy may be about to read it."""
WAIT_SECONDS = 5.0
POLL_SECONDS = 0.05
SYNC_ALONE = 16
"""From so many files on, one sync of everything is cheaper than one for each."""


class Busy(Enum):
    BUSY = 0
    """Somebody else holds the unfinished file."""


BUSY = Busy.BUSY


class BlobFiles:
    """``ndactors.ports.BlobStore``. ``max_all`` bounds all blobs together, finished or not; besides, an upload may take
    half of what is free on the disk. Several processes may work on one folder."""

    def __init__(self, folder: Path, apply: Apply, *, max_all: int = MAX_ALL) -> None:
        self._folder = folder
        self._partial = folder / "partial"
        self._apply = apply
        self._max_all = max_all
        self._used: int | None = None
        """Bytes of all blobs, as far as this process knows; counted anew by ``clean``."""
        self._promised = 0
        """Bytes that uploads which are going on may still bring."""

    def path(self, digest: str) -> Path | None:
        if not SHA256.fullmatch(digest):
            return None
        path = self._folder / digest[:2] / digest
        return path if path.is_file() else None

    def offset(self, digest: str) -> int:
        if not SHA256.fullmatch(digest):
            return 0
        try:
            return (self._partial / digest).stat().st_size
        except FileNotFoundError:
            return 0

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those that are there count as used now: whoever asks is about to name them."""
        asked = list(dict.fromkeys(map(_checked, digests)))
        return list(self._run(lambda: [digest for digest in asked if not self._touch(digest)]))

    def take(self, digest: str) -> None:
        _checked(digest)
        self._run(lambda: self._touch(digest))

    def append(self, digest: str, offset: int, size: int | None, read: Callable[[int], bytes]) -> bool:
        """As the port has it. ``size`` None: as many bytes as ``read`` gives. Whatever ``read`` raises goes on to the
        caller; what came before stays and can be continued. Offset 0 begins anew. While somebody else sends the same
        blob, whoever begins at 0 is served beside, without a memory; others wait a moment, then get a ``Conflict``."""
        _checked(digest)
        if size is not None and size > MAX_BLOB:
            raise TooLarge(f"A blob has at most {MAX_BLOB} bytes.")
        if offset < 0 or (size is not None and size < offset):
            raise Invalid("The offset is not within the blob.")
        deadline = time.monotonic() + WAIT_SECONDS
        while (upload := self._run(lambda: self._open(digest, offset))) is BUSY:
            if time.monotonic() > deadline:
                raise Conflict("This blob is being uploaded by somebody else just now.")
            time.sleep(POLL_SECONDS)
        if upload is None:
            return True
        self._forget(upload.dropped)
        end = MAX_BLOB if size is None else size
        with contextlib.closing(upload), self._room(None if size is None else size - offset) as take_room:
            while data := read(min(PIECE, end - upload.position) or 1):
                if upload.position + len(data) > end:
                    self._run(upload.discard)
                    self._forget(upload.position)
                    raise TooLarge(f"More came than {end} bytes; nothing of it is kept.")
                take_room(len(data))
                self._written(upload, data)
            if size is not None and upload.position < size:
                return False
            try:
                self._run(upload.finish)
            except (Invalid, StateError):
                self._forget(upload.position)
                raise
        return True

    def add(self, blobs: Sequence[tuple[str, bytes]]) -> int:
        """Several whole ones at once. How many are in: fewer than given if the digest of the next is wrong."""
        size = sum(len(content) for _, content in blobs)
        self._run(self._make_folders)
        with self._room(size) as take_room:
            count, written = self._run(lambda: self._add(blobs))
            take_room(written)
        return int(count)

    def clean(self, in_use: Iterable[str], now: float) -> int:
        """Remove what nobody has used for a week and ``in_use`` does not name, and uploads that were given up a day
        ago. ``now`` in Unix seconds. Returns how many bytes went."""
        kept = frozenset(in_use)
        before, after = self._run(lambda: self._clean(kept, now))
        self._used = after
        return int(before - after)

    def left(self, size: int) -> None:
        """So many bytes are not here any more: they went elsewhere."""
        self._forget(size)

    # -- in the thread pool ------------------------------------------------------------------------

    def _run(self, call: Callable[[], Any]) -> Any:
        return run(self._apply, call, self._folder)

    def _make_folders(self) -> None:
        for folder in (self._folder, self._partial):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _touch(self, digest: str) -> bool:
        try:
            os.utime(self._folder / digest[:2] / digest)
        except FileNotFoundError:
            return False
        return True

    def _open(self, digest: str, offset: int) -> Upload | Busy | None:
        """The unfinished file, locked, with its end at ``offset``; None if it is complete by now."""
        self._make_folders()
        while not self._touch(digest):
            upload = Upload(self._folder, digest, self._partial / digest)
            if not upload.is_free():
                upload.close()
                if offset:
                    return BUSY
                return Upload(self._folder, digest, self._partial / f"{digest}.{secrets.token_hex(4)}", beside=True)
            if not upload.is_current():
                upload.close()  # it was finished, or given up, between our look and our lock
                continue
            there = upload.length()
            if offset not in (0, there):
                upload.close()
                raise Conflict(f"{there} bytes of this blob are there, not {offset}.")
            upload.begin(offset)
            return upload
        return None

    def _add(self, blobs: Sequence[tuple[str, bytes]]) -> tuple[int, int]:
        """How many are in, and how many bytes were written for it."""
        written: list[tuple[str, Path]] = []
        count = size = 0
        alone = len(blobs) < SYNC_ALONE
        try:
            for digest, content in blobs:
                if hashlib.sha256(content).hexdigest() != _checked(digest):
                    break
                count += 1
                if self._touch(digest):
                    continue
                path = self._partial / f"{digest}.{secrets.token_hex(4)}"
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                written.append((digest, path))
                try:
                    trees.write_all(descriptor, content)
                    size += len(content)
                    if alone:
                        os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            if not alone:
                trees.sync(self._partial)
            for digest, path in written:
                os.rename(path, _place(self._folder, digest))
        except OSError:
            for _, path in written:
                path.unlink(missing_ok=True)
            raise
        for folder in {digest[:2] for digest, _ in written}:
            trees.sync_folder(self._folder / folder)
        return count, size

    def _clean(self, in_use: frozenset[str], now: float) -> tuple[int, int]:
        before = after = 0
        for path, size, changed in self._files():
            before += size
            if path.parent == self._partial:
                gone = now - changed > PARTIAL_SECONDS and _removed_unless_locked(path)
            else:
                gone = now - changed > UNUSED_SECONDS and path.name not in in_use
                if gone:
                    path.unlink(missing_ok=True)
            after += 0 if gone else size
        return before, after

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        """Every file, its size, and when it was last written or used."""
        if not self._folder.is_dir():
            return
        for folder in sorted(self._folder.iterdir()):
            for file in os.scandir(folder) if folder.is_dir() else ():
                with contextlib.suppress(FileNotFoundError):
                    facts = file.stat(follow_symlinks=False)
                    yield Path(file.path), facts.st_size, facts.st_mtime

    # -- how much ----------------------------------------------------------------------------------

    def _written(self, upload: Upload, data: bytes) -> None:
        """A full disk is no place for half a blob: it goes, so that others can breathe."""

        def write() -> OSError | None:
            try:
                upload.write(data)
            except OSError as error:
                if is_full(error):
                    upload.discard()
                return error
            return None

        error = self._apply(write)
        if error is not None:
            self._forget(upload.position + len(data) if is_full(error) else 0)
            raise failed(error, self._folder) from error

    @contextlib.contextmanager
    def _room(self, size: int | None) -> Iterator[Callable[[int], None]]:
        """Keep room for ``size`` bytes while they come; ``TooLarge`` if there is none. What it gives is to be told of
        bytes that came."""
        if self._used is None:
            self._used = self._run(lambda: sum(size for _, size, _ in self._files()))
        self._check_room(size or 0)
        promised = size or 0
        self._promised += promised

        def take(count: int) -> None:
            nonlocal promised
            if size is None:
                self._check_room(count)
            fulfilled = min(count, promised)
            promised -= fulfilled
            self._promised -= fulfilled
            self._used = (self._used or 0) + count

        try:
            yield take
        finally:
            self._promised -= promised

    def _check_room(self, size: int) -> None:
        """Make room if there is none: blobs are kept only to save sending them again."""
        lacking = self._lacking(size)
        if lacking > 0:
            self._forget(self._run(lambda: self._evict(lacking, time.time())))
        if self._lacking(size) > 0:
            raise TooLarge(
                f"There is no room for {size} bytes more: all blobs together may have {self._max_all}, and half of what "
                "is free on the disk must stay so."
            )

    def _lacking(self, size: int) -> int:
        coming = self._promised + size
        disk = os.statvfs(self._folder)
        return max((self._used or 0) + coming - self._max_all, coming * 2 - disk.f_bavail * disk.f_frsize)

    def _evict(self, size: int, now: float) -> int:
        """Remove what was not used for longest, but nothing of the last hour, until ``size`` bytes are free."""
        gone = 0
        found = sorted((changed, size, path) for path, size, changed in self._files() if path.parent != self._partial)
        for changed, length, path in found:
            if gone >= size or now - changed < RECENT_SECONDS:
                break
            path.unlink(missing_ok=True)
            gone += length
        return gone

    def _forget(self, size: int) -> None:
        if self._used is not None:
            self._used = max(0, self._used - size)


class Upload:
    """One unfinished file, held by a lock. ``beside``: somebody else has the lock on the one that can be continued."""

    def __init__(self, folder: Path, digest: str, path: Path, *, beside: bool = False) -> None:
        self._folder = folder
        self._digest = digest
        self._path = path
        self._beside = beside
        self._hash: Any = hashlib.sha256()
        self.position = 0
        self.dropped = 0
        """Bytes that were there and went because the upload began anew."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags | (os.O_EXCL if beside else 0), 0o600)
        self._done = False
        if beside:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def is_free(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_current(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def length(self) -> int:
        return os.fstat(self._descriptor).st_size

    def begin(self, offset: int) -> None:
        """Go on at ``offset``. What was there before is read again at the end only, once, however many parts come."""
        self.dropped = self.length() - offset
        os.ftruncate(self._descriptor, offset)
        os.lseek(self._descriptor, offset, os.SEEK_SET)
        self.position = offset
        if offset:
            self._hash = None

    def write(self, data: bytes) -> None:
        if self._hash is not None:
            self._hash.update(data)
        trees.write_all(self._descriptor, data)
        self.position += len(data)

    def finish(self) -> None:
        """``Invalid`` if the digest is wrong; then nothing of it stays."""
        if self._hash is None:
            self._hash = hashlib.sha256()
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            while data := os.read(self._descriptor, trees.PIECE):
                self._hash.update(data)
        if self._hash.hexdigest() != self._digest:
            self.discard()
            raise Invalid(f"What came for {self._digest} has another sha256; nothing of it is kept.")
        try:
            os.fsync(self._descriptor)
            os.rename(self._path, _place(self._folder, self._digest))
        except OSError:
            self.discard()  # after a failed sync nobody knows what is on the disk
            raise
        self._done = True
        trees.sync_folder(self._folder / self._digest[:2])

    def discard(self) -> None:
        self._path.unlink(missing_ok=True)
        self._done = True

    def close(self) -> None:
        if self._beside and not self._done:
            self._path.unlink(missing_ok=True)
        os.close(self._descriptor)


def _checked(digest: str) -> str:
    if not SHA256.fullmatch(digest):
        raise Invalid("A blob's name is its sha256: 64 characters of 0-9 and a-f.")
    return digest


def _place(folder: Path, digest: str) -> Path:
    """Where a complete one goes; its folder is made, durably."""
    below = folder / digest[:2]
    try:
        below.mkdir(mode=0o700)
        trees.sync_folder(folder)
    except FileExistsError:
        pass
    return below / digest


def _removed_unless_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
