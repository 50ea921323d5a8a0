"""The archive: segments go to S3-compatible storage as they close, in order, each with its index. A segment counts as
archived when the storage was asked afterwards what it has, and that is what was sent."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from ..core.model import Bucket
from .failing import Failed, Pauses, Stopped, words_of
from .outlet_process import ARCHIVE
from .progress import Progress
from .s3 import Storage
from .segments import index_path, segment_numbers, segment_path
from .sums import Sums, sums_of

LOOK_SECONDS = 1.0


class Archive:
    """``owner`` tells this daemon's segments from those of others in the same bucket. ``run`` is for a thread of its own,
    and ends when ``stop`` is set."""

    def __init__(self, bucket: Bucket, store: Path, owner: str, progress: Progress, stop: threading.Event) -> None:
        self._folder = "/".join(part for part in (bucket.prefix.strip("/"), owner) if part)
        self._storage = Storage(bucket, stop)
        self._store = store
        self._progress = progress
        self._stop = stop
        self._sums: tuple[tuple[int, int, int], Sums] | None = None
        """Of the segment that is on its way, for further tries."""

    def run(self) -> None:
        pauses = Pauses()
        connected = False
        while not self._stop.is_set():
            try:
                if not connected:
                    self._storage.connect()
                    connected = True
                self._look()
                pauses.again()
                self._progress.fine(ARCHIVE)
                self._stop.wait(LOOK_SECONDS)
            except Stopped:
                return
            except Failed as failure:
                self._progress.failed(ARCHIVE, str(failure))
                self._stop.wait(pauses.after(failure))

    def _look(self) -> None:
        """Archive all that is closed and not archived yet."""
        numbers = segment_numbers(self._store)
        if numbers and self._progress.archived >= numbers[-1]:
            # the one that is written cannot be archived: this is another store
            self._progress.kept(0)
        for number in [number for number in numbers[:-1] if number > self._progress.archived]:
            before = self._progress.archived
            # nothing was archived: what went away before was nobody's to archive
            lost = number - before - 1 if before else 0
            if self._keep(number):
                self._progress.kept(number, segments=1, lost=lost)
            else:
                self._progress.kept(number, lost=lost + 1)

    def _keep(self, number: int) -> bool:
        """False: it went away."""
        try:
            segment = os.open(segment_path(self._store, number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            self._keep_open(number, segment)
        except OSError as error:
            raise Failed(words_of(error, f"segment {number} cannot be read")) from error
        finally:
            os.close(segment)
        return True

    def _keep_open(self, number: int, segment: int) -> None:
        about = os.fstat(segment)
        file = (number, about.st_ino, about.st_size)
        if self._sums is None or self._sums[0] != file:
            self._sums = file, sums_of(segment)
        sums = self._sums[1]
        stem = f"{self._folder}/{number:012d}"
        head = self._storage.head(f"{stem}.seg")
        theirs = (head or {}).get("Metadata", {}).get("sha256", "")
        if theirs not in ("", sums.sha256.hex()):
            # numbers begin anew with a new store, and what another one put there is not ours to replace
            stem = f"{stem}-{sums.sha256.hex()[:12]}"
            head = self._storage.head(f"{stem}.seg")
        try:
            index = os.open(index_path(self._store, number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            pass  # whoever reads looks through the segment
        else:
            try:
                self._put(f"{stem}.idx", index, sums_of(index), self._storage.head(f"{stem}.idx"))
            finally:
                os.close(index)
        self._put(f"{stem}.seg", segment, sums, head)

    def _put(self, key: str, file: int, sums: Sums, head: dict[str, Any] | None) -> None:
        if self._storage.has(key, sums, head):
            return
        self._storage.send(key, file, sums)
        if not self._storage.has(key, sums, self._storage.head(key, sent=True)):
            raise Failed(f"what it has of {key.rpartition('/')[2]} is not what was sent")
