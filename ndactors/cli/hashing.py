"""SHA-256 of files, several at a time, with a memory: a file whose size, times and node are as they were when it was
hashed has the digest that it had. One that changed just now may change again within the same tick of the clock, so it
is never remembered."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec

from .collecting import MAX_NAMED, Found
from .failures import FAILED, Failure
from .files import replace_file

PIECE = 1024 * 1024
SETTLED_NS = 2 * 10**9
MAX_MEMORY = 256 * 1024 * 1024
FORMAT = 1
THREADS = min(8, (os.cpu_count() or 1) + 1)


class Row(msgspec.Struct, frozen=True, array_like=True):
    size: int
    stamp: tuple[int, int, int]
    digest: bytes


class Memory(msgspec.Struct, frozen=True):
    format: int
    rows: dict[str, Row]


def digests(
    folder: Path,
    files: list[Found],
    variables: Mapping[str, str],
    *,
    now_ns: Callable[[], int] = time.time_ns,
) -> dict[str, tuple[str, int]]:
    """By path: digest in hex, and the size of what was hashed. ``Failure`` names files that cannot be read."""
    place = memory_path(folder, variables)
    before = _recall(place)
    rows: dict[str, Row] = {}
    keep: dict[str, Row] = {}
    todo: list[Found] = []
    for found in files:
        row = before.get(found.path)
        if row is not None and row.size == found.size and row.stamp == found.stamp:
            rows[found.path] = keep[found.path] = row
        else:
            todo.append(found)
    began = now_ns()
    wrong: list[str] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for found, made in zip(todo, pool.map(lambda one: _hashed(folder, one), todo), strict=True):
            if isinstance(made, str):
                wrong.append(made)
                continue
            rows[found.path] = made
            if made.stamp == found.stamp and max(made.stamp[:2]) < began - SETTLED_NS:
                keep[found.path] = made
    if wrong:
        more = [f"and {len(wrong) - MAX_NAMED} more"] if len(wrong) > MAX_NAMED else []
        raise Failure("this cannot be read:", *wrong[:MAX_NAMED], *more, code=FAILED)
    if keep != before:
        with suppress(Failure):  # a memory that cannot be kept costs time only
            replace_file(place, msgspec.msgpack.encode(Memory(FORMAT, keep)))
    return {path: (row.digest.hex(), row.size) for path, row in rows.items()}


def memory_path(folder: Path, variables: Mapping[str, str]) -> Path:
    base = variables.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
    return Path(base) / "nextdeploy" / "digests" / name


def _recall(place: Path) -> dict[str, Row]:
    """Nothing, if it cannot be read: then everything is hashed."""
    try:
        with place.open("rb") as file:
            memory = msgspec.msgpack.decode(file.read(MAX_MEMORY), type=Memory)
    except (OSError, msgspec.DecodeError):
        return {}
    return memory.rows if memory.format == FORMAT else {}


def _hashed(folder: Path, found: Found) -> Row | str:
    """The file's own size and times are those of the very file that was read. A string says why it could not be."""
    digest = hashlib.sha256()
    size = 0
    try:
        descriptor = os.open(folder / found.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            while piece := file.read(PIECE):
                digest.update(piece)
                size += len(piece)
            after = os.fstat(descriptor)
    except OSError as error:
        return f"{found.path}: {error.strerror}"
    stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    if stamp != (after.st_mtime_ns, after.st_ctime_ns, after.st_ino):
        return f"{found.path}: it is being changed"
    return Row(size, stamp, digest.digest())
