"""The files of a tree as a list, before any of them is written: paths and links that stay inside, sizes that have an
end. What passes here can be made in an empty folder without touching anything outside it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from ..errors import Invalid, TooLarge

MAX_FILES = 100_000
MAX_FOLDERS = 100_000
MAX_PATH = 1024
"""Bytes of a path, and of a link's target."""
MAX_NAME = 255
"""Bytes of one part of a path: what file systems take."""
MAX_DEPTH = 64
MAX_BYTES = 8 * 1024**3
MAX_LINKS_IN_A_ROW = 40
"""As the kernel has it."""
MAX_LINK_STEPS = 2_000_000
"""Parts of paths that are looked at to follow all links."""
MAX_TOLD = 10
"""Mistakes that are told of."""

SHA256 = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Entry(Protocol):
    """One file or symbolic link; ``path`` is relative, with ``/``. ``link`` None: a file of ``size`` bytes."""

    @property
    def path(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def executable(self) -> bool: ...
    @property
    def link(self) -> str | None: ...


E = TypeVar("E", bound=Entry)


class Astray(Exception):
    """A link leads out of the tree, in a circle, or too deep."""


class Manifest(Generic[E]):
    """Entries that are known to be harmless together. ``Invalid`` tells what is wrong, ``TooLarge`` that there is too
    much. ``digest`` is equal for trees that are equal; ``bytes`` is the size of all files."""

    def __init__(self, entries: Iterable[E], *, max_bytes: int = MAX_BYTES) -> None:
        self._entries = _listed(entries)
        self.bytes = _added_up(self._entries.values(), max_bytes)
        self._folders = _folders(self._entries)
        self._links = {path: entry.link for path, entry in self._entries.items() if entry.link is not None}
        self._real: dict[str, tuple[tuple[str, ...], int]] = {}
        self._steps = 0
        _refuse(self._stray_links())
        self.digest = _digest(self)

    def __iter__(self) -> Iterator[E]:
        """Sorted so that everything in a folder comes in a row."""
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def blobs(self) -> dict[str, int]:
        """Digest → size of everything that is needed."""
        return {entry.sha256: entry.size for entry in self if entry.link is None}

    def find(self, path: str) -> str | None:
        """The real path of the file or folder that ``path`` leads to, links followed; ``""`` is the root. None if there
        is none."""
        try:
            real = "/".join(self._walk([], path, 0)[0])
        except Astray:
            return None
        return real if real in self._entries or real in self._folders or not real else None

    def entry(self, path: str) -> E | None:
        """The file at a real path."""
        return self._entries.get(path)

    def below(self, path: str) -> Manifest[E] | None:
        """What is in the folder at a real path (or the file itself), as a tree of its own. None if a link in it leads
        out of it, so that it cannot stand alone."""
        if not path:
            return self
        alone = self._entries.get(path)
        folder = f"{path}/" if alone is None else path[: path.rfind("/") + 1]
        inside = [alone] if alone is not None else [e for at, e in self._entries.items() if at.startswith(folder)]
        try:
            return Manifest([_moved(entry, entry.path[len(folder) :]) for entry in inside])
        except Invalid:
            return None

    # -- links -------------------------------------------------------------------------------------

    def _stray_links(self) -> Iterator[str]:
        for path in self._links:
            try:
                self._target(path, 0)
            except Astray as error:
                yield f"{_shown(path)}: a link that {error}"

    def _target(self, link: str, depth: int) -> tuple[tuple[str, ...], int]:
        """Where a link leads, and how many links are followed on the way."""
        known = self._real.get(link)
        if known is None:
            if depth >= MAX_LINKS_IN_A_ROW:
                raise Astray("leads in a circle, or through too many others")
            place, links = self._walk(link.split("/")[:-1], self._links[link], depth + 1)
            known = self._real[link] = (tuple(place), links + 1)
        if known[1] > MAX_LINKS_IN_A_ROW:
            raise Astray("leads through too many others")
        return known

    def _walk(self, place: list[str], target: str, depth: int) -> tuple[list[str], int]:
        most = 0
        for part in target.split("/"):
            self._steps += 1
            if self._steps > MAX_LINK_STEPS:
                raise TooLarge("There are too many links, or they lead too far.")
            if part in ("", "."):
                continue
            if part == "..":
                if not place:
                    raise Astray("leads out")
                place.pop()
                continue
            place.append(part)
            if len(place) > MAX_DEPTH:
                raise Astray("leads too deep")
            link = "/".join(place)
            if link in self._links:
                real, links = self._target(link, depth)
                place, most = list(real), most + links
        return place, most


def _moved(entry: E, path: str) -> E:
    changed: Any = msgspec.structs.replace(entry, path=path)  # type: ignore[type-var]
    return changed  # type: ignore[no-any-return]


def _listed(entries: Iterable[E]) -> dict[str, E]:
    """By path, sorted; each well formed by itself."""
    found: dict[str, E] = {}
    wrong: list[str] = []
    for entry in entries:
        if len(found) >= MAX_FILES:
            raise TooLarge(f"There are more than {MAX_FILES} files.")
        words = _wrong_path(entry.path) or _wrong_content(entry)
        if words is None and entry.path in found:
            words = "is there twice"
        if words is not None:
            wrong.append(f"{_shown(entry.path)}: {words}")
            if len(wrong) > MAX_TOLD:
                break
        found[entry.path] = entry
    _refuse(wrong)
    return dict(sorted(found.items(), key=lambda item: item[0].split("/")))


def _wrong_path(path: str) -> str | None:
    try:
        data = path.encode()
    except UnicodeEncodeError:
        return "is not valid text"
    if not path or path.startswith("/"):
        return "is not a relative path"
    if len(data) > MAX_PATH:
        return f"is longer than {MAX_PATH} bytes"
    if _CONTROL.search(path):
        return "has a control character"
    parts = path.split("/")
    if len(parts) > MAX_DEPTH:
        return f"is more than {MAX_DEPTH} folders deep"
    if any(part in ("", ".", "..") for part in parts):
        return "has an empty part, `.` or `..`"
    if any(len(part.encode()) > MAX_NAME for part in parts):
        return f"has a part of more than {MAX_NAME} bytes"
    return None


def _wrong_content(entry: Entry) -> str | None:
    if entry.link is None:
        if not SHA256.fullmatch(entry.sha256):
            return "has no valid sha256"
        return "has a size below 0" if entry.size < 0 else None
    if entry.sha256 or entry.size or entry.executable:
        return "is a link and cannot be a file too"
    try:
        length = len(entry.link.encode())
    except UnicodeEncodeError:
        return "links to what is not valid text"
    if not length or length > MAX_PATH or _CONTROL.search(entry.link):
        return "links to what is no path"
    return "links to an absolute path" if entry.link.startswith("/") else None


def _added_up(entries: Iterable[Entry], limit: int) -> int:
    total = 0
    sizes: dict[str, int] = {}
    for entry in entries:
        if entry.link is not None:
            continue
        total += entry.size
        if total > limit:
            raise TooLarge(f"All files together are larger than {limit} bytes.")
        if sizes.setdefault(entry.sha256, entry.size) != entry.size:
            raise Invalid(f"{_shown(entry.path)}: the same sha256 is given with another size")
    return total


def _folders(entries: Iterable[str]) -> set[str]:
    """Every folder that must be made. A file, or a link, is no folder."""
    found: set[str] = set()
    for path in entries:
        end = path.rfind("/")
        while end > 0 and path[:end] not in found:
            found.add(path[:end])
            if len(found) > MAX_FOLDERS:
                raise TooLarge(f"There are more than {MAX_FOLDERS} folders.")
            end = path.rfind("/", 0, end)
    _refuse(f"{_shown(path)}: is a file and a folder" for path in entries if path in found)
    return found


def _refuse(wrong: Iterable[str]) -> None:
    told = list(wrong)
    if told:
        raise Invalid("\n".join([*told[:MAX_TOLD], *(["and more"] if len(told) > MAX_TOLD else [])]))


def _shown(path: str) -> str:
    """A path in words for people: whatever is in it, it stays on its line and is not endless."""
    text = ascii(path)[1:-1] if not path.isprintable() else path
    return text if len(text) <= 200 else text[:200] + "…"


def _digest(entries: Iterable[Entry]) -> str:
    rows = [(entry.path, entry.sha256, entry.size, entry.executable, entry.link) for entry in entries]
    return hashlib.sha256(msgspec.json.encode(rows)).hexdigest()
