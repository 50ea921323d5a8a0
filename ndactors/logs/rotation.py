"""The files under one path that a writer rotates: ``path`` is the newest, ``path.1`` the one before it, and so on. With each
rotation all move up by one name, while we look; a file that was opened is had, wherever it moves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

MAX_FILES = 1000
ROUNDS = 8
FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

Key = tuple[int, int]
"""Device and inode."""


def key(file: int) -> Key:
    facts = os.fstat(file)
    return facts.st_dev, facts.st_ino


def name(path: str, number: int) -> str:
    return f"{path}.{number}" if number else path


def newer(path: str, known: Collection[Key]) -> list[tuple[int, bool]]:
    """The files that are newer than every known one, open, the oldest first; if no known one is there any more, all that
    there are. With each, whether it was seen to come right after the one before it, or after a known one: else others may
    have come and gone. ``OSError`` but for files that are not there."""
    walk = _Walk(path, known)
    try:
        for _ in range(ROUNDS):
            if walk.settled():
                break
    except OSError:
        for _, file in walk.found:
            os.close(file)
        raise
    return [(file, own in walk.following) for own, file in reversed(walk.found)]


class _Walk:
    """``found``: newest first. ``following``: those that were seen to come right after another."""

    def __init__(self, path: str, known: Collection[Key]) -> None:
        self.path = path
        self.known = known
        self.found: list[tuple[Key, int]] = []
        self.following: set[Key] = set()

    def settled(self) -> bool:
        """Goes from the newest back. Whether nothing was rotated meanwhile: between two looks at neighbouring names two
        rotations would put a newer file behind an older one."""
        first, begin, last = "", None, None
        place = missing = 0
        for number in range(MAX_FILES):
            at = name(self.path, number)
            try:
                file = os.open(at, FLAGS)
            except FileNotFoundError:
                missing += 1
                if missing > 1:
                    break
                continue  # in the midst of a rotation one name is free
            missing = 0
            own = key(file)
            try:
                rotated = begin is not None and key_of(first) != begin
            except OSError:
                os.close(file)
                raise
            if rotated:
                os.close(file)
                return False
            if begin is None:
                first, begin = at, own
            if last is not None and own != last:
                self.following.add(last)
            last = own
            if own in self.known:
                os.close(file)
                break
            same = next((i for i, (other, _) in enumerate(self.found) if other == own), None)
            if same is None:
                self.found.insert(place, (own, file))
                place += 1
            else:
                os.close(file)
                place = same + 1
        return begin is not None and key_of(first) == begin and (first == self.path or key_of(self.path) is None)


def key_of(path: str) -> Key | None:
    """None if there is none under this name."""
    with contextlib.suppress(FileNotFoundError):
        facts = os.stat(path, follow_symlinks=False)
        return facts.st_dev, facts.st_ino
    return None
