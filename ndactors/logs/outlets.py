"""The process that sends logs elsewhere: a thread for the archive and one for each receiver, so that none holds up another,
and a loop that writes down how far they are. It reads the store and never writes there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec

from ..core.forwarding import name_of
from ..messages.logs import KeepLogs
from ..runtime.notes import Notes
from ..runtime.roles import Arguments
from .archive import Archive
from .failing import Failed, Pauses, Stopped
from .forward import Forwarder
from .outlet_process import ARCHIVE, archive_place
from .progress import Progress
from .receivers import receiver_of
from .walk import Counts

LOOK_SECONDS = 1.0
LOCK_SECONDS = 10.0
"""So long the process before us may take to end."""
END_SECONDS = 2.0
note = Notes("log outlets")
NICE = 5


class _Identity(msgspec.Struct):
    id: str


class _Record(msgspec.Struct):
    """As the daemon's records are on disk."""

    data: _Identity


def owner_of(state_dir: Path) -> str:
    """The daemon's id; where it cannot be read, this host's name."""
    with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
        found = msgspec.json.decode((state_dir / "state" / "daemon.json").read_bytes(), type=_Record).data.id
        if found.isalnum():
            return found
    return socket.gethostname() or "host"


class Outlets:
    def __init__(self, state_dir: Path, keep: KeepLogs) -> None:
        folder = state_dir / "logs"
        store = folder / "store"
        self._stop = threading.Event()
        self._told = False
        outlets = {name_of(forward): forward for forward in keep.forward}
        self._progress = Progress(folder, list(outlets), archive_place(keep.archive))
        if self._progress.damaged:
            note("outlets.json was damaged: everything that is here is sent once more")
        self._counts = Counts(store)
        self._work: dict[str, Callable[[], None]] = {}
        host = socket.gethostname()
        for name, forward in outlets.items():
            receiver = receiver_of(forward, host)
            self._work[name] = Forwarder(name, store, receiver, self._progress, self._counts, self._stop).run
        if keep.archive is not None:
            if not self._progress.owner:
                self._progress.owned(owner_of(state_dir))
            self._work[ARCHIVE] = Archive(keep.archive, store, self._progress.owner, self._progress, self._stop).run

    def run(self, parent: int | None) -> int:
        """``parent``: the process without which we are not needed."""
        threads = [
            threading.Thread(target=self._keep_going, args=(name, work), name=name, daemon=True)
            for name, work in self._work.items()
        ]
        for thread in threads:
            thread.start()
        with contextlib.suppress(Stopped):
            for stopping in (signal.SIGTERM, signal.SIGINT):
                signal.signal(stopping, self._told_to_stop)
            while parent is None or os.getppid() == parent:
                self._progress.news.wait(LOOK_SECONDS)
                self._look()
                self._stop.wait(LOOK_SECONDS)
        self._stop.set()
        deadline = time.monotonic() + END_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._save()
        return 0

    def _told_to_stop(self, *_: object) -> None:
        # an event must not be set here: whoever is interrupted may be about to wait for it
        told, self._told = self._told, True
        if not told:
            raise Stopped

    def _look(self) -> None:
        behind = self._progress.rearmost()
        if behind is not None:
            with contextlib.suppress(OSError):
                self._counts.learn(behind)
        self._save()

    def _save(self) -> None:
        try:
            self._progress.save()
        except OSError as error:
            note(f"outlets.json cannot be written: {error.strerror or error}")

    def _keep_going(self, name: str, work: Callable[[], None]) -> None:
        """An outlet that fails in a way that nobody thought of begins again, and is no harm to the others."""
        pauses = Pauses()
        while not self._stop.is_set():
            try:
                work()
            except Exception as error:  # noqa: BLE001
                failure = Failed(f"failed: {getattr(error, 'strerror', None) or type(error).__name__}")
                self._progress.failed(name, str(failure))
                # where it was, but not what it says: that may have a secret in it
                note(f"{name}: {failure}\n{''.join(traceback.format_tb(error.__traceback__))}")
                self._stop.wait(pauses.after(failure))


def _locked(path: Path) -> bool:
    """One process at a time; the lock is freed when we end."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def main(argv: list[str]) -> int:
    arguments = Arguments(argv, "parent")
    state_dir = Path(arguments.needed("state-dir"))
    os.nice(NICE)
    try:
        keep = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=KeepLogs)
    except msgspec.DecodeError as error:
        note(f"what is to be sent where cannot be understood: {error}")
        return 2
    folder = state_dir / "logs"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not _locked(folder / "outlets.lock"):
        note("another process has these outlets")
        return 3
    return Outlets(state_dir, keep).run(arguments.number("parent"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
