"""Archives as `docker save` writes them, given to an Engine so that they can do no more than bring one image.

The archive's own names never reach the Engine: it would move them from whatever image has them here.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import Invalid

MAX_MEMBERS = 20_000
MAX_LIST = 4 * 1024 * 1024
PIECE = 1024 * 1024
MANIFEST, INDEX = "manifest.json", "index.json"
DROPPED = ("repositories",)
_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
_LAYER_LINK = re.compile(r"\.\./[0-9a-f]+/layer\.tar")


MAX_HEAD = 64 * 1024
MAX_HEADS = 4 * 1024 * 1024
_HEADS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class _Head(tarfile.TarInfo):
    """An entry's head. Long names and the like are read into memory before anybody sees the entry, so they are bounded
    here: each, and all of an archive together."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise Invalid("the image archive has an entry of a kind that none should have: a sparse file")
        if self.type in _HEADS:
            read = getattr(tar, "heads_read", 0) + self.size
            if self.size > MAX_HEAD or read > MAX_HEADS:
                raise Invalid("the image archive has longer names than any image")
            tar.heads_read = read  # type: ignore[attr-defined]
        return super()._proc_member(tar)  # type: ignore[misc, no-any-return]

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise Invalid("the image archive has an entry of a kind that none should have: a sparse file")


def renamed(archive: Path, name: str) -> Iterator[bytes]:
    """The archive again, in pieces, with its one image called ``name`` and nothing else. Blocks on the disk.

    ``Invalid`` if it is none, holds more than one image, or anything that has no business in it.
    """
    try:
        with tarfile.open(archive, mode="r:", tarinfo=_Head) as tar, archive.open("rb") as file:
            members = _members(tar)
            lists = {path: json.dumps(made).encode() for path, made in _lists(tar, members, name).items()}
            for path, member in members:
                if path in lists:
                    yield from _small(path, lists[path])
                elif path not in DROPPED:
                    yield from _copied(file.fileno(), member)
            yield bytes(2 * tarfile.BLOCKSIZE)
    except (tarfile.TarError, EOFError) as error:
        raise Invalid(f"this is no image archive as `docker save` writes it (uncompressed): {error}") from error


def _members(tar: tarfile.TarFile) -> list[tuple[str, tarfile.TarInfo]]:
    """Plain files and folders under plain names, each once; of links only those that old Engines write for a layer that
    comes twice: a link to a folder, or to a list, could pass something else off as it."""
    found: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        path = posixpath.normpath(member.name)
        if path.startswith(("/", "..")) or path in found or len(found) >= MAX_MEMBERS:
            raise Invalid(f"the image archive has an entry that none should have: {member.name[:200]}")
        is_layer_link = member.issym() and path.endswith("/layer.tar") and _LAYER_LINK.fullmatch(member.linkname)
        if not (member.isreg() or member.isdir() or is_layer_link) or member.issparse():
            raise Invalid(f"the image archive has an entry of a kind that none should have: {member.name[:200]}")
        found[path] = member
    for path in found:
        for parent in _parents(path):
            if parent in found and not found[parent].isdir():
                raise Invalid(f"the image archive has an entry below a file: {path[:200]}")
    return list(found.items())


def _parents(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path


def _lists(tar: tarfile.TarFile, members: list[tuple[str, tarfile.TarInfo]], name: str) -> dict[str, Any]:
    """The archive's tables of contents, as they shall be."""
    known = dict(members)
    manifest = _read(tar, known.get(MANIFEST), list)
    if len(manifest) != 1 or not isinstance(manifest[0], dict):
        raise Invalid(f"the image archive must hold one image, and holds {len(manifest)}")
    made: dict[str, Any] = {MANIFEST: [{**manifest[0], "RepoTags": [name]}]}
    if INDEX in known:
        index = _read(tar, known[INDEX], dict)
        rows = index.get("manifests")
        if not isinstance(rows, list) or len(rows) != 1 or not isinstance(rows[0], dict):
            raise Invalid("the image archive must hold one image")
        given = rows[0].get("annotations") or {}
        if not isinstance(given, dict):
            raise Invalid(f"the image archive's {INDEX} is not what it should be")
        annotations = {key: value for key, value in given.items() if key not in _NAME_ANNOTATIONS}
        annotations |= {_NAME_ANNOTATIONS[0]: f"docker.io/{name}", _NAME_ANNOTATIONS[1]: name.rpartition(":")[2]}
        made[INDEX] = {**index, "manifests": [{**rows[0], "annotations": annotations}]}
    return made


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo | None, kind: type) -> Any:
    if member is None or not member.isreg() or member.size > MAX_LIST:
        raise Invalid(f"this is no image archive as `docker save` writes it: it has no {MANIFEST}")
    file = tar.extractfile(member)
    try:
        found = json.loads(file.read() if file else b"")
    except (ValueError, RecursionError) as error:
        raise Invalid(f"the image archive's {member.name} cannot be read: {error}") from error
    if not isinstance(found, kind):
        raise Invalid(f"the image archive's {member.name} is not what it should be")
    return found


def _small(path: str, content: bytes) -> Iterator[bytes]:
    head = tarfile.TarInfo(path)
    head.size = len(content)
    yield head.tobuf() + content + bytes(-len(content) % tarfile.BLOCKSIZE)


def _copied(descriptor: int, member: tarfile.TarInfo) -> Iterator[bytes]:
    """Under a head of our own: what stands in the archive's, nobody has looked at in full."""
    head = tarfile.TarInfo(posixpath.normpath(member.name))
    head.type, head.linkname, head.mode, head.mtime = member.type, member.linkname, member.mode, int(member.mtime)
    head.size = member.size if member.isreg() else 0
    yield head.tobuf(tarfile.PAX_FORMAT)
    at, end = member.offset_data, member.offset_data + head.size
    while at < end:
        piece = os.pread(descriptor, min(PIECE, end - at), at)
        if not piece:
            raise Invalid("the image archive ends too early")
        yield piece
        at += len(piece)
    yield bytes(-head.size % tarfile.BLOCKSIZE)
