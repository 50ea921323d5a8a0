"""The json-file logs of one container: the newest file, the rotated ones, and those that were rotated away while we still
had to read them. A file that is open goes on to be there when it is deleted, so whoever opens each in time loses nothing."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from ..core.logrecords import Gap, Position
from . import rotation

READ_BYTES = 192 * 1024
HEAD_BYTES = 4096
COUNT_BYTES = 1 << 20
MOST_DONE = 64
EMPTIED = "its file was emptied; what was not read by then is not known"


class Generation:
    """One file, open. ``offset``: how far it is read."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.key = rotation.key(file)
        self.offset = 0
        self.missed: int | None = None
        """So many files between the one before and this one are lost; 0: nobody counted them."""
        self._head = b""
        self.seen = 0
        """Its size, as far as it is known."""

    def head(self) -> bytes:
        """A digest of its first line, which has a time in nanoseconds and so tells files apart; empty: no line yet."""
        if not self._head:
            self._head = _digest(os.pread(self.file, HEAD_BYTES, 0))
        return self._head

    def has_line_end(self, offset: int) -> bool:
        """Whether a line ends there."""
        return not offset or os.pread(self.file, 1, offset - 1) == b"\n"

    def resume(self, offset: int) -> None:
        self.offset = self.seen = offset

    def read(self) -> bytes | None:
        """What follows; None: it was emptied, and maybe written anew."""
        data = os.pread(self.file, READ_BYTES, self.offset)
        end = self.offset + len(data)
        if not data:
            return None if self.size() < self.seen else b""
        head = _digest(os.pread(self.file, HEAD_BYTES, 0) if self.offset else data[:HEAD_BYTES])
        if (self._head and head != self._head) or (end < self.seen and len(data) < READ_BYTES):
            return None
        self._head = head
        self.seen = max(self.seen, end)
        return data

    def begin_again(self) -> int:
        """How many bytes were seen and not read."""
        unread = self.seen - self.offset
        self.resume(0)
        self._head = b""
        return unread

    def size(self) -> int:
        return os.fstat(self.file).st_size

    def deleted(self) -> bool:
        return os.fstat(self.file).st_nlink == 0

    def close(self) -> None:
        os.close(self.file)


def _digest(begin: bytes) -> bytes:
    line = begin[: begin.find(b"\n") + 1] or (begin if len(begin) == HEAD_BYTES else b"")
    return hashlib.blake2b(line, digest_size=16).digest() if line else b""


