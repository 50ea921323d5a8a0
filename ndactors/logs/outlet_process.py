"""The process that sends logs elsewhere, as the log process knows it: it runs while there is an outlet, and is started
again when it ends. What it must know, secrets included, it hears over its standard input."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from ..core.model import Bucket
from ..messages.logs import KeepLogs, LogsReport
from ..runtime.child import Child
from ..runtime.restarts import Backoff

STATE = "outlets.json"
CURSORS = "outlets"
ARCHIVE = "archive"
STOP_SECONDS = 5.0
TOLD_SECONDS = 60.0


class OutletState(msgspec.Struct, kw_only=True):
    """What the outlets have done, as they write it down. ``archived``: every segment up to this number is in the archive,
    verified; ``errors``: why the last try failed, by outlet."""

    archived: int = 0
    segments: int = 0
    """Archived in all."""
    place: str = ""
    """Of the archive that ``archived`` is about."""
    owner: str = ""
    """Whose segments they are there."""
    lost: int = 0
    """Segments that went away before they were in the archive."""
    errors: dict[str, str] = {}
    cursors: dict[str, tuple[int, int]] = {}
    """By outlet: segment and offset behind the last block that it took."""
    within: dict[str, int] = {}
    """By outlet: how many records of the next block it took already."""
    skipped: dict[str, int] = {}
    """Records that an outlet could not have, because they were gone or it refused them."""


def archive_place(bucket: Bucket | None) -> str:
    """What tells one archive from another, without secrets; empty: there is none."""
    if bucket is None:
        return ""
    host = (bucket.endpoint or "s3").rstrip("/").rpartition("@")[2].rpartition("://")[2]
    return f"{host}/{bucket.bucket}/{bucket.prefix.strip('/')}"


class OutletProcess:
    """``note`` hears in words what happens to it."""

    def __init__(self, state_dir: Path, note: Callable[[str], None]) -> None:
        self._state_dir = state_dir
        self._note = note
        self._keep: KeepLogs | None = None
        self._process: Child | None = None
        self._kill_at: float | None = None
        """It was told to stop, and has time until then."""
        self._backoff = Backoff(first=0.5, longest=60.0, reset_after=60.0)
        self._start_at = 0.0
        self._told: dict[str, float] = {}
        """What is said, and until when."""
        self.state = OutletState()

    @property
    def wanted(self) -> bool:
        return self._keep is not None and bool(self._keep.archive or self._keep.forward)

    @property
    def runs(self) -> bool:
        return self._process is not None

    def configure(self, keep: KeepLogs) -> None:
        """Waits for nothing: a process that has to go ends by and by, and ``look`` starts the next."""
        before, self._keep = self._keep, keep
        if before is not None and (before.archive, before.forward) == (keep.archive, keep.forward):
            return
        if self._process is not None and self._kill_at is None:
            self._process.terminate()
            self._kill_at = time.monotonic() + STOP_SECONDS
        self._start_at = 0.0

    def look(self, now: float) -> None:
        """Once a second, seldom while there is nothing to do: see that it runs, and what it did. ``now`` is monotonic."""
        if self._process is not None and self._process.poll() is not None:
            if self._kill_at is None:
                self._note(f"the outlets' process ended ({self._process.returncode})")
                self._start_at = now + self._backoff.next(now)
            self._process = self._kill_at = None
        if self._process is not None and self._kill_at is not None and now >= self._kill_at:
            self._process.kill()
        if self._process is None and self._keep is not None:
            if not self.wanted:
                self._forget()
            elif now >= self._start_at:
                self._start(now)
        if self.wanted:
            self._read_state()

    def _start(self, now: float) -> None:
        assert self._keep is not None
        command = [sys.executable, "-m", "ndactors", "--role=log-outlets", f"--state-dir={self._state_dir}"]
        command.append(f"--parent={os.getpid()}")
        try:
            theirs, ours = os.pipe()  # what it is told has secrets in it: no argument, no variable
            with os.fdopen(ours, "wb") as given:
                try:
                    self._process = Child(command, os.environ, stdin=theirs, session=True)
                finally:
                    os.close(theirs)
                given.write(msgspec.msgpack.encode(self._keep))
        except OSError as error:
            self._note(f"the outlets' process could not be started: {error}")
            self._start_at = now + self._backoff.next(now)

    def _forget(self) -> None:
        """An outlet that is added some day begins anew."""
        folder = self._state_dir / "logs"
        with contextlib.suppress(FileNotFoundError):
            (folder / STATE).unlink()
            from shutil import rmtree  # it takes a third of a megabyte

            rmtree(folder / CURSORS, ignore_errors=True)
            self.state = OutletState(segments=self.state.segments)

    def _read_state(self) -> None:
        try:
            self.state = msgspec.json.decode((self._state_dir / "logs" / STATE).read_bytes(), type=OutletState)
        except (OSError, msgspec.DecodeError):
            return  # none yet, or just being replaced

    def may_go(self, number: int) -> bool:
        """Whether a segment may be removed here: not before it is in the archive, if there is one."""
        if self._keep is None or self._keep.archive is None:
            return True
        return self.state.place == archive_place(self._keep.archive) and number <= self.state.archived

    def added_to(self, report: LogsReport, full: str) -> LogsReport:
        notes = [*report.notes]
        if self.wanted:
            notes += self._troubles(time.monotonic())
        if full:
            notes.append(f"nothing can be stored: {full}")
        return replace(report, full=bool(full), archived=self.state.segments, notes=tuple(notes))

    def _troubles(self, now: float) -> list[str]:
        """Each new one makes an event: what comes and goes stays for a while, and numbers grow in large steps."""
        found = [f"{outlet}: {words}" for outlet, words in self.state.errors.items()]
        for outlet, count in self.state.skipped.items():
            found.append(
                f"{outlet}: at least {_rough(count):,} records were gone before it had them, or too long for it"
            )
        if self.state.lost:
            found.append(f"{ARCHIVE}: at least {_rough(self.state.lost):,} segments were gone before they were there")
        self._told = {words: until for words, until in self._told.items() if until > now}
        self._told |= dict.fromkeys(found, now + TOLD_SECONDS)
        return sorted(self._told)

    def stop(self) -> None:
        process, self._process = self._process, None
        self._kill_at = None
        if process is None:
            return
        process.terminate()
        if not process.wait(STOP_SECONDS):
            process.kill()
            process.wait()


def _rough(count: int) -> int:
    """1, 2, 5, 10, 20, 50 and so on: the largest that is not more."""
    power: int = 10 ** (len(str(count)) - 1)
    return max(step for step in (power, 2 * power, 5 * power) if step <= count)
