"""The lines of json-file logs (Docker's driver, and the keeper's): from the bytes of a file to pieces of output, and from
pieces to whole lines. Whatever is in the file, nothing is lost and nothing is raised."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import msgspec
from msgspec import Struct

MAX_LINE = 256 * 1024
"""Characters of a line; what is longer comes in several. Docker cuts lines into pieces of 16 KiB, which are joined."""
_BEGIN = re.compile(rb'(?=\{"log": ?")')
"""Of a record. Within one it can only be in something nested, as texts escape their quotes."""


class Piece(Struct, gc=False):
    """One record of the file. A line's last piece ends with a newline."""

    log: str
    stream: str = "stdout"
    time: str = ""


_BLANK = b"\0\r\t "
_decoder = msgspec.json.Decoder(Piece)


def parse(data: bytes) -> list[Piece]:
    """The pieces in ``data``, which is whole lines of a file. What a crash or a full disk tore stays readable as text, and
    whole records on the same line are found."""
    try:
        return _decoder.decode_lines(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [piece for line in data.split(b"\n") for piece in _mended(line)]


def _mended(line: bytes) -> list[Piece]:
    line = line.strip(_BLANK)
    whole = _one(line)
    if whole is not None:
        return [whole]
    parts = [part.strip(_BLANK) for part in _BEGIN.split(line)]
    return [_one(part) or Piece(log=part.decode("utf-8", "replace") + "\n") for part in parts if part]


def _one(line: bytes) -> Piece | None:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        # invalid UTF-8, or half of a surrogate pair: readable, if not as it was
        found = json.loads(line.decode("utf-8", "replace"))
        texts = [str(found.get(key) or "") for key in ("log", "stream", "time")] if "log" in found else None
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None
    if texts is None:
        return None
    log, stream, time = (text.encode("utf-8", "replace").decode() for text in texts)
    return Piece(log=log, stream=stream, time=time)


class Assembly:
    """Joins the pieces of long lines, by stream. ``partial`` is what has no end yet: (time, text)."""

    def __init__(self, partial: dict[str, tuple[str, str]] | None = None) -> None:
        self.partial = dict(partial or {})

    def take(self, pieces: Sequence[Piece]) -> tuple[list[str], list[str], bytes]:
        """Whole lines, each with its newline, their times, and their streams (1: stderr)."""
        logs = [piece.log for piece in pieces]
        if not self.partial and "".join(logs).count("\n") == len(logs) and all(log[-1:] == "\n" for log in logs):
            return logs, [piece.time for piece in pieces], bytes([piece.stream == "stderr" for piece in pieces])
        lines: list[str] = []
        times: list[str] = []
        streams = bytearray()
        for piece in pieces:
            stream = "stderr" if piece.stream == "stderr" else "stdout"
            began, text = self.partial.pop(stream, (piece.time, ""))
            *whole, rest = (text + piece.log).split("\n")
            while len(rest) > MAX_LINE:
                whole.append(rest[:MAX_LINE])
                rest = rest[MAX_LINE:]
            for line in whole:
                lines.append(line + "\n")
                times.append(began)
                streams.append(stream == "stderr")
                began = piece.time
            if rest:
                self.partial[stream] = (began, rest)
        return lines, times, bytes(streams)

    def finish(self) -> tuple[list[str], list[str], bytes]:
        """There is no more: what has no end is a line too."""
        left, self.partial = sorted(self.partial.items(), key=lambda item: item[1][0]), {}
        return (
            [text + "\n" for _, (_, text) in left],
            [time for _, (time, _) in left],
            bytes(stream == "stderr" for stream, _ in left),
        )
