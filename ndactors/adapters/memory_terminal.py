"""A terminal in a container of the memory engine: nothing runs; it prints what it is sent, until told to end."""

from __future__ import annotations

import queue


class MemoryTerminal:
    """``ndactors.ports.Terminal``. ``exits`` ends it, ``prints`` is what it says; ``sizes`` and ``heard`` are what was
    done to it. With a tty its input's end is Ctrl-D, which it prints as little as a shell does."""

    def __init__(self, *, tty: bool, rows: int, columns: int) -> None:
        self.tty = tty
        self.sizes = [(rows, columns)]
        self.heard = b""
        self.closed = False
        self._said: queue.Queue[tuple[bytes, bool]] = queue.Queue()
        self._code: int | None = None

    def prints(self, data: bytes, *, is_error: bool = False) -> None:
        self._said.put((data, is_error and not self.tty))

    def exits(self, code: int) -> None:
        if self._code is None:
            self._code = code
            self._said.put((b"", False))

    def send(self, data: bytes) -> None:
        if self._code is None:
            self.heard += data
            self.prints(data)

    def end_input(self) -> None:
        self.exits(0)

    def receive(self) -> tuple[bytes, bool]:
        said = self._said.get()
        if not said[0]:
            self._said.put(said)  # its end is its end however often it is asked for
        return said

    def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    def exit_code(self) -> int | None:
        return self._code

    def close(self) -> None:
        self.closed = True
        self.exits(129)
