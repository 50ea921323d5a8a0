"""What changes in folders and files, told by the kernel: inotify(7), by way of the C library. (The packages for it bring
along more than the process that uses it has in all.)"""

from __future__ import annotations

import ctypes
import os
import struct

MODIFY, MOVED_TO, CREATE, DELETE = 0x2, 0x80, 0x100, 0x200
Q_OVERFLOW, IGNORED = 0x4000, 0x8000
ONLYDIR, ONESHOT = 0x1000000, 0x80000000
_EVENT = struct.Struct("iIII")
"""Watch, mask, cookie, length of the name that follows."""
_READ_BYTES = 64 * 1024


class Inotify:
    """``OSError`` if the kernel has no more of them, or of watches."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.file = self._checked(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))

    def watch(self, path: str, mask: int) -> int:
        """The number under which events of it are told."""
        return self._checked(self._libc.inotify_add_watch(self.file, os.fsencode(path), ctypes.c_uint32(mask)))

    def unwatch(self, number: int) -> None:
        self._checked(self._libc.inotify_rm_watch(self.file, number))

    def events(self) -> list[tuple[int, int, str]]:
        """Those that have come: watch, mask, name within the folder."""
        found: list[tuple[int, int, str]] = []
        while True:
            try:
                data = os.read(self.file, _READ_BYTES)
            except BlockingIOError:
                return found
            at = 0
            while at < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size + length
                found.append((watch, mask, os.fsdecode(data[at - length : at].rstrip(b"\0"))))

    def close(self) -> None:
        os.close(self.file)

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result
