"""Where progress is shown: a few lines that change in place on a terminal, or one line after another in a pipe."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from .failures import printable


class Screen:
    """``live``: what is shown changes in place. ``quiet``: nothing is shown at all."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self.quiet = quiet
        self.live = not quiet and self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._shown: list[str] = []

    def show(self, lines: Sequence[str]) -> None:
        """These, in the place of what was shown last. Nothing in a pipe."""
        if not self.live:
            return
        columns, rows = shutil.get_terminal_size()
        fitting = [printable(line).replace("\t", " ")[: columns - 1] for line in lines][-(rows - 1) :]
        if fitting != self._shown:
            self._stream.write(self._erased() + "".join(f"{line}\n" for line in fitting))
            self._stream.flush()
            self._shown = fitting

    def say(self, line: str) -> None:
        """A line that stays."""
        if self.quiet:
            return
        shown = self._shown
        self._stream.write(self._erased() + printable(line) + "\n" + "".join(f"{row}\n" for row in shown))
        self._stream.flush()
        self._shown = shown

    def clear(self) -> None:
        self.show([])

    def _erased(self) -> str:
        """Up to the first line that changes, and nothing below it."""
        count, self._shown = len(self._shown), []
        return f"\x1b[{count}F\x1b[J" if count else ""