class Tail:
    """``path`` is the newest file. ``position``: how far it was read by somebody before us. Gaps that were found are in
    ``gaps`` until somebody takes them. All may raise ``OSError`` but for files that are not there."""

    def __init__(self, path: Path, position: Position | None = None) -> None:
        self.path = path
        self.gaps: list[Gap] = []
        self.realign = False
        """What is read next may be stored already: compare its times."""
        self.ended = False
        """What was read last is the end of a file, and nobody writes to that any more."""
        self._before = position
        self._files: deque[Generation] = deque()
        """The one that is read first; the last is the newest."""
        self._closed = False
        self.handed_over = False
        """Somebody opens the files for us."""
        self._removed = False
        self._coming: list[Generation] | None = None
        """Handed over, until all that there are have come."""
        self._follows = False
        """What is handed over next comes after a file that we know."""
        self._done: deque[tuple[tuple[int, int], bytes]] = deque(maxlen=MOST_DONE)
        """Files that were read to their end not long ago, by their heads too: inodes are used again."""

    # -- which files there are ---------------------------------------------------------------------

    def expect(self) -> None:
        """From now on files are handed over, those that there are first; nobody else may open them."""
        if not self.handed_over:
            self.handed_over, self._coming, self._follows, self._removed = True, [], False, False

    def removed(self) -> None:
        """There is no file under ``path`` any more, and none on its way to us."""
        self._removed = True

    def lost(self, files: int) -> None:
        """So many files came and went, about now, that nobody could open."""
        if files and self._files:
            self.gaps.append(self._missed(files, self._files[-1]))

    def hand_over(self, file: int, lost: int) -> None:
        """The next file, opened by somebody who sees each one; it is ours now. ``lost`` files before it could not be had."""
        each = Generation(file)
        self._removed = False
        known = any(each.key == other.key for other in (*self._files, *(self._coming or ())))
        if self._closed or known or (each.head() and (each.key, each.head()) in self._done):
            self._follows = True
            each.close()
            return
        if self._coming is not None:
            self._coming.append(each)
            return
        if lost and not self._files:
            self.gaps.append(self._missed(lost, each))
        elif lost or not self._follows:
            each.missed = lost
        self._follows = True
        self._files.append(each)

    def all_handed_over(self) -> None:
        """All files that there are now."""
        new, self._coming = list(reversed(self._coming or ())), None
        if new and self._files and not self._follows:
            new[-1].missed = 0
        new = self._continued(new)
        self._follows = True
        self._files.extend(reversed(new))

    def look(self) -> bool:
        """Open what is new. False: there are no files."""
        if self._closed:
            return False
        if self.handed_over:
            return bool(self._files)  # looking would overtake those that are on their way
        new: list[Generation] = []
        for file, follows in rotation.newer(str(self.path), {each.key for each in self._files}):
            each = Generation(file)
            if not follows and (new or self._files):
                each.missed = 0  # others may have come and gone between the one before and this one
            new.insert(0, each)
        self._files.extend(reversed(self._continued(new)))
        return bool(self._files)

    def _continued(self, new: list[Generation]) -> list[Generation]:
        """The first files that there are, less what was read before us; later ones as they are."""
        if not new or self._files or self._before is None:
            return new
        try:
            new = self._resumed(new, self._before)
        except OSError:
            _close(new)
            raise
        self._before = None
        return new

    def moved(self) -> bool:
        """Whether there is another file under ``path`` than the newest that is open."""
        newest = rotation.key_of(str(self.path))
        return newest is not None and bool(self._files) and newest != self._files[-1].key

    def _resumed(self, found: list[Generation], before: Position) -> list[Generation]:
        """Less what was read before us."""
        if not before.head:
            # nowhere yet, or where a file began that had no line: which one can be told by no more than times
            self.realign = before.last != ""
            return found
        same = [each for each in found if each.head() == before.head]
        match = next((each for each in same if each.key[1] == before.inode), same[0] if same else None)
        if match is None:
            self.gaps.append(
                Gap(bytes=0, at_least=True, since=before.last, reason="its file was rotated away before it was read")
            )
            return found
        if match.has_line_end(before.offset):
            match.resume(before.offset)
        else:
            self.realign = True  # it lost its end (and may have got another since), or was written again
        end = found.index(match) + 1
        _close(found[end:])
        return found[:end]

    def _missed(self, files: int, like: Generation) -> Gap:
        """They were about as long as ``like``."""
        words = "files may have been" if not files else "1 file was" if files == 1 else f"{files} files were"
        return Gap(bytes=like.size() * files, at_least=True, reason=f"{words} rotated away unread")

    # -- reading -----------------------------------------------------------------------------------

    def read(self, *, final: bool = False) -> bytes:
        """Whole lines from where we are; ``took`` says how much of them is done. Empty: there are no more at the moment.
        ``final``: nobody writes any more."""
        while self._files:
            file = self._files[0]
            # asked before it is read: whoever went on to the next file writes no more to this one
            more = len(self._files) > 1
            data = file.read()
            if data is None:
                lost = file.begin_again()
                self.gaps.append(Gap(bytes=lost, at_least=True, reason=EMPTIED))
            elif not data:
                if not more:
                    return b""
                self._next()
            else:
                end = data.rfind(b"\n") + 1
                over = final or more
                self.ended = over and len(data) < READ_BYTES and end in (0, len(data))
                if end:
                    return data[:end]
                # a line without end: nobody goes on with it, or it is no line of a log
                return data if over or len(data) >= READ_BYTES else b""
        return b""

    def _next(self) -> None:
        file = self._files.popleft()
        missed, self._files[0].missed = self._files[0].missed, None
        self._done.append((file.key, file.head()))
        if missed is not None:
            self.gaps.append(self._missed(missed, file))
        file.close()

    def took(self, count: int) -> None:
        self._files[0].offset += count

    def drop(self) -> Gap | None:
        """Give up the oldest file, if it is not the newest too: what of it was not read."""
        if len(self._files) < 2:
            return None
        file = self._files[0]
        lines, at = 0, file.offset
        while data := os.pread(file.file, COUNT_BYTES, at):
            lines += data.count(b"\n")
            at += len(data)
        self._next()
        return Gap(bytes=at - file.offset, lines=lines, reason="the log store could not take it")

    # -- figures -----------------------------------------------------------------------------------

    def position(self) -> Position:
        """Where we are, without what only the reader of lines knows."""
        if not self._files:
            return self._before or Position()
        file = self._files[0]
        return Position(inode=file.key[1], head=file.head(), offset=file.offset)

    def behind(self) -> tuple[int, int]:
        """Bytes that are not read; those of them that are deleted already."""
        behind = held = 0
        for each in list(self._files):
            left = max(0, each.size() - each.offset)
            behind += left
            held += left if each.deleted() else 0
        return behind, held

    @property
    def files(self) -> int:
        return len(self._files)

    @property
    def seen(self) -> int:
        """The size of the newest file, as far as it is known."""
        return self._files[-1].seen if self._files else 0

    def gone(self) -> bool:
        """Its files are deleted, all of them."""
        if not self._files or not self._files[-1].deleted():
            return False
        if self.handed_over and not self._removed:
            return False  # there may be others on their way to us
        # in the midst of a rotation there may be none under the plain name, but then there is a rotated one
        return not self.path.exists() and not os.path.exists(rotation.name(str(self.path), 1))

    def close(self) -> None:
        self._closed = True
        _close([*self._files, *(self._coming or ())])
        self._files.clear()
        self._coming = None


def _close(files: Iterable[Generation]) -> None:
    for each in files:
        each.close()
