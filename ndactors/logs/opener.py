"""A process that opens log files the moment they come, and hands them over in their order: a container that writes fast
rotates its file away in less than a tenth of a second, and whoever reads and stores cannot promise to look that often. It
does nothing else, so it is never late. It speaks over its standard input, a socket that keeps packets whole."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
from collections import deque

from ..runtime.roles import Arguments
from . import inotify, rotation
from .inotify import Inotify
from .opening import (
    ARM,
    FILE,
    FOLLOW,
    FORGET,
    GROWN,
    LOST,
    PACKET_BYTES,
    REMOVED,
    SETTLE,
    SETTLED,
    TAKEN,
    UNARMED,
    UNWATCHED,
    WATCHED,
    WRITTEN,
)

NICE = -10
MOST_UNTAKEN = 8
"""Files on their way to the log process; the next ones wait here."""
MOST_WAITING = 64
MOST_WAITING_BYTES = 256 * 1024 * 1024
"""Files that wait here are deleted, as a rule, and keep their room on the disk: beyond that the oldest are given up."""


class Followed:
    """The files under one path. ``newest`` stays open, so that its inode is not used again."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.newest = -1
        self.created = self.opened = 0
        """New files that were told of, and that were opened, since it is watched."""

    def unknown(self) -> list[int]:
        """Files that are newer than the newest, open, the oldest first. ``OSError``."""
        known = (rotation.key(self.newest),) if self.newest >= 0 else ()
        return [file for file, _ in rotation.newer(self.path, known)]

    def keep(self, file: int) -> None:
        """The newest now."""
        if self.newest >= 0:
            os.close(self.newest)
        self.newest = os.dup(file)

    def close(self) -> None:
        if self.newest >= 0:
            os.close(self.newest)


