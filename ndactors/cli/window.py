"""The terminal that we run in, made raw for one on the other side, and put back whatever ends us."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from types import FrameType
from typing import Any

from .failures import Ended

ENDING = (signal.SIGTERM, signal.SIGHUP)
DEFAULT = (24, 80)
MOST = 10_000


class Window:
    """With None there is no terminal, and nothing is done. ``changes`` is readable when the size has changed."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._before: list[Any] | None = None
        self._handlers: dict[signal.Signals, Any] = {}
        self._told: tuple[int, int] | None = None
        self.changes = self._changing = -1

    @property
    def exists(self) -> bool:
        return self._descriptor is not None

    def __enter__(self) -> Window:
        if self._descriptor is None:
            return self
        self._before = termios.tcgetattr(self._descriptor)
        self.changes, self._changing = os.pipe()
        os.set_blocking(self.changes, False)
        os.set_blocking(self._changing, False)
        self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, self._change)
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers[number] = signal.signal(number, _end)
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is None:
            return
        with contextlib.suppress(termios.error):  # it was hung up
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before or [])
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self.changes)
        os.close(self._changing)

    def make_raw(self) -> None:
        """Every key is a byte for the other side, Ctrl-C too."""
        if self._descriptor is not None:
            tty.setraw(self._descriptor, termios.TCSADRAIN)

    def size(self) -> tuple[int, int] | None:
        """Rows and columns."""
        if self._descriptor is None:
            return None
        columns, rows = os.get_terminal_size(self._descriptor)
        self._told = min(rows or DEFAULT[0], MOST), min(columns or DEFAULT[1], MOST)
        return self._told

    def changed(self) -> tuple[int, int] | None:
        """The size, if it is another one than the last that was asked for."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.changes, 1024)
        before = self._told
        return now if (now := self.size()) != before else None

    def _change(self, number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):  # it is full, and so will be read
            os.write(self._changing, b"\0")


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended(128 + number)
