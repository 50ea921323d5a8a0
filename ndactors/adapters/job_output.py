"""``ndactors.ports.JobOutputs``: what a container prints, from its json-file log by inode and offset (attaching can hold up
the app, and following loses lines at rotation). Where the files cannot be read, the Engine is asked."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from ..core.containers import ContainerStatus
from ..errors import StateError
from ..ports import OutputReader

READ_BYTES = 256 * 1024
MAX_BEHIND = 8 * 1024 * 1024
"""A reader that is further behind than this goes on ``KEEP_BEHIND`` before the end."""
KEEP_BEHIND = 1024 * 1024
MAX_RECORD = 1024 * 1024
MAX_FILES = 1000
LEFT_OUT = "[some output is left out]\n"

Apply = Callable[[Callable[[], Any]], Any]


class Logs(Protocol):
    def output_since(self, container: str, since: float, lines: int) -> list[str]: ...


class ContainerOutputs:
    """``apply`` runs a call off the event loop. ``logs`` is asked where there is no file; without it that is an error."""

    def __init__(self, logs: Logs | None, apply: Apply) -> None:
        self._logs = logs
        self._apply = apply

    def open(self, container: ContainerStatus) -> OutputReader:
        if container.log_path is not None:
            return FileOutput(Path(container.log_path), self._apply)
        if self._logs is None:
            raise StateError(f"the output of {container.name} cannot be read here")
        return AskedOutput(self._logs, container.id)


class _Descriptor:
    """Closed with the last who uses it: a read under way in another thread must not find another file there."""

    __slots__ = ("number",)

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    def unread(self) -> int:
        """Bytes behind the position; negative: the file was emptied."""
        return os.fstat(self.number).st_size - os.lseek(self.number, 0, os.SEEK_CUR)


class FileOutput:
    """``path`` is the newest file, ``path.1`` the one before. The file that is read stays open, so that a rotation takes
    nothing away that was not read yet."""

    def __init__(self, path: Path, apply: Apply) -> None:
        self._path = path
        self._apply = apply
        self._file: _Descriptor | None = None
        self._rest = b""

    def read(self) -> str:
        return str(self._apply(self._read))

    def close(self) -> None:
        self._file = None

    def _read(self) -> str:
        try:
            files = self._files()
            file = self._file or (_Descriptor(files[-1][0]) if files else None)
            if file is None:
                return ""
            file, skipped = self._caught_up(file, files)
            data = os.read(file.number, READ_BYTES)
            while not data and (later := self._after(file)) is not None:
                file = later
                data = os.read(file.number, READ_BYTES)
        except OSError as error:
            raise StateError(f"{self._path} cannot be read: {error.strerror}") from error
        self._file = file
        return skipped + "".join(self._texts(data))

    def _texts(self, data: bytes) -> list[str]:
        *rows, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_RECORD:
            self._rest = b""
        texts = []
        for row in rows:
            try:
                texts.append(str(json.loads(row)["log"]))
            except (ValueError, KeyError, TypeError):
                continue  # the first after a jump is cut, one may be torn
        return texts

    def _after(self, file: _Descriptor) -> _Descriptor | None:
        """Where to read on; None: there is no more for now."""
        if file.unread() < 0:
            os.lseek(file.number, 0, os.SEEK_SET)  # it is the only one, and was emptied
            return file
        files, own = self._files(), os.fstat(file.number).st_ino
        inodes = [inode for _, inode, _ in files]
        if not inodes or inodes[0] == own:
            return None
        if file.unread() > 0:
            return file  # written between our last read and the rotation
        newer = files[: inodes.index(own)] if own in inodes else files
        return _Descriptor(newer[-1][0])

    def _files(self) -> list[tuple[Path, int, int]]:
        """Newest first: path, inode, size."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for number in range(MAX_FILES):
                file = self._path if number == 0 else self._path.with_name(f"{self._path.name}.{number}")
                facts = file.stat()
                found.append((file, facts.st_ino, facts.st_size))
        return found

    def _caught_up(self, file: _Descriptor, files: list[tuple[Path, int, int]]) -> tuple[_Descriptor, str]:
        behind, own = file.unread(), os.fstat(file.number).st_ino
        for _, inode, size in files:
            if inode == own:
                break
            behind += size
        if behind <= MAX_BEHIND:
            return file, ""
        newest = _Descriptor(files[0][0])
        os.lseek(newest.number, max(0, files[0][2] - KEEP_BEHIND), os.SEEK_SET)
        self._rest = b""
        return newest, LEFT_OUT


class AskedOutput:
    """Asks for what came since the last line. Lines carry their time; of those with the last one's time as many are left
    out as were told."""

    LINES = 2000

    def __init__(self, logs: Logs, container: str) -> None:
        self._logs = logs
        self._container = container
        self._last = ""
        self._told = 0

    def read(self) -> str:
        rows = self._logs.output_since(self._container, _seconds(self._last), self.LINES)
        before, again, texts = self._last, self._told, []
        for row in rows:
            stamp, _, text = row.partition(" ")
            if stamp < before:
                continue
            if stamp == before and again > 0:
                again -= 1
                continue
            self._told = self._told + 1 if stamp == self._last else 1
            self._last = stamp
            texts.append(text + "\n")
        left_out = LEFT_OUT if len(texts) >= self.LINES else ""
        return left_out + "".join(texts)

    def close(self) -> None: ...


def _seconds(stamp: str) -> float:
    """A little before ``stamp`` (RFC 3339 in UTC, nanoseconds); 0 for none."""
    with contextlib.suppress(ValueError):
        return datetime.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp()
    return 0.0
