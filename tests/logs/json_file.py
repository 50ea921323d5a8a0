"""A writer that behaves like Docker's json-file driver: rotation by size, max-file, long lines in pieces, times as Go
writes them. It remembers what it was given, so a test can say what has to be found again."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from pathlib import Path

from ndactors.core.logrecords import format_ns

PIECE_BYTES = 16 * 1024
BEGIN_NS = 1_769_860_800_000_000_000
_TRIMMED = re.compile(r"\.?0*Z$")


def go_time(ns: int) -> str:
    """RFC3339Nano: no zeros at the end of the fraction, and no fraction at all if it is zero."""
    whole, fraction = format_ns(ns)[:-1].split(".")
    return f"{whole}.{fraction}Z" if fraction[-1] != "0" else _TRIMMED.sub("Z", f"{whole}.{fraction}Z")


def go_json(text: str, stream: str, time: str) -> bytes:
    """Of a record, with what Go escapes."""
    body = json.dumps(text, ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        body = body.replace(sign, f"\\u{ord(sign):04x}")
    return f'{{"log":{body},"stream":"{stream}","time":"{time}"}}\n'.encode()


def go_text(piece: bytes) -> str:
    """Go reads each byte that is none of UTF-8 as one replacement character."""
    return piece.decode("utf-8", "surrogateescape").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class JsonFile:
    """``clock`` is the time of the next line in nanoseconds; whoever tests moves it. ``lines`` has the whole lines of each
    stream as the store should show them."""

    def __init__(self, path: Path, max_size: int = 1 << 20, max_file: int = 3) -> None:
        self.path = path
        self.max_size = max_size
        self.max_file = max_file
        self.clock = BEGIN_NS
        self.tick = 1_000
        self.lines: dict[str, list[str]] = defaultdict(list)
        self.bytes = 0
        self.rotations = 0
        self._rest: dict[str, bytes] = defaultdict(bytes)
        self._long: dict[str, tuple[str, str]] = {}
        self._file = self._open()

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o640)

    # -- what the driver does ----------------------------------------------------------------------

    def write(self, data: bytes, stream: str = "stdout") -> None:
        """What a program prints, in bits of any size."""
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        for line in lines:
            while len(line) >= PIECE_BYTES:
                self._piece(line[:PIECE_BYTES], stream, last=False)
                line = line[PIECE_BYTES:]
            self._piece(line, stream, last=True)
        while len(rest) >= PIECE_BYTES:
            self._piece(rest[:PIECE_BYTES], stream, last=False)
            rest = rest[PIECE_BYTES:]
        self._rest[stream] = rest

    def print(self, *lines: str, stream: str = "stdout") -> None:
        for line in lines:
            self.write(f"{line}\n".encode(), stream)

    def end(self, newline: bool = True) -> None:
        """The program has ended, perhaps in the middle of a line. Without ``newline`` as the keeper does it."""
        for stream, rest in list(self._rest.items()):
            if rest or stream in self._long:
                self._piece(rest, stream, last=True, newline=newline)
            self._rest[stream] = b""

    def _piece(self, piece: bytes, stream: str, *, last: bool, newline: bool = True) -> None:
        time, before = self._long.pop(stream, (go_time(self.clock), ""))
        self.clock += self.tick
        text = go_text(piece)
        if last:
            line = before + text
            self.lines[stream].append(line.removesuffix("\r"))
        else:
            self._long[stream] = (time, before + text)
        self.record(go_json(text + "\n" * (last and newline), stream, time))

    def record(self, data: bytes) -> None:
        """Bytes of the file, whatever they are."""
        if self.bytes >= self.max_size:
            self.rotate()
        os.write(self._file, data)
        self.bytes += len(data)

    def rotate(self) -> None:
        os.close(self._file)
        if self.max_file > 1:
            there = next(number for number in range(1, self.max_file + 1) if not self.rotated(number).exists())
            for number in range(min(there, self.max_file - 1), 1, -1):
                os.rename(self.rotated(number - 1), self.rotated(number))
            os.rename(self.path, self.rotated(1))
        self._file = self._open()
        self.bytes = 0
        self.rotations += 1

    # -- the rest ----------------------------------------------------------------------------------

    def rotated(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def remove(self) -> None:
        """As when the container is removed."""
        for path in (self.path, *(self.rotated(number) for number in range(1, self.max_file))):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._file)
