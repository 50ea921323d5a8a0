"""An app's output as lines in files, in the format of Docker's json-file driver, rotated by size."""

import json
import os
import sys
import time

MAX_PIECE = 16 * 1024
"""A longer line comes in pieces, of which only the last ends with a newline (as Docker does it)."""


def stamp() -> str:
    now = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000)) + f".{now % 1_000_000_000:09d}Z"


def complain(words: str) -> None:
    try:
        sys.stderr.write(words + "\n")
    except OSError:
        return  # our own log is on the same full disk


class JsonLog:
    """``path`` is the newest file; ``path.1`` the one before. A disk that is full loses lines and counts them, and
    nothing else."""

    def __init__(self, path: str, size: int, files: int) -> None:
        self.path = path
        self.size = max(4096, size)
        self.files = max(1, files)
        self.dropped = 0
        self._rest = {"stdout": b"", "stderr": b""}
        self._file = -1
        self._length = 0
        self._torn = False
        self._open()
        for stream in self._rest:
            try:
                with open(self._rest_path(stream), "rb") as file:
                    self._rest[stream] = file.read(MAX_PIECE)
            except FileNotFoundError:
                continue

    def _rest_path(self, stream: str) -> str:
        return f"{self.path}.{stream}"

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._length = os.fstat(self._file).st_size

    def feed(self, stream: str, data: bytes) -> None:
        """Whole lines are written at once; the start of one waits, in a file, so that our end does not lose it."""
        had = bool(self._rest[stream])
        data = self._rest[stream] + data
        lines = data.split(b"\n")
        rest = lines.pop()
        moment = stamp()
        out = []
        for line in lines:
            for start in range(0, max(1, len(line)), MAX_PIECE):
                piece = line[start : start + MAX_PIECE]
                end = "\n" if start + MAX_PIECE >= len(line) else ""
                out.append(self._record(stream, piece, end, moment))
        while len(rest) >= MAX_PIECE:
            out.append(self._record(stream, rest[:MAX_PIECE], "", moment))
            rest = rest[MAX_PIECE:]
        if out:
            self._write(out)
        self._rest[stream] = rest
        if rest or had:
            self._keep_rest(stream, rest)

    def finish(self) -> None:
        """The app has ended: what it did not end with a newline is a line too."""
        for stream, rest in self._rest.items():
            if rest:
                self._write([self._record(stream, rest, "", stamp())])
                self._rest[stream] = b""
                self._keep_rest(stream, b"")

    def _record(self, stream: str, piece: bytes, end: str, moment: str) -> bytes:
        text = piece.decode("utf-8", "replace") + end
        return json.dumps({"log": text, "stream": stream, "time": moment}, ensure_ascii=False).encode() + b"\n"

    def _write(self, records: list) -> None:
        for record in records:
            if self._length + len(record) > self.size and self._length:
                self._rotate()
            # a record that a full disk cut short must not swallow the next one
            data = b"\n" + record if self._torn else record
            try:
                written = os.write(self._file, data)
                self._torn = written < len(data)
            except OSError as error:
                if not self.dropped:
                    complain(f"{self.path}: {error.strerror}; lines are dropped")
                written = 0
            self._length += written
            if written < len(data):
                self.dropped += 1

    def _rotate(self) -> None:
        os.close(self._file)
        try:
            for number in range(self.files - 1, 0, -1):
                source = self.path if number == 1 else f"{self.path}.{number - 1}"
                if os.path.exists(source):
                    os.replace(source, f"{self.path}.{number}")
            if self.files == 1:
                os.truncate(self.path, 0)
        except OSError as error:
            complain(f"{self.path} cannot be rotated: {error.strerror}")
        self._torn = False
        self._open()

    def _keep_rest(self, stream: str, rest: bytes) -> None:
        try:
            with open(self._rest_path(stream), "wb") as file:
                file.write(rest)
        except OSError as error:
            complain(f"{self._rest_path(stream)}: {error.strerror}")

    def close(self) -> None:
        os.close(self._file)

    def tail(self, count: int) -> list:
        """The last ``count`` lines, oldest first, without line ends."""
        lines: list = []
        for number in range(self.files):
            path = self.path if number == 0 else f"{self.path}.{number}"
            try:
                with open(path, "rb") as file:
                    file.seek(max(0, os.fstat(file.fileno()).st_size - 1024 * 1024))
                    rows = file.read().splitlines()
            except FileNotFoundError:
                break
            texts = []
            for row in rows:
                try:
                    texts.append(json.loads(row)["log"].rstrip("\n"))
                except (ValueError, KeyError, TypeError):
                    continue  # the first may be cut, one may be torn
            lines = texts + lines
            if len(lines) >= count:
                break
        return lines[-count:] if count else []
