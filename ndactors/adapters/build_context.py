"""The files of a build context, less what its ``.dockerignore`` leaves out: listed, hashed, packed.

Everything here blocks on the disk: call it off the event loop. Links are never followed, so nothing outside the folder
is read.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path

from msgspec import Struct

from ..core.dockerignore import NAME, IgnoreRules
from ..errors import BuildFailed, Invalid

PIECE = 256 * 1024
MAX_RULES_BYTES = 1024 * 1024
MAX_ENTRIES = 500_000
MAX_DEPTH = 250
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Entry(Struct, frozen=True):
    """``path`` is relative, with ``/``. ``mode`` as ``lstat`` gives it; ``modified`` in nanoseconds."""

    path: str
    mode: int
    size: int
    modified: int
    link: str = ""


class Context(Struct, frozen=True):
    """What a build of ``folder`` sees. ``rules_file``: which file said what is left out; empty if none did."""

    folder: Path
    dockerfile: str
    rules_file: str
    entries: tuple[Entry, ...]


def read_context(folder: Path, dockerfile: str) -> Context:
    """Folders before what is in them, names in order of their bytes. ``Invalid`` for broken rules, ``BuildFailed``
    for a Dockerfile that is not in there or a folder that cannot be read."""
    name = posixpath.normpath(dockerfile)
    if name.startswith(("/", "..")) or not os.path.lexists(folder / name):
        raise BuildFailed(f"there is no {dockerfile} in the build context")
    try:
        rules_file, text = _rules(folder, name)
        found = tuple(islice(_walk(folder, IgnoreRules(text, name=rules_file or NAME)), MAX_ENTRIES + 1))
    except OSError as error:
        raise BuildFailed(f"the build context cannot be read: {error}") from error
    if len(found) > MAX_ENTRIES:
        raise BuildFailed(f"the build context has more than {MAX_ENTRIES:,} files; leave some out by {NAME}")
    return Context(folder, name, rules_file, found)


def with_parents(context: Context, path: str) -> tuple[Entry, ...]:
    """One path of a context alone, with the folders that it is in."""
    parts = path.split("/")
    return tuple(_entry(context.folder, "/".join(parts[: count + 1])) for count in range(len(parts)))


def context_digest(context: Context) -> str:
    """Of everything that a build of it depends on."""
    paths = {entry.path for entry in context.entries} | {context.dockerfile}
    return tree_digest(context.folder, paths)


def tree_digest(folder: Path, files: Iterable[str]) -> str:
    """SHA-256 (hex) over paths, kinds, permissions, link targets and contents, in an order of its own: equal trees have
    equal digests, wherever they are and however old. ``OSError`` if one cannot be read."""
    digest = hashlib.sha256()
    for path in sorted(files):
        found = folder / path
        status = os.lstat(found)
        kind = stat.S_IFMT(status.st_mode)
        _add(digest, os.fsencode(path), f"{kind:o} {stat.S_IMODE(status.st_mode):o}".encode())
        if stat.S_ISLNK(status.st_mode):
            _add(digest, os.fsencode(os.readlink(found)))
        elif stat.S_ISREG(status.st_mode):
            content = hashlib.sha256()
            for piece in read_file(found):
                content.update(piece)
            _add(digest, content.digest())
    return digest.hexdigest()


def _add(digest: hashlib._Hash, *parts: bytes) -> None:
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)


def read_file(path: Path) -> Iterator[bytes]:
    descriptor = os.open(path, _OPEN)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while piece := file.read(PIECE):
            yield piece


def packed(context: Context) -> Iterator[bytes]:
    """The context as a tar stream, in pieces, nothing of it held. Owned by root, as Docker's own client sends it. The
    Dockerfile and the rules are always in it: the Engine looks for them there."""
    import tarfile  # half a megabyte, for whoever builds

    kept = [entry for entry in context.entries if entry.path not in (context.dockerfile, context.rules_file)]
    always = [_entry(context.folder, path) for path in filter(None, (context.dockerfile, context.rules_file))]
    for entry in (*always, *kept):
        yield from _tar_entry(context.folder, entry)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _tar_entry(folder: Path, entry: Entry) -> Iterator[bytes]:
    import tarfile

    head = tarfile.TarInfo(entry.path)
    head.mode, head.mtime = stat.S_IMODE(entry.mode), entry.modified // 10**9
    if stat.S_ISDIR(entry.mode):
        head.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(entry.mode):
        head.type, head.linkname = tarfile.SYMTYPE, entry.link
    else:
        head.size = entry.size
    yield head.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    left = head.size
    if left:
        for piece in read_file(folder / entry.path):
            yield piece[:left]
            left -= len(piece[:left])
    if left:
        raise BuildFailed(f"{entry.path} became shorter while it was sent")
    yield bytes(-head.size % tarfile.BLOCKSIZE)


def _rules(folder: Path, dockerfile: str) -> tuple[str, str]:
    """The Dockerfile's own rules, or else the context's."""
    for name in (f"{dockerfile}{NAME}", NAME):
        held = BytesIO()
        try:
            for piece in read_file(folder / name):
                held.write(piece)
                if held.tell() > MAX_RULES_BYTES:
                    raise Invalid(f"{name} is too long")
        except FileNotFoundError:
            continue
        return name, held.getvalue().decode("utf-8", "replace")
    return "", ""


def _walk(folder: Path, rules: IgnoreRules, inside: str = "") -> Iterator[Entry]:
    if inside.count("/") > MAX_DEPTH:
        raise BuildFailed(f"the build context has folders nested more than {MAX_DEPTH} deep")
    with os.scandir(folder / inside) as found:
        names = sorted((each.name for each in found), key=os.fsencode)
    for name in names:
        path = f"{inside}/{name}" if inside else name
        entry = _entry(folder, path)
        if stat.S_ISDIR(entry.mode):
            below = () if rules.may_skip_folder(path) else _walk(folder, rules, path)
            if not rules.ignored(path):
                yield entry
                yield from below
                continue
            # an ignored folder is only sent for what is kept in it
            first = next(iter(below := iter(below)), None)
            if first is not None:
                yield entry
                yield first
                yield from below
        elif not rules.ignored(path) and (stat.S_ISREG(entry.mode) or stat.S_ISLNK(entry.mode)):
            yield entry


def _entry(folder: Path, path: str) -> Entry:
    status = os.lstat(folder / path)
    link = os.readlink(folder / path) if stat.S_ISLNK(status.st_mode) else ""
    return Entry(path, status.st_mode, 0 if link else status.st_size, status.st_mtime_ns, link)
