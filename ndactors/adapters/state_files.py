"""Small records on disk that survive everything: each is written beside and renamed, with a checksum and the last good
copy kept. A damaged file is set aside and reported, never read and never deleted."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ..errors import StateError, StateLocked

log = logging.getLogger("ndactors.state")
T = TypeVar("T")

MAX_BYTES = 64 * 1024 * 1024


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """The file: ``data`` is the record as JSON text, ``sha256`` its digest in hex."""

    sha256: str
    data: msgspec.Raw


class StateFiles:
    """``ndactors.ports.StateStore`` over a folder. ``report(kind, words)`` hears of every damaged file."""

    def __init__(self, folder: Path, report: Callable[[str, str], None]) -> None:
        self._folder = folder
        self._report = report
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self, name: str, kind: type[T]) -> T | None:
        path = self._path(name)
        for candidate in (path, _last_good(path)):
            try:
                return _read(candidate, kind)
            except FileNotFoundError:
                continue
            except (StateError, OSError) as error:
                self._set_aside(candidate, error)
        return None

    def save(self, name: str, value: object) -> None:
        path = self._path(name)
        data = msgspec.json.encode(value)
        content = msgspec.json.encode(Envelope(sha256=hashlib.sha256(data).hexdigest(), data=msgspec.Raw(data)))
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(path, content, keep=_last_good(path))
        except OSError as error:
            raise StateError(f"{path}: cannot be written: {error.strerror}") from error

    def delete(self, name: str) -> None:
        path = self._path(name)
        for file in (path, _last_good(path)):
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                raise StateError(f"{file}: cannot be removed: {error.strerror}") from error

    def names(self, folder: str) -> list[str]:
        found = set()
        for path in (self._folder / folder).glob("*.json"):
            found.add(f"{folder}/{path.name.removesuffix('.json').removesuffix('.last')}")
        return sorted(found)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _set_aside(self, path: Path, error: Exception) -> None:
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(2)}")
        words = f"{path} is damaged ({error}); kept as {aside.name}"
        try:
            os.rename(path, aside)
        except OSError as failure:
            words += f", which failed: {failure.strerror}"
        log.error("%s", words)
        self._report("state.corrupt", words)


def _last_good(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".json") + ".last.json")


def _read(path: Path, kind: type[T]) -> T:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise StateError("larger than any record")
    try:
        envelope = msgspec.json.decode(content, type=Envelope)
        if hashlib.sha256(bytes(envelope.data)).hexdigest() != envelope.sha256:
            raise StateError("the checksum does not fit")
        return msgspec.json.decode(bytes(envelope.data), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(str(error)) from error


def replace_file(path: Path, content: bytes, keep: Path | None = None, mode: int = 0o600) -> None:
    """Put ``content`` at ``path`` so that a crash at any moment leaves the old or the new, never a mixture; what was
    there before becomes ``keep``."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            with contextlib.suppress(FileNotFoundError):
                keep.unlink()
            os.link(path, keep)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class StateLock:
    """Held for as long as a daemon lives: one daemon on one state folder. The kernel frees it, whatever happens."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "daemon.lock"
        self._descriptor = -1

    def acquire(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateError(f"{self._path.parent}: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(self._descriptor, 32).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise StateLocked(
                f"another daemon{f' (pid {owner})' if owner else ''} runs on {self._path.parent}; "
                "stop it first, or give this one another state_dir"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        os.close(self._descriptor)


def saved(store: StateFiles, name: str, kind: type[T], make: Callable[[], T]) -> T:
    """The record called ``name``, made now if there is none."""
    value: Any = store.load(name, kind)
    if value is None:
        value = make()
        store.save(name, value)
    return value  # type: ignore[no-any-return]