class Opener:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._inotify = Inotify()
        self._paths: dict[str, Followed] = {}
        self._folders: dict[int, str] = {}
        self._watches: dict[str, int] = {}
        self._armed: dict[int, str] = {}
        self._waiting: deque[tuple[bytes, int, str, int]] = deque()
        """Kind, number of lost files, path, descriptor (-1: none)."""
        self._untaken = 0

    def run(self) -> int:
        poll = select.poll()
        for file in (self._sock.fileno(), self._inotify.file):
            poll.register(file, select.POLLIN)
        while True:
            ready = {number for number, _ in poll.poll()}
            if self._inotify.file in ready:
                self._changed()
            if self._sock.fileno() in ready:
                data = self._sock.recv(PACKET_BYTES)
                if not data:
                    return 0
                self._told(data[:1], os.fsdecode(data[1:]))
            self._send()

    # -- told --------------------------------------------------------------------------------------

    def _told(self, kind: bytes, path: str) -> None:
        if kind == TAKEN:
            self._untaken -= 1
        elif kind == SETTLE:
            self._changed()
            self._tell(SETTLED, path)
        elif kind == FOLLOW:
            self._follow(path)
        elif kind == FORGET:
            self._forget(path)
        elif kind == ARM:
            known, _, path = path.partition(":")
            self._arm(path, int(known))

    def _arm(self, path: str, known: int) -> None:
        try:
            number = self._inotify.watch(path, inotify.MODIFY | inotify.ONESHOT)
            size = os.stat(path).st_size
        except OSError:
            self._tell(UNARMED, path)
            return
        self._armed[number] = path
        if size != known:  # there was something before we watched
            self._tell(GROWN, path)

    def _follow(self, path: str) -> None:
        folder = os.path.dirname(path)
        if path in self._paths and folder in self._watches:
            return
        try:
            before = os.stat(path, follow_symlinks=False).st_ino
        except OSError:
            before = 0
        if folder not in self._watches:
            wanted = inotify.CREATE | inotify.MOVED_TO | inotify.DELETE | inotify.ONLYDIR
            try:
                number = self._inotify.watch(folder, wanted)
            except OSError:
                self._tell(UNWATCHED, path)
                return
            self._watches[folder], self._folders[number] = number, folder
        if (former := self._paths.pop(path, None)) is not None:
            former.close()
        followed = Followed(path)
        try:
            files = followed.unknown()
        except OSError:  # whoever asked will see for itself
            self._tell(UNWATCHED, path)
            return
        self._paths[path] = followed
        inodes = [rotation.key(file)[1] for file in files]
        # what is newer than what was there before is told of by an event, too
        followed.opened = len(files) - 1 - inodes.index(before) if before in inodes else len(files)
        self._pass_on(followed, files, 0)
        self._tell(WATCHED, path)
        if not os.path.lexists(path):
            self._waiting.append((REMOVED, 0, path, -1))

    def _forget(self, path: str) -> None:
        followed = self._paths.pop(path, None)
        if followed is not None:
            followed.close()
        folder = os.path.dirname(path)
        if any(os.path.dirname(other) == folder for other in self._paths):
            return
        number = self._watches.pop(folder, None)
        if number is not None and self._folders.pop(number, None) is not None:
            with contextlib.suppress(OSError):  # it went with its folder
                self._inotify.unwatch(number)

    # -- events ------------------------------------------------------------------------------------

    def _changed(self) -> None:
        created: dict[str, Followed] = {}
        removed: dict[str, Followed] = {}
        for watch, mask, name in self._inotify.events():
            if mask & inotify.Q_OVERFLOW:
                for followed in self._paths.values():
                    followed.created = max(followed.created, followed.opened)
                    created[followed.path] = followed
                    if not os.path.lexists(followed.path):
                        removed[followed.path] = followed
            if (path := self._armed.pop(watch, None)) is not None:
                self._tell(WRITTEN, path)
            folder = self._folders.get(watch)
            if folder is None:
                continue
            if mask & inotify.IGNORED:
                self._folders.pop(watch, None)
                self._watches.pop(folder, None)
                continue
            own = self._paths.get(os.path.join(folder, name))
            if own is None:
                continue
            # a rotation ends with a new file under the plain name; a removal with none
            if mask & inotify.CREATE:
                own.created += 1
                created[own.path] = own
            elif mask & inotify.DELETE:
                removed[own.path] = own
        for followed in created.values():
            try:
                files = followed.unknown()
            except OSError:  # whoever asked will see for itself
                self._forget(followed.path)
                self._tell(UNWATCHED, followed.path)
                removed.pop(followed.path, None)
                continue
            followed.opened += len(files)
            lost = max(0, followed.created - followed.opened)
            followed.opened += lost
            self._pass_on(followed, files, lost)
        for followed in removed.values():
            lost = max(0, followed.created - followed.opened)
            followed.opened += lost
            self._waiting.append((REMOVED, lost, followed.path, -1))

    def _pass_on(self, followed: Followed, files: list[int], lost: int) -> None:
        for file in files:
            self._waiting.append((FILE, lost, followed.path, file))
            lost = 0
        if files:
            followed.keep(files[-1])
        if lost:
            self._waiting.append((LOST, lost, followed.path, -1))
        self._give_up()

    def _give_up(self) -> None:
        """The oldest of what waits, beyond what may."""
        waiting = [row for row in self._waiting if row[3] >= 0]
        size = sum(os.fstat(row[3]).st_size for row in waiting)
        while len(waiting) > MOST_WAITING or (size > MOST_WAITING_BYTES and len(waiting) > 1):
            row = waiting.pop(0)
            size -= os.fstat(row[3]).st_size
            at = self._waiting.index(row)
            del self._waiting[at]
            os.close(row[3])
            for place in range(at, len(self._waiting)):
                kind, lost, path, file = self._waiting[place]
                if path == row[2] and file >= 0:
                    self._waiting[place] = (kind, lost + row[1] + 1, path, file)
                    waiting = [each for each in self._waiting if each[3] >= 0]
                    break
            else:
                self._waiting.append((LOST, row[1] + 1, row[2], -1))

    # -- telling -----------------------------------------------------------------------------------

    def _tell(self, kind: bytes, path: str) -> None:
        self._waiting.append((kind, 0, path, -1))

    def _send(self) -> None:
        while self._waiting and self._untaken < MOST_UNTAKEN:
            kind, lost, path, file = self._waiting.popleft()
            if kind != FILE:
                self._sock.send(kind + (b"%d:" % lost if kind in (LOST, REMOVED) else b"") + os.fsencode(path))
                continue
            try:
                socket.send_fds(self._sock, [FILE + b"%d:" % lost + os.fsencode(path)], [file])
                self._untaken += 1
            finally:
                os.close(file)


def main(argv: list[str]) -> int:
    Arguments(argv)
    with contextlib.suppress(PermissionError):  # without the privilege it goes as it is
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    with contextlib.suppress(ConnectionError):  # the log process ended
        return Opener(socket.socket(fileno=os.dup(0))).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
